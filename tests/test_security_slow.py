"""Clients that take their time: what they hold is bounded, and others are served meanwhile.

No test waits for a time to pass: the bounds are looked at, and lowered, where they are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from gotunnel.daemon import admin
from gotunnel.listener import proxy
from gotunnel.modproxy import server
from tests.origins import world
from tests.security import House, ask, house, reply, say, status_of

CROWD = 100
WHAT = ("proxy", "modproxy", "admin")


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house() as made:
        yield made


DRIPS = {
    "nothing": b"",
    "half a line": b"GET /",
    "half a head": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
    "half a body": b"POST /api/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{",
    "half a SOCKS hello": b"\x05\xff",
}


@pytest.mark.parametrize("drip", DRIPS)
@pytest.mark.parametrize("what", WHAT)
def test_a_crowd_that_dawdles_keeps_nobody_else_out(served: House, what: str, drip: str) -> None:
    port, before = served.port(what), served.memory()
    with contextlib.ExitStack() as stack:
        for _ in range(CROWD):
            conn = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            conn.sendall(DRIPS[drip])
        served.world.talks["mirror.example:80/slow.example/m/@v/list"] = reply(b"v1.0.0\n")
        assert served.module("slow.example/m/@v/list") == (200, b"v1.0.0\n")
        assert ask(served.port("admin"), "/healthz") == (200, b"ok\n")
        assert status_of(say(served.port("proxy"), b"CONNECT t.example:443 HTTP/1.1\r\n\r\n")) in (400, 407)
        assert served.memory() - before < 60 << 20


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize(
    "flood", [b"X" * (1 << 20), b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200_000, b"GET /" + b"x" * (1 << 20)]
)
def test_a_head_without_an_end_is_cut_off(served: House, what: str, flood: bytes) -> None:
    before = served.memory()
    got = say(served.port(what), flood)
    assert status_of(got) in (0, 400, 414, 421, 431)
    assert served.memory() - before < 30 << 20


def test_each_server_ends_who_never_sends_a_head() -> None:
    """The bounds that the tests below lower."""
    assert 0 < proxy.HEAD_TIMEOUT <= 60
    assert 0 < proxy.LINGER <= 60
    assert 0 < server.HEAD <= 60
    assert 0 < server.KEEP_ALIVE <= 120
    assert 0 < admin.HEAD <= 60
    assert 0 < admin.KEEP_ALIVE <= 120


@pytest.mark.parametrize(
    "drip", [b"", b"GET /", b"CONNECT t.example:443 HTTP/1.1\r\nHost: t", b"\x05", b"\x05\x01\x02"]
)
async def test_the_proxy_s_patience_ends(monkeypatch: pytest.MonkeyPatch, drip: bytes) -> None:
    monkeypatch.setattr(proxy, "HEAD_TIMEOUT", 0.3)
    monkeypatch.setattr(proxy, "LINGER", 0.3)
    async with world() as w:
        reader, writer = await w.connect()
        async with asyncio.timeout(30):
            with contextlib.suppress(ConnectionError):
                for byte in drip * 1000 or b"":  # a byte now and then buys no more time
                    writer.write(bytes([byte]))
                    await writer.drain()
                    await asyncio.sleep(0.05)
                    if reader.at_eof():
                        break
            with contextlib.suppress(ConnectionError):
                while await reader.read(4096):
                    pass
        assert w.origins.dialled == []


async def test_a_client_that_never_reads_holds_its_share_and_no_more() -> None:
    """A target that sends for ever, a client that takes nothing: what is between is bounded."""
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536

    from tests.origins import AUTH

    async with world() as w:
        await w.origins.serve("t.example:80", flood)
        reader, writer = await w.connect()
        writer.write(f"CONNECT t.example:80 HTTP/1.1\r\n{AUTH}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        last = -1
        async with asyncio.timeout(30):
            while sent != last:  # until it no longer moves
                last = sent
                await asyncio.sleep(0.3)
        assert sent < 64 << 20
        writer.transport.abort()
