"""Bundles: what comes out is what went in, and nothing else gets into a store."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gotunnel.errors import ModuleError
from gotunnel.modproxy import bundle, packing
from gotunnel.modproxy.bundle import BundleError, Entry, Manifest
from gotunnel.modproxy.closure import Item
from gotunnel.modproxy.gomodcache import GoModCache
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.packing import Finder, Incomplete, Part, of_bytes
from gotunnel.modproxy.records import Gathered, gather
from gotunnel.modproxy.sumdb import SumDB, parse_gosumdb
from gotunnel.modproxy.tlog import parse_record, plan
from gotunnel.modproxy.verify import Verifier
from gotunnel.storage import Store, Stored, open_store
from tests.bundles import Sender, names, packed, take_in, trusting, written
from tests.lab.sumdb import NAME, Log


@pytest.fixture
def sender(tmp_path: Path) -> Sender:
    return Sender(tmp_path)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """The store of the machine that the bundle goes to."""
    opened = open_store((tmp_path / "there").as_uri())
    yield opened
    await opened.close()


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[Store]:
    """The store of the machine that it comes from."""
    opened = open_store((tmp_path / "here").as_uri())
    yield opened
    await opened.close()


async def test_what_comes_out_is_what_went_in(sender: Sender, source: Store, store: Store) -> None:
    data = await sender.bundle(source)
    assert await sender.bundle(source) == data, "the same project, the same bytes"
    taken = await take_in(data, store, trusting(sender.setting))
    assert taken.files == len(sender.items) == 18
    assert taken.by == {f"sumdb:{NAME}": 12}
    assert (taken.head, taken.untrusted, taken.already) == ("", "", 0)
    for item in sender.items:
        stored = await store.get(item.name)
        assert stored is not None
        path = await store.local(stored)
        assert path is not None
        assert path.read_bytes() == (sender.corpus.directory / item.name).read_bytes()
        assert item.kind == "info" or stored.labels["by"] == f"sumdb:{NAME}"
    again = await take_in(data, store, trusting(sender.setting))
    assert again.already == again.files == 18
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames()[:2] == [bundle.MANIFEST, bundle.GO_SUM]


async def test_another_machine_trusts_no_key_that_came_along(
    sender: Sender, source: Store, store: Store
) -> None:
    data = await sender.bundle(source)
    other = parse_gosumdb("")
    taken = await take_in(data, store, trusting(other))
    assert taken.untrusted == NAME
    assert taken.by == {"gosum": 12}
    assert not [name for name in await names(store) if name.startswith("sumdb/")]
    # the same files, better vouched for
    taken = await take_in(data, store, trusting(sender.setting))
    assert taken.already == 18
    stored = await store.get(next(item.name for item in sender.items if item.kind == "zip"))
    assert stored is not None
    assert stored.labels["by"] == f"sumdb:{NAME}"


async def test_a_database_of_the_same_name_with_another_key(
    sender: Sender, source: Store, store: Store
) -> None:
    data = await sender.bundle(source)
    impostor = Log(sender.log.records, NAME, b"j" * 32)
    setting = parse_gosumdb(impostor.verifier_key)
    with pytest.raises(BundleError, match="isn't signed by"):
        await take_in(data, store, trusting(setting))
    assert await names(store) == set()


async def test_a_later_bundle_shows_that_its_head_follows(
    sender: Sender, source: Store, store: Store
) -> None:
    trust = trusting(sender.setting)
    early = await sender.records()
    assert (await take_in(await sender.bundle(source), store, trust)).head == ""
    more = "".join(f"later.lab.example/m{n} v1.0.0 h1:x\n" for n in range(70_000))
    sender.log = Log([*sender.log.records, *more.splitlines(keepends=True)], NAME, b"k" * 32)
    sender.sums = GoSum.parse(sender.corpus.go_sum() + "later.lab.example/m69999 v1.0.0/go.mod h1:x\n")
    late = await gather(
        sender.ask, [("later.lab.example/m69999", "v1.0.0")], sender.setting.verifier, [early.head]
    )
    assert late.head > 65536 > early.head
    alone = await gather(sender.ask, [("later.lab.example/m69999", "v1.0.0")], sender.setting.verifier)

    def of(gathered: Gathered) -> bytes:
        files = {bundle.sumdb_name(NAME, rest): data for rest, data in gathered.files.items()}
        return packed([of_bytes(name, data) for name, data in files.items()], NAME)

    name = f"sumdb/{NAME}/lookup/later.lab.example/m69999@v1.0.0"
    assert "doesn't prove that they are of one log" in (await take_in(of(alone), store, trust)).head
    assert await store.get(name) is None
    assert (await take_in(of(late), store, trust)).head == ""
    assert await store.get(name) is not None

    async def nobody(rest: str) -> bytes:
        raise ModuleError("net.unreachable", f"no network for {rest}", http_status=503)

    # what came with the first is proved in the tree of the second, for us and for go
    database = SumDB(sender.setting, nobody, store)
    for path in early.files:
        if path.startswith("lookup/"):
            answer = await database.answer(path)
            assert answer.endswith(late.files["latest"])
            record, _ = parse_record(answer)
            for tile in plan(late.head, [(0, record.id)]):
                assert len(await database.answer(tile.path)) == tile.size
    await database.close()


@pytest.mark.parametrize(
    "rest", ["tile/8/0/002", "tile/8/0/001.p/7", "tile/8/3/000.p/1", "lookup/x.example/y@v1.0.0", "supported"]
)
async def test_records_that_prove_nothing(rest: str, sender: Sender, store: Store) -> None:
    files = dict((await sender.records()).files)
    if files.get(rest, b"") == b"":
        files[rest] = bytes(256 * 32)
    parts = [of_bytes(bundle.sumdb_name(NAME, name), data) for name, data in files.items()]
    with pytest.raises(BundleError, match="proofs are wrong"):
        await take_in(packed(parts, NAME), store, trusting(sender.setting))
    assert await names(store) == set()


async def test_a_bundle_cut_anywhere_leaves_only_whole_files(
    sender: Sender, source: Store, tmp_path: Path
) -> None:
    data = await sender.bundle(source)
    rng = random.Random(4)
    good = {item.name for item in sender.items}
    places = [
        0,
        1,
        511,
        512,
        513,
        len(data) - 1025,
        len(data) - 1,
        *(rng.randrange(len(data)) for _ in range(20)),
    ]
    for number, place in enumerate(places):
        there = open_store((tmp_path / f"cut-{number}").as_uri())
        with pytest.raises(BundleError, match="broken"):
            await take_in(data[:place], there, trusting(sender.setting))
        for name in await names(there):
            assert name in good
            stored = await there.get(name)
            assert stored is not None
            path = await there.local(stored)
            assert path is not None
            assert path.read_bytes() == (sender.corpus.directory / name).read_bytes()
        assert not list(there.spool().iterdir())
        await there.close()


async def test_a_bit_that_flipped(sender: Sender, source: Store, store: Store) -> None:
    data = bytearray(await sender.bundle(source))
    rng = random.Random(7)
    for _ in range(40):
        place = rng.randrange(len(data))
        data[place] ^= 1 << rng.randrange(8)
        broken = bytes(data)
        with contextlib.suppress(BundleError):  # padding isn't read, a project's name is free: they may pass
            await take_in(broken, store, trusting(sender.setting))
    for name in await names(store):
        if not name.startswith("sumdb/"):
            stored = await store.get(name)
            assert stored is not None
            path = await store.local(stored)
            assert path is not None
            assert path.read_bytes() == (sender.corpus.directory / name).read_bytes()


EVIL = [
    "../../etc/cron.d/x",
    "/etc/passwd",
    "mods.lab.example/a/@v/../../../../x.zip",
    "mods.lab.example/a/@v/v1.0.0.zip/../../x",
    "mods.lab.example/a/@v/v1.0.0.zip\n",
    "mods.lab.example\\a/@v/v1.0.0.zip",
    "mods.lab.example/A/@v/v1.0.0.zip",
    "mods.lab.example/a/@v/list",
    "mods.lab.example/%2e%2e/@v/v1.0.0.zip",
    "sumdb/sum.lab.example/../../x",
    "sumdb/sum.lab.example/lookup/../x@v1.0.0",
    ".gotunnel/labels/x.json",
    "_gotunnel/other",
    "con/@v/v1.0.0.zip",
    "",
]


@pytest.mark.parametrize("name", EVIL)
async def test_a_name_that_leads_elsewhere(name: str, sender: Sender, store: Store) -> None:
    evil = of_bytes(name, b"x")
    listed = written(Manifest(("x",), NAME, (evil.entry,)), [Part(Entry("a", 1, "0"), b"x")])
    with pytest.raises(BundleError):
        await take_in(listed, store, trusting(sender.setting))
    # and one that isn't listed
    unlisted = io.BytesIO()
    with tarfile.open(fileobj=unlisted, mode="w") as archive:
        head = Manifest((), "", ()).encode()
        info = tarfile.TarInfo(bundle.MANIFEST)
        info.size = len(head)
        archive.addfile(info, io.BytesIO(head))
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(BundleError):
        await take_in(unlisted.getvalue(), store, trusting(sender.setting))
    assert await names(store) == set()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, b"S", b"K"]
)
async def test_only_regular_files(kind: bytes, sender: Sender, source: Store, store: Store) -> None:
    part = next(part for part in await sender.parts(source) if part.entry.name.endswith(".mod"))
    head = Manifest((), "", (part.entry,)).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(bundle.MANIFEST)
        info.size = len(head)
        archive.addfile(info, io.BytesIO(head))
        link = tarfile.TarInfo(part.entry.name)
        link.type, link.linkname = kind, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(BundleError, match="no regular file"):
        await take_in(out.getvalue(), store, trusting(None))


def changed(part: Part, data: bytes, h1: str) -> Part:
    made = of_bytes(part.entry.name, data)
    return Part(Entry(made.entry.name, made.entry.size, made.entry.sha256, h1), data)


async def test_who_vouches(sender: Sender, source: Store, store: Store) -> None:
    from gotunnel.modproxy.dirhash import h1_of_go_mod

    parts = await sender.parts(source)
    mod = next(part for part in parts if part.entry.name.endswith(".mod"))
    item = Item.parse(mod.entry.name)
    assert item is not None
    other = b"module example.com/evil\n"
    forged = changed(mod, other, h1_of_go_mod(other))
    go_sum = of_bytes(bundle.GO_SUM, bundle.go_sum_text(sender.sums))
    records = (await sender.records()).files
    proofs = [of_bytes(bundle.sumdb_name(NAME, rest), data) for rest, data in records.items()]
    trust = trusting(sender.setting)

    with pytest.raises(BundleError, match="is listed"):
        await take_in(packed([go_sum, changed(mod, other, mod.entry.h1)]), store, trust)
    with pytest.raises(BundleError, match=r"but the bundle's go.sum says"):
        await take_in(packed([go_sum, forged]), store, trust)
    with pytest.raises(BundleError, match=f"but {NAME} says"):
        await take_in(packed([*proofs, forged], NAME), store, trust)
    own = of_bytes(bundle.GO_SUM, f"{item.module} {item.version}/go.mod {forged.entry.h1}\n".encode())
    with pytest.raises(BundleError, match=f"but {NAME} says"):
        await take_in(packed([own, *proofs, forged], NAME), store, trust)
    with pytest.raises(BundleError, match="vouches for it"):
        await take_in(packed([forged]), store, trust)
    with pytest.raises(BundleError, match="comes after"):
        await take_in(packed([go_sum, mod, *proofs], NAME), store, trust)
    assert {name for name in await names(store) if name != item.name} == set()
    info = next(part for part in parts if part.entry.name.endswith(".info"))
    with pytest.raises(BundleError, match="nothing else of this version"):
        await take_in(packed([go_sum, info]), store, trust)
    await store.delete(item.name)
    taken = await take_in(packed([forged]), store, trusting(sender.setting, item.module))
    assert taken.by == {"none": 1}


def edit(change: Callable[[dict[str, Any]], None]) -> bytes:
    told = {"gotunnel-bundle": 1, "projects": ["x"], "sumdb": "", "files": []}
    change(told)
    return json.dumps(told).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"null", b"[" * 100_000,
        edit(lambda told: told.update({"gotunnel-bundle": 2})),
        edit(lambda told: told.update(files=[{"name": bundle.GO_SUM, "size": -1, "sha256": "0" * 64}])),
        edit(lambda told: told.update(files=[{"name": bundle.GO_SUM, "size": True, "sha256": "0" * 64}])),
        edit(lambda told: told.update(files=[{"name": bundle.GO_SUM, "size": 10**12, "sha256": "0" * 64}])),
        edit(lambda told: told.update(files=[{"name": bundle.GO_SUM, "size": 1, "sha256": "x"}])),
        edit(lambda told: told.update(files=[{"name": bundle.GO_SUM, "size": 1, "sha256": "0" * 64}] * 2)),
        edit(lambda told: told.update(files=[{"name": "a.io/@v/v1.0.0.zip", "size": 1, "sha256": "0" * 64}])),
        edit(lambda told: told.update(files="x")),
        edit(lambda told: told.update(projects=[1])),
    ],
)  # fmt: skip
def test_a_list_that_is_none(data: bytes) -> None:
    with pytest.raises(BundleError):
        Manifest.decode(data)


async def test_something_that_is_no_bundle(store: Store) -> None:
    zipped = b"PK\x03\x04" + bytes(2000)
    for data in (b"", zipped, b"<html>" * 400, bytes(20_000)):
        with pytest.raises(BundleError, match="the bundle is broken"):
            await take_in(data, store, trusting(None))


class Bucket:
    """A store of which no file can be opened."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def local(self, stored: Stored) -> None:
        return None


async def test_from_a_store_without_files_of_its_own(
    sender: Sender, source: Store, store: Store, tmp_path: Path
) -> None:
    await sender.parts(source)
    spool = tmp_path / "spool"
    spool.mkdir()
    finder = Finder(Bucket(source), GoModCache(""), Verifier(sender.sums, "", None).check, spool=spool)
    parts = await finder.find(sender.items)
    go_sum = of_bytes(bundle.GO_SUM, bundle.go_sum_text(sender.sums))
    assert (await take_in(packed([go_sum, *parts]), store, trusting(None))).by == {"gosum": 12}


async def test_missing_files_are_all_named(sender: Sender, source: Store) -> None:
    with pytest.raises(Incomplete) as caught:
        await sender.parts(source, ensure=None)
    assert set(caught.value.missing) == set(sender.items)
    assert caught.value.status == 69


async def test_a_file_appears_whole_or_not_at_all(sender: Sender, source: Store, tmp_path: Path) -> None:
    parts = await sender.parts(source)
    manifest = Manifest((), "", tuple(part.entry for part in parts))
    file = tmp_path / "out" / "app.bundle"
    with pytest.raises(BundleError, match="No such file or directory"):
        await packing.write_file(file, manifest, parts)
    file.parent.mkdir()
    gone = parts[-1].source
    assert isinstance(gone, bytes)  # an info that is small
    lost = Part(parts[-1].entry, tmp_path / "pruned")
    with pytest.raises(BundleError, match="removed from the store meanwhile"):
        await packing.write_file(file, manifest, [*parts[:-1], lost])
    lost_path = tmp_path / "pruned"
    lost_path.write_bytes(gone[:-1] + b"?")
    with pytest.raises(BundleError, match="changed meanwhile"):
        await packing.write_file(file, manifest, [*parts[:-1], lost])
    assert list(file.parent.iterdir()) == []
    assert await packing.write_file(file, manifest, parts) == file.stat().st_size


async def test_a_pipe_and_a_link_stay_what_they_are(sender: Sender, source: Store, tmp_path: Path) -> None:
    parts = await sender.parts(source)
    manifest = Manifest((), "", tuple(part.entry for part in parts))
    pipe, link, file = tmp_path / "pipe", tmp_path / "link", tmp_path / "file"
    link.symlink_to(file)
    size = await packing.write_file(link, manifest, parts)
    assert (link.is_symlink(), file.stat().st_size) == (True, size)
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        assert await packing.write_file(pipe, manifest, parts) == size
        assert reader.communicate()[0] == file.read_bytes()
    assert pipe.is_fifo()


async def test_from_the_module_cache_verified_and_without_the_repository_s_url(
    sender: Sender, source: Store, tmp_path: Path
) -> None:
    cache = tmp_path / "mod" / "cache" / "download"
    for item in sender.items:
        path = cache / item.name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = (sender.corpus.directory / item.name).read_bytes()
        if item.kind == "info":
            data = json.dumps(json.loads(data) | {"Origin": {"URL": "https://user:word@git"}}).encode()
        path.write_bytes(data)
    finder = Finder(
        source, GoModCache(str(tmp_path / "mod")), Verifier(sender.sums, "", None).check, spool=tmp_path
    )
    parts = await finder.find(sender.items)
    assert b"word" not in packed(parts)
    changed_one = cache / next(item.name for item in sender.items if item.kind == "mod")
    changed_one.write_text("module x\n")
    with pytest.raises(Incomplete, match="checksum mismatch"):
        await finder.find(sender.items)
