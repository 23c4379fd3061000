"""The terminal's view of a running serve."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from gotunnel.cli import watch
from gotunnel.errors import GotunnelError
from tests.scripted import SECRETS, Script


def drawn(
    snapshot: dict[str, Any], width: int = 120, encoding: str = "utf-8", *, terminal: bool = False
) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = Console(file=file, width=width, height=40, force_terminal=terminal, highlight=False)
    assert watch.once(snapshot, console) == 0
    return raw.getvalue().decode(encoding)


@pytest.fixture
def script() -> Script:
    made = Script()
    made.hour()
    made.fail_over()
    return made


def test_it_says_what_the_page_says(script: Script) -> None:
    text = drawn(script.history.snapshot())
    for words in (
        "1 of 3 ways out up", "2 runs", "■ down", "hop.stalled", "● up", "○ not tried yet",
        "120 requests, 49% from", "goproxy.cn: 2 requests, 1 failed", "tokyo > office: hop.stalled",
        "office: failure_rate 42.0, usually 1.5",
        "tcp.timeout x6", "fix: gotunnel probe https://proxy.golang.org",
    ):  # fmt: skip
        assert words in text
    assert any(bar in text for bar in "▂▃▄▅▆▇█")


@pytest.mark.parametrize("terminal", [False, True])
def test_hostile_names_are_text_and_secrets_are_masked(script: Script, terminal: bool) -> None:
    snapshot = script.history.snapshot()
    for way in snapshot["ways"]:  # a service of another version may not have cleaned it
        way["name"] += f"[red]\x1b]0;owned\x07 http://u:{SECRETS[0]}@h"
    text = drawn(snapshot, width=200, terminal=terminal)
    assert "[red]" in text
    assert "\x1b]0" not in text
    assert [secret for secret in SECRETS if secret in text] == []
    assert ("\x1b[" in text) == terminal


def test_a_narrow_terminal_without_unicode(script: Script) -> None:
    text = drawn(script.history.snapshot(), width=80, encoding="ascii")
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "down" in text
    narrow = drawn(script.history.snapshot(), width=44)  # figures give way, names and states stay
    assert max(len(line) for line in narrow.splitlines()) <= 44
    assert all(way["name"][:8] in narrow for way in script.history.snapshot()["ways"])
    assert "● up" in narrow


def test_a_service_that_has_only_begun() -> None:
    snapshot = {**Script().history.snapshot(), "ready": False, "why": "no way out works"}
    text = drawn(snapshot)
    assert "0 of 0 ways out up" in text
    assert "not ready: no way out works" in text
    assert "last failures" not in text


def test_live_waits_for_a_service_that_has_gone_and_ends_by_ctrl_c(script: Script) -> None:
    raw = io.StringIO()
    console = Console(file=raw, width=120, height=40, force_terminal=True, highlight=False)
    asked = 0

    def ask() -> dict[str, Any]:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise GotunnelError("it can't be reached")
        if asked == 4:
            raise KeyboardInterrupt
        return script.history.snapshot()

    assert watch.live(ask, console, every=0.0) == 0
    assert "waiting for the service: it can't be reached" in raw.getvalue()
    assert raw.getvalue().count("1 of 3 ways out up") >= 3
    assert raw.getvalue().rstrip().endswith("\x1b[?25h\x1b[?1049l")  # the terminal is as it was


def test_a_spark_for_each_value() -> None:
    assert watch.spark([0.0, 1.0, None, 8.0]) == "▁▂ █"
    assert watch.spark([0.0, 0.0]) == "▁▁"
    assert watch.spark([]) == ""
    assert watch.spark([1.0, 2.0], plain=True) == "+@"
