"""Imports asyncssh quickly; it is most of what the first connection costs this machine (0.2 s).

Rules:
- The garbage collector rests meanwhile: an import makes garbage hardly ever, and scanning costs a sixth.
- asyncssh looks for liboqs and nettle, which bring a few algorithms that hardly any server insists on, by
  `ctypes.util.find_library`, and that runs ldconfig or a C compiler on Linux (27 ms each).  The loader is
  asked instead, by the names that these libraries have had.
- A container may run as a number that no passwd knows, without USER and HOME: asyncssh refuses to begin
  there, though it wants both only for an ssh_config that it would read, which we don't let it.
"""

from __future__ import annotations

import contextlib
import ctypes.util
import gc
import getpass
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_NAMES = {
    "nettle": ("libnettle.so.8", "libnettle.so.7", "libnettle.so.6", "libnettle.so"),
    "oqs": ("liboqs.so", *(f"liboqs.so.{number}" for number in range(12, 3, -1))),
}


_turn = threading.Lock()
_done = False


def loaded() -> bool:
    """Whether `import asyncssh` costs nothing."""
    return _done


def load_asyncssh() -> None:
    """After this `import asyncssh` costs nothing."""
    global _done
    with _turn:  # what another thread has in sys.modules may be half of it, and who imports it waits
        if not _done:
            _load()
            _done = True


def _load() -> None:
    with _no_garbage_collection(), _quick_search():
        import asyncssh.config
        import asyncssh.connection
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError since 3.13, which asyncssh doesn't expect
        nobody: Any = SimpleNamespace(getuser=lambda: str(os.getuid()))
        vars(asyncssh.connection)["getpass"] = nobody
    if os.path.expanduser("~") == "~":
        homeless: Any = _HomelessPath
        vars(asyncssh.config)["Path"] = homeless


class _HomelessPath(type(Path())):  # type: ignore[misc]  # a Path can't be subclassed by name before 3.12
    def expanduser(self) -> Path:
        return self


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def _quick_search() -> Iterator[None]:
    original = ctypes.util.find_library

    def find(name: str) -> str | None:
        for candidate in _NAMES.get(name.removeprefix("lib"), ()):
            with contextlib.suppress(OSError):
                ctypes.CDLL(candidate)
                return candidate
        return None

    if sys.platform != "linux":
        yield
        return
    ctypes.util.find_library = find
    try:
        yield
    finally:
        ctypes.util.find_library = original
