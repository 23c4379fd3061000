"""What a person is told, and how often."""

from __future__ import annotations

import contextlib
import io

import pytest

from gotunnel.cli.console import Console, tell
from gotunnel.observe.events import BreakerChange, Dial, Event, Failover


def lines(capsys: pytest.CaptureFixture[str], *events: Event, quiet: bool = False) -> list[str]:
    console = Console(quiet=quiet)
    for event in events:
        console(event)
    told = capsys.readouterr()
    assert told.out == ""
    return [line.removeprefix("gotunnel: ") for line in told.err.splitlines()]


DOWN = BreakerChange("a", "open", "tcp.refused", "connection refused")
MOVED = Failover("a", "b", "h:443", "tcp.refused", "connection refused")


def test_a_way_that_goes_down_comes_back_and_goes_down_again(capsys: pytest.CaptureFixture[str]) -> None:
    half, up = BreakerChange("a", "half-open"), BreakerChange("a", "closed")
    assert lines(capsys, DOWN, MOVED, half, DOWN, half, up, up, DOWN) == [
        "way out a is down: tcp.refused: connection refused",
        "now by b",
        "way out a works again",
        "way out a is down: tcp.refused: connection refused",
    ]


def test_targets_that_one_way_never_reaches_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    other = Failover("a", "b", "i:443", "dns.not-found", "no such host")
    assert lines(capsys, MOVED, MOVED, other, MOVED) == [
        "now by b, since a: tcp.refused: connection refused",
        "now by b, since a: dns.not-found: no such host",
    ]


def test_single_dials_and_quiet_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, Dial("a", "h:443", 1.0, False, "tcp.refused", "no")) == []
    assert lines(capsys, DOWN, MOVED, quiet=True) == []


def test_a_line_is_one_line_without_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    tell("a\r\nb\x1b[31m http://u:hush@h/" + "x" * 2000)
    told = capsys.readouterr().err
    assert told.startswith("gotunnel: a  b [31m http://u:***@h/")
    assert told.count("\n") == 1
    assert len(told) < 1100


class Gone(io.StringIO):
    """A standard error whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("stream", [Gone(), None], ids=["gone", "closed"])
def test_nobody_may_listen(stream: Gone | None) -> None:
    with contextlib.redirect_stderr(stream):
        tell("x")
