"""CMD repeated or not: real children named `go` that print what go prints, over a scripted pool."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from gotunnel.address import HostPort
from gotunnel.child.retry import Runner
from gotunnel.child.signals import Signals
from gotunnel.errors import Blame, CommandError, DialError, NoWayOut
from gotunnel.observe.events import Attempt, Event
from gotunnel.pool.pool import Pool, Upstream
from gotunnel.upstream.dialer import Stream

TARGET = HostPort("proxy.example", 443)
REFUSED = (
    'go: example.com/m@v1.0.0: Get "https://p/m.mod": dial tcp 192.0.2.1:443: connect: connection refused'
)
MISMATCH = "verifying example.com/m@v1.0.0: checksum mismatch\n\tdownloaded: h1:a\n\nSECURITY ERROR"
NOT_FOUND = (
    "go: example.com/m@v1.0.0: reading https://p/m.mod: 404 Not Found\n\tserver response: not found: unknown"
)


class Way:
    """A way out that works or doesn't, as it is told."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.error: DialError | None = None

    async def dial(self, target: HostPort) -> Stream:
        if self.error is not None:
            raise self.error
        return Stream()

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""


class Stage:
    """A directory with a `go` of ours in it, and everything that the runner says."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.count = directory / "count"
        self.lines: list[str] = []
        self.events: list[Event] = []
        self.ways = [Way("a"), Way("b")]
        self.pool = Pool([Upstream(way.label, way) for way in self.ways], emit=self.events.append)
        self.runner: Runner

    def script(self, *attempts: tuple[str, int], name: str = "go") -> None:
        """Attempt after attempt: print to standard error, exit with a status; the last one for ever."""
        parts = [f"echo >>'{self.count}'\nn=$(wc -l <'{self.count}')\ncase $n in"]
        for number, (words, status) in enumerate(attempts, 1):
            pattern = "*" if number == len(attempts) else str(number)
            parts.append(f"{pattern}) cat >&2 <<'END'\n{words}\nEND\nexit {status};;")
        self.command("\n".join([*parts, "esac"]), name=name)

    def command(self, text: str, name: str = "go") -> None:
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    @property
    def runs(self) -> int:
        return len(self.count.read_text()) if self.count.exists() else 0

    @property
    def attempts(self) -> list[tuple[int, int, str | None]]:
        return [(e.number, e.exit, e.finding) for e in self.events if isinstance(e, Attempt)]

    async def run(
        self, *argv: str, retries: int = 3, any_command: bool = False, timeout: float | None = None,
        first: float = 0.01,
    ) -> int:  # fmt: skip
        with Signals() as signals:
            self.runner = Runner(
                argv or ("go", "mod", "tidy"),
                signals=signals,
                emit=self.events.append,
                tell=self.lines.append,
                retries=retries,
                any_command=any_command,
                backoff=(first, max(first, 0.02)),
            )
            env = {"PATH": f"{self.directory}:/usr/bin:/bin"}
            return await self.runner.run(env, self.pool, timeout=timeout)

    async def all_down(self) -> None:
        """Every way out fails from now on, and CMD has noticed."""
        for way in self.ways:
            way.error = DialError("tcp.refused", f"{way.label} refused", blame=Blame.HOP)
        with pytest.raises(NoWayOut) as caught:
            await self.pool.dial(TARGET)
        self.failure = caught.value


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


async def test_a_success_is_run_once_and_nothing_is_said(stage: Stage) -> None:
    stage.script(("go: downloading x v1", 0))
    assert await stage.run() == 0
    assert (stage.runs, stage.lines, stage.attempts) == (1, [], [(1, 0, None)])


async def test_a_network_failure_is_repeated_until_it_works(stage: Stage) -> None:
    stage.script((REFUSED, 1), (REFUSED, 1), ("", 0))
    assert await stage.run() == 0
    assert stage.attempts == [(1, 1, "tcp.refused"), (2, 1, "tcp.refused"), (3, 0, None)]
    assert len(stage.lines) == 2
    assert ": tcp.refused: example.com/m@v1.0.0: " in stage.lines[0]
    assert "repeating the command (1 of 3)" in stage.lines[0]


@pytest.mark.parametrize(("retries", "runs", "words"), [(0, 1, "tried once"), (2, 3, "tried 3 times")])
async def test_at_most_n_repeats_and_the_status_is_cmd_s(
    stage: Stage, retries: int, runs: int, words: str
) -> None:
    stage.script((REFUSED, 1))
    assert await stage.run(retries=retries) == 1
    assert stage.runs == runs
    assert words in stage.lines[-1]
    assert stage.runner.wants_mirror


async def test_the_way_that_carried_last_is_put_last(stage: Stage) -> None:
    stage.script((REFUSED, 1), ("", 0))
    await stage.pool.dial(TARGET)
    assert await stage.run() == 0
    assert "(1 of 3, a put last)" in stage.lines[0]
    assert [u.put_last for u in stage.pool.upstreams] == [1, 0]


@pytest.mark.parametrize("before", [[], [(REFUSED, 1)]], ids=["at once", "after another failure"])
async def test_a_checksum_mismatch_gets_one_more_fetch(stage: Stage, before: list[tuple[str, int]]) -> None:
    stage.script(*before, (MISMATCH, 1))
    assert await stage.run(retries=5) == 1
    assert stage.runs == len(before) + 2
    assert stage.attempts[-1][2] == "sum.mismatch"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("go", "mod", "tidy"), NOT_FOUND),
        (("go", "mod", "tidy"), "x.go:1:1: syntax error"),
        (("go", "test", "./..."), f"ok  example.com/a\n{REFUSED}"),
        (("go", "list", "-m", "all"), REFUSED),
        (("make", "deps"), REFUSED),
    ],
    ids=["another way doesn't mend it", "no network", "tests have run", "its output is data", "not go"],
)
async def test_what_is_never_repeated(stage: Stage, argv: tuple[str, ...], words: str) -> None:
    stage.script((words, 1), name=argv[0])
    assert await stage.run(*argv) == 1
    assert stage.runs == 1
    assert not any("repeating" in line for line in stage.lines)


async def test_another_command_is_repeated_if_the_user_says_so(stage: Stage) -> None:
    stage.script((REFUSED, 7), ("", 0), name="make")
    assert await stage.run("make", any_command=True) == 0
    assert stage.runs == 2


async def test_every_way_down_is_69_with_a_line_for_each(stage: Stage) -> None:
    await stage.all_down()
    stage.script((REFUSED, 1))
    stage.command(f"echo >>'{stage.count}'; echo '{REFUSED}' >&2; sleep 0.3; exit 1")
    running = asyncio.get_running_loop()
    running.call_later(0.1, lambda: stage.runner.failed(TARGET, stage.failure))
    started = time.monotonic()
    assert await stage.run() == 69
    assert time.monotonic() - started < 15
    assert stage.runs == 1
    assert stage.lines[0] == "no way out works:"
    assert [line.strip() for line in stage.lines[1:]] == [
        "a: tcp.refused: a refused",
        "b: tcp.refused: b refused",
    ]


async def test_who_never_asked_for_the_network_keeps_its_status(stage: Stage) -> None:
    await stage.all_down()
    stage.script(("x.go:1:1: syntax error", 2))
    assert await stage.run("go", "build") == 2
    assert stage.lines == []


async def test_a_way_that_comes_back_is_worth_a_repeat(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "patience", 10.0)
    await stage.all_down()
    fails = f"echo '{REFUSED}' >&2; sleep 0.3; exit 1"
    stage.command(f"echo >>'{stage.count}'; [ -e '{stage.directory}/back' ] && exit 0; {fails}")
    loop = asyncio.get_running_loop()
    loop.call_later(0.1, lambda: stage.runner.failed(TARGET, stage.failure))

    def back() -> None:
        stage.ways[1].error = None
        (stage.directory / "back").touch()

    loop.call_later(1.0, back)
    assert await stage.run() == 0
    assert stage.runs == 2


@pytest.mark.parametrize("down", [False, True], ids=["in the pause", "while no way works"])
async def test_an_interrupt_between_two_attempts_ends_the_run(
    stage: Stage, down: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pool, "patience", 60.0)
    loop = asyncio.get_running_loop()
    stage.command(f"echo >>'{stage.count}'; echo '{REFUSED}' >&2; sleep 0.3; exit 1")
    if down:
        await stage.all_down()
        loop.call_later(0.1, lambda: stage.runner.failed(TARGET, stage.failure))
    loop.call_later(2.0, os.kill, os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(20):
        assert await stage.run(first=60.0) == 128 + signal.SIGTERM
    assert stage.runs == 1
    await stage.pool.close()


async def test_an_interrupt_before_cmd_starts_keeps_it_from_starting(stage: Stage) -> None:
    stage.script(("", 0))
    with Signals() as signals:
        runner = Runner(["go"], signals=signals, emit=stage.events.append, tell=stage.lines.append)
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)
        assert await runner.run({"PATH": str(stage.directory)}, stage.pool) == 130
    assert stage.runs == 0


async def test_the_timeout_ends_cmd_and_begins_no_repeat(stage: Stage) -> None:
    stage.command("exec sleep 60")
    started = time.monotonic()
    assert await stage.run(timeout=0.5) == 124
    assert time.monotonic() - started < 30
    assert stage.lines == ["the --timeout of 0.5 s has passed; go was ended"]
    stage.lines.clear()
    stage.script((REFUSED, 1))
    assert await stage.run(timeout=1.0, first=30.0) == 124
    assert stage.runs == 1
    assert stage.lines[-1] == "the --timeout of 1 s has passed; no repeat is begun"


async def test_the_pause_between_attempts_is_kept(stage: Stage) -> None:
    stage.script((REFUSED, 1), ("", 0))
    started = time.monotonic()
    assert await stage.run(first=1.0) == 0
    assert time.monotonic() - started >= 0.5  # 50 to 100 % of it


async def test_a_command_that_is_not_there(stage: Stage) -> None:
    with pytest.raises(CommandError) as caught:
        await stage.run("no-such-command")
    assert caught.value.status == 127


async def test_a_child_that_dies_by_a_signal_is_128_and_more(stage: Stage) -> None:
    stage.command("kill -9 $$")
    assert await stage.run() == 137
