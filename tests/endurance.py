"""A day of a service's life in a few minutes: `python -m tests.endurance --requests 200000 --deaths 500`.

A real `gotunnel serve` with two sshd on loopback as ways out gets requests of four kinds, mixed by a seed:

    connect    a CONNECT to the origin, then 1 to 100 requests through it
    absolute   an absolute-form GET, 1 to 100 on a connection
    module     a file of the module proxy, 1 to 100 on a connection; most are in the store, some aren't yet
    rude       a CONNECT whose client goes away in the middle of the answer

while the jump hosts die (kill -9 of the sshd and its sessions) and come back, one at a time.

Rules:
- What is measured: descriptors, tasks (of the event loop), resident memory, threads and objects of `serve`, a
  while after the last request and with no stream open.  The first figures are taken after a tenth of the
  requests, when caches and pools have their size: `grew` compares the end with them.
- A request may fail only in the moment in which its jump host dies; how many did is told, and bounded by the
  deaths.  A body that differs from what it should be is a failure of the whole.
- `python -m tests.endurance --inside FILE …` is the service: gotunnel's own main, which on SIGUSR2 writes its
  figures to FILE.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.lab import keys, proc, sshd
from tests.lab.corpus import Corpus
from tests.lab.origin import Origin
from tests.lab.proc import ROOT, Process
from tests.lab.sshd import Sshd

CLIENTS = 16  # at the same time
MOST = 100  # requests on a connection
BODY = 3000  # bytes of an answer of the small origin
SETTLE = 30.0  # seconds that streams may take to be gone after the last request
KINDS = {"connect": 5, "absolute": 3, "module": 5, "rude": 1}  # with their weights


@dataclass(frozen=True, slots=True)
class Figures:
    """What `serve` holds; `memory` in megabytes."""

    descriptors: int
    tasks: int
    threads: int
    objects: int
    memory: float

    def __str__(self) -> str:
        return (
            f"{self.descriptors} descriptors, {self.tasks} tasks, {self.threads} threads, "
            f"{self.objects} objects, {self.memory:.1f} MB"
        )


@dataclass(slots=True)
class Report:
    """A day's sums; `wrong` are answers that differ from what they should be."""

    requests: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    deaths: int = 0
    seconds: float = 0.0
    start: Figures | None = None
    figures: list[Figures] = field(default_factory=list)
    end: Figures | None = None

    @property
    def done(self) -> int:
        """Requests that were answered as they should be."""
        return sum(self.requests.values())

    @property
    def over(self) -> int:
        """Requests that are over, however."""
        return self.done + sum(self.failed.values())

    def grew(self) -> list[str]:
        """What has grown by more than chance, in words."""
        if self.start is None or self.end is None:
            return ["no figures"]
        slack = {"descriptors": 6, "tasks": 6, "threads": 4}
        found = []
        for name, most in slack.items():
            before, after = getattr(self.start, name), getattr(self.end, name)
            if after > before + most:
                found.append(f"{name}: {before} -> {after}")
        if self.end.objects > self.start.objects * 1.1 + 5000:
            found.append(f"objects: {self.start.objects} -> {self.end.objects}")
        if self.end.memory > self.start.memory * 1.15 + 8:
            found.append(f"memory: {self.start.memory:.1f} -> {self.end.memory:.1f} MB")
        return found

    @property
    def well(self) -> bool:
        """Nothing grew, nothing was wrong, and no more failed than was under way when a jump host died."""
        return not self.grew() and not self.wrong and sum(self.failed.values()) <= self.deaths * CLIENTS

    def lines(self) -> list[str]:
        """For a person."""
        told = ", ".join(f"{kind} {count}" for kind, count in sorted(self.requests.items()))
        lost = ", ".join(f"{kind} {count}" for kind, count in self.failed.most_common(6)) or "none"
        return [
            f"{self.done} requests in {self.seconds:.0f} s ({told}), {self.deaths} deaths of a jump host",
            f"failed: {sum(self.failed.values())} ({lost}); wrong: {len(self.wrong)}",
            f"start: {self.start}",
            f"end:   {self.end}",
            f"grew:  {'; '.join(self.grew()) or 'nothing'}",
        ]


# --- the service ------------------------------------------------------------------------------------


def inside(file: Path, argv: Sequence[str]) -> int:
    """Be gotunnel, and write figures to `file` at SIGUSR2."""

    def tell(*_: object) -> None:
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        figures = Figures(
            descriptors=len(os.listdir("/proc/self/fd")),
            tasks=len(asyncio.all_tasks(asyncio.get_running_loop())),
            threads=threading.active_count(),
            objects=len(gc.get_objects()),
            memory=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        )
        new = file.with_suffix(".new")
        new.write_text(json.dumps(asdict(figures)))
        new.replace(file)

    signal.signal(signal.SIGUSR2, tell)
    from gotunnel.cli.main import main as gotunnel

    return gotunnel(list(argv)) or 0


class Day:
    """The service, its two jump hosts, and an origin of modules; a context manager."""

    def __init__(self, directory: Path, modules: int) -> None:
        self.directory = directory
        self.corpus = Corpus(directory / "tree", count=modules, levels=2, filler=2000)
        self._stack = contextlib.ExitStack()
        self._figures = directory / "figures.json"

    def __enter__(self) -> Day:
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _open(self) -> None:
        where = self.directory
        key = keys.new_key(where / "id")
        known = where / "known_hosts"
        self.jumps = [
            self._stack.enter_context(
                Sshd(
                    where / f"jump{n}", authorized=[key], options={"LogLevel": "ERROR", "MaxStartups": "500"}
                )
            )
            for n in (1, 2)
        ]
        for jump in self.jumps:
            jump.write_known_hosts(known)
        self.origin = self._stack.enter_context(Origin(where / "origin", self.corpus.directory))
        query = f"?identity={key.private}&known_hosts={known}&config=none"
        config = where / "gotunnel.toml"
        config.write_text("".join(
            f'[[upstream]]\nname = "jump{n}"\nvia = "ssh://{j.user}@{j.address}:{j.port}{query}"\n'
            for n, j in enumerate(self.jumps, 1)
        ))  # fmt: skip
        run = where / "run"
        run.mkdir(mode=0o700)
        env = {
            "PATH": os.environ["PATH"], "HOME": str(where), "XDG_RUNTIME_DIR": str(run),
            "GOTUNNEL_CONFIG": str(config), "GOPROXY": self.origin.url, "GOSUMDB": "off", "GOENV": "off",
            "GOTOOLCHAIN": "local", "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        argv = [sys.executable, "-m", "tests.endurance", "--inside", str(self._figures), "serve"]
        self.log = where / "serve.txt"
        self.serve = Process(argv, log=self.log, env=env, cwd=where)
        self._stack.callback(self.serve.stop)
        self.serve.wait_ready("serve", lambda: "ready: a way out works" in self.serve.output(), 60.0)
        told: dict[str, str] = json.loads((run / "gotunnel" / "server.json").read_text())
        self.proxy, self.modproxy = (urllib.parse.urlsplit(told[name]) for name in ("proxy", "modproxy"))

    def figures(self) -> Figures:
        """What the service holds now."""
        self._figures.unlink(missing_ok=True)
        proc.send([self.serve.pid], signal.SIGUSR2)
        proc.wait_until("the service's figures", self._figures.exists, 30.0)
        return Figures(**json.loads(self._figures.read_text()))

    def module_urls(self) -> Iterator[tuple[str, bytes]]:
        """Paths below the module proxy's, and what they have to bring."""
        root = self.corpus.directory
        for path in sorted(root.rglob("v1.0.0.*")):
            yield f"{self.modproxy.path}/{path.relative_to(root)}", path.read_bytes()


# --- the clients ------------------------------------------------------------------------------------


class Clients:
    """CLIENTS at a time, until so many requests were made."""

    def __init__(self, day: Day, small: tuple[str, int], seed: int) -> None:
        self._day, self._chance, self.report = day, random.Random(seed), Report()
        self._host, self._port = small
        self._modules = list(day.module_urls())
        user = f"{day.proxy.username or ''}:{day.proxy.password or ''}"
        self._auth = f"Proxy-Authorization: Basic {base64.b64encode(user.encode()).decode()}\r\n"

    async def one_over(self) -> None:
        """Wait for a moment in which requests end."""
        await asyncio.sleep(0.01)

    async def make(self, count: int, deaths: int) -> None:
        """Make so many requests, those that fail included, and go on until there were so many deaths."""
        self._left, self._deaths = count, deaths
        await asyncio.gather(*(self._client() for _ in range(CLIENTS)))

    async def _client(self) -> None:
        while self._left > 0 or self.report.deaths < self._deaths:
            kind = self._chance.choices(list(KINDS), list(KINDS.values()))[0]
            many = self._chance.choice((1, 1, 3, 10, 30, MOST))
            address = self._day.modproxy if kind == "module" else self._day.proxy
            try:
                async with asyncio.timeout(60):
                    async with opened(str(address.hostname), int(address.port or 0)) as (reader, writer):
                        await getattr(self, f"_{kind}")(reader, writer, many)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                self._left -= 1
                self.report.failed[f"{kind}: {type(error).__name__} {error}"[:70]] += 1

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, many: int) -> None:
        where = f"{self._host}:{self._port}"
        status, _ = await ask(reader, writer, f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{self._auth}")
        if status != 200:
            raise ValueError(f"status {status}")
        for _ in range(many):
            answer = await ask(reader, writer, f"GET /{BODY} HTTP/1.1\r\nHost: {where}\r\n")
            self._count("connect", answer, b"x" * BODY)

    async def _absolute(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, many: int) -> None:
        where = f"{self._host}:{self._port}"
        for _ in range(many):
            head = f"GET http://{where}/{BODY} HTTP/1.1\r\nHost: {where}\r\n{self._auth}"
            self._count("absolute", await ask(reader, writer, head), b"x" * BODY)

    async def _module(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, many: int) -> None:
        for _ in range(many):
            path, wanted = self._chance.choice(self._modules)
            if path.endswith(".info"):
                wanted = b""  # go may be told it anew: only the status counts
            answer = await ask(reader, writer, f"GET {path} HTTP/1.1\r\nHost: modproxy\r\n")
            self._count("module", answer, wanted)

    async def _rude(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, many: int) -> None:
        where = f"{self._host}:{self._port}"
        status, _ = await ask(reader, writer, f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{self._auth}")
        if status == 200:
            writer.write(f"GET /1000000 HTTP/1.1\r\nHost: {where}\r\n\r\n".encode())
            await reader.read(many * 1000)
            writer.transport.abort()
        self.report.requests["rude"] += 1
        self._left -= 1

    def _count(self, kind: str, answer: tuple[int, bytes], wanted: bytes) -> None:
        status, body = answer
        if status != 200:
            raise ValueError(f"status {status}")
        if wanted and body != wanted:
            self.report.wrong.append(f"{kind}: {len(body)} bytes, not {len(wanted)}")
        self.report.requests[kind] += 1
        self._left -= 1


@contextlib.asynccontextmanager
async def opened(host: str, port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that is closed at the end."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: str) -> tuple[int, bytes]:
    """Send a request's head; the answer's status and body (by its length, or chunked).  Raises ValueError."""
    writer.write(head.encode() + b"\r\n")
    answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(answer.split(" ", 2)[1])
    fields = dict(line.split(": ", 1) for line in answer.split("\r\n")[1:] if ": " in line)
    if head.startswith("CONNECT") and status == 200:
        return status, b""
    if fields.get("transfer-encoding") == "chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return status, body
    return status, await reader.readexactly(int(fields.get("content-length", "0")))


@contextlib.asynccontextmanager
async def small_origin() -> AsyncIterator[tuple[str, int]]:
    """Answers `GET /N` with N bytes, for ever on a connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                size = int(head.split(" ", 2)[1].rpartition("/")[2])
                writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + b"x" * size)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.2", 0)
    async with server:
        yield server.sockets[0].getsockname()[:2]


async def deaths(day: Day, clients: Clients, count: int, at: int, total: int, chance: random.Random) -> None:
    """Kill a jump host and bring it back, `count` times, spread over `total` requests after the `at`th."""
    report = clients.report
    for number in range(count):
        while report.over < at + total * (number + 1) / (count + 1):
            await clients.one_over()
        jump = chance.choice(day.jumps)
        await asyncio.to_thread(jump.kill)
        report.deaths += 1
        await asyncio.sleep(chance.uniform(0.0, 0.3))
        await asyncio.to_thread(jump.start)


async def settled(day: Day) -> Figures:
    """The figures when they have come to rest: the least of what was seen in a while."""
    best, deadline = await asyncio.to_thread(day.figures), time.monotonic() + SETTLE
    calm = 0
    while calm < 4 and time.monotonic() < deadline:
        await asyncio.sleep(0.5)
        now = await asyncio.to_thread(day.figures)
        fewer = (now.descriptors, now.tasks) < (best.descriptors, best.tasks)
        best, calm = (now, 0) if fewer else (best, calm + 1)
    return best


async def live(day: Day, *, requests: int, count: int, seed: int, every: int = 0) -> Report:
    """A day; figures are printed each `every` requests."""
    chance = random.Random(seed)
    async with small_origin() as small:
        clients = Clients(day, small, seed)
        report, started = clients.report, time.monotonic()
        warm = requests // 10
        first = count // 10
        async with asyncio.TaskGroup() as group:
            group.create_task(deaths(day, clients, first, 0, warm, chance))
            group.create_task(clients.make(warm, first))
        report.start = await settled(day)
        rest, at = requests - warm, report.over

        async def watch() -> None:
            while every:
                await asyncio.sleep(10)
                report.figures.append(await asyncio.to_thread(day.figures))
                print(f"{report.done:8} requests, {report.deaths:4} deaths: {report.figures[-1]}", flush=True)

        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch())
            death = group.create_task(deaths(day, clients, count - first, at, rest, chance))
            await clients.make(rest, count)
            await death
            watching.cancel()
        report.end = await settled(day)
        report.seconds = time.monotonic() - started
    return report


@contextlib.contextmanager
def temporary(modules: int = 60) -> Iterator[Day]:
    """A day's scene in a temporary directory that goes with it."""
    directory = Path(tempfile.mkdtemp(prefix="gt-day-"))
    try:
        with Day(directory, modules) as day:
            yield day
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """0 if nothing grew and nothing was wrong."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["--inside"]:
        return inside(Path(given[1]), given[2:])
    parser = argparse.ArgumentParser(
        prog="python -m tests.endurance", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--deaths", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(given)
    able, reason = sshd.can_run_sshd()
    if not able or sys.platform != "linux":
        parser.error(reason or "needs Linux")
    with temporary() as day:
        report = asyncio.run(
            live(day, requests=args.requests, count=args.deaths, seed=args.seed, every=0 if args.json else 1)
        )
    told: dict[str, Any] = asdict(report) | {"grew": report.grew()}
    print(json.dumps(told) if args.json else "\n".join(report.lines()), flush=True)
    return 0 if report.well else 1


if __name__ == "__main__":
    raise SystemExit(main())
