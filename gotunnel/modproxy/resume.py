"""A run's own door to the module proxy of a service: an answer outlives the service that began it.

Rules:
- A service that ends, or is started anew, costs the child a pause and no failure: what it asked for is asked
  again as soon as the service has let the run in anew, and what the child has of an answer is passed over.
- Passed over are the same bytes only, which a hash tells: an answer that became another one is cut off, as it
  would have been without us.
- A service that stays away is given up for the module proxy of the run's own engine, where it may open one.
- An answer that breaks off while its service lives is asked for again too, AGAIN times without a byte more.
- Who doesn't know the path's secret gets the service's 404, and nothing is asked on their behalf.
- h11 speaks; nothing is stored, and no more is held than one piece of each answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import field
from typing import Any

import h11

from gotunnel.address import HostPort
from gotunnel.dataclass import dataclass
from gotunnel.modproxy import STRANGER
from gotunnel.tasks import Tasks

PATIENCE = 15.0  # seconds for a service to return
AGAIN = 2
IDLE = 75.0  # seconds that a connection may idle between two requests, as at the service
CONNECTIONS = 256
_CONNECT = 5.0  # seconds
_PAUSE = 0.05  # seconds between two tries to reach a service
_HEAD = 64 << 10
_PIECE = 256 << 10
_OURS = {b"connection", b"keep-alive", b"host", b"transfer-encoding", b"te", b"upgrade"}  # of one connection

Readmitted = Callable[[], Awaitable[None]]
Instead = Callable[[], Awaitable[tuple[HostPort, str] | None]]


@dataclass(frozen=True, slots=True)
class _Place:
    """A module proxy: its socket, and the path before what is asked of it."""

    address: HostPort
    path: bytes

    @staticmethod
    def of(address: HostPort, path: str) -> _Place:
        path = path.strip("/")
        return _Place(address, f"/{path}".encode() if path else b"")


class _Broken(Exception):
    """The service didn't answer, or not to the end.  `reached`: it took a new connection of ours."""

    def __init__(self, reached: bool, stranger: bool = False) -> None:
        super().__init__()
        self.reached, self.stranger = reached, stranger


class _Changed(Exception):
    """It is another answer than the one the child has the beginning of."""


@dataclass(slots=True)
class Absence:
    """Since when nobody could reach the service (pure); all requests wait for it together."""

    patience: float = PATIENCE
    since: float | None = None

    def left(self, now: float) -> float:
        """Seconds to wait for it still; counted from the first time this is asked since it was there."""
        if self.since is None:
            self.since = now
        return max(0.0, self.since + self.patience - now)


@dataclass(slots=True)
class Persistence:
    """Whether to ask again for one answer, and after how many seconds (pure)."""

    absence: Absence
    _breaks: int = 0

    def again(self, now: float, *, reached: bool, moved: bool) -> float | None:
        """After a failure at `now`; None: no more.  `moved`: the child has got more of the answer."""
        if moved:
            self._breaks = 0
        if not reached:
            return _PAUSE if self.absence.left(now) else None
        self._breaks += 1
        return None if self._breaks > AGAIN else 0.0


@dataclass(slots=True)
class _Told:
    """What the child has of an answer."""

    head: tuple[int, bytes] | None = None  # status and length
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


class Front:
    """Serves `path` (with the secret; "" lets all pass to a service that asks for credentials) of `service`.

    `readmitted` returns when the service knows the run (again), which is at once while it never ended;
    `instead` gives the address and path of another module proxy, or None, when it was waited for in vain.
    """

    def __init__(
        self,
        service: HostPort,
        path: str,
        readmitted: Readmitted,
        *,
        instead: Instead | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._ours = self._place = _Place.of(service, path)
        self._readmitted, self._instead = readmitted, instead
        self._absence, self._moving = Absence(patience), asyncio.Lock()
        self._tasks = Tasks("front")
        self._listener: asyncio.Server | None = None

    @property
    def gave_up(self) -> bool:
        """Whether a service was waited for in vain, and hasn't answered since."""
        return self._absence.since is not None and not self._absence.left(time.monotonic())

    async def start(self, listening: socket.socket) -> None:
        """Serve on a bound socket, which is ours from now on."""

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self._tasks) < CONNECTIONS:
                self._tasks.spawn("connection", self._serve(reader, writer))
            else:
                writer.transport.abort()

        self._listener = await asyncio.start_server(connected, sock=listening, limit=_PIECE)

    async def close(self) -> None:
        """Stop listening, end what is under way."""
        if self._listener is not None:
            self._listener.close()
        await self._tasks.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        child, link = _Child(reader, writer), _Link()
        try:
            while (request := await child.request()) is not None:
                await self._answer(request, child, link)
            writer.close()
        except (OSError, TimeoutError, h11.ProtocolError, _Changed):
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
            raise
        finally:
            link.drop()

    def _admits(self, request: h11.Request) -> bool:
        asked, ours = request.target, self._ours.path
        return hmac.compare_digest(asked[: len(ours)], ours) and asked[len(ours) : len(ours) + 1] == b"/"

    async def _answer(self, request: h11.Request, child: _Child, link: _Link) -> None:
        """Raises _Changed for an answer that can't be gone on with."""
        if not self._admits(request):
            await child.whole(404, STRANGER)
            return
        told, persistence = _Told(), Persistence(self._absence)
        while True:
            before, place = told.size, self._place
            try:
                await _once(place, self._elsewhere(request, place), child, link, told, self._there)
                return
            except _Broken as broken:
                link.drop()
                now = time.monotonic()
                pause = persistence.again(now, reached=broken.reached, moved=told.size > before)
                if pause is None and (broken.reached or not await self._move(place)):
                    await self._give_up(broken, child, told)
                    return
                await asyncio.sleep(pause or 0)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._absence.left(time.monotonic())):
                        await self._readmitted()

    async def _give_up(self, broken: _Broken, child: _Child, told: _Told) -> None:
        if told.head is not None:
            raise _Changed from broken
        if broken.stranger:
            await child.whole(404, STRANGER)
        else:
            words = f"gotunnel: the service at {self._place.address} ended its answer for good\n"
            await child.whole(502, words.encode())

    def _elsewhere(self, request: h11.Request, place: _Place) -> h11.Request:
        headers = [(b"Host", str(place.address).encode()), *_end_to_end(request)]
        target = place.path + request.target[len(self._ours.path) :]
        return h11.Request(method=request.method, target=target, headers=headers)

    async def _move(self, away: _Place) -> bool:
        """Ask another module proxy from now on than `away`; False where there is none."""
        async with self._moving:
            if self._place is not away:
                return True  # for another request, meanwhile
            other = await self._instead() if self._instead is not None else None
            if other is None:
                return False

            async def at_once() -> None: ...

            self._place, self._instead, self._readmitted = _Place.of(*other), None, at_once
            self._there()
            return True

    def _there(self) -> None:
        self._absence.since = None


async def _once(
    place: _Place,
    request: h11.Request,
    child: _Child,
    link: _Link,
    told: _Told,
    there: Callable[[], None],
) -> None:
    """Ask once, hand on what the child hasn't yet; `there` hears of an answer.  Raises _Broken, _Changed."""
    answer = await link.ask(place.address, request)
    piece = await link.body()
    if answer.status_code == 404 and piece == STRANGER:
        raise _Broken(reached=False, stranger=True)  # started anew, and hasn't let the run in yet
    there()
    length = dict(answer.headers).get(b"content-length", b"")
    if told.head is None:
        told.head = answer.status_code, length
        child.send(
            h11.Response(status_code=answer.status_code, headers=_end_to_end(answer), reason=answer.reason)
        )
    elif told.head != (answer.status_code, length):
        raise _Changed
    skip, check = told.size, hashlib.sha256()
    while piece:
        if skip:
            known, piece = piece[:skip], piece[skip:]
            check.update(known)
            skip -= len(known)
            if not skip and check.digest() != told.digest.digest():
                raise _Changed
        if piece:
            told.digest.update(piece)
            told.size += len(piece)
            child.send(h11.Data(data=piece))
            await child.drained()
        piece = await link.body()
    if skip:
        raise _Changed
    child.send(h11.EndOfMessage())
    await child.drained()


def _end_to_end(message: h11.Request | h11.Response) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in message.headers if name not in _OURS]


class _Child:
    """The child's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEAD)

    async def request(self) -> h11.Request | None:
        """The next one, its body passed over; None at the end.  Raises h11.ProtocolError, TimeoutError."""
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        elif self._http.our_state is not h11.IDLE:
            return None
        request = None
        async with asyncio.timeout(IDLE):
            while not isinstance(event := self._http.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    self._http.receive_data(await self._reader.read(_PIECE))
                elif isinstance(event, h11.Request):
                    request = event
                elif isinstance(event, h11.ConnectionClosed):
                    return None
        return request

    def send(self, event: h11.Event) -> None:
        """A part of the answer."""
        if data := self._http.send(event):
            self._writer.write(data)

    async def drained(self) -> None:
        """Until the child has taken most of it.  Raises ConnectionError where it went away."""
        await self._writer.drain()

    async def whole(self, status: int, body: bytes) -> None:
        """An answer of our own."""
        headers = [(b"Content-Type", b"text/plain; charset=utf-8"), (b"Content-Length", b"%d" % len(body))]
        for event in (
            h11.Response(status_code=status, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.send(event)
        await self.drained()


class _Link:
    """One connection to the service, made when it is needed; every trouble with it is a _Broken."""

    def __init__(self) -> None:
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._http = h11.Connection(h11.CLIENT)
        self._where: HostPort | None = None
        self._reached = False  # by a connection that was made for this request

    async def ask(self, where: HostPort, request: h11.Request) -> h11.Response:
        """The head of the answer."""
        try:
            writer = await self._connection(where)
            for event in (request, h11.EndOfMessage()):
                writer.write(self._http.send(event) or b"")
            while not isinstance(event := await self._next(), h11.Response):
                pass  # 1xx
            return event
        except (OSError, TimeoutError, h11.ProtocolError) as error:
            raise _Broken(self._reached) from error

    async def body(self) -> bytes:
        """The next piece of the body; b"" at its end."""
        try:
            while not isinstance(event := await self._next(), h11.Data):
                if isinstance(event, h11.EndOfMessage):
                    self._reached = False
                    return b""
            return bytes(event.data)
        except (OSError, h11.ProtocolError) as error:
            raise _Broken(True) from error

    async def _connection(self, where: HostPort) -> asyncio.StreamWriter:
        http = self._http
        free = http.our_state is h11.DONE and http.their_state is h11.DONE
        if self._streams is not None and free and self._where == where:
            http.start_next_cycle()
            return self._streams[1]
        self.drop()
        async with asyncio.timeout(_CONNECT):
            self._streams = await asyncio.open_connection(where.host, where.port, limit=_PIECE)
        self._where = where
        self._reached = True
        return self._streams[1]

    async def _next(self) -> Any:
        assert self._streams is not None
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._streams[0].read(_PIECE))
        if isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError("closed")
        return event

    def drop(self) -> None:
        """Close it; the next request makes another."""
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._streams, self._http, self._reached = None, h11.Connection(h11.CLIENT), False
