"""Makes a bundle: finds each file of a closure, verifies it, writes them all in one pass.

Rules:
- A file comes from the store, else from $GOMODCACHE, else by the ways out (`ensure`); whatever it comes
  from, it is verified by the project's own rules (`check`) before it goes in.
- A bundle is whole or isn't written: every file that is missing is named first.
- A bundle is put into place when it is complete; one that goes to a pipe ends without its last blocks when
  something breaks, which the reader notices.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from gotunnel.dataclass import dataclass
from gotunnel.errors import GotunnelError, ModuleError
from gotunnel.modproxy import bundle, tarform
from gotunnel.modproxy.bundle import BundleError, Entry, Manifest
from gotunnel.modproxy.closure import Item
from gotunnel.modproxy.dirhash import h1_of_go_mod
from gotunnel.modproxy.gomodcache import GoModCache
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.records import Gathered
from gotunnel.modproxy.zipsum import sum_of
from gotunnel.storage import Store, Stored
from gotunnel.tasks import in_thread

Check = Callable[[str, str, Literal["zip", "mod"], str, str], Awaitable[str]]
Ensure = Callable[[Item], Awaitable[object]]
_WIDTH = 16  # files measured at once; they are read whole


class Incomplete(BundleError):
    """Files that are nowhere to be had; `missing` says of each why."""

    status = 69

    def __init__(self, missing: Mapping[Item, str]) -> None:
        self.missing = missing
        first = next(iter(missing))
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        super().__init__(f"missing: {first}{more}: {missing[first]}")


@dataclass(frozen=True, slots=True)
class Part:
    """A file that goes in, and where it is now."""

    entry: Entry
    source: Path | bytes


class Finder:
    """Finds and verifies files; `spool` is a directory for what has to be copied first."""

    def __init__(
        self,
        store: Store,
        cache: GoModCache,
        check: Check,
        *,
        spool: Path,
        ensure: Ensure | None = None,
        found: Callable[[Item], None] = lambda item: None,
    ) -> None:
        """Without `ensure` nothing is fetched; `found` hears of each file that was found."""
        self._store, self._cache, self._check = store, cache, check
        self._spool, self._ensure, self._found = spool, ensure, found
        self._limit = asyncio.Semaphore(_WIDTH)

    async def find(self, items: Iterable[Item]) -> list[Part]:
        """All of them, in order.  Raises Incomplete."""
        missing: dict[Item, str] = {}
        parts: dict[Item, Part] = {}

        async def one(item: Item) -> None:
            try:
                parts[item] = await self._one(item)
            except GotunnelError as error:
                missing[item] = str(error)
            else:
                self._found(item)

        wanted = list(items)
        async with asyncio.TaskGroup() as group:
            for item in wanted:
                group.create_task(one(item))
        if missing:
            raise Incomplete(missing)
        return [parts[item] for item in wanted]

    async def _one(self, item: Item) -> Part:
        stored = await self._store.get(item.name)
        if stored is None and (path := self._cache.find(item)) is not None:
            try:
                return await self._measured(item, path, "", own=False)
            except ModuleError:
                if self._ensure is None:
                    raise  # it says what is wrong with the copy in GOMODCACHE
        if stored is None:
            if self._ensure is None:
                raise ModuleError("module.not-found", "neither in the store nor in GOMODCACHE")
            await self._ensure(item)
            stored = await self._store.get(item.name)
            if stored is None:
                raise ModuleError("unknown", "the store didn't keep it")
        return await self._measured(item, await self._local(stored), stored.labels.get("by", ""), own=True)

    async def _local(self, stored: Stored) -> Path:
        path = await self._store.local(stored)
        if path is not None:
            return path
        descriptor, name = tempfile.mkstemp(dir=self._spool)
        try:
            async for piece in self._store.read(stored):
                os.write(descriptor, piece)
        finally:
            os.close(descriptor)
        return Path(name)

    async def _measured(self, item: Item, path: Path, by: str, *, own: bool) -> Part:
        subject = f"{item.module}@{item.version}"
        try:
            async with self._limit:
                part = await in_thread("bundle", lambda: measure(item, path, own=own))
        except (OSError, ValueError) as error:
            where = "the store" if own else "GOMODCACHE"
            raise ModuleError("module.bad-zip", f"its copy in {where}: {error}", subject=subject) from None
        if item.kind != "info":
            await self._check(item.module, item.version, item.kind, part.entry.h1, by)
        return part


def measure(item: Item, path: Path, *, own: bool) -> Part:
    """Sums and size of a file; `own`: it is the store's.  Raises ValueError, OSError."""
    if item.kind == "info":
        data = path.read_bytes()
        bundle.check_info(data, item.version)
        if not own:
            # go keeps the repository's URL there, which needn't travel
            told = json.loads(data)
            data = json.dumps({key: told[key] for key in ("Version", "Time") if key in told}).encode()
        return Part(Entry(item.name, len(data), hashlib.sha256(data).hexdigest()), data)
    h1 = sum_of(path) if item.kind == "zip" else h1_of_go_mod(path.read_bytes())
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Part(Entry(item.name, file.tell(), digest, h1), path)


def of_bytes(name: str, data: bytes) -> Part:
    """A file that is made here."""
    return Part(Entry(name, len(data), hashlib.sha256(data).hexdigest()), data)


def assemble(
    projects: Sequence[str], go_sum: GoSum, database: str, gathered: Gathered, modules: Iterable[Part]
) -> tuple[Manifest, list[Part]]:
    """The whole bundle in its order: what vouches before what is vouched for."""
    parts = [of_bytes(bundle.GO_SUM, bundle.go_sum_text(go_sum))]
    for rest in sorted(gathered.files):
        parts.append(of_bytes(bundle.sumdb_name(database, rest), gathered.files[rest]))
    parts += modules
    database = database if gathered.files else ""
    return Manifest(tuple(projects), database, tuple(part.entry for part in parts)), parts


def write(out: BinaryIO, manifest: Manifest, parts: Iterable[Part]) -> int:
    """Write it all; returns the bytes written.  Blocks.  Raises BundleError, OSError."""
    data = manifest.encode()
    size = _put(out, bundle.MANIFEST, len(data), [data])
    for part in parts:
        if isinstance(part.source, bytes):
            size += _put(out, part.entry.name, part.entry.size, [part.source])
        else:
            size += _copy(out, part.entry, part.source)
    out.write(tarform.END)
    out.flush()
    return size + len(tarform.END)


def _put(out: BinaryIO, name: str, size: int, pieces: Iterable[bytes]) -> int:
    head, tail = tarform.header(name, size), tarform.padding(size)
    out.write(head)
    for piece in pieces:
        out.write(piece)
    out.write(tail)
    return len(head) + size + len(tail)


def _copy(out: BinaryIO, entry: Entry, path: Path) -> int:
    digest = hashlib.sha256()
    left = entry.size
    out.write(head := tarform.header(entry.name, entry.size))
    try:
        with path.open("rb") as file:
            while left and (piece := file.read(min(left, tarform.PIECE))):
                digest.update(piece)
                out.write(piece)
                left -= len(piece)
    except FileNotFoundError:
        raise BundleError(f"{entry.name} was removed from the store meanwhile; export again") from None
    if left or digest.hexdigest() != entry.sha256:
        raise BundleError(f"{path} changed meanwhile; export again")
    out.write(tail := tarform.padding(entry.size))
    return len(head) + entry.size + len(tail)


async def write_file(file: Path, manifest: Manifest, parts: Sequence[Part]) -> int:
    """The bundle as `file`, which appears when it is complete; a pipe or a device gets it as it is made.

    A link is followed.  Raises BundleError.
    """
    temporary: str | None = None
    try:
        place = await in_thread("look", lambda: _replaceable(file))
        if place is None:
            return await in_thread("bundle", lambda: _passed_on(file, manifest, parts))
        file = place
        descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
        size = await in_thread("bundle", lambda: _whole(descriptor, manifest, parts))
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, file)
        temporary = None
        return size
    except OSError as error:
        raise BundleError(f"{file}: {error.strerror or error}") from None
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _replaceable(file: Path) -> Path | None:
    """Where a whole file is to be put; None for a pipe or a device.

    One in the place of /dev/stdout would take that away from everybody.
    """
    return None if file.exists() and not file.is_file() else Path(os.path.realpath(file))


def _passed_on(file: Path, manifest: Manifest, parts: Sequence[Part]) -> int:
    with open(file, "wb", buffering=1 << 20) as out:
        return write(out, manifest, parts)


def _whole(descriptor: int, manifest: Manifest, parts: Sequence[Part]) -> int:
    with open(descriptor, "wb", buffering=1 << 20) as out:
        size = write(out, manifest, parts)
        os.fsync(out.fileno())
        return size
