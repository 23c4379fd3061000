"""$GOMODCACHE/cache/download: what go has on this machine already, private modules too.

Rules:
- Read only, and nothing in it is believed: who takes a file from here verifies it.
- Only regular files that lie where their name says: nothing that a link leads to elsewhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from gotunnel.modproxy.closure import Item


class GoModCache:
    """The download cache of go below `directory` ($GOMODCACHE); "" has nothing."""

    def __init__(self, directory: str) -> None:
        self._root = Path(directory, "cache", "download") if os.path.isabs(directory) else None

    def find(self, item: Item) -> Path | None:
        """The file of `item`, None where it isn't there."""
        if self._root is None:
            return None
        path = self._root / item.name
        try:
            return path if stat.S_ISREG(path.lstat().st_mode) else None
        except OSError:
            return None


def directory_of(environ: Mapping[str, str]) -> str:
    """Where go keeps it when `go` can't be asked: GOMODCACHE, else below the first GOPATH, else the home."""
    if environ.get("GOMODCACHE"):
        return environ["GOMODCACHE"]
    first = environ.get("GOPATH", "").split(os.pathsep)[0] or os.path.join(environ.get("HOME", ""), "go")
    return os.path.join(first, "pkg", "mod")
