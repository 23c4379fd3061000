"""A checksum database: a public log of the sums of all modules, and the proofs that it tells all the same.

Rules:
- A record counts once three things are proved: the signature of the tree head it came with, that this tree
  and the one we keep are of one timeline, and that the record is in it.
- The head we keep only grows, and is kept in the store: a database that forks, or can't show what it showed
  before, is refused for good, and the error names both sizes.
- A smaller tree of the same timeline is no fault: caches on the way answer with the head of their day.
- A lookup is answered with the head we keep instead of the one it came with: go then has one tree to prove
  things in, whose tiles are here already.
- A record in the store was proved when it was put there: it is proved again where the tiles are to be had,
  and without a network taken as it is.
- A store that fails makes it slower, never wrong.

Sources: golang.org/x/mod/sumdb (client.go); cmd/go/internal/modfetch (sumdb.go, key.go).
"""

from __future__ import annotations

import asyncio
import logging
import re
import urllib.parse
from collections import OrderedDict

from gotunnel.dataclass import dataclass
from gotunnel.errors import ModuleError
from gotunnel.modproxy import tlog
from gotunnel.modproxy.dirhash import escape, unescape
from gotunnel.modproxy.flight import Flights
from gotunnel.modproxy.note import MAX_NOTE, NoteError, Verifier, open_note
from gotunnel.modproxy.tiles import Fetch, Proof, Tiles
from gotunnel.modproxy.tlog import Node, Record, Tile, Tree, parse_record, parse_tree, peaks, root
from gotunnel.storage.store import Store, StoreError, read_all

DEFAULT = "sum.golang.org"
KNOWN = {DEFAULT: "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"}
MAX_LOOKUP = 64 << 10  # bytes
_MOST = 4096  # records, and trees known to be of the timeline
_FAILED_PROOF = ("sum.unverifiable", "sum.mismatch")
_log = logging.getLogger("gotunnel.modproxy")


@dataclass(frozen=True, slots=True)
class SumDBSetting:
    """GOSUMDB: the database's `name` (host or host/path), its key, and its URL where one was given."""

    name: str
    verifier: Verifier
    url: str = ""  # "": by the sources that support it, else https://NAME

    @property
    def base(self) -> str:
        """The URL of the database itself, without a slash at its end."""
        return (self.url or f"https://{self.name}").rstrip("/")


def parse_gosumdb(text: str) -> SumDBSetting | None:
    """Read GOSUMDB: `NAME`, `NAME+HASH+KEY`, both also with ` URL`; "" is go's default, "off" is None.

    Raises ValueError with one line.
    """
    if text == "off":
        return None
    if text == "sum.golang.google.cn":  # its name inside mainland China
        text = f"{DEFAULT} https://sum.golang.google.cn"
    words = (text or DEFAULT).split()
    if not words:
        raise ValueError("GOSUMDB is blank; want a name, NAME+HASH+KEY or off")
    if len(words) > 2:
        raise ValueError(f"GOSUMDB has {len(words)} words; want NAME or NAME+HASH+KEY, then a URL at most")
    if "+" not in words[0] and words[0] not in KNOWN:
        raise ValueError(f"GOSUMDB: the key of {words[0]!r} isn't known; want {words[0]}+HASH+KEY")
    try:
        verifier = Verifier.parse(KNOWN.get(words[0], words[0]))
    except NoteError as error:
        raise ValueError(f"GOSUMDB: {error}") from error
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~-]*[A-Za-z0-9_~-])*", verifier.name):
        raise ValueError(f"GOSUMDB: {verifier.name!r} is no name of a database; want HOST or HOST/PATH")
    url = words[1] if len(words) == 2 else ""
    if url and not _is_url(url):
        raise ValueError("GOSUMDB: want a URL that starts http:// or https:// after the name")
    return SumDBSetting(verifier.name, verifier, url)


def _is_url(text: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(text)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


@dataclass(frozen=True, slots=True)
class Head:
    """A tree head and the signed note it stands in."""

    tree: Tree
    note: bytes


class SumDB:
    """One checksum database.

    `fetch(path)` gives what stands at `lookup/…`, `tile/…` or `latest` below its URL, or raises ModuleError;
    without a network that is to be one with an `http_status` of 5xx, since 404 is an answer.
    """

    def __init__(self, setting: SumDBSetting, fetch: Fetch, store: Store) -> None:
        self.setting = setting
        self.name = setting.name
        self._fetch, self._store = fetch, store
        self._tiles = Tiles(setting.name, fetch, store)
        self._flights: Flights[tuple[Record, bytes]] = Flights(f"sumdb {setting.name}")
        self._records: OrderedDict[str, tuple[Record, bytes]] = OrderedDict()
        self._agreed: OrderedDict[Tree, None] = OrderedDict()
        self._moving = asyncio.Lock()
        self._head: Head | None = None
        self._loaded = False

    async def close(self) -> None:
        """End what is being fetched."""
        await self._flights.close()
        await self._tiles.close()

    # --- what is asked of it ---------------------------------------------------------------------

    async def lookup(self, module: str, version: str) -> dict[str, str]:
        """The sums of a module's version: `{"v1.0.0": h1, "v1.0.0/go.mod": h1}`, proved.

        Raises ModuleError: sum.unverifiable and sum.mismatch (the database misbehaves), else what `fetch`
        raises (404: it doesn't know this version).
        """
        record, _ = await self._record(_lookup_name(module, version))
        sums: dict[str, str] = {}
        for line in record.text.decode().splitlines():
            words = line.split(" ")
            if len(words) != 3 or words[0] != module or words[1] not in (version, f"{version}/go.mod"):
                continue
            if words[2].startswith("h1:") and sums.setdefault(words[1], words[2]) != words[2]:
                raise self._tiles.unverifiable(f"it has two sums for {module} {words[1]}")
        if not sums:
            raise self._tiles.unverifiable(f"what it answers for {module}@{version} is of something else")
        return sums

    async def answer(self, rest: str) -> bytes:
        """The body for what go asks below `/sumdb/NAME/`.

        Raises ModuleError: as `lookup`; http_status 404 for what no such database has.
        """
        kind, _, name = rest.partition("/")
        if rest == "supported":
            return b""
        if rest == "latest":
            return await self._latest()
        try:
            if kind == "lookup":
                module, _, version = name.rpartition("@")
                if not module or not version:
                    raise ValueError(f"{name[:200]!r}: want MODULE@VERSION")
                unescape(module), unescape(version)
            elif kind == "tile":
                return await self._tile(Tile.parse(rest))
            else:
                raise ValueError(f"{rest[:80]!r}: no request for a checksum database")
        except ValueError as error:
            raise ModuleError("unknown", str(error), http_status=404, subject=rest[:200]) from error
        record, note = await self._record(rest)
        if self._head is not None and record.id < self._head.tree.size:
            note = self._head.note
        return b"%d\n%s\n%s" % (record.id, record.text, note)

    async def _latest(self) -> bytes:
        await self._load_head()
        try:
            note = await self._fetch("latest")
        except ModuleError:
            if self._head is None:
                raise
            return self._head.note
        await self._see(self._open(note))
        assert self._head is not None
        return self._head.note

    async def _tile(self, tile: Tile) -> bytes:
        await self._load_head()
        if self._head is not None and tile.within(self._head.tree.size):
            return await self._tiles.cut(tile, self._head.tree)
        return await self._tiles.fetch(tile)  # of a tree we don't know: go has to prove it

    # --- records ---------------------------------------------------------------------------------

    async def _record(self, name: str) -> tuple[Record, bytes]:
        """The proved record at `lookup/…`, and the signed head it came with."""
        found = self._records.get(name)
        if found is None:
            found, _ = await self._flights.join(name, lambda _: self._found(name))
        return found

    async def _found(self, name: str) -> tuple[Record, bytes]:
        self._records[name] = found = await self._find(name)
        if len(self._records) > _MOST:
            self._records.popitem(last=False)
        return found

    async def _find(self, name: str) -> tuple[Record, bytes]:
        await self._load_head()
        data = await self._stored(name)
        replace, kept = bool(data), self._kept_record(name, data)
        if kept is not None:
            try:
                return await self._prove_kept(*kept)
            except ModuleError as error:
                if error.finding not in _FAILED_PROOF:
                    return kept
                _log.warning("%s of the store is fetched anew: %s", name, error.detail)
        data = await self._fetch(name)
        if len(data) > MAX_LOOKUP:
            raise self._tiles.unverifiable(f"an answer of more than {MAX_LOOKUP >> 10} KiB for {name}")
        try:
            record, note = parse_record(data)
        except NoteError as error:
            raise self._tiles.unverifiable(f"{name}: {error}") from error
        await self._see(self._open(note), record)
        await self._put(name, data, replace=replace)
        return record, note

    def _kept_record(self, name: str, data: bytes) -> tuple[Record, bytes] | None:
        try:
            found = parse_record(data) if data else None
            if found is not None:
                open_note(found[1], self.setting.verifier)
        except NoteError as error:
            _log.warning("%s of the store is broken, and fetched anew: %s", name, error)
            return None
        return found

    async def _prove_kept(self, record: Record, note: bytes) -> tuple[Record, bytes]:
        if self._head is None or record.id >= self._head.tree.size:
            await self._see(self._open(note), record)
        else:
            await self._agree(self._head.tree, record)  # its own head was proved when it was put there
        return record, note

    # --- heads -----------------------------------------------------------------------------------

    def _open(self, note: bytes) -> Head:
        try:
            return Head(parse_tree(open_note(note, self.setting.verifier)), note)
        except NoteError as error:
            raise self._tiles.unverifiable(str(error)) from error

    async def _see(self, head: Head, record: Record | None = None) -> None:
        """Prove that `head` is of our timeline, and `record` in it; go forward where it is ahead of ours."""
        if self._is_ahead(head):
            async with self._moving:
                await self._join_others()
                if self._is_ahead(head):
                    await self._move(head, record)
                    await self._save()
                    record = record if record and record.id >= head.tree.size else None
        await self._agree(head.tree, record)

    def _is_ahead(self, head: Head) -> bool:
        return self._head is None or head.tree.size > self._head.tree.size

    async def _join_others(self) -> None:
        """Prove that the head in the store, which other processes move too, is of our timeline; take it."""
        stored = await self._stored_head()
        if stored is None:
            return
        if self._head is None:
            self._head = stored
        elif self._is_ahead(stored):
            await self._move(stored)
        else:
            await self._agree(stored.tree)

    async def _move(self, head: Head, record: Record | None = None) -> None:
        """Make `head`, which is ahead of ours, ours."""
        old = self._head.tree if self._head is not None else tlog.EMPTY
        nodes = peaks(old.size)
        extra: list[Node] = [(0, record.id)] if record and record.id < head.tree.size else []
        try:
            proof = await self._tiles.prove(head.tree, [*nodes, *extra], accepted=False)
        except ModuleError as error:
            raise self._unproved(old, head.tree, error) from error
        if root(proof.hashes[: len(nodes)]) != old.hash:
            raise self._forked(old, head.tree)
        self._check_leaf(record if extra else None, proof)
        self._head = head
        await self._tiles.keep(proof)

    async def _agree(self, tree: Tree, record: Record | None = None) -> None:
        """Prove that `tree`, not ahead of ours, is of our timeline, and `record` in ours."""
        assert self._head is not None
        head = self._head.tree
        if record and record.id >= head.size:
            raise self._tiles.unverifiable(f"its record {record.id} isn't in its tree of {head.size} records")
        known = tree == head or tree in self._agreed
        nodes = [] if known else peaks(tree.size)
        if known and record is None:
            return
        extra: list[Node] = [(0, record.id)] if record else []
        try:
            proof = await self._tiles.prove(head, [*nodes, *extra], accepted=True)
        except ModuleError as error:
            raise self._unproved(head, tree, error) from error
        if not known and root(proof.hashes[: len(nodes)]) != tree.hash:
            raise self._forked(head, tree)
        self._check_leaf(record, proof)
        await self._tiles.keep(proof)
        self._agreed[tree] = None
        if len(self._agreed) > _MOST:
            self._agreed.popitem(last=False)

    def _check_leaf(self, record: Record | None, proof: Proof) -> None:
        if record and proof.hashes[-1] != record.leaf:
            raise self._tiles.unverifiable(f"its record {record.id} isn't what stands in its log")

    def _unproved(self, kept: Tree, seen: Tree, error: ModuleError) -> ModuleError:
        if error.finding not in _FAILED_PROOF or kept.size in (0, seen.size):
            return error
        prefix = f"checksum database {self.name}: "
        return self._tiles.unverifiable(
            f"it showed a tree of {kept.size} records before, now answers with one of {seen.size}, and "
            f"doesn't prove that they are of one log: {error.detail.removeprefix(prefix)}"
        )

    def _forked(self, kept: Tree, seen: Tree) -> ModuleError:
        return ModuleError(
            "sum.mismatch",
            f"checksum database {self.name} misbehaves: its tree of {seen.size} records and the one of "
            f"{kept.size} that it showed before are not of one log",
            source=self.name,
        )

    # --- the store -------------------------------------------------------------------------------

    def _store_name(self, name: str) -> str:
        return f"sumdb/{self.name}/{name}"

    async def _load_head(self) -> None:
        if self._loaded:
            return
        head = await self._stored_head()
        if not self._loaded:
            self._loaded, self._head = True, head

    async def _save(self) -> None:
        assert self._head is not None
        try:
            await self._store.put(self._store_name("latest"), self._head.note, mutable=True)
        except StoreError as error:
            _log.debug("%s: %s", self.name, error)

    async def _stored_head(self) -> Head | None:
        data = await self._stored("latest")
        try:
            return self._open(data) if data else None
        except ModuleError as error:
            _log.warning("the tree head in the store is broken, and not used: %s", error.detail)
            return None

    async def _stored(self, name: str) -> bytes:
        try:
            stored = await self._store.get(self._store_name(name))
            if stored is None or stored.size > max(MAX_LOOKUP, MAX_NOTE):
                return b""
            return await read_all(self._store, stored)
        except StoreError as error:
            _log.debug("%s: %s", self.name, error)
            return b""

    async def _put(self, name: str, data: bytes, *, replace: bool) -> None:
        try:
            if replace:
                await self._store.delete(self._store_name(name))
            await self._store.put(self._store_name(name), data, labels={"by": f"sumdb:{self.name}"})
        except StoreError as error:
            _log.debug("%s: %s", self.name, error)


def _lookup_name(module: str, version: str) -> str:
    """Raises ModuleError for what can't be asked."""
    try:
        return f"lookup/{escape(module)}@{escape(version)}"
    except ValueError as error:
        raise ModuleError("sum.unverifiable", str(error), subject=module[:200]) from error
