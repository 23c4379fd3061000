"""Where a body goes while it is fetched: a temporary file, written at any place, or memory."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from gotunnel.modproxy.failed import Failed, local

if TYPE_CHECKING:
    from gotunnel.modproxy.pipe import Feeds


class Spool:
    """At most `limit` bytes; `directory` None: in memory."""

    def __init__(self, directory: Path | None, limit: int) -> None:
        self.limit = limit
        self.path: Path | None = None
        self.memory = bytearray()
        self._fd = -1
        if directory is not None:
            try:
                self._fd, name = tempfile.mkstemp(prefix="fetch-", dir=directory)
            except OSError as error:
                raise local(error, str(directory)) from error
            self.path = Path(name)

    def write(self, data: bytes, place: int) -> None:
        """Write at `place`.  Raises Failed past the limit, OSError."""
        if place + len(data) > self.limit:
            raise Failed("http.endless", f"the answer is larger than {self.limit} bytes", again=False)
        if self.path is None:
            self.memory[place : place + len(data)] = data
            return
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, place)
            view, place = view[written:], place + written

    def fed_by(self, feeder: Feeds) -> None:
        """From whom the bytes come from now on; a file takes all."""

    def expect(self, length: int | None) -> None:
        """An answer begins whose body has so many bytes.  Raises Failed."""

    def start(self, count: int) -> bytes:
        """The first bytes."""
        return bytes(self.memory[:count]) if self.path is None else os.pread(self._fd, count, 0)

    def cut(self, size: int) -> None:
        """Make it exactly `size` bytes long.  Raises Failed."""
        if self.path is None:
            del self.memory[size:]
            return
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise local(error, str(self.path)) from error

    def finish(self) -> None:
        """Close the file, which stays.  Raises Failed (NFS tells only now that the disk is full)."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                os.close(fd)
            except OSError as error:
                raise local(error, str(self.path)) from error

    def discard(self) -> None:
        """Close and remove what there is."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fd)
            self._fd = -1
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
        self.memory.clear()
