"""Where a body goes that has no disk and is too large for memory: to its reader, as fast as that one reads.

Rules:
- Up to `keep` bytes are kept, since a body that ends there needs no reader.  From the moment that one is
  known to be larger it flows, and about FULL bytes are held at most: the source is told to wait (`hold`).
- What a reader has taken can't be taken back: where the source starts from zero after that, it is over.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from gotunnel.errors import ModuleError
from gotunnel.modproxy.failed import Failed
from gotunnel.modproxy.spool import Spool

FULL = 384 << 10  # bytes; a source that was told to wait may bring one more piece
LOW = 128 << 10
PIECE = 256 << 10
_START = 64


class Feeds(Protocol):
    """Who brings the bytes: it can be told to wait."""

    def hold(self) -> None:
        """Bring nothing until `go_on`."""

    def go_on(self) -> None:
        """Bring more."""


class Pipe(Spool):
    """A `Spool` of at most `limit` bytes that is read while it is written, once it holds more than `keep`.

    `size` is what the source says, in bytes, None where it says nothing.
    """

    def __init__(self, limit: int, keep: int) -> None:
        super().__init__(None, limit)
        self.size: int | None = None
        self.flows = False
        self._keep = keep
        self._taken = 0
        self._start = b""
        self._task: asyncio.Task[Any] | None = None
        self._feeder: Feeds | None = None
        self._ended = False
        self._failure: ModuleError | None = None
        self._changed = asyncio.Event()

    # --- for who writes --------------------------------------------------------------------------

    def filled_by(self, task: asyncio.Task[Any]) -> None:
        """`task` writes, and calls `end`; it is cancelled by `give_up`."""
        self._task = task
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        if not self._ended:
            self.end(ModuleError("http.truncated", "the transfer was given up"))

    def fed_by(self, feeder: Feeds) -> None:
        """The connection from which the bytes come from now on."""
        self._feeder = feeder
        if self.flows and len(self.memory) >= FULL:
            feeder.hold()

    def expect(self, length: int | None) -> None:
        """An answer begins whose body has so many bytes.  Raises Failed."""
        if self.flows:
            if length != self.size:
                raise _over("it has another size now")
        elif length is not None and length > self._keep:
            self.size = length
            self._flow()

    def write(self, data: bytes, place: int) -> None:
        """Write at `place`, which is the end.  Raises Failed."""
        if place != self._taken + len(self.memory):
            raise _over(f"bytes came for {place}, not for the end")
        if place + len(data) > self.limit:
            raise Failed("http.endless", f"the answer is larger than {self.limit} bytes", again=False)
        self.memory += data
        if not self.flows and len(self.memory) > self._keep:
            self._flow()
        if self.flows and self._feeder is not None and len(self.memory) >= FULL:
            self._feeder.hold()
        self._changed.set()

    def _flow(self) -> None:
        self.flows = True
        self._changed.set()

    def start(self, count: int) -> bytes:
        """The first bytes, 64 at most."""
        return bytes(self.memory[:count]) if not self._taken else self._start[:count]

    def cut(self, size: int) -> None:
        """Make it exactly `size` bytes long.  Raises Failed where those were taken."""
        if size < self._taken:
            raise _over("it starts anew")
        super().cut(size - self._taken)

    def end(self, failure: ModuleError | None) -> None:
        """Nothing more comes."""
        self._ended, self._failure, self._feeder = True, self._failure or failure, None
        self._changed.set()

    # --- for who reads ---------------------------------------------------------------------------

    async def begun(self) -> bool:
        """True once it flows; False when it has ended without.  Raises ModuleError."""
        while not self.flows and not self._ended:
            await self._change()
        if self._failure is not None:
            raise self._failure
        return self.flows

    async def read(self) -> bytes:
        """The next bytes, b"" at the end.  Raises ModuleError."""
        while not self.memory or self._failure is not None:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return b""
            await self._change()
        if not self._taken:
            self._start = bytes(self.memory[:_START])
        data = bytes(self.memory[:PIECE])
        del self.memory[: len(data)]
        self._taken += len(data)
        if self._feeder is not None and len(self.memory) < LOW:
            self._feeder.go_on()
        return data

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def give_up(self) -> None:
        """Nobody reads any more: end the transfer, where it isn't over."""
        if self._task is not None and not self._task.done():
            self._task.cancel()


def _over(what: str) -> Failed:
    words = f"{what}, but its first part was passed on already, and there is no disk to keep it on"
    return Failed("http.truncated", words, again=False)
