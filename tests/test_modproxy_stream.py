"""A zip that is larger than memory, and no disk: go gets it as it comes, and never the end of a wrong one."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import os
import socket
import tempfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gotunnel.errors import ModuleError
from gotunnel.modproxy import receive
from gotunnel.modproxy.fetch import Fetcher
from gotunnel.modproxy.proxy import ModProxy
from gotunnel.modproxy.server import Server
from gotunnel.modproxy.sources import parse_list
from gotunnel.modproxy.target import parse
from gotunnel.modproxy.zipsum import ZipSum
from gotunnel.observe.events import Event, Fetch, Resume
from gotunnel.pool.pool import Pool, Upstream
from gotunnel.storage.disk import DiskStore
from tests.flaky_origin import Line, Manner, Origin, bytes_of, serving, sha
from tests.modfakes import BASE, MODULE, VERSION, go_sum, project

MIB = 1 << 20
PATH = f"{BASE}.zip"


def large_zip(size: int, *, seed: int = 1) -> bytes:
    """A module zip of about `size` bytes, most of them stored, and one entry that inflates to 20 MiB."""
    block, out = bytes_of(MIB, seed), io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{MODULE}@{VERSION}/go.mod", f"module {MODULE}\n")
        archive.writestr(f"{MODULE}@{VERSION}/text.txt", b"text\n" * (4 * MIB), zipfile.ZIP_DEFLATED, 1)
        for number in range(size // (5 * MIB)):
            archive.writestr(f"{MODULE}@{VERSION}/data/{number}.bin", block * 5)
    return out.getvalue()


@pytest.fixture(scope="module")
def large() -> bytes:
    return large_zip(100 * MIB)


@pytest.fixture(scope="module")
def sums(large: bytes) -> str:
    return go_sum(zip_=large)


class Download:
    """A client that reads as it is told; `digest` and `count` of the body so far, `tail` its last bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = b""
        self.digest, self.count, self.tail, self.grown = hashlib.sha256(), 0, b"", 0

    @property
    def length(self) -> int:
        found = [line for line in self.head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        return int(found[0].partition(b":")[2])

    async def begin(self) -> None:
        self.head = await self.reader.readuntil(b"\r\n\r\n")

    async def read(self, upto: int = 1 << 40) -> None:
        before = resident()
        try:
            while self.count < upto and (data := await self.reader.read(64 << 10)):
                self.digest.update(data)
                self.count += len(data)
                self.tail = (self.tail + data)[-4 * 65536 :]
                self.grown = max(self.grown, resident() - before)
        except ConnectionError:
            pass

    def check(self, want: bytes) -> None:
        assert self.head.startswith(b"HTTP/1.1 200")
        assert self.count == len(want)
        assert self.digest.hexdigest() == sha(want)


def resident() -> int:
    """Bytes of this process in memory."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class Scene:
    """A server over a module proxy that has no disk, two ways out and one source."""

    def __init__(self, directory: Path, files: dict[str, bytes], sums: str) -> None:
        self.origin = Origin(files)
        self.events: list[Event] = []
        self.told: list[str] = []
        self.a, self.b = Line("a"), Line("b")
        emit = self.events.append
        self.pool = Pool([Upstream("a", self.a), Upstream("b", self.b)], emit=emit)
        self.directory, self.sums = directory, sums
        self.port = 0
        self.clients: list[Download] = []

    async def serve(self) -> None:
        fetcher = Fetcher(self.pool, emit=self.events.append, stall=2.0)
        store = DiskStore(self.directory)
        self.proxy = ModProxy(
            parse_list(self.origin.url), fetcher, store, emit=self.events.append, tell=self.told.append
        )
        self.server = Server(self.proxy)
        self.server.add("secret", project(self.sums))
        sock = socket.create_server(("127.0.0.1", 0))
        self.port = sock.getsockname()[1]
        await self.server.start(sock)

    async def get(self) -> Download:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 128 << 10)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        client = Download(*await asyncio.open_connection(sock=sock, limit=256 << 10))
        self.clients.append(client)
        client.writer.write(f"GET /secret/{PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        await client.begin()
        return client

    async def close(self) -> None:
        for client in self.clients:
            client.writer.transport.abort()
        await self.server.close()
        await self.proxy.close()
        await self.pool.close()
        await self.origin.deserted()

    @property
    def received(self) -> int:
        return sum(stream.received for line in (self.a, self.b) for stream in line.streams)

    @property
    def fetched(self) -> list[Fetch]:
        """Of the transfers that had a place to go to."""
        return [e for e in self.events if isinstance(e, Fetch) and e.error != "disk.full"]


@pytest.fixture
async def scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bytes, sums: str
) -> AsyncIterator[Scene]:
    def full(*args: object, **kw: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    made = Scene(tmp_path / "store", {f"/{PATH}": large}, sums)
    monkeypatch.setattr(tempfile, "mkstemp", full)
    async with serving(made.origin):
        await made.serve()
        yield made
        await made.close()
    assert not [task for task in asyncio.all_tasks() if "fetcher" in task.get_name()]
    assert not list(made.directory.rglob("*.zip"))


async def test_it_is_passed_on_in_bounded_memory(scene: Scene, large: bytes) -> None:
    await scene.server.prepare()
    client = await scene.get()
    await client.read()
    client.check(large)
    assert client.length == len(large)
    assert client.grown < 40 * MIB
    assert [(e.bytes, e.error) for e in scene.fetched] == [(len(large), None)]
    assert not scene.told


def other(large: bytes) -> bytes:
    return large_zip(100 * MIB, seed=2)


def broken(large: bytes) -> bytes:
    return large[: 50 * MIB] + bytes([large[50 * MIB] ^ 1]) + large[50 * MIB + 1 :]


def longer(large: bytes) -> bytes:
    return large + b"more"


@pytest.mark.parametrize(
    ("spoil", "finding"),
    [(other, "sum.mismatch"), (broken, "module.bad-zip"), (longer, "module.bad-zip")],
)
async def test_the_end_of_a_wrong_one_is_never_given(
    scene: Scene, large: bytes, spoil: object, finding: str
) -> None:
    assert callable(spoil)
    wrong = spoil(large)
    scene.origin.files[f"/{PATH}"] = wrong
    client = await scene.get()
    await client.read()
    assert MIB < client.count <= len(wrong) - 65536 < client.length
    assert b"PK\x01\x02" not in client.tail
    assert b"HTTP/1.1 5" not in client.tail
    told = [e for e in scene.fetched if e.error]
    assert [e.error for e in told] == [finding]
    assert told[0].origin == scene.origin.url
    (line,) = scene.told
    assert finding in line
    assert scene.origin.url in line
    assert f"{MODULE}@{VERSION}" in line


async def test_what_broke_goes_on_under_the_same_tag(scene: Scene, large: bytes) -> None:
    scene.origin.script.append(Manner(cut=50 * MIB))
    client = await scene.get()
    await client.read()
    client.check(large)
    assert [(e.source, e.to) for e in scene.events if isinstance(e, Resume)] == [("a", "b")]
    assert scene.origin.ranges()[1].startswith("bytes=")
    assert [(e.bytes, e.error) for e in scene.fetched] == [(len(large), None)]


@pytest.mark.parametrize("after", [Manner(etag=""), Manner(etag='"v2"'), Manner(status=404)])
async def test_what_would_start_anew_is_cut_off(scene: Scene, large: bytes, after: Manner) -> None:
    scene.origin.script += [Manner(cut=50 * MIB, etag=after.etag and '"v1"'), after]
    client = await scene.get()
    await client.read()
    assert MIB < client.count <= 50 * MIB
    finding = "module.not-found" if after.status == 404 else "http.truncated"
    assert [e.error for e in scene.fetched] == [finding]
    assert finding in scene.told[0]


async def test_a_slow_client_holds_the_source(scene: Scene, large: bytes) -> None:
    """Longer than a stall: what waits for us is not dead."""
    client = await scene.get()
    await client.read(MIB)
    seen, since = -1, 0.0
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(60):
        while seen != scene.received or loop.time() - since < 3:
            if seen != scene.received:
                seen, since = scene.received, loop.time()
            await asyncio.sleep(0.1)
    assert seen < 16 * MIB  # most of it in the kernel's buffers
    await client.read()
    client.check(large)
    assert not [e for e in scene.events if isinstance(e, Resume)]


async def test_each_asker_gets_their_own(scene: Scene, large: bytes) -> None:
    clients = await asyncio.gather(*(scene.get() for _ in range(3)))
    await asyncio.gather(*(client.read() for client in clients))
    for client in clients:
        client.check(large)
    assert len(scene.origin.asked) == 3


async def test_a_client_that_goes_away_ends_the_transfer(scene: Scene) -> None:
    client = await scene.get()
    await client.read(MIB)
    client.writer.transport.abort()
    await scene.origin.deserted()
    assert not scene.told


async def test_a_length_that_is_not_told(scene: Scene, large: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receive, "MEMORY", 8 * MIB)
    scene.origin.manner = Manner(chunked=True)
    client = await scene.get()
    assert b"transfer-encoding: chunked" in client.head.lower()
    await client.read()
    assert client.tail.endswith(b"\r\n0\r\n\r\n")
    assert client.count > len(large)
    assert [(e.bytes, e.error) for e in scene.fetched] == [(len(large), None)]


def test_what_is_known_to_be_content(large: bytes) -> None:
    summing, directory = ZipSum(), large.index(b"PK\x01\x02", len(large) - 65536)
    for place in range(0, len(large), 777_777):
        summing.feed(large[place : place + 777_777])
        assert summing.content <= min(directory, place + 777_777)
    assert summing.finish()
    assert summing.content == directory


async def test_a_prefetch_that_can_keep_nothing_leaves_it_to_go(scene: Scene, large: bytes) -> None:
    ensured, client = await asyncio.gather(
        scene.proxy.ensure(parse(PATH), project(scene.sums)), scene.get(), return_exceptions=True
    )
    assert isinstance(ensured, ModuleError)
    assert ensured.finding == "disk.full"
    assert isinstance(client, Download)
    await client.read()
    client.check(large)
    with pytest.raises(ModuleError):
        await scene.proxy.ensure(parse(PATH), project(scene.sums))
    await scene.origin.deserted()  # what nobody takes ends
