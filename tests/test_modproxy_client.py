"""Connections that are kept, redirects, odd answers, TLS, and who passes the gate first."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gotunnel.modproxy.client import Connections, Gate, Url
from gotunnel.modproxy.credentials import NONE, Credentials
from gotunnel.modproxy.exchange import HEAD_LIMIT
from gotunnel.modproxy.failed import Failed
from gotunnel.pool.pool import Pool, Upstream
from gotunnel.tasks import Tasks
from gotunnel.upstream.tls import client_context
from gotunnel.wire.http1 import basic
from tests.flaky_origin import Line, Manner, Origin, serving
from tests.lab.pki import Authority

BODY = b"module example.com/m\n" * 100


class Scene:
    def __init__(self, origin: Origin, *, idle: float = 60.0, ca: Path | None = None) -> None:
        self.origin = origin
        self.line = Line("a")
        self.pool = Pool([Upstream("a", self.line)], emit=lambda _event: None)
        credentials = Credentials({f"localhost:{origin.port}": ("anna", "pw")}) if ca else NONE
        self.connections = Connections(
            self.pool, context=lambda: client_context(str(ca or "")), credentials=credentials, idle=idle
        )

    async def get(self, path: str = "/m", *, base: str = "", first_byte: float = 5.0) -> bytes:
        """The body of a 200.  Raises Failed."""
        url = Url.parse((base or self.origin.url) + path)
        exchange = await self.connections.get(url, first_byte=first_byte, stall=1.0)
        assert exchange.head.status == 200
        got = bytearray()

        def sink(data: bytes) -> bool:
            got.extend(data)
            return False

        assert await exchange.body(sink, 1.0)
        return bytes(got)

    async def close(self) -> None:
        await self.connections.close()
        await self.pool.close()


@contextlib.asynccontextmanager
async def opened(origin: Origin, *, idle: float = 60.0) -> AsyncIterator[Scene]:
    async with serving(origin):
        scene = Scene(origin, idle=idle)
        try:
            yield scene
        finally:
            await scene.close()


async def gone(scene: Scene) -> None:
    await scene.origin.deserted()
    assert len(scene.connections) == 0


@pytest.mark.parametrize("manner", [Manner(), Manner(chunked=True)])
async def test_a_connection_is_used_again(manner: Manner) -> None:
    async with opened(Origin({"/m": BODY, "/empty": b""}, manner)) as scene:
        for path, want in [("/m", BODY), ("/empty", b""), ("/m", BODY)]:
            assert await scene.get(path) == want
        assert scene.origin.connections == 1


@pytest.mark.parametrize("manner", [Manner(keep=False), Manner(sized=False), Manner(body=BODY, claim=-1)])
async def test_one_that_the_server_ends_is_not(manner: Manner) -> None:
    """By its own word, by the framing, or because more comes than was said."""
    async with opened(Origin({"/m": BODY}, manner)) as scene:
        for _ in range(3):
            assert await scene.get() == BODY[: len(BODY) + manner.claim]
        assert scene.origin.connections == 3
        await gone(scene)


async def test_idle_connections_are_closed() -> None:
    async with opened(Origin({"/m": BODY}), idle=0.05) as scene:
        await scene.get()
        await gone(scene)


async def test_a_kept_connection_that_died_costs_no_failure() -> None:
    async with opened(Origin({"/m": BODY})) as scene:
        await scene.get()
        scene.origin.script.append(Manner(close=True))  # it ends just as the second request comes
        assert await scene.get() == BODY
        assert scene.origin.connections == 2
        scene.line.streams[-1].abort()  # and one that ends while it is idle is known at once
        await asyncio.sleep(0.05)
        assert len(scene.connections) == 0
        assert await scene.get() == BODY


async def test_redirects_are_followed_but_not_for_ever() -> None:
    origin = Origin({"/m": b"", "/there": BODY})
    moved = Manner(status=302, headers=(("Location", "/there?sig=1#x"),))
    origin.script.append(moved)
    origin.files["/there?sig=1"] = BODY
    async with opened(origin) as scene:
        assert await scene.get() == BODY
        assert scene.origin.connections == 1
        scene.origin.manner = Manner(status=307, headers=(("Location", "/m"),))
        with pytest.raises(Failed, match="more than 10 redirects"):
            await scene.get()
        assert len(scene.origin.asked) == 2 + 11


@pytest.mark.parametrize(
    ("answer", "finding", "words"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "unknown", "answers no HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * (HEAD_LIMIT + 1000), "http.endless", "never ends"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "unknown", "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", "unknown", "no HTTP"),
        (b"HTTP/1.1 2", "http.truncated", "without an answer"),
        (b"", "http.truncated", "without an answer"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "http.truncated", "broken chunks"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "http.truncated", "in the middle"),
    ],
)
async def test_odd_answers(answer: bytes, finding: str, words: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    tasks = Tasks("odd")
    server = await asyncio.start_server(
        lambda r, w: tasks.spawn("serve", serve(r, w)) and None, "127.0.0.1", 0
    )
    scene = Scene(Origin(port=server.sockets[0].getsockname()[1]))
    with pytest.raises(Failed, match=words) as caught:
        await scene.get()
    assert caught.value.finding == finding
    assert caught.value.upstream == "a"
    assert f"127.0.0.1:{scene.origin.port} by a" in caught.value.detail
    await scene.close()
    server.close()
    await tasks.close()


async def test_nothing_listens() -> None:
    origin = Origin()
    async with serving(origin):
        pass
    scene = Scene(origin)
    with pytest.raises(Failed) as caught:
        await scene.get()
    assert (caught.value.finding, caught.value.again) == ("tcp.refused", False)
    await scene.close()


@contextlib.asynccontextmanager
async def over_tls(tmp_path: Path, name: str = "localhost") -> AsyncIterator[tuple[Scene, str]]:
    authority = Authority(tmp_path / "ca")
    issued = authority.issue(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert, issued.key)
    origin = Origin({"/m": BODY})
    async with serving(origin, context):
        scene = Scene(origin, ca=authority.cert)
        try:
            yield scene, f"https://localhost:{origin.port}"
        finally:
            await scene.close()


async def test_https_carries_credentials_but_not_to_another_host(tmp_path: Path) -> None:
    async with over_tls(tmp_path) as (scene, base), serving(Origin({"/m": BODY})) as other:
        assert await scene.get(base=base) == BODY
        assert scene.origin.asked[-1].headers["authorization"] == basic("anna", "pw")
        assert await scene.get(base=base.replace("//", "//bob:x%40y@")) == BODY
        assert scene.origin.asked[-1].headers["authorization"] == basic("bob", "x@y")
        assert scene.origin.connections == 1
        scene.origin.script.append(Manner(status=302, headers=(("Location", other.url + "/m"),)))
        with pytest.raises(Failed, match="from https to http"):
            await scene.get(base=base.replace("//", "//bob:pw@"))
        assert other.asked == []
        there = Url.parse(f"https://bob:pw@localhost:{scene.origin.port}/m").follow("https://evil.example/m")
        assert there.userinfo == ""


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    async with over_tls(tmp_path, "elsewhere.example") as (scene, base):
        with pytest.raises(Failed) as caught:
            await scene.get(base=base)
        assert caught.value.finding == "tls.wrong-name"
        assert len(scene.connections) == 0


async def test_an_end_without_close_notify_is_no_end(tmp_path: Path) -> None:
    async with over_tls(tmp_path) as (scene, base):
        scene.origin.script.append(Manner(sized=False))
        assert await scene.get(base=base) == BODY
        scene.origin.script.append(Manner(sized=False, cut=1000))
        with pytest.raises(Failed) as caught:
            await scene.get(base=base)
        assert caught.value.finding == "http.truncated"


async def test_demand_passes_before_prefetch_and_has_places_of_its_own() -> None:
    gate, order, tasks = Gate(8), list[str](), Tasks("gate")
    release = asyncio.Event()

    async def go(name: str, priority: int) -> None:
        async with gate.pass_through(priority):
            order.append(name)
            await release.wait()

    for number in range(9):
        tasks.spawn("p", go(f"prefetch {number}", 1))
    await asyncio.sleep(0)
    tasks.spawn("d", go("demand 1", 0))
    await asyncio.sleep(0.01)
    assert order == [*(f"prefetch {n}" for n in range(7)), "demand 1"]
    assert gate.crowded
    assert not gate.borrow()
    given_up = tasks.spawn("d", go("given up", 0))
    tasks.spawn("d", go("demand 2", 0))
    await asyncio.sleep(0.01)
    given_up.cancel()
    release.set()
    await asyncio.sleep(0.01)
    assert order[8:] == ["demand 2", "prefetch 7", "prefetch 8"]
    assert not gate.crowded
    assert sum(gate.borrow() for _ in range(20)) == 7
    await tasks.close()
