"""The acts of the demo, and what must have happened in each for the demo to have succeeded.

Rules:
- Nothing is pretended: what is told was seen by the origin, in gotunnel's events, or printed by a program.
- Each act checks its own outcome; the first that is not as it should be ends the demo with one line.
- The jump host that is killed is the one that carries a zip at half time: the first, if all is well.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import field
from typing import Any

from gotunnel.address import one_line
from gotunnel.dataclass import dataclass
from gotunnel.demo.crew import Crew
from gotunnel.demo.gocmd import find_go
from gotunnel.demo.origin import PAUSE, Served, unwatched
from gotunnel.demo.stage import HOST, Stage, set_stage, trusts_ssl_cert_file
from gotunnel.demo.story import Story, standard_story
from gotunnel.errors import GotunnelError
from gotunnel.goenv import own_command

_PLAIN = 3.0  # seconds that plain go may search in vain; some resolvers never answer
_RUN = 90.0  # seconds for each run, many times what it takes
_OPTIONS = ("-F", "../ssh_config", "-J", "jump-1", "-J", "jump-2", "--events", "../events.jsonl")


class DemoFailed(GotunnelError):
    """An act did not go as it should."""

    def __init__(self, act: str, seen: str) -> None:
        super().__init__(
            f"demo: {act} failed: {one_line(seen, 600)}; more with: gotunnel demo --verbose --keep"
        )


@dataclass(slots=True)
class Facts:
    """What the origin saw.  Times are the loop's, in seconds."""

    zips: dict[str, str] = field(default_factory=dict)  # path -> the way it came by, whole
    victim: str = ""
    killed_at: float = 0.0
    back_at: float = 0.0  # the first answer by another way
    ways: set[str] = field(default_factory=set)  # by which any answer went

    def by(self, way: str) -> int:
        """How many modules came by it."""
        return sum(1 for other in self.zips.values() if other == way)


def run_demo(
    *, quiet: bool = False, verbose: bool = False, keep: bool = False, plain_http: bool = False
) -> int:
    """The whole demo; its exit status.  Raises GotunnelError, KeyboardInterrupt."""
    story = standard_story(quiet=quiet, verbose=verbose)
    ended_by: list[int] = []

    async def whole() -> None:
        loop, me = asyncio.get_running_loop(), asyncio.current_task()
        assert me is not None

        def end(number: int, task: asyncio.Task[Any] = me) -> None:
            ended_by.append(number)
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                loop.add_signal_handler(number, end, number)
        await _play(story, keep=keep, plain_http=plain_http or not trusts_ssl_cert_file())

    try:
        asyncio.run(whole())
    except asyncio.CancelledError:
        return 128 + ended_by[0] if ended_by else 130
    except BrokenPipeError:
        raise  # whoever read the story has left: no failure of ours
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise DemoFailed("the demo's own work on files and processes", f"{error.strerror}{where}") from error
    finally:
        story.close()
    return 0


async def _play(story: Story, *, keep: bool, plain_http: bool) -> None:
    began = time.monotonic()
    go = find_go(os.environ)
    story.title("gotunnel demo: Go modules by way of two jump hosts, one of which is killed")
    async with Crew(keep=keep) as crew:
        story.step("Preparing: no network, no configuration, no root")
        story.fact("go", f"{go.version}, {go.origin}")
        after = "to be kept" if keep else "removed at the end"
        story.fact("directory", f"{crew.directory} ({after})")
        story.now("starting the servers")
        try:
            async with set_stage(crew, go, os.environ, plain_http=plain_http) as stage:
                acts = Acts(crew, stage, story)
                warming = await acts.warm()
                acts.introduce()
                await acts.without()
                await acts.tidy()
                await acts.build(warming)
            acts.conclude()
            story.now("cleaning up")
        finally:
            if keep:
                story.close()
                story.fact("kept", str(crew.directory))
    story.close()
    story.fact("time", f"{time.monotonic() - began:.1f} s in all")


class Acts:
    """One method for each act; they are played in the order they stand in."""

    def __init__(self, crew: Crew, stage: Stage, story: Story) -> None:
        self._crew, self._stage, self._story = crew, stage, story
        self._facts = Facts()
        self._total = len(stage.corpus.modules)
        self._repeats = 0

    async def warm(self) -> Process:
        """Begin to compile what the program needs of the standard library: the most of a cold build."""
        stage = self._stage
        with (stage.directory / "warm.log").open("wb") as log:
            return await self._crew.start(
                ["go", "build", "fmt"], env=stage.env, cwd=stage.directory,
                output=log.fileno(), errors=log.fileno(),
            )  # fmt: skip

    def introduce(self) -> None:
        """What there is."""
        stage, story = self._stage, self._story
        story.close()
        story.fact(
            "modules",
            f"{self._total}, {stage.corpus.size / 1000:.0f} KB, slowed by {PAUSE * 1000:.0f} ms a request",
        )
        story.fact("origin", f"{stage.url}, on a Unix socket that only the jump hosts reach")
        if stage.url.startswith("http:"):
            story.fact("", "(in clear inside SSH, since go takes no CA from SSL_CERT_FILE here)")
        for jump in stage.jumps.values():
            story.fact(jump.name, f"an SSH server of its own, pid {jump.process.pid}, 127.0.0.1:{jump.port}")

    async def without(self) -> None:
        """Plain go, which can't reach the origin."""
        story = self._story
        story.step("Without gotunnel")
        story.command("go mod tidy")
        story.now("looking for the name")
        lines: list[str] = []
        process = await self._crew.start(["go", "mod", "tidy"], env=self._stage.env, cwd=self._stage.project)
        try:
            async with asyncio.timeout(_PLAIN):
                status = await self._read(process, lines.append, lines.append)
        except TimeoutError:
            await self._crew.kill(process)
            story.close()
            return story.say(f"fails: still no answer for {HOST} after {_PLAIN:.0f} s", "bad")
        story.close()
        if status == 0:
            raise DemoFailed(
                "go mod tidy without gotunnel", "it succeeded, which only the jump hosts make possible"
            )
        words = next((line for line in lines if HOST in line), lines[-1] if lines else "")
        story.seen(re.sub(r"^.*?(Get )", r"\1", words))
        return story.say(f"fails, as expected (exit status {status})", "bad")

    async def tidy(self) -> None:
        """The same under gotunnel, with a kill -9 on the way."""
        story, facts, origin = self._story, self._facts, self._stage.origin
        story.step("With gotunnel, and a kill -9 in the middle")
        origin.at_half, origin.at_end = self._at_half, self._at_end
        act = "go mod tidy under gotunnel"
        story.command(*_as_shown("go mod tidy"))
        story.clock()
        story.now("waiting for the first request")
        self._repeats = await self._gotunnel(act, ["go", "mod", "tidy"]) - 1
        origin.at_half = origin.at_end = unwatched
        if not facts.victim:
            raise DemoFailed(act, "it was over before a jump host could be killed")
        if not facts.back_at or len(facts.zips) != self._total:
            raise DemoFailed(act, f"only {len(facts.zips)} of {self._total} modules arrived")
        story.moment(f"go mod tidy is done: {self._total} modules, each as go.sum wants it", "good")

    async def build(self, warming: Process) -> None:
        """The program is built and says how many modules are in it."""
        story = self._story
        story.step("Build and run, with one jump host left")
        story.command(*_as_shown("go build"))
        story.clock()
        story.now("compiling what it needs of the standard library")
        await _in_time("compiling fmt", self._crew.wait(warming))  # did it fail, the build will say why
        story.moment("fmt and below are compiled: begun at the start, from an empty build cache")
        await self._gotunnel("go build under gotunnel", ["go", "build"])
        story.moment("built", "good")
        story.command("./hello")
        lines: list[str] = []
        project = self._stage.project
        process = await self._crew.start([str(project / "hello")], env=self._stage.env, cwd=project)
        status = await _in_time("the program", self._read(process, lines.append, lines.append))
        for line in lines:
            story.seen(line)
        if status != 0 or lines != [self._stage.corpus.says]:
            raise DemoFailed("the program that was built", f"exit status {status}: {' '.join(lines)}")

    def conclude(self) -> None:
        """What was done."""
        story, facts = self._story, self._facts
        story.step("Done")
        ways = ", ".join(f"{facts.by(name)} by {name}" for name in self._stage.jumps)
        story.fact("modules", f"{len(facts.zips)} fetched: {ways}")
        ms = (facts.back_at - facts.killed_at) * 1000
        story.fact("failover", f"{ms:.0f} ms from the kill -9 to the next answer")
        if self._repeats:
            story.fact("repeats", f"{self._repeats}, by gotunnel itself, for the zip that broke off half way")
        else:
            story.fact("repeats", "none: go noticed nothing")

    # --- what the origin sees ----------------------------------------------------------------

    async def _at_half(self, half: Served) -> None:
        """One half of a zip is on its way."""
        facts = self._facts
        if facts.victim or len(facts.zips) < self._total // 2:
            return
        jump = self._stage.jumps[half.way]
        facts.victim, facts.killed_at = half.way, half.at
        words = (
            f"kill -9 {jump.process.pid}: {jump.name} is dead, {_module(half.path)}'s zip half way through it"
        )
        self._story.moment(words, "bad")
        await self._crew.kill(jump.process)

    async def _at_end(self, served: Served) -> None:
        facts = self._facts
        if not facts.ways:
            self._story.moment(f"{served.way} carries the first request")
        facts.ways.add(served.way)
        if facts.victim and served.way != facts.victim and not facts.back_at:
            facts.back_at = served.at
            ms = (facts.back_at - facts.killed_at) * 1000
            self._story.moment(f"{served.way} answers, {ms:.0f} ms after the kill", "good")
        if served.is_zip and served.way != facts.victim:
            facts.zips[served.path] = served.way
        self._story.now(
            f"{len(facts.zips)} of {self._total} modules, by {served.way}", len(facts.zips), self._total
        )

    # --- processes ---------------------------------------------------------------------------

    async def _gotunnel(self, act: str, command: Sequence[str]) -> int:
        """`gotunnel run … -- COMMAND`, just as it was shown; how often COMMAND was started.

        Raises DemoFailed.
        """
        story, last = self._story, ""

        def heard(line: str) -> None:
            nonlocal last
            last = line
            if line.startswith("gotunnel: "):
                story.moment(line)
            elif story.verbose:
                story.seen(line)

        events = self._stage.directory / "events.jsonl"
        events.unlink(missing_ok=True)
        argv = [*own_command(), "run", *_OPTIONS, "--", *command]
        process = await self._crew.start(argv, env=self._stage.env, cwd=self._stage.project)
        status = await _in_time(act, self._read(process, heard, heard))
        if status != 0:
            raise DemoFailed(act, f"exit status {status}: {last or 'nothing was printed'}")
        try:
            over = json.loads(events.read_text().splitlines()[-1])
            return int(over["attempts"])
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DemoFailed(act, f"its events do not end with an exit: {error}") from None

    async def _read(self, process: Process, out: Callable[[str], None], err: Callable[[str], None]) -> int:
        """Take the lines of a process until it has ended; its status."""

        async def take(stream: asyncio.StreamReader | None, to: Callable[[str], None]) -> None:
            assert stream is not None
            async for line in stream:
                to(line.decode("utf-8", "replace").rstrip())

        await asyncio.gather(take(process.stdout, out), take(process.stderr, err))
        return await self._crew.wait(process)


def _module(path: str) -> str:
    """`flint` of `/demo.example/flint/@v/v1.0.0.zip`."""
    return path.partition("/@v/")[0].rpartition("/")[2].removeprefix("!")


def _as_shown(command: str) -> tuple[str, str]:
    """The command line as a user would type it, in two lines."""
    return f"gotunnel run {' '.join(_OPTIONS[:-2])}", f"{' '.join(_OPTIONS[-2:])} -- {command}"


async def _in_time(act: str, job: Awaitable[int]) -> int:
    """What `job` gives.  Raises DemoFailed when it takes too long."""
    try:
        async with asyncio.timeout(_RUN):
            return await job
    except TimeoutError:
        raise DemoFailed(act, f"not done after {_RUN:.0f} s") from None
