"""An hour on a bad line, and no false death: `python -m tests.hour --minutes 60` (root, Linux, a C compiler).

A real `gotunnel run` reaches a real sshd over 300 ms and 3 % loss each way; its CMD (this module too) holds
streams through the endpoint to an origin behind the jump host, which has these habits, one a connection:

    idle          nothing, until the client has said something
    silent        asked, it answers after SILENT seconds; again and again
    trickle       a byte now and then, with gaps shorter and longer than any watch of ours
    bulk          a body as large as was asked for, a new connection each time

Rules:
- A false death is a stream that ended before its time, a breaker that opened, a failed dial, a failover or a
  CMD that was run again: the hop and the origin are well all the time.
- The last line of the report says how many there were; the exit status is 1 if there was one.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import keys, netns, proc, sshd
from tests.lab.netns import Namespace
from tests.lab.proc import ROOT, LabError
from tests.lab.sshd import Sshd
from tests.lab.wan import Line, WanLink, can_make_wan

LINE = Line(delay=150, loss=3)
SILENT = 60.0  # seconds that the silent origin thinks about an answer
GAPS = (2.0, 7.0, 20.0, 40.0)  # seconds between two bytes of the trickle
BULK, BULK_EVERY = 512 * 1024, 45.0  # bytes, seconds between two starts
BLOCK = os.urandom(16 * 1024)
PATIENCE = 60.0  # seconds that a line of this kind may hold up what is on its way; no death


def able() -> tuple[bool, str]:
    """Whether it can be run here; else why not."""
    checks = (netns.can_make_namespaces(), can_make_wan(), sshd.can_run_sshd())
    return next((check for check in checks if not check[0]), (True, ""))


# --- the origin -----------------------------------------------------------------------------------


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection: the first line says which habit is wanted."""
    try:
        async with asyncio.timeout(None):
            words = (await reader.readline()).decode().split()
            match words:
                case ["idle"]:
                    await reader.readline()
                    writer.write(b"bye\n")
                case ["silent", seconds]:
                    while await reader.readline():
                        await asyncio.sleep(float(seconds))
                        writer.write(b"answer\n")
                case ["trickle", *gaps]:
                    while True:
                        for gap in gaps:
                            await asyncio.sleep(float(gap))
                            writer.write(b".")
                            await writer.drain()
                case ["bulk", size]:
                    for _ in range(int(size) // len(BLOCK)):
                        writer.write(BLOCK)
                        await writer.drain()
                case _:  # gotunnel's own probe
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.write_eof()
        await reader.read()
    except OSError:
        pass
    finally:
        writer.close()


async def origin(address: str, port: int) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(answer, address, port)
    print("ready", flush=True)
    await server.serve_forever()


class Origin(proc.Service):
    """That, in a namespace."""

    ready_line = r"^ready$"

    def _argv(self) -> list[str]:
        return [sys.executable, "-m", "tests.hour", "--origin", f"{self.listen}:{self.port}"]


# --- the client: CMD of the run -------------------------------------------------------------------


class Ended(Exception):
    """A stream ended before its time."""


class Client:
    """The streams; what went wrong, in words with the second it did."""

    def __init__(self, endpoint: str, target: str, seconds: float) -> None:
        url = urllib.parse.urlsplit(endpoint)
        secret = f"{url.username or ''}:{url.password or ''}".encode()
        self._address = (url.hostname or "", url.port or 0)
        self._head = (
            f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"
            f"Proxy-Authorization: Basic {base64.b64encode(secret).decode()}\r\n\r\n"
        ).encode()
        self._started = time.monotonic()
        self._end = self._started + seconds
        self.deaths: list[str] = []
        self.counts: dict[str, int] = {}

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def count(self, what: str, number: int = 1) -> None:
        self.counts[what] = self.counts.get(what, 0) + number

    @contextlib.asynccontextmanager
    async def stream(self, habit: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """One connection through the endpoint."""
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            writer.write(self._head)
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.split(b"\r\n")[0]:
                raise Ended(f"the endpoint said {head.split(bytes([13]))[0].decode()}")
            writer.write(habit.encode() + b"\n")
            yield reader, writer
        except asyncio.IncompleteReadError as error:
            raise Ended("the stream was closed") from error
        except OSError as error:
            raise Ended(str(error)) from error
        finally:
            writer.close()

    async def idle(self) -> None:
        """Nothing for the whole time, then a word and its answer."""
        async with self.stream("idle") as (reader, writer):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(self.left, 0.1)):
                    if not await reader.read(1):
                        raise Ended("the stream was closed")
            writer.write(b"bye\n")
            async with asyncio.timeout(PATIENCE):
                await reader.readexactly(4)
            self.count("idle: last word answered")

    async def silent(self, seconds: float) -> None:
        """A question, and a long wait for its answer."""
        async with self.stream(f"silent {seconds:g}") as (reader, writer):
            while self.left > seconds or not self.counts.get("silent: answers"):
                writer.write(b"?\n")
                async with asyncio.timeout(seconds + PATIENCE):
                    await reader.readexactly(7)
                self.count("silent: answers")

    async def trickle(self) -> None:
        """A byte now and then, two at least."""
        async with self.stream("trickle " + " ".join(f"{gap:g}" for gap in GAPS)) as (reader, _):
            while (few := self.counts.get("trickle: bytes", 0) < 2) or self.left > 0:
                wait = max(GAPS) + PATIENCE
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait if few else min(max(self.left, 0.1), wait)):
                        await reader.readexactly(1)
                        self.count("trickle: bytes")
                        continue
                if few or self.left > 0:
                    raise Ended("no byte came for a long time")

    async def bulk(self) -> None:
        """A body now and then."""
        while self.left > 0:
            started = time.monotonic()
            async with self.stream(f"bulk {BULK}") as (reader, _):
                got = 0
                async with asyncio.timeout(BULK_EVERY * 4 + PATIENCE):
                    while data := await reader.read(65536):
                        got += len(data)
                if got != BULK:
                    raise Ended(f"{got} of {BULK} bytes came")
                self.count("bulk: bodies")
                self.count("bulk: bytes", got)
            await asyncio.sleep(min(max(BULK_EVERY - (time.monotonic() - started), 0), max(self.left, 0)))

    async def kept(self, name: str, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run one habit, again where it dies, to the end."""
        while True:
            try:
                await job()
                return
            except (Ended, TimeoutError) as error:
                after = time.monotonic() - self._started
                self.deaths.append(f"{name}: after {after:.0f} s: {error or 'no answer in time'}")
                await asyncio.sleep(1)
                if self.left <= 0:
                    return

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            silent = min(SILENT, max(self.left / 2, 5))
            group.create_task(self.kept("idle", self.idle))
            group.create_task(self.kept("silent", lambda: self.silent(silent)))
            group.create_task(self.kept("trickle", self.trickle))
            group.create_task(self.kept("bulk", self.bulk))


async def client(target: str, seconds: float) -> None:
    """Print what happened as one JSON object."""
    made = Client(os.environ["GOTUNNEL_PROXY"], target, seconds)
    await made.run()
    print(json.dumps({"deaths": made.deaths, "counts": made.counts}))


# --- the whole ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """`deaths` in words; `counts` of what went well; `link` as the link's program counts it."""

    seconds: float
    deaths: list[str]
    counts: dict[str, int]
    status: int
    link: str
    stderr: str


@contextlib.contextmanager
def bad_line(
    directory: Path, line: Line
) -> Iterator[tuple[Namespace, Sshd, Origin, WanLink, keys.Key, Path]]:
    """A client's namespace, and a jump host on cubic with an origin beside it, `line` away."""
    with ExitStack() as stack:
        near, far = stack.enter_context(Namespace("near")), stack.enter_context(Namespace("far"))
        link = stack.enter_context(WanLink(near, far, line, directory))
        # as most servers are; by the route, since a namespace may choose only what the machine allows
        far.add_route(f"{link.address_a}/32", "dev", "wan0", "congctl", "cubic")
        key = keys.new_key(directory / "id_hour")
        jump = stack.enter_context(
            Sshd(directory / "sshd", place=far, address=link.address_b, authorized=[key])
        )
        known = jump.write_known_hosts(directory / "known_hosts")
        target = stack.enter_context(Origin(directory / "origin", place=far, address=link.address_b))
        yield near, jump, target, link, key, known


def soak(seconds: float, directory: Path, line: Line = LINE) -> Report:
    """The whole, for about `seconds`.  Raises LabError."""
    with bad_line(directory, line) as (near, jump, target, link, key, known):
        where = f"{target.address}:{target.port}"
        events = directory / "events.jsonl"
        ways = ["-F", "none", "-i", str(key.private), "--known-hosts", str(known),
                "-J", f"{jump.user}@{jump.address}:{jump.port}"]  # fmt: skip
        command = [sys.executable, "-m", "tests.hour", "--client", where, "--seconds", f"{seconds:g}"]
        dropped = ("GOTUNNEL_", "SSH_", "GOPROXY")
        env = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        env = {k: v for k, v in env.items() if not k.lower().endswith("_proxy")}
        env |= {"HOME": str(directory), "GOTUNNEL_POOL_PROBE": f'{{ url = "http://{where}/" }}'}
        process = near.popen(
            [sys.executable, "-m", "gotunnel", "run", "--events", str(events), *ways, "--", *command],
            cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = process.communicate(timeout=seconds + 4 * PATIENCE + BULK_EVERY * 4)
        except subprocess.TimeoutExpired as error:
            proc.kill_tree(process.pid)
            raise LabError(f"the run did not end: {process.communicate()[1]}") from error
        counters = link.counters()
    told = [json.loads(text) for text in events.read_text().splitlines()] if events.exists() else []
    lines = [text for text in out.splitlines() if text.startswith("{")]
    result: dict[str, Any] = (
        json.loads(lines[-1]) if lines else {"deaths": ["CMD said nothing"], "counts": {}}
    )
    deaths = [*result["deaths"], *filter(None, map(_death, told))]
    if process.returncode:
        deaths.append(f"the run ended with {process.returncode}")
    return Report(seconds, deaths, result["counts"], process.returncode, counters, err)


def _death(event: dict[str, Any]) -> str:
    """What an event says of a death; "" for nothing."""
    bad = {
        "breaker": event.get("state") != "closed",
        "dial": not event.get("ok", True),
        "failover": True,
        "attempt": event.get("number", 1) > 1 or event.get("exit", 0) != 0,
    }
    return json.dumps(event) if bad.get(event["event"], False) else ""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.hour", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--origin", help=argparse.SUPPRESS)
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, default=0.0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.origin:
        address, _, port = args.origin.rpartition(":")
        asyncio.run(origin(address, int(port)))
        return 0
    if args.client:
        asyncio.run(client(args.client, args.seconds))
        return 0
    fit, reason = able()
    if not fit:
        parser.error(reason)
    with tempfile.TemporaryDirectory(prefix="gt-hour-") as directory:
        report = soak(args.minutes * 60, Path(directory))
    print(f"{args.minutes:g} min at RTT {2 * LINE.delay:g} ms, {LINE.loss:g} % loss each way")
    for what, number in report.counts.items():
        print(f"  {what}: {number}")
    print(report.link, report.stderr, sep="\n")
    for death in report.deaths:
        print("  death:", death)
    print(f"false deaths: {len(report.deaths)}")
    return 1 if report.deaths else 0


if __name__ == "__main__":
    raise SystemExit(main())
