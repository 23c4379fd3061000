"""How long each phase of a request takes over each way out: what `gotunnel probe` measures.

Rules:
- Each way has hops of its own, closed at the end; it keeps them between URLs, so that a jump host sees one
  log-in.  What was kept open has no time of its own then.
- Nothing is dialled only to be timed: an sshd penalises connections that are dropped (PerSourcePenalties).
  The dialers of a chain are watched while one real request goes through them.
- A hop's time runs from the moment the connection to it stands until the one to what follows it stands: for
  ssh the log-in and the channel, for a proxy its CONNECT or SOCKS dialogue.
- Ways are tried at once, but bodies are fetched one after the other, so that rates don't share a line.
- Any HTTP answer counts as reached; redirects are not followed.
- Loss is the limit where the kernel counts losses again and again (`ssh_growth`) and MANY connections at once
  bring clearly more than one did: a queue that is full loses packets too, and there they don't.  Who sends is
  the first hop; its operator can choose a congestion control that loss doesn't slow down.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Any
from urllib.parse import urlsplit

import h11

from gotunnel import __version__
from gotunnel.address import HostPort, one_line, redact
from gotunnel.dataclass import dataclass
from gotunnel.errors import Blame, DialError, GotunnelError, StreamLost
from gotunnel.upstream.asking import Ask, Asking
from gotunnel.upstream.chain import ChainBuilder, expand
from gotunnel.upstream.dialer import APART, Dialer, Stream
from gotunnel.upstream.direct import LOOKUPS
from gotunnel.upstream.spec import Chain, DirectHop
from gotunnel.upstream.tcp_info import Losses, Socket
from gotunnel.upstream.tls import start_tls

DIAL_TIMEOUT = 30.0  # seconds for all hops together
FIRST_BYTE_TIMEOUT = 15.0
BODY_SECONDS = 3.0
LOSSY_SECONDS = 10.0  # as long as losses are seen, and too little to call them the limit
MANY, GAIN = 4, 1.8  # connections; times the rate of one: that is clearly more
# for the operator of the host that sends: bbr does not slow down at each loss, as cubic does
BBR = ("sysctl -w net.core.default_qdisc=fq", "sysctl -w net.ipv4.tcp_congestion_control=bbr")
BODY_BYTES = 16 * 1024 * 1024
_LEAST = 64 * 1024  # bytes from which on a rate says something


@dataclass(frozen=True, slots=True)
class Goal:
    """A URL, parsed."""

    url: str
    target: HostPort
    tls: bool
    path: str

    @classmethod
    def parse(cls, text: str) -> Goal:
        """Raises ValueError with one line."""
        shown = one_line(redact(text), 200)
        try:
            parts = urlsplit(text)
            if not text.isascii() or any(ord(c) <= 32 or ord(c) == 127 for c in text):
                raise ValueError("write it without spaces, and other than ASCII as %XX or xn--")
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise ValueError("want http://HOST/… or https://HOST/…")
            if "@" in parts.netloc:
                raise ValueError("a user or password is not sent; leave it out")
            target = HostPort.parse(parts.netloc, 443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise ValueError(f"{shown}: {error}") from None
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(text, target, parts.scheme == "https", path)


@dataclass(frozen=True, slots=True)
class Way:
    """A way out to be measured; `name` is safe to show."""

    name: str
    chain: Chain


@dataclass(slots=True)
class Result:
    """One URL over one way.  Times in milliseconds, None where a phase didn't happen.

    `names`: where the target's name is resolved: "here", "far", or "none" for an address.  `connect_ms` is
    the first TCP connection (with the look-up of a hop's name), `rate` bytes a second, None for small bodies.
    `loss_bound`: lost packets are what limits the rate; `sender` is the hop that would have to do better, ""
    where it is the target itself.
    """

    via: str
    names: str
    ok: bool = False
    name_ms: float | None = None
    connect_ms: float | None = None
    hops: list[tuple[str, float | None]] = field(default_factory=list)
    tls_ms: float | None = None
    first_byte_ms: float | None = None
    status: int | None = None
    bytes: int = 0
    rate: float | None = None
    finding: str | None = None
    detail: str | None = None
    loss_bound: bool = False
    sender: str = ""

    @property
    def fix(self) -> tuple[str, ...]:
        """The commands that mend it, on the sender."""
        return BBR if self.loss_bound and self.sender else ()

    def as_json(self) -> dict[str, Any]:
        """The object of `probe --json`."""

        def rounded(ms: float | None) -> float | None:
            return None if ms is None else round(ms, 1)

        return {
            "via": redact(self.via),
            "ok": self.ok,
            "names": self.names,
            "phases": {
                "name_ms": rounded(self.name_ms),
                "connect_ms": rounded(self.connect_ms),
                "tls_ms": rounded(self.tls_ms),
                "first_byte_ms": rounded(self.first_byte_ms),
            },
            "hops": [{"hop": redact(hop), "ms": rounded(ms)} for hop, ms in self.hops],
            "status": self.status,
            "bytes": self.bytes,
            "rate_bps": None if self.rate is None else round(self.rate),
            "finding": self.finding,
            "detail": None if self.detail is None else one_line(redact(self.detail)),
            "loss_bound": self.loss_bound,
            "fix": list(self.fix),
        }


@dataclass(slots=True)
class Report:
    """One URL over all ways, in their order."""

    goal: Goal
    results: list[Result]

    def as_json(self) -> dict[str, Any]:
        return {"url": self.goal.url, "ways": [result.as_json() for result in self.results]}


def some_way_reached_all(reports: Sequence[Report]) -> bool:
    """True if there is a way out that reached every URL."""
    return any(all(result.ok for result in row) for row in zip(*(r.results for r in reports), strict=True))


async def probe(
    ways: Sequence[Way],
    goals: Sequence[Goal],
    *,
    trust: Callable[[], ssl.SSLContext],
    ask: Ask | None = None,
) -> list[Report]:
    """Measure every way to every URL.  `trust` makes the TLS context.  Raises ConfigError."""
    lines: list[_Line] = []
    body = asyncio.Lock()
    context = trust() if any(goal.tls for goal in goals) else None
    try:
        for way in ways:
            lines.append(_Line(way, context, body, ask))
        reports = []
        for goal in goals:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(line.measure(goal)) for line in lines]
            reports.append(Report(goal, [task.result() for task in tasks]))
        return reports
    finally:
        for line in lines:
            await line.builder.close()


class _Watched:
    """A dialer that notes when its first dial began and ended, and of the first of all the socket."""

    def __init__(self, inner: Dialer, depth: int, line: _Line) -> None:
        self._inner = inner
        self._depth = depth
        self._line = line

    @property
    def label(self) -> str:
        return self._inner.label

    async def warm(self) -> None:
        await self._inner.warm()

    async def close(self) -> None:
        await self._inner.close()

    async def dial(self, target: HostPort) -> Stream:
        clock, line = asyncio.get_running_loop().time, self._line
        line.begun.setdefault(self._depth, clock())
        stream = await self._inner.dial(target)
        line.ended.setdefault(self._depth, clock())
        if self._depth == line.first and APART.get() == 1:
            line.sock = stream.transport.get_extra_info("socket")
        return stream


class _Line:
    """One way out, with its own hops."""

    def __init__(
        self,
        way: Way,
        context: ssl.SSLContext | None,
        body: asyncio.Lock,
        ask: Ask | None,
    ) -> None:
        self._way = way
        self._context = context
        self._body = body
        self.begun: dict[int, float] = {}
        self.ended: dict[int, float] = {}
        self.sock: Socket | None = None  # of the first connection, which is kept between URLs
        self._lookups: dict[str, float] = {}
        hops, _ = expand(way.chain)
        # `direct:` is no hop that one passes through, but how the first connection is made
        self.first = 1 if isinstance(hops[0], DirectHop) else 0
        self._labels = [str(hop) for hop in hops[self.first :]]
        self.builder = ChainBuilder(
            asking=Asking(ask), watch=lambda dialer, depth: _Watched(dialer, depth, self)
        )
        self._dialer = self.builder.build(way.chain)

    async def measure(self, goal: Goal) -> Result:
        names = "none" if goal.target.ip else "far" if self._way.chain.resolves_far else "here"
        result = Result(self._way.name, names)
        for noted in (self.begun, self.ended, self._lookups):
            noted.clear()
        LOOKUPS.set(self._lookups.setdefault)  # seen by this task and its children only
        try:
            try:
                stream = await self._reach(goal.target)
            finally:
                self._note_hops(result, goal.target.host)
            await self._request(stream, goal, result)
            result.ok = True
        except DialError as error:
            result.finding, result.detail = error.finding, error.detail
        except GotunnelError as error:
            result.finding, result.detail = "unknown", str(error)
        return result

    async def _reach(self, target: HostPort) -> Stream:
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                return await self._dialer.dial(target)
        except TimeoutError:
            words = f"{self._way.name}: no connection to {target} in {DIAL_TIMEOUT:.0f} s"
            raise DialError("hop.stalled", words, blame=Blame.HOP) from None

    def _note_hops(self, result: Result, name: str) -> None:
        lookup = self._lookups.get(name)
        if result.names == "here" and lookup is not None:
            result.name_ms = 1000 * lookup
        before = self.ended.get(self.first)
        if before is not None:
            connect = before - self.begun[self.first]
            if not self._labels:
                connect -= lookup or 0.0
            result.connect_ms = 1000 * connect
        for number, label in enumerate(self._labels, self.first + 1):
            ended, begun = self.ended.get(number), self.begun.get(number)
            took = None if ended is None or begun is None else ended - max(begun, before or begun)
            result.hops.append((label, None if took is None else 1000 * took))
            before = ended

    async def _request(self, stream: Stream, goal: Goal, result: Result) -> None:
        clock = asyncio.get_running_loop().time
        try:
            started = clock()
            stream = await self._secured(stream, goal)
            result.tls_ms = 1000 * (clock() - started) if goal.tls else None
            async with self._body:
                losses = Losses(self.sock)
                await _fetch(stream, goal, result, losses)
                result.loss_bound = losses.limit and await self._gains(goal, result)
                result.sender = self._labels[0] if self._labels else ""
        finally:
            stream.abort()

    async def _secured(self, stream: Stream, goal: Goal) -> Stream:
        if not goal.tls:
            return stream
        assert self._context is not None
        return await start_tls(stream, self._context, goal.target.host)

    async def _gains(self, goal: Goal, result: Result) -> bool:
        """Do several connections at once bring clearly more than `result`'s did?"""

        async def opened() -> Stream:
            APART.set(MANY)  # of this task: over a connection to the jump host of its own
            return await self._secured(await self._reach(goal.target), goal)

        async def rate(stream: Stream) -> float:
            again = Result(result.via, result.names)
            await _fetch(stream, goal, again, Losses(None))
            return again.rate or 0.0

        tried = await asyncio.gather(*(opened() for _ in range(MANY)), return_exceptions=True)
        streams = [stream for stream in tried if isinstance(stream, Stream)]
        try:
            rates = await asyncio.gather(*map(rate, streams))  # from one moment on
        except DialError:
            return False
        finally:
            for stream in streams:
                stream.abort()
        return sum(rates) >= GAIN * (result.rate or math.inf)


async def _fetch(stream: Stream, goal: Goal, result: Result, losses: Losses) -> None:
    """One GET; the body as far as the bounds allow.  Raises DialError."""
    http = h11.Connection(h11.CLIENT)
    host = str(goal.target).removesuffix(":443" if goal.tls else ":80")
    headers = [("Host", host), ("User-Agent", f"gotunnel/{__version__}"), ("Accept", "*/*")]
    headers += [("Accept-Encoding", "identity"), ("Connection", "close")]
    clock = asyncio.get_running_loop().time
    try:
        stream.write(http.send(h11.Request(method="GET", target=goal.path, headers=headers)) or b"")
        stream.write(http.send(h11.EndOfMessage()) or b"")
        started = clock()
        async with asyncio.timeout(FIRST_BYTE_TIMEOUT):
            data = await _some(stream)
            first = clock()
            if not data.startswith(b"HTTP/"[: len(data)]):  # h11 would wait for the end of a head
                raise h11.RemoteProtocolError(repr(data[:40]))
            http.receive_data(data)
            result.first_byte_ms = 1000 * (first - started)
            sized = await _head(stream, http, result)
    except TimeoutError:
        words = f"{goal.target}: no answer to the request in {FIRST_BYTE_TIMEOUT:.0f} s"
        raise DialError("http.timeout", words, blame=Blame.TARGET) from None
    except StreamLost as error:
        words = f"{goal.target}: the connection broke before the answer: {error}"
        raise DialError("http.truncated", words, blame=Blame.TARGET) from error
    except h11.RemoteProtocolError as error:
        words = f"{goal.target}: what it answers is no HTTP: {one_line(str(error), 150)}"
        raise DialError("unknown", words, blame=Blame.TARGET) from error
    try:
        await _body(stream, http, result, losses)
    except (StreamLost, h11.RemoteProtocolError) as error:
        if sized:  # an answer that ends with its connection is whole whenever that ends
            words = f"{goal.target}: the answer broke off after {result.bytes} bytes"
            raise DialError("http.truncated", words, blame=Blame.TARGET) from error


async def _head(stream: Stream, http: h11.Connection, result: Result) -> bool:
    """Read the head; True where it tells how long the body is."""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await _some(stream))
        elif isinstance(event, h11.Response):
            result.status = event.status_code
            return any(name in (b"content-length", b"transfer-encoding") for name, _ in event.headers)
        elif not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError(f"{type(event).__name__} before the head")


async def _some(stream: Stream) -> bytes:
    data = await stream.read()
    if not data:
        raise StreamLost("it was closed")
    return data


async def _body(stream: Stream, http: h11.Connection, result: Result, losses: Losses) -> None:
    """Count bytes; the rate is that of all but the first piece, which came with the head."""
    clock = asyncio.get_running_loop().time
    begun = last = clock()
    head = 0
    try:
        async with asyncio.timeout(BODY_SECONDS) as limit:
            while result.bytes < BODY_BYTES:
                losses.look()
                if losses.seen:
                    limit.reschedule(begun + (BODY_SECONDS if losses.limit else LOSSY_SECONDS))
                event = http.next_event()
                if event is h11.NEED_DATA:
                    head = head or result.bytes
                    http.receive_data(await stream.read())
                elif isinstance(event, h11.Data):
                    result.bytes += len(event.data)
                    last = clock()
                else:
                    break
    except TimeoutError:
        pass  # long enough to know
    if result.bytes - head >= _LEAST and last > begun:
        result.rate = (result.bytes - head) / (last - begun)
