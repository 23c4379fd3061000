"""The tiles of one checksum database: from memory, from the store, else from the database.

Rules:
- A tile is kept only once it was proved to be of a tree that was accepted (`keep`).
- What is in memory belongs to the accepted timeline and needs no second proof there; for a tree that is yet
  to be accepted nothing counts as known.
- Where kept tiles don't fit, they are fetched anew before anybody is blamed.
- A tile that isn't full is cut from a wider one; where the database has it no more, the full one is asked.
- A store that fails makes it slower, never wrong.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from gotunnel.dataclass import dataclass
from gotunnel.errors import ModuleError
from gotunnel.modproxy.flight import Flights
from gotunnel.modproxy.tlog import Node, Tile, TilesError, Tree, authenticate, plan
from gotunnel.storage.store import Store, StoreError, read_all

Fetch = Callable[[str], Awaitable[bytes]]
_MOST = 512  # tiles in memory, 8 KiB each at most
_UNPROVED = 64
_log = logging.getLogger("gotunnel.modproxy")


@dataclass(frozen=True, slots=True)
class Proof:
    """The hashes of the nodes asked for, and the tiles that prove them; `replace`: kept ones were wrong."""

    hashes: tuple[bytes, ...]
    tiles: dict[Tile, bytes]
    fetched: frozenset[Tile]
    replace: bool


class Tiles:
    """The tiles of the database `name`; `fetch` gives what stands at a path below its URL."""

    def __init__(self, name: str, fetch: Fetch, store: Store) -> None:
        self._name, self._fetch, self._store = name, fetch, store
        self._memory: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._unproved: OrderedDict[Tile, bytes] = OrderedDict()  # just fetched: for whoever asks meanwhile
        self._flights: Flights[bytes] = Flights(f"sumdb {name}")

    async def close(self) -> None:
        """End what is being fetched."""
        await self._flights.close()

    async def prove(self, tree: Tree, nodes: Sequence[Node], *, accepted: bool) -> Proof:
        """The hashes of `nodes`, which are within `tree`, proved.

        `accepted`: the tree is of the timeline that is kept.  Raises ModuleError: sum.unverifiable where
        tiles are missing or don't fit; else what `fetch` raises.
        """
        tiles = plan(tree.size, nodes)
        for again in (False, True):
            known = [tile for tile in tiles if accepted and not again and self._remembered(tile)]
            loaded = await asyncio.gather(*(self._load(tile, fresh=again) for tile in tiles))
            data = {tile: content for tile, (content, _) in zip(tiles, loaded, strict=True)}
            fetched = frozenset(tile for tile, (_, new) in zip(tiles, loaded, strict=True) if new)
            try:
                authenticate(tree, tiles, data, known)
            except TilesError as error:
                if len(fetched) == len(tiles):
                    raise self.unverifiable(str(error)) from error
                continue
            places = [Tile.of(node, tree.size) for node in nodes]
            hashes = tuple(
                place.hash_of(node, data[place]) for node, place in zip(nodes, places, strict=True)
            )
            return Proof(hashes, data, fetched, again)
        raise AssertionError("the second time all are fetched")

    async def keep(self, proof: Proof) -> None:
        """Remember the tiles of a proof whose tree was accepted."""
        for tile, content in proof.tiles.items():
            place = (tile.level, tile.place)
            if proof.replace or len(self._memory.get(place, b"")) < len(content):
                self._memory[place] = content
            self._memory.move_to_end(place)
        while len(self._memory) > _MOST:
            self._memory.popitem(last=False)
        await asyncio.gather(*(self._put(tile, proof) for tile in proof.fetched))

    async def cut(self, tile: Tile, tree: Tree) -> bytes:
        """The content of a tile that is within the accepted `tree`, proved.  Raises as `prove`."""
        wide = Tile.at(tile.level, tile.place, tree.size)
        proof = await self.prove(tree, [(8 * tile.level, tile.place << 8)], accepted=True)
        await self.keep(proof)
        return proof.tiles[wide][: tile.size]

    async def fetch(self, tile: Tile) -> bytes:
        """The content of a tile as the database has it, unproved, of the right size.  Raises as `prove`."""
        return (await self._flights.join(tile.path, lambda _: self._ask(tile)))[0]

    def store_name(self, tile: Tile) -> str:
        """Its name in the store."""
        return f"sumdb/{self._name}/{tile.path}"

    def unverifiable(self, detail: str) -> ModuleError:
        """An error that says so of this database."""
        return ModuleError("sum.unverifiable", f"checksum database {self._name}: {detail}", source=self._name)

    def _remembered(self, tile: Tile) -> bytes:
        content = self._memory.get((tile.level, tile.place), b"")
        return content[: tile.size] if len(content) >= tile.size else b""

    async def _load(self, tile: Tile, *, fresh: bool) -> tuple[bytes, bool]:
        """The content, and whether it was fetched for this."""
        if not fresh:
            if content := self._remembered(tile):
                return content, False
            for kept in dict.fromkeys((tile, Tile(tile.level, tile.place))):
                if content := await self._stored(kept):
                    return content[: tile.size], False
            if content := self._remembered(tile) or self._unproved.get(tile, b""):
                return content, False
        return await self.fetch(tile), True

    async def _stored(self, tile: Tile) -> bytes:
        try:
            stored = await self._store.get(self.store_name(tile))
            if stored is None or stored.size != tile.size:
                return b""
            content = await read_all(self._store, stored)
        except StoreError as error:
            _log.debug("%s: %s", self._name, error)
            return b""
        return content if len(content) == tile.size else b""

    async def _put(self, tile: Tile, proof: Proof) -> None:
        try:
            if proof.replace:
                await self._store.delete(self.store_name(tile))
            await self._store.put(self.store_name(tile), proof.tiles[tile])
        except StoreError as error:
            _log.debug("%s: %s", self._name, error)

    async def _ask(self, tile: Tile) -> bytes:
        full = Tile(tile.level, tile.place)
        for asked in dict.fromkeys((tile, full)):
            try:
                content = await self._fetch(asked.path)
            except ModuleError as error:
                if error.http_status not in (404, 410):
                    raise
                continue
            if len(content) != asked.size:
                raise self.unverifiable(
                    f"{asked.path} has {asked.size} bytes, but {len(content)} came: a captive portal?"
                )
            self._unproved[tile] = content[: tile.size]
            if len(self._unproved) > _UNPROVED:
                self._unproved.popitem(last=False)
            return content[: tile.size]
        raise self.unverifiable(f"it has no {tile.path}")
