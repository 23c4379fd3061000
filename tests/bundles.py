"""A maker of bundles for tests: modules in a store, and the lab's checksum database in this process."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from gotunnel.errors import ModuleError
from gotunnel.modproxy import packing
from gotunnel.modproxy.bundle import Manifest
from gotunnel.modproxy.closure import Item, closure
from gotunnel.modproxy.gomodcache import GoModCache
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.modfile import parse_mod
from gotunnel.modproxy.packing import Finder, Part
from gotunnel.modproxy.records import Gathered, gather
from gotunnel.modproxy.sumdb import SumDBSetting, parse_gosumdb
from gotunnel.modproxy.unpacking import Taken, Trust, take
from gotunnel.modproxy.verify import Verifier
from gotunnel.storage import Store
from tests.lab.corpus import Corpus
from tests.lab.sumdb import NAME, Log, records_of


class Sender:
    """Where bundles are made: a corpus in a store, and the lab's checksum database in this process."""

    def __init__(self, directory: Path) -> None:
        self.corpus = Corpus(directory / "origin", count=6, levels=2)
        self.project = self.corpus.write_project(directory / "project")
        self.sums = GoSum.parse(self.corpus.go_sum())
        self.log = Log(records_of(self.corpus.go_sum(), 600), NAME, b"k" * 32)
        self.items = closure([parse_mod((self.project / "go.mod").read_bytes())], self.sums).items

    @property
    def setting(self) -> SumDBSetting:
        found = parse_gosumdb(self.log.verifier_key)
        assert found is not None
        return found

    async def ask(self, rest: str) -> bytes:
        """The database; the first half of its lookups came when it was smaller."""
        if rest.startswith("lookup/"):
            module, _, version = rest.removeprefix("lookup/").replace("!m", "M").partition("@")
            number = self.log.find(module, version, len(self.log.records))
            if number is None:
                raise ModuleError("module.not-found", f"{rest} isn't there", http_status=404)
            size = number + 1
            return f"{number}\n{self.log.records[number]}\n{self.log.note(size)}".encode()
        _, _, level, *place = rest.split("/")
        width = int(place.pop()) if place[-2:-1] and place[-2].endswith(".p") else 256
        number = int("".join(place).replace("x", "").replace(".p", ""))
        tile = self.log.tile(int(level), number, width, len(self.log.records))
        if tile is None:
            raise ModuleError("unknown", f"{rest} isn't there", http_status=404)
        return tile

    async def parts(self, store: Store, **more: Any) -> list[Part]:
        """The modules' files; those that the store lacks come from the corpus."""

        async def ensure(item: Item) -> None:
            data = (self.corpus.directory / item.name).read_bytes()
            await store.put(item.name, data, labels={"by": "gosum"})

        check = Verifier(self.sums, "", None).check
        finder = Finder(store, GoModCache(""), check, spool=store.spool(), **{"ensure": ensure, **more})
        return await finder.find(self.items)

    async def records(self, *heads: int) -> Gathered:
        modules = {(item.module, item.version) for item in self.items}
        return await gather(self.ask, modules, self.setting.verifier, heads)

    async def bundle(self, store: Store, *heads: int) -> bytes:
        """A good one."""
        records = await self.records(*heads)
        made = packing.assemble(
            ["project.lab.example/app"], self.sums, NAME, records, await self.parts(store)
        )
        return written(*made)


def written(manifest: Manifest, parts: list[Part]) -> bytes:
    out = io.BytesIO()
    assert packing.write(out, manifest, parts) == len(out.getvalue())
    return out.getvalue()


def packed(parts: list[Part], database: str = "") -> bytes:
    """A bundle of these, with a list that fits them."""
    return written(Manifest(("x",), database, tuple(part.entry for part in parts)), parts)


async def take_in(data: bytes, store: Store, trust: Trust) -> Taken:
    taken = Taken()
    await take(io.BytesIO(data), store, trust, taken=taken, clock=lambda: 1e9)
    return taken


def trusting(setting: SumDBSetting | None, *excused: str) -> Trust:
    return Trust(setting, lambda module: module in excused)


async def names(store: Store) -> set[str]:
    return {stored.name async for stored in store.names()}
