"""A run's own door to the module proxy of a service: an answer outlives the service that began it.

Rules:
- A service that ends, or is started anew, costs the child a pause and no failure: what it asked for is asked
  again as soon as the service has let the run in anew, and what the child has of an answer is passed over.
- Passed over are the same bytes only, which a hash tells: an answer that became another one is cut off, as it
  would have been without us.
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
from dataclasses import dataclass, field
from typing import Any

import h11

from gotunnel.address import HostPort
from gotunnel.tasks import Tasks

PATIENCE = 15.0  # seconds for a service to return
AGAIN = 2
IDLE = 75.0  # seconds that a connection may idle between two requests, as at the service
CONNECTIONS = 256
STRANGER = b"404 page not found\n"
_CONNECT = 5.0  # seconds
_PAUSE = 0.05  # seconds between two tries to reach a service
_HEAD = 64 << 10
_PIECE = 256 << 10
_OURS = {b"connection", b"keep-alive", b"host", b"transfer-encoding", b"te", b"upgrade"}  # of one connection

Readmitted = Callable[[], Awaitable[None]]


class _Broken(Exception):
    """The service didn't answer, or not to the end.  `reached`: it took a new connection of ours."""

    def __init__(self, reached: bool, stranger: bool = False) -> None:
        super().__init__()
        self.reached, self.stranger = reached, stranger


class _Changed(Exception):
    """It is another answer than the one the child has the beginning of."""


@dataclass(slots=True)
class Persistence:
    """Whether to ask again, and after how many seconds (pure)."""

    patience: float = PATIENCE
    _since: float | None = None
    _breaks: int = 0

    def again(self, now: float, *, reached: bool, moved: bool) -> float | None:
        """After a failure at `now`; None: no more.  `moved`: the child has got more of the answer."""
        if moved or self._since is None:
            self._since, self._breaks = now, 0
        self._breaks += reached
        if self._breaks > AGAIN or now - self._since >= self.patience:
            return None
        return 0.0 if reached else _PAUSE


@dataclass(slots=True)
class _Told:
    """What the child has of an answer."""

    head: tuple[int, bytes] | None = None  # status and length
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)


class Front:
    """Serves `path` (with the secret; "" lets all pass to a service that asks for credentials) of `service`.

    `readmitted` returns when the service knows the run (again), which is at once while it never ended.
    """

    def __init__(
        self, service: HostPort, path: str, readmitted: Readmitted, *, patience: float = PATIENCE
    ) -> None:
        self._service, self._path = service, path.strip("/").encode()
        self._readmitted, self._patience = readmitted, patience
        self._tasks = Tasks("front")
        self._listener: asyncio.Server | None = None
        self.gave_up = False  # a service was waited for in vain

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
        child, link = _Child(reader, writer), _Link(self._service)
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
        first = request.target.removeprefix(b"/").partition(b"/")[0]
        return not self._path or hmac.compare_digest(first, self._path.partition(b"/")[0])

    async def _answer(self, request: h11.Request, child: _Child, link: _Link) -> None:
        """Raises _Changed for an answer that can't be gone on with."""
        if not self._admits(request):
            await child.whole(404, STRANGER)
            return
        told, persistence = _Told(), Persistence(self._patience)
        while True:
            before = told.size
            try:
                await _once(request, child, link, told)
                return
            except _Broken as broken:
                link.drop()
                now = time.monotonic()
                pause = persistence.again(now, reached=broken.reached, moved=told.size > before)
                if pause is None:
                    self.gave_up = self.gave_up or not broken.reached
                    if told.head is not None:
                        raise _Changed from broken
                    if broken.stranger:
                        await child.whole(404, STRANGER)
                    else:
                        words = f"gotunnel: the service at {self._service} ended its answer for good\n"
                        await child.whole(502, words.encode())
                    return
                await asyncio.sleep(pause)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._patience):
                        await self._readmitted()


async def _once(request: h11.Request, child: _Child, link: _Link, told: _Told) -> None:
    """Ask once, and hand on what the child hasn't yet.  Raises _Broken, _Changed."""
    answer = await link.ask(request)
    piece = await link.body()
    if answer.status_code == 404 and piece == STRANGER:
        raise _Broken(reached=False, stranger=True)  # started anew, and hasn't let the run in yet
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

    def __init__(self, service: HostPort) -> None:
        self._service = service
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._http = h11.Connection(h11.CLIENT)
        self._reached = False  # by a connection that was made for this request

    async def ask(self, request: h11.Request) -> h11.Response:
        """The head of the answer."""
        headers = [(b"Host", str(self._service).encode()), *_end_to_end(request)]
        try:
            writer = await self._connection()
            for event in (
                h11.Request(method=request.method, target=request.target, headers=headers),
                h11.EndOfMessage(),
            ):
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

    async def _connection(self) -> asyncio.StreamWriter:
        http = self._http
        if self._streams is not None and http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
            return self._streams[1]
        self.drop()
        async with asyncio.timeout(_CONNECT):
            where = self._service
            self._streams = await asyncio.open_connection(where.host, where.port, limit=_PIECE)
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
