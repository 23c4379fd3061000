"""The kernel's path: one direction of a relay between two plain sockets, by splice(2), without a copy.

Rules:
- Only for sockets that asyncio's own transports drive, on Linux; everything else is relayed by callbacks.
- A direction changes over once it has carried BULK bytes: what is small pays for no pipe, and many idle
  tunnels cost nothing.
- The source's transport stays, paused, and still owns its socket: the pump works on duplicates of the two
  descriptors, which are closed before anything is aborted, since a reset needs the last of them.
- At most the pipe (PIPE bytes) is held for a reader that doesn't come.

Source: splice(2), pipe(7) (F_SETPIPE_SZ; the limit of all pipes of a user).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Callable

from gotunnel.upstream.dialer import Stream

BULK = 512 * 1024  # bytes in one direction
PIPE = 1024 * 1024
_TURNS = 8  # of the pipe in one turn of the event loop: others want to be served too

_splice = getattr(os, "splice", None)


def can_splice(source: Stream, sink: Stream) -> bool:
    """True where the kernel can move bytes from one to the other by itself."""
    return _splice is not None and _socket(source) is not None and _socket(sink) is not None


def _socket(stream: Stream) -> socket.socket | None:
    transport = stream.transport
    if not isinstance(transport, asyncio.Transport) or transport.get_extra_info("sslcontext") is not None:
        return None
    found = transport.get_extra_info("socket")
    if found is None or found.type != socket.SOCK_STREAM:
        return None
    return found  # type: ignore[no-any-return]


class Pump:
    """Moves what `source` sends to `sink`; `moved` hears of bytes, `ended` of EOF (None) or an error."""

    def __init__(
        self,
        source: Stream,
        sink: Stream,
        *,
        moved: Callable[[int], None],
        ended: Callable[[OSError | None], None],
    ) -> None:
        """The source's reading is paused, and the sink has nothing unsent.  Raises OSError."""
        self._loop = asyncio.get_running_loop()
        self._moved, self._ended = moved, ended
        self._held = 0  # bytes in the pipe
        self._eof = False
        self._open: list[int] = []
        try:
            self._in = self._keep(os.dup(_fileno(source)))
            self._out = self._keep(os.dup(_fileno(sink)))
            read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._read, self._write = self._keep(read), self._keep(write)
        except OSError:
            self.stop()
            raise
        self._size = 65536
        with contextlib.suppress(OSError, AttributeError):  # the user's pipes are full: a small one will do
            self._size = fcntl.fcntl(self._write, fcntl.F_SETPIPE_SZ, PIPE)
        self._loop.add_reader(self._in, self._turn)

    def stop(self) -> None:
        """Let go of everything; what the pipe still holds is lost."""
        if len(self._open) == 4:
            self._loop.remove_reader(self._in)
            self._loop.remove_writer(self._out)
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()

    def _keep(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor

    def _turn(self) -> None:
        """The source has something, or the sink takes something again."""
        assert _splice is not None
        try:
            for _ in range(_TURNS):
                if not self._held and not self._fill():
                    return
                if self._eof and not self._held:
                    self._end(None)
                    return
                if not self._empty():
                    return
        except OSError as error:
            self._end(error)

    def _fill(self) -> bool:
        """Socket to pipe; False if nothing is there now."""
        assert _splice is not None
        try:
            got = _splice(self._in, self._write, self._size, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        except BlockingIOError:
            return False
        self._held += got
        self._eof = got == 0
        return True

    def _empty(self) -> bool:
        """Pipe to socket; False if the sink takes no more now."""
        assert _splice is not None
        while self._held:
            try:
                sent = _splice(
                    self._read, self._out, self._held, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
                )
            except BlockingIOError:
                self._loop.remove_reader(self._in)
                self._loop.add_writer(self._out, self._go_on)
                return False
            self._held -= sent
            self._moved(sent)
        return True

    def _go_on(self) -> None:
        self._loop.remove_writer(self._out)
        self._loop.add_reader(self._in, self._turn)
        self._turn()

    def _end(self, error: OSError | None) -> None:
        if self._open:
            self.stop()
            self._ended(error)


def _fileno(stream: Stream) -> int:
    found = _socket(stream)
    if found is None:
        raise OSError("no socket")
    return found.fileno()
