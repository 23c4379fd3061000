"""Takes a bundle into a store: one pass, each file judged before it is stored.

Rules:
- The list comes first; a file that isn't in it, comes twice, or isn't as listed ends the import.
- A module's file is stored if something vouches for it: the checksum database's records in the bundle, by the
  key that this machine trusts (label `sumdb:NAME`), else the bundle's go.sum (`gosum`), else, where this
  machine's settings excuse the module from the database, nobody (`none`).  A sum that contradicts one of them
  ends the import.
- Records go into the store when all of them are proved, only those of the trusted database, and only if
  their head follows from the one that the store keeps.
- What was verified before a bundle broke stays: each file stands for itself.
- A file that the store has already is kept; only what vouches for it may become better.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import field
from pathlib import Path
from typing import BinaryIO, TypeVar

from gotunnel.dataclass import dataclass
from gotunnel.errors import ModuleError
from gotunnel.modproxy import bundle
from gotunnel.modproxy.bundle import BundleError, Entry, Manifest
from gotunnel.modproxy.closure import TOOLCHAIN, Item
from gotunnel.modproxy.dirhash import h1_of_go_mod
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.records import RecordsError, Sums, prove
from gotunnel.modproxy.sumdb import SumDB, SumDBSetting
from gotunnel.modproxy.tarform import PIECE, Reader, TarError
from gotunnel.modproxy.zipsum import sum_of
from gotunnel.storage import Store
from gotunnel.tasks import in_thread

T = TypeVar("T")

_RECORDS_LIMIT = 256 << 20  # bytes of records, which are kept in memory until they are judged
_RANK = ("", "none", "gosum", "sumdb")


@dataclass(frozen=True, slots=True)
class Trust:
    """What this machine goes by: its checksum database (None: GOSUMDB=off), and which modules it excuses."""

    setting: SumDBSetting | None
    excused: Callable[[str], bool]


@dataclass(slots=True)
class Taken:
    """What an import did; `by` counts module files by what vouched for them."""

    projects: tuple[str, ...] = ()
    files: int = 0  # of modules, those that were there already too
    modules: set[tuple[str, str]] = field(default_factory=set)  # with a zip
    bytes: int = 0
    already: int = 0
    by: Counter[str] = field(default_factory=Counter)
    head: str = ""  # why the records were left out: their head doesn't follow from the store's
    untrusted: str = ""  # the database whose records were left out, since this machine trusts another


async def take(
    stream: BinaryIO, store: Store, trust: Trust, *, taken: Taken, clock: Callable[[], float] = time.time
) -> None:
    """Import the bundle that comes by `stream`; `taken` tells what was done, after an error too.

    Raises BundleError, StoreError.
    """
    try:
        spool = await in_thread(
            "bundle", lambda: tempfile.TemporaryDirectory(prefix="import-", dir=store.spool())
        )
    except OSError as error:
        raise BundleError(f"no place for temporary files: {error.strerror or error}") from None
    with spool as place:
        await _Import(stream, store, trust, taken, Path(place), clock).run()


class _Import:
    def __init__(
        self,
        stream: BinaryIO,
        store: Store,
        trust: Trust,
        taken: Taken,
        spool: Path,
        clock: Callable[[], float],
    ) -> None:
        self._reader, self._store, self._trust = Reader(stream), store, trust
        self._taken, self._spool, self._clock = taken, spool, clock
        self._go_sum = GoSum()
        self._records: dict[str, bytes] = {}
        self._sums: Sums | None = None
        self._verified: set[tuple[str, str]] = set()
        self._manifest = Manifest((), "", ())

    async def run(self) -> None:
        """All of it.  Raises BundleError, StoreError."""
        self._manifest = await self._in_thread(self._list)
        self._taken.projects = self._manifest.projects
        wanted = {entry.name: entry for entry in self._manifest.entries}
        while (got := await self._in_thread(lambda: self._next(wanted))) is not None:
            entry, path = got
            item = Item.parse(entry.name)
            if item is not None:
                await self._module(item, entry, path)
            else:
                await self._own(entry, await in_thread("read", path.read_bytes))
        if wanted:
            raise BundleError(f"the bundle is broken: {len(wanted)} files that it lists aren't in it")
        await self._records_in()

    async def _in_thread(self, job: Callable[[], T]) -> T:
        try:
            return await in_thread("bundle", job)
        except TarError as error:
            raise BundleError(f"the bundle is broken: {error}") from None
        except OSError as error:
            raise BundleError(f"the bundle can't be taken in: {error.strerror or error}") from None

    def _list(self) -> Manifest:
        head = self._reader.next()
        if head is None or head.name != bundle.MANIFEST:
            raise TarError(f"it doesn't begin with {bundle.MANIFEST}; only gotunnel cache export makes one")
        if head.size > bundle.MANIFEST_LIMIT:
            raise TarError("its list of files is too long")
        return Manifest.decode(b"".join(self._reader.pieces()))

    def _next(self, wanted: dict[str, Entry]) -> tuple[Entry, Path] | None:
        """The next file, as it was listed, in the spool; taken out of `wanted`."""
        head = self._reader.next()
        if head is None:
            return None
        entry = wanted.pop(head.name, None)
        if entry is None:
            raise TarError(f"{head.name[:200]!a} isn't listed, or comes twice")
        if head.size != entry.size:
            raise TarError(f"{entry.name} has {head.size} bytes, {entry.size} are listed")
        digest = hashlib.sha256()
        descriptor, name = tempfile.mkstemp(dir=self._spool)
        with open(descriptor, "wb", buffering=PIECE) as file:
            for piece in self._reader.pieces():
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != entry.sha256:
            raise TarError(f"{entry.name} isn't as listed (SHA-256)")
        return entry, Path(name)

    async def _own(self, entry: Entry, data: bytes) -> None:
        """The go.sum, or a record of the database."""
        if self._taken.files:
            raise BundleError(f"the bundle is broken: {entry.name} comes after what it vouches for")
        if entry.name == bundle.GO_SUM:
            try:
                self._go_sum = GoSum.parse(data.decode("utf-8", "replace"), "the bundle's go.sum")
            except ValueError as error:
                raise BundleError(str(error)) from None
            return
        rest = entry.name.removeprefix(bundle.sumdb_name(self._manifest.database, ""))
        if not self._manifest.database or rest == entry.name:
            raise BundleError(f"the bundle is broken: {entry.name} is of another database")
        self._records[rest] = data
        if sum(map(len, self._records.values())) > _RECORDS_LIMIT:
            raise BundleError("the bundle is broken: too many records of a checksum database")

    def _proved(self) -> Sums:
        if self._sums is None:
            setting = self._trust.setting
            if not self._records:
                self._sums = {}
            elif setting is None or setting.name != self._manifest.database:
                self._taken.untrusted, self._records, self._sums = self._manifest.database, {}, {}
            else:
                try:
                    self._sums = prove(self._records, setting.verifier)
                except RecordsError as error:
                    raise BundleError(f"the bundle's proofs are wrong: {error}") from None
        return self._sums

    async def _module(self, item: Item, entry: Entry, path: Path) -> None:
        try:
            h1 = await in_thread("bundle", lambda: _look(item, path))
        except ValueError as error:
            raise BundleError(f"{item}: {error}") from None
        proved = await self._in_thread(self._proved)
        labels = {"source": "bundle", "fetched": str(int(self._clock()))}
        if item.kind == "info":
            # nobody knows its sum: it is taken with what was verified
            if (item.module, item.version) not in self._verified:
                raise BundleError(f"{item}: the bundle has nothing else of this version: not taken")
        else:
            if h1 != entry.h1:
                raise BundleError(f"{item}: its sum is {h1}, {entry.h1} is listed")
            database = self._manifest.database
            labels |= {"h1": h1, "by": vouched(item, h1, proved, self._go_sum, self._trust, database)}
            self._taken.by[labels["by"]] += 1
            self._verified.add((item.module, item.version))
        self._taken.already += not await _keep(self._store, item.name, path, labels)
        self._taken.files += 1
        self._taken.bytes += entry.size
        if item.kind == "zip":
            self._taken.modules.add((item.module, item.version))

    async def _records_in(self) -> None:
        await self._in_thread(self._proved)
        setting = self._trust.setting
        if not self._records or setting is None:
            return
        database = SumDB(setting, self._ask, self._store)
        try:
            await database.answer("latest")  # goes on to the bundle's head if it follows from the store's
        except ModuleError as error:
            self._taken.head = str(error)
            return  # in the store's tree nothing of it could be proved
        finally:
            await database.close()
        for rest, data in self._records.items():
            if rest != "latest":
                name = bundle.sumdb_name(setting.name, rest)
                await self._store.put(name, data, labels={"by": f"sumdb:{setting.name}"})

    async def _ask(self, rest: str) -> bytes:
        if rest not in self._records:
            raise ModuleError("sum.unverifiable", f"the bundle has no {rest}", http_status=404)
        return self._records[rest]


def _look(item: Item, path: Path) -> str:
    """The h1 of a mod or zip of the right form, "" for an info.  Raises ValueError."""
    if item.kind == "info":
        bundle.check_info(path.read_bytes(), item.version)
        return ""
    if item.kind == "mod":
        return h1_of_go_mod(path.read_bytes())
    return sum_of(path, item.module, item.version)


def vouched(item: Item, h1: str, proved: Sums, go_sum: GoSum, trust: Trust, database: str) -> str:
    """Who vouches for a mod or zip.  Raises BundleError where nobody does, or somebody knows better."""
    version = item.version if item.kind == "zip" else f"{item.version}/go.mod"
    by_database = proved.get((item.module, version))
    by_project = go_sum.sums.get((item.module, version))
    for told, who in ((by_database, database), (by_project, "the bundle's go.sum")):
        if told is not None and told != h1:
            raise BundleError(f"{item}: its sum is {h1}, but {who} says {told}: not taken")
    if by_database is not None:
        return f"sumdb:{database}"
    if by_project is not None:
        return "gosum"
    if item.module != TOOLCHAIN and (trust.setting is None or trust.excused(item.module)):
        return "none"
    raise BundleError(f"{item}: neither a checksum database's record nor go.sum vouches for it: not taken")


async def _keep(store: Store, name: str, path: Path, labels: dict[str, str]) -> bool:
    """Store a file, or better the labels of the one that is there; True where it was stored."""
    there = await store.get(name)
    if there is None:
        await store.put(name, path, labels=labels)
        return True
    os.unlink(path)
    same = there.labels.get("h1", "") == labels.get("h1", "")
    if same and _rank(labels.get("by", "")) > _rank(there.labels.get("by", "")):
        await store.relabel(name, {**there.labels, **labels})
    return False


def _rank(by: str) -> int:
    word = by.partition(":")[0]
    return _RANK.index(word) if word in _RANK else 0
