"""What every kind of store holds to, run over each: a directory, S3 (versitygw) and Azure (Azurite)."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, aclosing
from pathlib import Path

import pytest

from gotunnel.storage import Store, StoreError, Vanished, open_store, read_all
from gotunnel.storage.store import PIECE
from tests.conftest import need
from tests.lab.proc import ROOT
from tests.lab.s3 import Azurite, ObjectServer, VersityGw

ZIP = "github.com/!burnt!sushi/toml/@v/v1.0.0.zip"
SERVERS: dict[str, type[ObjectServer]] = {"s3": VersityGw, "azure": Azurite}
_numbers = itertools.count()


@pytest.fixture(scope="module", params=["disk", *SERVERS])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """The server of a kind; None for a directory."""
    kind = SERVERS.get(request.param)
    if kind is None:
        yield None
        return
    need(kind.available())
    with kind(tmp_path_factory.mktemp(request.param)) as running, ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in running.variables.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def url(server: object, tmp_path: Path) -> str:
    """Of an empty store."""
    if isinstance(server, ObjectServer):
        return server.store_url(f"team-{next(_numbers)}/modules")
    return f"file://{tmp_path}/store"


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    async with AsyncExitStack() as stack:
        made = open_store(url)
        stack.push_async_callback(made.close)
        yield made


async def content(store: Store, name: str) -> bytes:
    found = await store.get(name)
    assert found is not None, f"{name} is not there"
    return await read_all(store, found)


async def all_names(store: Store, prefix: str = "") -> list[str]:
    return sorted([each.name async for each in store.names(prefix)])


async def test_what_was_put_is_got(store: Store) -> None:
    assert await store.get(ZIP) is None
    await store.put(ZIP, b"body", labels={"h1": "h1:abc=", "by": "sumdb:sum.golang.org", "source": "é"})
    found = await store.get(ZIP)
    assert found is not None
    assert (found.name, found.size) == (ZIP, 4)
    assert found.labels == {"h1": "h1:abc=", "by": "sumdb:sum.golang.org", "source": "é"}
    assert abs(found.stored_at - time.time()) < 60
    assert await read_all(store, found) == b"body"
    path = await store.local(found)
    assert path is None or path.read_bytes() == b"body"


async def test_the_first_put_wins_with_its_labels(store: Store) -> None:
    await store.put(ZIP, b"first", labels={"h1": "1"})
    await store.put(ZIP, b"second, longer", labels={"h1": "2"})
    await store.put(ZIP, b"third")
    found = await store.get(ZIP)
    assert found is not None
    assert (await read_all(store, found), found.labels) == (b"first", {"h1": "1"})


async def test_a_mutable_file_is_replaced_with_its_labels(store: Store) -> None:
    name = "example.com/m/@v/list"
    await store.put(name, b"v1.0.0\n", labels={"fetched": "1"}, mutable=True)
    await store.relabel(name, {"fetched": "2"})
    await store.put(name, b"v1.0.0\n", labels={"fetched": "3"}, mutable=True)
    found = await store.get(name)
    assert found is not None
    assert found.labels == {"fetched": "3"}, "the labels of an earlier file of the same content came back"
    await store.put(name, b"v1.0.0\nv1.1.0\n", mutable=True)
    assert await content(store, name) == b"v1.0.0\nv1.1.0\n"
    found = await store.get(name)
    assert found is not None
    assert found.labels == {}


async def test_a_file_in_the_spool_is_used_up(store: Store) -> None:
    for body in (b"one", b"two"):  # the second changes nothing, but is used up all the same
        source = store.spool() / "download"
        source.write_bytes(body)
        await store.put(ZIP, source, labels={"h1": "x"})
        assert not source.exists()
    assert await content(store, ZIP) == b"one"


async def test_a_large_file_comes_back_whole_and_in_pieces(store: Store) -> None:
    body = random.Random(1).randbytes(17 * 1024 * 1024 + 1)  # above what goes up in one request
    source = store.spool() / "large"
    source.write_bytes(body)
    await store.put(ZIP, source, labels={"h1": "large"})
    found = await store.get(ZIP)
    assert found is not None
    assert found.labels == {"h1": "large"}
    digest, largest = hashlib.sha256(), 0
    async with aclosing(store.read(found)) as pieces:
        async for piece in pieces:
            digest.update(piece)
            largest = max(largest, len(piece))
    assert digest.digest() == hashlib.sha256(body).digest()
    assert largest <= PIECE


async def test_labels_are_replaced(store: Store) -> None:
    await store.put(ZIP, b"body", labels={"h1": "1", "by": "gosum"})
    await store.relabel(ZIP, {"h1": "1", "by": "sumdb:sum.golang.org"})
    await store.relabel("example.com/not/there", {"by": "none"})
    found = await store.get(ZIP)
    assert found is not None
    assert found.labels == {"h1": "1", "by": "sumdb:sum.golang.org"}
    assert [each.labels async for each in store.names()] == [found.labels]
    assert [each.labels async for each in store.names(labels=False)] == [{}]


async def test_names_start_with_the_prefix_and_hide_what_is_ours(store: Store) -> None:
    names = ["a.com/x/@v/v1.zip", "a.com/xy/@v/v1.zip", "a.com/z/@v/v1.mod", "sumdb/s/latest"]
    for name in names:
        await store.put(name, b"x", labels={"h1": "1"})
        await store.relabel(name, {"h1": "2"})
    assert await all_names(store) == names
    assert await all_names(store, "a.com/x") == names[:2]
    assert await all_names(store, "a.com/x/") == names[:1]
    assert await all_names(store, "a.com/z/@v/v1.mod") == names[2:3]
    assert await all_names(store, "nowhere/") == []


async def test_what_go_asks_for_is_a_name(store: Store) -> None:
    names = [
        "git.sr.ht/~user/x/@v/v2.0.0+incompatible.zip",
        "github.com/!azure/x/@latest",
        "sumdb/sum.golang.org/lookup/golang.org/x/text@v0.3.0",
        "sumdb/sum.golang.org/tile/8/0/x001/234.p/5",
        "golang.org/toolchain/@v/v0.0.1-go1.26.8.linux-amd64.zip",
        "example.com/m/@v/master.info",
    ]
    for name in names:
        await store.put(name, name.encode())
    assert await all_names(store) == sorted(names)
    for name in names:
        assert await content(store, name) == name.encode()


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "a/../b", "a//b", ".", "a\\b", "a\0b", "a\nb", ".gotunnel/x"]
)
async def test_a_name_that_is_none_is_refused_by_all(store: Store, name: str) -> None:
    with pytest.raises(StoreError, match="not a name"):
        await store.get(name)
    with pytest.raises(StoreError, match="not a name"):
        await store.put(name, b"x")
    with pytest.raises(StoreError, match="not a name"):
        await store.relabel(name, {})
    with pytest.raises(StoreError, match="not a name"):
        await store.delete(name)


async def test_labels_are_small(store: Store) -> None:
    with pytest.raises(StoreError, match="labels of"):
        await store.put(ZIP, b"x", labels={"note": "x" * 2000})
    assert await store.get(ZIP) is None


async def test_a_file_that_vanished_is_a_miss(store: Store) -> None:
    await store.put(ZIP, b"body")
    found = await store.get(ZIP)
    assert found is not None
    await store.delete(ZIP)
    await store.delete(ZIP)  # not there: nothing to do
    assert await store.get(ZIP) is None
    assert await store.local(found) is None
    with pytest.raises(Vanished):
        await read_all(store, found)
    await store.put(ZIP, b"another one")  # under the same name: still not the file that was told of
    with pytest.raises(Vanished):
        await read_all(store, found)


async def test_labels_go_with_their_file(store: Store) -> None:
    await store.put(ZIP, b"body", labels={"by": "gosum"})
    await store.relabel(ZIP, {"by": "sumdb:x"})
    await store.delete(ZIP)
    await store.put(ZIP, b"body")
    found = await store.get(ZIP)
    assert found is not None
    assert found.labels == {}, "an unverified file took over the verification of another"


async def test_prune_keeps_within_the_limit_and_what_is_mutable(store: Store) -> None:
    await store.put("sumdb/s/latest", b"h" * 100, mutable=True)
    for number in range(4):
        await store.put(f"a.com/m{number}/@v/v1.zip", b"x" * 1000)
    assert await store.prune(10_000) == (0, 0)
    assert await store.prune(2_500) == (2, 2000)
    assert len(await all_names(store)) == 3
    assert await store.prune(0) == (2, 2000)
    assert await all_names(store) == ["sumdb/s/latest"]


async def test_of_many_puts_at_once_one_wins_whole(store: Store) -> None:
    async def put(number: int) -> None:
        await store.put(ZIP, b"%d" % number * (number + 1), labels={"h1": str(number)})

    await asyncio.gather(*(put(number) for number in range(9)))
    found = await store.get(ZIP)
    assert found is not None
    number = int(found.labels["h1"])
    assert await read_all(store, found) == b"%d" % number * (number + 1)


WORKER = """
import asyncio, sys
from gotunnel.storage import open_store, read_all

async def main(url, who, count):
    store = open_store(url)
    async def one(number):
        name = f"a.com/m{number}/@v/v1.0.0.zip"
        body = bytes([number]) * (1000 + number)
        source = store.spool() / f"{who}-{number}"
        source.write_bytes(body)
        if (found := await store.get(name)) is not None:  # put by somebody else: whole from the first moment
            assert await read_all(store, found) == body, (name, len(body), found)
            assert found.labels == {"h1": str(number)}, found
        await store.put(name, source, labels={"h1": str(number)})
        await store.put(f"a.com/m{number}/@v/list", who.encode() * 10, mutable=True)
        found = await store.get(name)
        assert await read_all(store, found) == body, (name, found)
        assert found.labels == {"h1": str(number)}, found
        listed = await store.get(f"a.com/m{number}/@v/list")
        assert len(set(await read_all(store, listed))) == 1
    for start in range(0, int(count), 8):
        await asyncio.gather(*(one(number) for number in range(start, start + 8)))
    await store.close()

asyncio.run(main(*sys.argv[1:]))
print("done")
"""


async def test_four_processes_put_and_get_the_same_names(store: Store, url: str) -> None:
    count = 40 if url.startswith("az:") else 200  # the emulator takes its time
    workers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", WORKER, url, str(number), str(count),
            cwd=ROOT, env=dict(os.environ), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )
        for number in range(4)
    ]  # fmt: skip
    try:
        outputs = await asyncio.gather(*(worker.communicate() for worker in workers))
    finally:
        for worker in workers:
            if worker.returncode is None:
                worker.kill()
    assert [out.decode()[-2000:] for out, _ in outputs] == ["done\n"] * 4
    assert len(await all_names(store)) == 2 * count
