"""`Dialer` and `Stream`: the one interface that everything which can reach a target has.

Rules:
- `Dialer.dial(target)` gives an open `Stream` or raises `DialError`; nothing else leaves it.
- A Stream is the protocol end of a transport: an asyncio socket transport or an SSH channel, which
  speak the same callbacks.  It is read by pulling (`read`, handshakes), then often handed over to
  somebody who is pushed to: a relay, TLS, an SSH connection that runs inside it.
- Bytes that arrived before the hand-over are delivered to the new owner, never lost.
- At most `LIMIT` bytes are buffered for a reader that doesn't come; then the transport is paused.
- The end of a stream is either EOF (the peer's half-close: `read` gives b"") or a loss (`StreamLost`);
  a loss never looks like an EOF, since a truncated body must not look whole.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol, cast

from gotunnel.address import HostPort
from gotunnel.errors import StreamLost

LIMIT = 256 * 1024

APART: ContextVar[int] = ContextVar("apart", default=1)
"""How many connections to one jump host the streams that are dialled here want to be spread over.

One connection is one TCP stream, whose window all its channels share: under loss that is the limit.
"""


class Transport(Protocol):
    """What a Stream needs of its transport; asyncio.Transport and asyncssh.SSHTCPChannel have it."""

    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def get_extra_info(self, name: str, default: Any = None) -> Any: ...


class Receiver(Protocol):
    """Who is pushed to after a hand-over: the callbacks of asyncio.Protocol, EOF apart."""

    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Stream(asyncio.Protocol):
    """One open stream of bytes, both ways, with half-close."""

    def __init__(self, on_closed: Callable[[], None] | None = None) -> None:
        self._transport: Transport | None = None
        self._buffer = bytearray()
        self._paused = False
        self._eof = False
        self._lost = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._write_paused = False
        self._drainers: list[asyncio.Future[None]] = []
        self._receiver: Receiver | None = None
        self._on_closed = on_closed
        self.via = ""  # the name of the way out that opened it, where a pool did
        self.received = self.sent = 0  # bytes
        self.awaiting = False  # something was sent and nothing has come since

    # --- called by the transport -------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(Transport, transport)

    def session_started(self) -> None:
        """SSH channels call this; a socket has no such thing."""

    def data_received(self, data: bytes, datatype: object = None) -> None:
        self.received += len(data)
        self.awaiting = False
        if self._receiver is not None:
            self._receiver.data_received(data)
            return
        self._buffer += data
        if len(self._buffer) > LIMIT and not self._paused:
            self._paused = True
            self.transport.pause_reading()
        self._wake_reader()

    def eof_received(self) -> bool | None:
        self._eof = True
        self.awaiting = False
        if self._receiver is not None:
            return self._receiver.eof_received()
        self._wake_reader()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost:
            return
        self._lost = True
        if exc is not None:
            self._error = exc
        self._wake_reader()
        for waiter in self._drainers:
            if not waiter.done():
                waiter.set_result(None)
        self._drainers.clear()
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            receiver.connection_lost(exc)
        if self._on_closed is not None:
            callback, self._on_closed = self._on_closed, None
            callback()

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._receiver is not None:
            self._receiver.pause_writing()

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._receiver is not None:
            self._receiver.resume_writing()
        for waiter in self._drainers:
            if not waiter.done():
                waiter.set_result(None)
        self._drainers.clear()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    # --- pulled by its owner -----------------------------------------------------------------

    @property
    def transport(self) -> Transport:
        """The transport below; only valid while the stream is open."""
        if self._transport is None:
            raise StreamLost("the stream was never opened")
        return self._transport

    @property
    def at_eof(self) -> bool:
        """True when the peer has half-closed, whether or not all was read."""
        return self._eof

    @property
    def is_lost(self) -> bool:
        """True when the transport is gone."""
        return self._lost

    @property
    def write_paused(self) -> bool:
        """True while the transport asks for no more bytes."""
        return self._write_paused

    async def read(self, most: int = 65536) -> bytes:
        """1 to `most` bytes, or b"" at EOF.  Raises StreamLost if the stream broke before."""
        if self._receiver is not None:
            raise RuntimeError("the stream was handed over")
        while not self._buffer:
            if self._eof:
                return b""
            if self._lost:
                raise StreamLost(str(self._error or "the connection was closed")) from self._error
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data = bytes(self._buffer[:most])
        del self._buffer[:most]
        if self._paused and len(self._buffer) <= LIMIT // 2:
            self._paused = False
            if not self._lost:
                self.transport.resume_reading()
        return data

    async def read_exactly(self, count: int) -> bytes:
        """Exactly `count` bytes.  Raises StreamLost if the stream ended before."""
        data = b""
        while len(data) < count:
            part = await self.read(count - len(data))
            if not part:
                raise StreamLost(f"the stream ended after {len(data)} of {count} bytes")
            data += part
        return data

    def unread(self, data: bytes) -> None:
        """Put bytes back before all that is buffered, for the next owner."""
        self._buffer[:0] = data

    def write(self, data: bytes) -> None:
        """Send bytes; buffers without bound, so `drain` after much."""
        if not self._lost:
            self.awaiting = not self._eof
            self.sent += len(data)
            self.transport.write(data)

    async def drain(self) -> None:
        """Wait until the transport takes more.  Raises StreamLost if it is gone."""
        if self._write_paused and not self._lost:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._drainers.append(waiter)
            await waiter
        if self._lost:
            raise StreamLost(str(self._error or "the connection was closed")) from self._error

    def write_eof(self) -> None:
        """Half-close: no more bytes from us."""
        if not self._lost:
            # a peer that has gone meanwhile makes shutdown(2) fail; its loss is told on its own, and an
            # error here would end the SSH connection whose callback we may be in
            with contextlib.suppress(OSError):
                self.transport.write_eof()

    def close(self) -> None:
        """Close after what was written has gone out."""
        if self._transport is not None and not self._lost:
            self._transport.close()

    def abort(self) -> None:
        """Close at once and drop what was not sent."""
        if self._transport is not None and not self._lost:
            self._transport.abort()

    # --- hand-over ---------------------------------------------------------------------------

    def hand_over(self, receiver: Receiver) -> None:
        """From now on `receiver` is pushed to; what is buffered comes first, in order."""
        self._receiver = receiver
        if self._buffer:
            data = bytes(self._buffer)
            self._buffer.clear()
            receiver.data_received(data)
        if self._eof:
            receiver.eof_received()
        if self._lost:
            self._receiver = None
            receiver.connection_lost(self._error)
            return
        if self._paused:
            self._paused = False
            self.transport.resume_reading()

    def become(self, protocol: asyncio.Protocol) -> None:
        """Hand over to a full protocol, such as an SSH connection that runs inside this stream."""
        protocol.connection_made(cast(asyncio.BaseTransport, self.transport))
        self.hand_over(protocol)
        if (
            isinstance(self._transport, asyncio.Transport)
            and self._receiver is not None
            and not self._on_closed
        ):
            # a socket's transport can call its new owner without us in between
            self._transport.set_protocol(protocol)


class Dialer(Protocol):
    """Everything that can reach a target."""

    @property
    def label(self) -> str:
        """What people call it; redacted."""

    async def dial(self, target: HostPort) -> Stream:
        """An open stream to `target`.  Raises DialError."""

    async def warm(self) -> None:
        """Open what can be opened before a target is known (SSH connections).  Raises DialError."""

    async def close(self) -> None:
        """Close every connection that this dialer keeps, and wait until that is done."""


class Ways(Dialer, Protocol):
    """A dialer with several ways out, for one who wants a say in which: a transfer that goes on elsewhere."""

    def ways(self, target: HostPort) -> tuple[str, ...]:
        """The names of the ways out that may be used for `target` now, best first."""

    async def dial_by(
        self, target: HostPort, *, only: str = "", avoid: frozenset[str] = frozenset()
    ) -> Stream:
        """As `dial`, by the way named `only`, or with those in `avoid` tried last.  Raises DialError."""

    def stalled(self, target: HostPort, name: str) -> None:
        """What came by the way `name` stopped: others come first from now on."""
