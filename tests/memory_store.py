"""A `Store` in memory, for tests of what stands above the store."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from gotunnel.storage.store import PIECE, Stored, StoreError, Vanished, check_name, check_prefix


class MemoryStore:
    """Keeps everything; with `broken` every call is a StoreError."""

    label = "memory"

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.broken = False
        self._known: dict[str, Stored] = {}
        self._mutable: set[str] = set()

    def _check(self, name: str) -> None:
        check_name(name)
        if self.broken:
            raise StoreError("disk.full", "the store was told to fail")

    async def get(self, name: str) -> Stored | None:
        """What is known of a file."""
        self._check(name)
        return self._known.get(name)

    async def read(self, stored: Stored) -> AsyncGenerator[bytes, None]:
        """Its bytes in pieces."""
        self._check(stored.name)
        if self._known.get(stored.name) is None:
            raise Vanished(stored.name)
        data = self.files[stored.name]
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]

    async def local(self, stored: Stored) -> Path | None:
        """Never."""
        self._check(stored.name)
        return None

    async def put(
        self,
        name: str,
        source: Path | bytes,
        *,
        labels: Mapping[str, str] | None = None,
        mutable: bool = False,
    ) -> None:
        """Keep a file, unless it is immutable and here."""
        self._check(name)
        data = source if isinstance(source, bytes) else source.read_bytes()
        if isinstance(source, Path):
            source.unlink()
        if name in self.files and not mutable:
            return
        self.files[name] = data
        self._known[name] = Stored(name, len(data), time.time(), dict(labels or {}))
        if mutable:
            self._mutable.add(name)

    async def relabel(self, name: str, labels: Mapping[str, str]) -> None:
        """Replace its labels."""
        self._check(name)
        if (known := self._known.get(name)) is not None:
            self._known[name] = Stored(name, known.size, known.stored_at, dict(labels))

    async def delete(self, name: str) -> None:
        """Forget a file."""
        self._check(name)
        self.files.pop(name, None)
        self._known.pop(name, None)
        self._mutable.discard(name)

    async def names(self, prefix: str = "", *, labels: bool = True) -> AsyncGenerator[Stored, None]:
        """Every file whose name starts so."""
        check_prefix(prefix)
        for name in sorted(self._known):
            if name.startswith(prefix):
                known = self._known[name]
                yield known if labels else Stored(name, known.size, known.stored_at)

    async def prune(self, max_size: int) -> tuple[int, int]:
        """Remove the oldest immutable files."""
        removed = freed = 0
        for stored in sorted(self._known.values(), key=lambda stored: stored.stored_at):
            if sum(map(len, self.files.values())) <= max_size:
                break
            if stored.name not in self._mutable:
                await self.delete(stored.name)
                removed, freed = removed + 1, freed + stored.size
        return removed, freed

    def spool(self) -> Path:
        """The machine's own."""
        return Path(tempfile.gettempdir())

    async def close(self) -> None:
        """Nothing to let go of."""
