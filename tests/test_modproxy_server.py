"""The socket: strangers, secrets, bounds; and a real go over a real fetcher, store and origin."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import ModuleError
from gotunnel.modproxy.fetch import Fetcher
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.proxy import Answer, ModProxy, Project
from gotunnel.modproxy.server import Server, _Door
from gotunnel.modproxy.sources import parse_list
from gotunnel.modproxy.verify import Verifier
from gotunnel.observe.events import Event
from gotunnel.storage.disk import DiskStore
from gotunnel.upstream.dialer import Stream
from gotunnel.upstream.direct import DirectDialer
from tests.conftest import need
from tests.lab import gotool
from tests.lab.corpus import VERSION, Corpus
from tests.lab.origin import Origin
from tests.modfakes import BASE, FILES, INFO, ZIP, FakeFetcher, project

SECRET = "s3cret-s3cret-s3cret"
BIG = bytes(range(256)) * 4096  # 1 MiB


class Stub:
    """Answers by path, and notes what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.answers: dict[str, Callable[[], Answer]] = {}
        self.hanging, self.cancelled = asyncio.Event(), asyncio.Event()

    async def answer(self, path: str, project: Project, *, priority: int = 0) -> Answer:
        self.asked.append((project.id, path))
        if path == "hangs":
            self.hanging.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if path not in self.answers:
            raise ModuleError(
                "tcp.refused", "no\nanswer from http://u:pw@h/", source="src", upstream="ssh://b"
            )
        return self.answers[path]()


def listen() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.fixture
def stub() -> Stub:
    return Stub()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., object]]:
    async with contextlib.AsyncExitStack() as stack:

        async def start(proxy: object, **kw: object) -> tuple[Server, int]:
            server = Server(proxy, **kw)  # type: ignore[arg-type]
            stack.push_async_callback(server.close)
            sock = listen()
            port = sock.getsockname()[1]
            await server.start(sock)
            return server, port

        yield start


async def ask(
    port: int, path: str, *, method: str = "GET", headers: str = ""
) -> tuple[int, dict[str, str], bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n".encode())
        raw = await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()
    head, _, body = raw.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    found = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
    assert method == "HEAD" or int(found.get("content-length", 0)) == len(body)
    return int(status.split()[1]), found, body


async def test_a_stranger_hears_the_same_always(stub: Stub, serve: Callable[..., object]) -> None:
    server, port = await serve(stub)  # type: ignore[misc]
    server.add(SECRET, project())
    stub.answers["x"] = lambda: Answer(200, (), b"file", 4, True)
    assert (await ask(port, f"/{SECRET}/x"))[2] == b"file"
    stub.asked.clear()
    heard = {
        (status, body)
        for path in ("/", "/x", f"/{SECRET[:-1]}/x", f"/{SECRET}x/x", f"/%73{SECRET[1:]}/x", "//x",
        "/a/../" + SECRET)
        for method in ("GET", "POST")
        for status, _, body in [await ask(port, path, method=method)]
    }  # fmt: skip
    assert heard == {(404, b"404 page not found\n")}
    server.remove(SECRET)
    assert (await ask(port, f"/{SECRET}/x"))[0] == 404
    assert not stub.asked


async def test_answers(stub: Stub, serve: Callable[..., object], tmp_path: Path) -> None:
    server, port = await serve(stub)  # type: ignore[misc]
    server.add(SECRET, project(name="p"))
    file = tmp_path / "big"
    file.write_bytes(BIG)

    async def pieces() -> AsyncIterator[bytes]:
        for place in range(0, len(BIG), 65536):
            yield BIG[place : place + 65536]

    etag = (("ETag", '"1"'),)
    stub.answers["file"] = lambda: Answer(200, etag, file, len(BIG), True)
    stub.answers["pieces"] = lambda: Answer(200, (), pieces(), len(BIG), True)
    stub.answers["small"] = lambda: Answer(200, etag, b"0123456789", 10, True)
    stub.answers["gone"] = lambda: Answer(200, (), tmp_path / "gone", 5, True)
    for path in ("file", "pieces"):
        assert (await ask(port, f"/{SECRET}/{path}"))[2] == BIG
        status, headers, body = await ask(port, f"/{SECRET}/{path}", method="HEAD")
        assert (status, headers["content-length"], body) == (200, str(len(BIG)), b"")
    assert (await ask(port, f"/{SECRET}/file", headers='If-None-Match: "1"\r\n'))[0] == 304
    for path, whole in (("file", BIG), ("small", b"0123456789")):
        told = 'Range: bytes=3-5\r\nIf-Range: "1"\r\n'
        status, headers, body = await ask(port, f"/{SECRET}/{path}", headers=told)
        assert (status, headers["content-range"], body) == (206, f"bytes 3-5/{len(whole)}", whole[3:6])
        assert (await ask(port, f"/{SECRET}/{path}", headers=told.replace('"1"', '"2"')))[2] == whole
    assert (await ask(port, f"/{SECRET}/gone"))[0] == 500
    assert (await ask(port, f"/{SECRET}/small", method="DELETE"))[0] == 405
    status, headers, body = await ask(port, f"/{SECRET}/a/%21b/@v/list")
    assert stub.asked[-1] == ("p", "a/%21b/@v/list")
    assert (status, headers["content-type"]) == (502, "text/plain; charset=utf-8")
    assert body.count(b"\n") == 1
    assert all(word in body for word in (b"src", b"ssh://b", b"tcp.refused"))
    assert b"pw" not in body


async def test_shared_mode(stub: Stub, serve: Callable[..., object]) -> None:
    server, port = await serve(stub, check=lambda user, password: (user, password) == ("u", "p:w"))  # type: ignore[misc]
    server.add("", project(name="team"))
    stub.answers["m/@v/list"] = lambda: Answer(200, (), b"v", 1, True)
    right = base64.b64encode(b"u:p:w").decode()
    for header in (
        "",
        "Authorization: Basic eDp5\r\n",
        "Authorization: Basic %%%\r\n",
        f"Authorization: Bearer {right}\r\n",
    ):
        assert (await ask(port, "/m/@v/list", headers=header))[0] == 401
    assert not stub.asked
    assert (await ask(port, "/m/@v/list", headers=f"Authorization: Basic {right}\r\n"))[2] == b"v"


async def test_a_client_that_goes_away_ends_its_question(stub: Stub, serve: Callable[..., object]) -> None:
    server, port = await serve(stub)  # type: ignore[misc]
    server.add(SECRET, project())
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /{SECRET}/hangs HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(20):
        await stub.hanging.wait()
        writer.transport.abort()
        await stub.cancelled.wait()


async def test_bounds(stub: Stub, serve: Callable[..., object]) -> None:
    server, port = await serve(stub, connections=2)  # type: ignore[misc]
    server.add(SECRET, project())
    flood = "".join(f"X-{number}: {'y' * 4000}\r\n" for number in range(2000))
    with contextlib.suppress(ConnectionError):
        status, _, _ = await ask(port, f"/{SECRET}/x", headers=flood)
        assert status == 400
    assert (await ask(port, f"/{SECRET}/" + "x" * 20_000))[0] == 400
    assert not stub.asked
    idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(reader.read(), 10) == b""
    for _, each in [*idle, (reader, writer)]:
        each.close()
    async with asyncio.timeout(10):
        while (await refused(port)) is None:  # noqa: ASYNC110 - seen only from outside
            await asyncio.sleep(0.01)


async def test_a_request_before_aiohttp_is_there_is_answered(stub: Stub) -> None:
    """Whatever a paused transport does: Python 3.11.2 reads on where it was paused in connection_made."""

    class Transport(asyncio.Transport):
        written = b""

        def pause_reading(self) -> None: ...
        def resume_reading(self) -> None: ...
        def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
        def is_closing(self) -> bool:
            return self.written.endswith(b"closed")

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self.written += bytes(data)

        def close(self) -> None:
            self.written += b"closed"

        abort = close

    async with contextlib.AsyncExitStack() as stack:
        for request in (b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"x" * 70_000):
            server, transport = Server(stub), Transport()
            stack.push_async_callback(server.close)
            door = _Door(server)
            door.connection_made(transport)
            door.data_received(request[:20])
            door.data_received(request[20:])
            async with asyncio.timeout(20):
                while not transport.is_closing():  # noqa: ASYNC110 - seen only from outside
                    await asyncio.sleep(0.01)
            assert transport.written.startswith(b"HTTP/1.1 404 " if b"Host" in request else b"closed")
            door.connection_lost(None)


async def refused(port: int) -> int | None:
    with contextlib.suppress(ConnectionError, IndexError, KeyError, ValueError):
        return (await ask(port, "/x"))[0]
    return None


# --- the whole path ----------------------------------------------------------------------------------


class Direct:
    """The machine's own network as the one way out; dials are counted."""

    label = "direct:"

    def __init__(self) -> None:
        self.dialer = DirectDialer()
        self.dials = 0

    async def dial(self, target: HostPort) -> Stream:
        self.dials += 1
        stream = await self.dialer.dial(target)
        stream.via = self.label
        return stream

    async def dial_by(
        self, target: HostPort, *, only: str = "", avoid: frozenset[str] = frozenset()
    ) -> Stream:
        return await self.dial(target)

    def ways(self, target: HostPort) -> tuple[str, ...]:
        return (self.label,)

    def stalled(self, target: HostPort, name: str) -> None: ...

    async def warm(self) -> None: ...

    async def close(self) -> None: ...


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[tuple[Corpus, Origin]]:
    need(gotool.can_run_go())
    corpus = Corpus(tmp_path / "corpus", count=12, filler=(200, 200_000))
    with Origin(tmp_path / "origin", corpus.directory) as served:
        yield corpus, served


async def go(env: dict[str, str], where: Path, *words: str) -> tuple[int, str]:
    ran = await asyncio.to_thread(
        subprocess.run, ["go", *words], cwd=where, env=env, capture_output=True, text=True, check=False
    )
    return ran.returncode, ran.stdout + ran.stderr


async def test_a_real_go(origin: tuple[Corpus, Origin], serve: Callable[..., object], tmp_path: Path) -> None:
    corpus, served = origin
    ways, events = Direct(), list[Event]()
    store = DiskStore(tmp_path / "store")
    fetcher = Fetcher(ways, emit=events.append)
    sources = parse_list(served.url)
    proxy = ModProxy(sources, fetcher, store, emit=events.append)
    offline = ModProxy(sources, fetcher, store, emit=events.append, offline=True)
    server, port = await serve(proxy)  # type: ignore[misc]
    gone, gone_port = await serve(offline)  # type: ignore[misc]
    run = Project("r", Verifier(GoSum.parse(corpus.go_sum()), "", None))
    server.add(SECRET, run)
    gone.add(SECRET, run)
    app = corpus.write_project(tmp_path / "app")
    bare = corpus.write_project(tmp_path / "bare", requires=False, sums=False)
    url = f"http://127.0.0.1:{port}/{SECRET}"
    for where, words in (
        (app, ("mod", "download", "all")),
        (bare, ("mod", "tidy")),
        (app, ("build", "-o", "x", ".")),
    ):
        status, said = await go(gotool.go_env(tmp_path / "go", proxy=url), where, *words)
        assert status == 0, said
    assert (bare / "go.sum").read_text()
    zips = [r["path"] for r in served.requests() if r["path"].endswith((".zip", ".mod"))]
    assert len(zips) == len(set(zips)) == 2 * len(corpus.modules)
    # without the network: the store alone, which is a GOPROXY by itself too
    dials = ways.dials
    env = gotool.go_env(tmp_path / "go", proxy=f"http://127.0.0.1:{gone_port}/{SECRET},off")
    assert await go(env, app, "mod", "download", "all") == (0, "")
    assert (
        await go(gotool.go_env(tmp_path / "go", proxy=(tmp_path / "store").as_uri()), app, "mod", "verify")
    )[0] == 0
    missing = corpus.modules[0]
    await store.delete(f"{missing.path.lower()}/@v/{VERSION}.zip")
    env = gotool.go_env(tmp_path / "go", proxy=f"http://127.0.0.1:{gone_port}/{SECRET},off")
    status, said = await go(env, app, "mod", "download")
    assert status == 1
    assert f"offline: {missing.path}@{VERSION} is not in the store" in said
    status, said = await go(env, app, "get", "nowhere.example/x/y@latest")
    assert status == 1
    assert "nowhere.example" in said
    assert ways.dials == dials
    await proxy.close()


async def test_go_never_gets_wrong_bytes(
    origin: tuple[Corpus, Origin], serve: Callable[..., object], tmp_path: Path
) -> None:
    corpus, served = origin
    module = corpus.modules[0]
    evil = corpus.zip_path(corpus.modules[1]).read_bytes()
    corpus.zip_path(module).write_bytes(evil)
    store = DiskStore(tmp_path / "store")
    fetcher = Fetcher(Direct(), emit=lambda event: None)
    proxy = ModProxy(parse_list(served.url), fetcher, store, emit=lambda event: None)
    server, port = await serve(proxy)  # type: ignore[misc]
    server.add(SECRET, Project("r", Verifier(GoSum.parse(corpus.go_sum()), "", None)))
    env = gotool.go_env(tmp_path / "go", proxy=f"http://127.0.0.1:{port}/{SECRET},direct")
    app = corpus.write_project(tmp_path / "app")
    status, said = await go(env, app, "mod", "download", module.path)
    assert status == 1
    assert "server response:" in said
    assert served.url in said
    assert "go-get=1" not in said
    assert not os.path.exists(
        Path(env["GOMODCACHE"]) / "cache" / "download" / module.path / "@v" / f"{VERSION}.zip"
    )
    await proxy.close()


async def test_files_by_http(serve: Callable[..., object], tmp_path: Path) -> None:
    proxy = ModProxy(
        parse_list("https://one.example"),
        FakeFetcher(one=FILES),
        DiskStore(tmp_path / "s"),
        emit=lambda e: None,
    )
    server, port = await serve(proxy)  # type: ignore[misc]
    server.add(SECRET, project())
    for _ in range(2):
        assert (await ask(port, f"/{SECRET}/{BASE}.info"))[2] == INFO
        assert (await ask(port, f"/{SECRET}/{BASE}.zip"))[2] == ZIP
    await proxy.close()
