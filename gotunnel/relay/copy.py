"""A relay between two streams, callback to callback.

Rules:
- Half-close is kept both ways: an EOF from one side is passed to the other, which may go on sending.
- Back-pressure: when one side's transport is full the other side's reading is paused, so that a relay holds
  at most the two transports' write buffers (and an SSH channel's window).
- A side that is lost without EOF resets the other side: a cut transfer must not look complete.
- A direction that has carried much between two plain sockets is handed to the kernel (`splice`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import struct

from gotunnel.dataclass import dataclass
from gotunnel.relay.splice import BULK, Pump, can_splice
from gotunnel.upstream.dialer import Stream


@dataclass(frozen=True, slots=True)
class Outcome:
    """Bytes from `a` to `b` (`sent`) and back (`received`); `error` where it broke."""

    sent: int
    received: int
    error: Exception | None


class _End:
    """The receiver of one side: passes what comes to the other side."""

    __slots__ = ("count", "done", "eof", "finished", "lost", "other", "promotion", "pump", "stream")

    def __init__(self, stream: Stream, finished: asyncio.Future[Exception | None]) -> None:
        self.stream = stream
        self.other: _End = self
        self.count = 0
        self.eof = False
        self.lost = False
        self.finished = finished
        self.promotion: bool | None = None  # None: not yet worth it; True: as soon as the other side is empty
        self.pump: Pump | None = None

    def data_received(self, data: bytes) -> None:
        self.count += len(data)
        if not self.other.lost:
            self.other.stream.write(data)
            if self.count >= BULK and self.promotion is None:
                self._promote()

    def eof_received(self) -> bool:
        self.eof = True
        other = self.other
        if not other.lost:
            other.stream.write_eof()
        if other.eof:
            self.stream.close()
            other.stream.close()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        other = self.other
        self.stop()
        other.stop()
        if other.lost:
            if not self.finished.done():
                self.finished.set_result(None)
            return
        if self.eof and exc is None:
            other.stream.close()  # it may still be flushing what this side sent
        else:
            if not self.finished.done() and not (self.eof and other.eof):
                self.finished.set_result(exc or ConnectionResetError("closed without EOF"))
            reset(other.stream)

    def pause_writing(self) -> None:
        if not self.other.lost:
            self.other.stream.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other.promotion:
            self.other.hand_to_kernel()
        elif not self.other.lost and self.other.pump is None:
            self.other.stream.transport.resume_reading()

    # --- the kernel's path -------------------------------------------------------------------------

    def _promote(self) -> None:
        """Much comes from this side: once the other side's buffer is empty the kernel does it alone."""
        other = self.other.stream
        self.promotion = can_splice(self.stream, other)
        if not self.promotion:
            return
        self.stream.transport.pause_reading()
        sink = other.transport
        assert isinstance(sink, asyncio.WriteTransport)
        sink.set_write_buffer_limits(0)  # resume_writing then means: nothing is left
        if not sink.get_write_buffer_size():
            self.hand_to_kernel()

    def hand_to_kernel(self) -> None:
        self.promotion = False
        try:
            self.pump = Pump(self.stream, self.other.stream, moved=self._moved, ended=self._ended)
        except OSError:  # no descriptor left
            self.stream.transport.resume_reading()

    def _moved(self, count: int) -> None:
        self.count += count
        self.stream.received += count
        self.other.stream.sent += count

    def _ended(self, error: OSError | None) -> None:
        self.pump = None
        if error is None:
            self.stream.eof_received()
        elif error.errno in (errno.EPIPE, errno.ESHUTDOWN):
            self.other.stream.abort()  # its loss resets this side
        else:
            self.stream.abort()

    def stop(self) -> None:
        self.promotion = False
        if self.pump is not None:
            self.pump.stop()
            self.pump = None


def reset(stream: Stream) -> None:
    """Abort `stream` so that its peer sees a reset: a plain abort ends a socket as if all had been said."""
    if stream.is_lost:
        return
    # asked for its socket, an SSH channel gives that of the whole connection
    if isinstance(stream.transport, asyncio.Transport):
        sock = stream.transport.get_extra_info("socket")
        with contextlib.suppress(AttributeError, OSError):  # no TCP socket: there is no reset to send
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.abort()


async def relay(a: Stream, b: Stream) -> Outcome:
    """Join two streams until both are closed.  Cancelled, it resets both."""
    finished: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    left, right = _End(a, finished), _End(b, finished)
    left.other, right.other = right, left
    try:
        for end in (left, right):
            end.stream.hand_over(end)
            # after it, since a hand-over resumes the reading
            if end.other.stream.write_paused and not end.stream.is_lost:
                end.stream.transport.pause_reading()
        error = await finished
    finally:
        for end in (left, right):
            end.stop()
        for stream in (a, b):
            reset(stream)
    return Outcome(left.count, right.count, error)
