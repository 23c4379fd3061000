"""Which mirror answers from here: real TLS servers on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import pytest

from gotunnel.child import mirrors
from gotunnel.child.mirrors import first_reachable
from tests.lab.pki import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@contextlib.asynccontextmanager
async def mirror(
    authority: Authority, answer: bytes, name: str = "127.0.0.1"
) -> AsyncIterator[tuple[str, list[str]]]:
    """(its URL, the request lines that it got)."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            asked.append((await reader.readuntil(b"\r\n\r\n")).decode().partition("\r\n")[0])
            writer.write(answer)
            await writer.drain()
        writer.close()  # no abort: a reset may overtake the answer

    issued = authority.issue(name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert, issued.key)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


async def test_the_first_that_serves_modules_is_taken(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
    login = b"HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\n\r\n"
    async with (
        mirror(authority, login) as (captive, _),
        mirror(authority, OK, "other.example") as (wrong_name, intercepted),
        mirror(authority, OK) as (good, asked),
        mirror(authority, OK) as (later, _),
    ):
        dead = "https://127.0.0.1:9"
        odd = "https://no such host"
        assert (
            await first_reachable([dead, odd, captive, wrong_name, f"{good}/goproxy", later])
            == f"{good}/goproxy"
        )
        assert asked == ["GET /goproxy/golang.org/x/mod/@v/v0.20.0.info HTTP/1.1"]
        assert intercepted == []
        assert await first_reachable([dead, captive]) is None
        assert await first_reachable([]) is None


async def test_one_that_nobody_vouches_for_is_not_taken(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/dev/null")
    async with mirror(authority, OK) as (url, asked):
        assert await first_reachable([url]) is None
    assert asked == []


async def test_a_silent_one_costs_the_timeout_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "_TIMEOUT", 0.3)
    kept: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(lambda _, writer: kept.append(writer), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(10):
            assert await first_reachable([f"https://127.0.0.1:{port}"]) is None
    for writer in kept:
        writer.transport.abort()
