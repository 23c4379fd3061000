"""HTTP/1.1 requests over the ways out: connections that are kept, redirects, and who comes first.

Rules:
- A connection is kept for its (scheme, host, port, way out), closed after IDLE seconds, or when the server
  says so; one whose way out is usable no more is not taken again.
- A reused connection that turns out dead before the first byte of an answer is no failure: the request (a
  GET, so it may be repeated, RFC 9110 §9.2.2) goes out once more on another.
- Redirects: ten at most, never from https to http; credentials are chosen anew for each host, and userinfo
  stays with the host it was written for.
- Beside the first connection to a server on a long line (LONG) others are opened at once, SPREAD in all,
  apart (`APART`): a large body would have to wait for them.
- At most `most` transfers at once; who waits with the lower priority number goes first.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import ipaddress
import itertools
import math
import re
import ssl
from collections.abc import AsyncIterator, Callable
from urllib.parse import urljoin, urlsplit

from gotunnel import __version__
from gotunnel.address import HostPort, one_line, redact
from gotunnel.dataclass import dataclass
from gotunnel.errors import DialError
from gotunnel.modproxy.credentials import Credentials
from gotunnel.modproxy.exchange import Connection, Head, Sink
from gotunnel.modproxy.failed import Failed, not_reached
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import APART, Ways
from gotunnel.upstream.tls import start_tls

IDLE = 60.0  # seconds
SWEEP = 5.0
LONG = 0.25  # seconds that the first dial took, of several round trips
SPREAD = 8  # connections
LINKS = 8  # over so many connections to a jump host
REDIRECTS = 10
_MOVED = (301, 302, 303, 307, 308)
_READ_OVER = 64 * 1024  # a redirect's body that is read so that its connection can be kept


@dataclass(frozen=True, slots=True)
class Url:
    """An http or https URL, parsed; `userinfo` is never shown."""

    tls: bool
    target: HostPort
    path: str
    userinfo: str = ""

    @classmethod
    def parse(cls, text: str) -> Url:
        """Raises ValueError with one line that holds no secret."""
        shown = one_line(redact(text), 200)
        try:
            if not text.isascii() or any(ord(c) <= 32 or ord(c) == 127 for c in text):
                raise ValueError("write it without spaces, and other than ASCII as %XX or xn--")
            parts = urlsplit(text)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise ValueError("want http://HOST/… or https://HOST/…")
            userinfo, _, where = parts.netloc.rpartition("@")
            target = HostPort.parse(where, 443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise ValueError(f"{shown}: {error}") from None
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme == "https", HostPort(target.host.lower(), target.port), path, userinfo)

    @property
    def host(self) -> str:
        """What the Host header says."""
        return str(self.target).removesuffix(":443" if self.tls else ":80")

    @property
    def place(self) -> str:
        """Without its query, which is a signature where an object store gives the file."""
        return f"{self.tls} {self.target} {self.path.partition('?')[0]}"

    def follow(self, location: str) -> Url:
        """Where a redirect leads.  Raises ValueError."""
        base = f"http{'s' if self.tls else ''}://{self.host}{self.path}"
        there = Url.parse(urljoin(base, location))
        if self.tls and not there.tls:
            raise ValueError("it redirects from https to http")
        if _is_inside(there.target) and not _is_inside(self.target):
            raise ValueError(f"it redirects into a private network: {there.target}")
        keeps = not there.userinfo and there.target == self.target and there.tls
        return Url(there.tls, there.target, there.path, self.userinfo if keeps else there.userinfo)


def _is_inside(target: HostPort) -> bool:
    """An address, or a name of one, that no public source has any business to send us to."""
    address = target.ip
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address is not None:
        return not address.is_global
    # 2130706433 and 0x7f.1 are addresses to some resolvers
    return target.is_loopback or re.fullmatch(r"[0-9.]+|0x[0-9a-f.x]+", target.host.lower()) is not None


class Gate:
    """At most `most` pass at once; the lowest priority number first, then who came first.

    An eighth of the places is kept for priority 0: prefetch never fills all.
    """

    def __init__(self, most: int) -> None:
        self._free = most
        self._kept = most // 8
        self._queue: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = itertools.count()

    @contextlib.asynccontextmanager
    async def pass_through(self, priority: int) -> AsyncIterator[None]:
        """Wait for a place, and give it back."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queue, (priority, next(self._count), waiting))
        self._admit()
        try:
            await waiting
            yield
        finally:
            if waiting.done() and not waiting.cancelled():
                self._free += 1
            else:
                waiting.cancel()
            self._admit()

    @property
    def crowded(self) -> bool:
        """True while somebody waits for a place."""
        return any(not waiting.done() for _, _, waiting in self._queue)

    def borrow(self) -> bool:
        """Take a place without waiting, for more of what has passed; False where none is free for that."""
        if self.crowded or self._free <= self._kept:
            return False
        self._free -= 1
        return True

    def give_back(self) -> None:
        """The place that was borrowed is free again."""
        self._free += 1
        self._admit()

    def _admit(self) -> None:
        while self._queue:
            priority, _, waiting = self._queue[0]
            if waiting.done():
                heapq.heappop(self._queue)
            elif self._free > (self._kept if priority else 0):
                heapq.heappop(self._queue)
                self._free -= 1
                waiting.set_result(None)
            else:
                return


@dataclass(slots=True)
class Exchange:
    """An answer whose head has come; then `body` or `drop`, once."""

    connection: Connection
    head: Head
    url: Url  # the one that answered, after redirects
    over: bool = False  # the connection is another's now, or closed

    @property
    def via(self) -> str:
        return self.connection.via

    async def body(self, sink: Sink, stall: float) -> bool:
        """See `Connection.body`."""
        try:
            return await self.connection.body(sink, stall)
        finally:
            self.over = True

    def drop(self) -> None:
        """The body, or the rest of it, isn't wanted; nothing where it is over."""
        if not self.over:
            self.connection.abort()

    async def text(self, limit: int, stall: float) -> bytes:
        """The body's first `limit` bytes, as far as they come."""
        held = bytearray()

        def sink(data: bytes) -> bool:
            held.extend(data[: limit - len(held)])
            return len(held) >= limit

        with contextlib.suppress(Failed):
            await self.body(sink, stall)
        return bytes(held)


class Connections:
    """Opens connections and keeps those that may be used again."""

    def __init__(
        self,
        ways: Ways,
        *,
        context: Callable[[], ssl.SSLContext],
        credentials: Credentials,
        idle: float = IDLE,
    ) -> None:
        self.ways = ways
        self._make_context = context
        self._context: ssl.SSLContext | None = None
        self._credentials = credentials
        self._idle_for = idle
        self._idle: dict[tuple[bool, HostPort], list[Connection]] = {}
        self._open: dict[Connection, bool] = {}  # all of them, with whether inside TLS
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False
        self.worked = False  # some answer has come
        self._spread_at: dict[tuple[bool, HostPort, str], float] = {}
        self._coming: dict[tuple[bool, HostPort, str], list[asyncio.Task[None]]] = {}
        self._tasks = Tasks("connections")

    def __len__(self) -> int:
        return len(self._open)

    async def get(
        self,
        url: Url,
        headers: tuple[tuple[str, str], ...] = (),
        *,
        first_byte: float,
        stall: float,
        only: str = "",
        avoid: frozenset[str] = frozenset(),
    ) -> Exchange:
        """GET `url`, redirects followed.  Seconds: `first_byte` for the head.  Raises Failed."""
        for _ in range(REDIRECTS + 1):
            exchange = await self._one(url, headers, first_byte, only, avoid)
            head = exchange.head
            location = head.header("location")
            if head.status not in _MOVED or not location:
                return exchange
            if head.length is not None and head.length <= _READ_OVER:
                await exchange.text(_READ_OVER + 1, stall)
            else:
                exchange.drop()
            try:
                url = url.follow(location)
            except ValueError as error:
                words = f"{exchange.connection}: a redirect that isn't followed: {error}"
                raise Failed("unknown", words, again=False, upstream=exchange.via) from None
        words = f"{exchange.connection}: more than {REDIRECTS} redirects"
        raise Failed("unknown", words, again=False, upstream=exchange.via)

    async def _one(
        self,
        url: Url,
        headers: tuple[tuple[str, str], ...],
        first_byte: float,
        only: str,
        avoid: frozenset[str],
    ) -> Exchange:
        asked = [("Host", url.host), ("User-Agent", f"gotunnel/{__version__}"), ("Accept", "*/*")]
        asked += [("Accept-Encoding", "identity"), *headers]
        if authorization := self._authorization(url):
            asked.append(("Authorization", authorization))
        while True:
            connection = self._take(url, only, avoid)
            if connection is None and only and await self._opened(url, only):
                connection = self._take(url, only, avoid)
            connection = connection or await self._dial(url, only, avoid)
            reused = connection.answers > 0
            try:
                head = await connection.ask(url.path, asked, first_byte)
            except Failed as error:
                if not reused or connection.begun or error.finding == "http.timeout":
                    raise
                continue  # each round takes one from the kept ones, so there is an end
            self.worked = True
            return Exchange(connection, head, url)

    def _authorization(self, url: Url) -> str:
        if url.tls:
            return self._credentials.authorization(url.target.host, url.target.port, url.userinfo)
        if url.userinfo:
            words = f"{url.target}: refusing to pass credentials to an insecure URL: use https"
            raise Failed("goproxy.malformed", words, again=False)
        return ""

    def down(self, url: Url, way: str) -> bool:
        """Is this way out usable no more?"""
        return bool(way) and way not in self.ways.ways(url.target)

    # --- kept and opened ---------------------------------------------------------------------

    def _take(self, url: Url, only: str, avoid: frozenset[str]) -> Connection | None:
        """A kept connection by the best way out there is, None where that has none."""
        kept = self._idle.get((url.tls, url.target))
        if not kept:
            return None
        ways = self.ways.ways(url.target)
        wanted = only or min(ways, key=lambda name: name in avoid, default=None)
        for connection in [c for c in kept if ways and c.via not in ways]:
            connection.abort()
        for connection in reversed(kept):
            if connection.via == wanted:
                kept.remove(connection)
                return connection
        return None

    def _spread(self, url: Url, via: str, taken: float) -> None:
        """Open more, where that saves a large body several long round trips."""
        now, key = asyncio.get_running_loop().time(), (url.tls, url.target, via)
        if taken < LONG or now - self._spread_at.get(key, -math.inf) < self._idle_for:
            return
        self._spread_at[key] = now
        there = sum(c.target == url.target and c.via == via for c in self._open)
        self._coming[key] = [
            self._tasks.spawn("spread", self._keep_one(url, via)) for _ in range(SPREAD - there - 1)
        ]

    async def _opened(self, url: Url, via: str) -> bool:
        """Wait for one of those that are being opened; False where each has its taker, or there is none."""
        while coming := self._coming.get((url.tls, url.target, via)):
            task = coming.pop(0)
            if not task.done():
                await asyncio.wait([task])
                return True
        return False

    async def _keep_one(self, url: Url, via: str) -> None:
        APART.set(LINKS)
        with contextlib.suppress(Failed):
            self._ended(await self._dial(url, via, frozenset()))

    async def _dial(self, url: Url, only: str, avoid: frozenset[str]) -> Connection:
        if self._closed:
            raise Failed("unknown", f"{url.target}: the module proxy is being closed", again=False)
        via = only
        try:
            began = asyncio.get_running_loop().time()
            stream = await self.ways.dial_by(url.target, only=only, avoid=avoid)
            via = stream.via
            self._spread(url, via, asyncio.get_running_loop().time() - began)
            if url.tls:
                if self._context is None:
                    self._context = self._make_context()
                stream = await start_tls(stream, self._context, url.target.host, label=str(url.target))
        except DialError as error:
            raise not_reached(error, via, only=bool(only)) from error
        connection = Connection(stream, url.target, via, self._ended)
        if self._closed:
            connection.abort()
        else:
            self._open[connection] = url.tls
        return connection

    def _ended(self, connection: Connection) -> None:
        """An answer is whole, none was asked for yet, or the connection has ended."""
        tls = self._open.get(connection, False)
        if connection.reusable and not self._closed:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.setdefault((tls, connection.target), []).append(connection)
            self._tend()
            return
        self._open.pop(connection, None)
        kept = self._idle.get((tls, connection.target), [])
        if connection in kept:
            kept.remove(connection)

    def drop_kept(self, target: HostPort, via: str) -> None:
        """What is kept to `target` by this way is used no more: something stalled there."""
        for tls in (False, True):
            for connection in list(self._idle.get((tls, target), ())):
                if connection.via == via:
                    connection.abort()

    def _tend(self) -> None:
        if self._sweeper is None:
            loop = asyncio.get_running_loop()
            self._sweeper = loop.call_later(min(SWEEP, self._idle_for), self._sweep)

    def _sweep(self) -> None:
        self._sweeper = None
        now = asyncio.get_running_loop().time()
        for key, kept in list(self._idle.items()):
            for connection in [c for c in kept if now - c.idle_since >= self._idle_for]:
                connection.abort()
            if not kept:
                del self._idle[key]
        if self._idle:
            self._tend()

    async def close(self) -> None:
        """Close every connection; what is under way fails."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        await self._tasks.close()
        for connection in list(self._open):
            connection.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # transports tell of their end in the loop's next turn
