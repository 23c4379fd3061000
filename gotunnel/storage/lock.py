"""A lock between processes and threads: a file that the kernel frees when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from gotunnel.storage.store import StoreError

_WAIT = 10.0  # seconds; it is held for microseconds, only a stopped process holds it longer


class Lock:
    """The lock that the file `path` stands for."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = threading.Lock()  # within the process, where waiting needs no polling

    @contextlib.contextmanager
    def held(self, mode: int) -> Iterator[None]:
        """Hold it; `mode` is the permissions of a new file.  Raises StoreError after 10 s, and OSError."""
        with self._turn:
            try:
                handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
                os.fchmod(handle, mode)
            try:
                deadline, rest = time.monotonic() + _WAIT, 0.0002
                while not _locked(handle):
                    if time.monotonic() > deadline:
                        held = f"another process has held {self._path} for {_WAIT:g} s: is it stopped?"
                        raise StoreError("unknown", held)
                    time.sleep(rest)
                    rest = min(rest * 2, 0.02)
                yield
            finally:
                os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
