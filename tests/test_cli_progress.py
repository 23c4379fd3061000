"""The line of progress: what it says, and that nobody writes behind it."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

import pytest

from gotunnel.cli import console
from gotunnel.cli.progress import WIPE, Line, Progress, wanted
from gotunnel.observe.events import Fetch


def fetched(name: str, size: int, *, cached: bool = False, error: str | None = None) -> Fetch:
    return Fetch(name, "goproxy.cn", "tokyo", size, 5.0, cached, error)


def test_it_counts_files_bytes_and_rate() -> None:
    now = [0.0]
    progress = Progress(lambda: now[0])
    progress.planned(363)
    progress(fetched("a/@v/v1.mod", 1000))
    assert progress.text() == ""  # a short run shows nothing
    now[0] = 2.0
    progress(fetched("a/@v/v1.zip", 8_999_000))
    progress(fetched("a/@v/v1.zip", 8_999_000))  # go asks for what was prefetched
    progress(fetched("b/@v/v1.zip", 5, cached=True))
    progress(fetched("c/@v/v1.zip", 5, error="tcp.reset"))
    assert progress.text() == "gotunnel: 3/363 files  9.0 MB  3.0 MB/s  by tokyo"
    now[0] = 9.0
    assert progress.text() == ""  # nothing comes: CMD works


def shown(master: int, size: int) -> bytes:
    """The next `size` bytes that a terminal shows; the kernel may bring them in pieces."""
    seen = b""
    while len(seen) < size:
        seen += os.read(master, size - len(seen))
    return seen


def test_what_others_write_wipes_it_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 20, 0, 0))
    line = Line(slave)
    line.show("gotunnel: 84/363 files and more")
    expected = WIPE + b"gotunnel: 84/363 fi"  # one column stays free
    assert shown(master, len(expected)) == expected
    monkeypatch.setattr(console, "_wipes", [])
    console.wiped_by(line.wipe)
    console.tell("one")
    console.tell("two")
    assert capsys.readouterr().err == f"{WIPE.decode()}gotunnel: one\ngotunnel: two\n"
    line.clear()
    line.show("x")
    line.clear()
    expected = WIPE + b"x" + WIPE
    assert shown(master, len(expected)) == expected
    os.close(master)
    os.close(slave)


def test_only_a_terminal_that_can_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not wanted({"TERM": "xterm"})  # pytest's is no terminal
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert wanted({"TERM": "xterm"})
    assert not wanted({"TERM": "dumb"})
    assert not wanted({"TERM": "xterm", "NO_COLOR": ""})
