"""A relay between two streams, callback to callback.

Rules:
- Half-close is kept both ways: an EOF from one side is passed to the other, which may go on sending.
- Back-pressure: when one side's transport is full the other side's reading is paused, so that a relay holds
  at most the two transports' write buffers (and an SSH channel's window).
- A side that is lost without EOF resets the other side: a cut transfer must not look complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass

from gotunnel.upstream.dialer import Stream


@dataclass(frozen=True, slots=True)
class Outcome:
    """Bytes from `a` to `b` (`sent`) and back (`received`); `error` where it broke."""

    sent: int
    received: int
    error: Exception | None


class _End:
    """The receiver of one side: passes what comes to the other side."""

    __slots__ = ("count", "done", "eof", "finished", "lost", "other", "stream")

    def __init__(self, stream: Stream, finished: asyncio.Future[Exception | None]) -> None:
        self.stream = stream
        self.other: _End = self
        self.count = 0
        self.eof = False
        self.lost = False
        self.finished = finished

    def data_received(self, data: bytes) -> None:
        self.count += len(data)
        if not self.other.lost:
            self.other.stream.write(data)

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
        if not self.other.lost:
            self.other.stream.transport.resume_reading()


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
        for stream in (a, b):
            reset(stream)
    return Outcome(left.count, right.count, error)
