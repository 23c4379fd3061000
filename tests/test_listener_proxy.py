"""CONNECT, as clients see the endpoint: raw sockets, and curl."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import struct
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gotunnel.address import HostPort
from gotunnel.errors import Blame, ConfigError, DialError, NoWayOut
from gotunnel.listener.auth import Keys
from gotunnel.listener.proxy import Endpoint
from tests.conftest import need
from tests.origins import AUTH, World, echo, world

CONNECT = f"CONNECT h.example:443 HTTP/1.1\r\nHost: h.example:443\r\n{AUTH}\r\n\r\n".encode()


@pytest.fixture
async def at() -> AsyncIterator[World]:
    async with world() as made:
        yield made


async def head(reader: asyncio.StreamReader) -> str:
    async with asyncio.timeout(20):
        return (await reader.readuntil(b"\r\n\r\n")).decode()


async def test_a_tunnel_carries_bytes_both_ways_and_keeps_half_close(at: World) -> None:
    await at.origins.serve("h.example:443", echo)
    reader, writer = await at.connect()
    writer.write(CONNECT)
    assert (await head(reader)).startswith("HTTP/1.1 200 ")
    data = os.urandom(1 << 20)
    writer.write(data)
    writer.write_eof()
    async with asyncio.timeout(20):
        assert await reader.read() == data


async def test_the_200_is_withheld_until_the_target_is_reached(at: World) -> None:
    await at.origins.serve("h.example:443", echo)
    at.origins.gate = asyncio.Event()
    reader, writer = await at.connect()
    writer.write(CONNECT)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.3)
    assert at.origins.dialled == ["h.example:443"]
    at.origins.gate.set()
    assert (await head(reader)).startswith("HTTP/1.1 200 ")


async def test_what_a_client_sends_with_its_connect_is_passed_on(at: World) -> None:
    await at.origins.serve("h.example:443", echo)
    reader, writer = await at.connect()
    writer.write(CONNECT + b"client hello")
    await head(reader)
    async with asyncio.timeout(20):
        assert await reader.readexactly(12) == b"client hello"


async def test_an_origin_that_speaks_first_and_is_lost_resets_the_client(at: World) -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"half")
        await reader.readexactly(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    await at.origins.serve("h.example:443", cut)
    reader, writer = await at.connect()
    writer.write(CONNECT)
    await head(reader)
    assert await reader.readexactly(4) == b"half"
    writer.write(b"x")
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(20):
            await reader.read()


@pytest.mark.parametrize(
    "auth", ["", "Proxy-Authorization: Basic Z290dW5uZWw6d3Jvbmc=\r\n", "Authorization: x\r\n"],
    ids=["none", "wrong", "another header"],
)  # fmt: skip
@pytest.mark.parametrize("line", ["CONNECT h.example:443", "GET http://h.example/"])
async def test_without_the_secret_nothing_is_dialled(at: World, line: str, auth: str) -> None:
    answer = await at.say(f"{line} HTTP/1.1\r\nHost: h.example\r\n{auth}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 407 gotunnel: ")
    assert b'\r\nProxy-Authenticate: Basic realm="gotunnel"\r\n' in answer
    assert at.origins.dialled == []


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (DialError("dns.not-found", "h.example: no such host", blame=Blame.TARGET),
         "HTTP/1.1 502 gotunnel: dns.not-found: h.example: no such host"),
        (DialError("tcp.timeout", "slow\r\nEvil: x", blame=Blame.TARGET),
         "HTTP/1.1 504 gotunnel: tcp.timeout: slow  Evil: x"),
        (NoWayOut("h.example:443", [("a", DialError("hop.stalled", "a: says nothing", blame=Blame.HOP))]),
         "HTTP/1.1 504 gotunnel: hop.stalled: a: says nothing"),
    ],
    ids=["target", "injection", "no way out"],
)  # fmt: skip
async def test_the_reason_phrase_says_what_happened(at: World, error: DialError, line: str) -> None:
    at.origins.errors["h.example:443"] = error
    answer = (await at.say(CONNECT)).decode()
    assert answer.split("\r\n")[0] == line
    assert "\r\nEvil" not in answer
    assert at.failed == [("h.example:443", error.finding)]


@pytest.mark.parametrize(
    "target",
    ["h.example", "h.example:0", "h.example:65536", "h.example:http", ":443", "[::1", "a@b:443", "/"],
)
async def test_bad_targets_are_answered(at: World, target: str) -> None:
    answer = await at.say(f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n{AUTH}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 400 gotunnel: bad CONNECT target: ")
    assert at.origins.dialled == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"CONNECT a b:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT a\0b:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT h:443 HTTP/1.1\r\nHost: x\r\nBad\0: y\r\n\r\n",
        b"CONNECT h:443 HTTP/1.1\r\n\r\n",  # no Host
        b"HELO there\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",  # TLS
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"x" * 200_000,
    ],
    ids=["space", "NUL", "NUL in a name", "no host", "another protocol", "TLS", "huge head", "no end"],
)
async def test_what_is_no_request_is_answered_and_closed(at: World, request_bytes: bytes) -> None:
    answer = await at.say(request_bytes)
    assert answer.startswith(b"HTTP/1.1 4")
    assert at.origins.dialled == []


async def test_curl_goes_through_and_says_the_reason(at: World) -> None:
    need((shutil.which("curl") is not None, "not installed: curl"))

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

    await at.origins.serve("h.example:8080", hello)
    at.origins.errors["gone.example:443"] = DialError("dns.not-found", "no such host", blame=Blame.TARGET)

    async def curl(*words: str) -> tuple[int, str]:
        argv = ["curl", "-sSv", "--max-time", "20", "--proxy", at.url, *words]
        process = await asyncio.create_subprocess_exec(*argv, stdout=-1, stderr=-2)
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    status, out = await curl("--proxytunnel", "http://h.example:8080/")
    assert (status, out[-5:]) == (0, "hello")
    status, out = await curl("https://gone.example/")
    assert status == 56
    assert "502 gotunnel: dns.not-found: no such host" in out


async def test_closing_ends_tunnels_and_dials_that_hang(at: World) -> None:
    await at.origins.serve("h.example:443", echo)
    reader, writer = await at.connect()
    writer.write(CONNECT)
    await head(reader)
    at.origins.gate = asyncio.Event()
    at.origins.asked.clear()
    waiting, asks = await at.connect()
    asks.write(CONNECT)
    idle, _ = await at.connect()
    await at.origins.asked.wait()
    async with asyncio.timeout(5):
        await at.endpoint.close()
        with pytest.raises(ConnectionResetError):  # a tunnel that is cut must not look whole
            await reader.read()
        assert await waiting.read() == b""
        assert await idle.read() == b""
    with pytest.raises(ConnectionRefusedError):
        await at.connect()


async def test_a_port_that_is_taken(at: World) -> None:
    second = Endpoint(at.origins, keys=Keys())
    with pytest.raises(ConfigError, match=r"listen.proxy .*already in use; choose another"):
        await second.start(at.address)
    with pytest.raises(ConfigError, match=r"listen.proxy 192\.0\.2\.1:0: "):
        await second.start(HostPort("192.0.2.1", 0))
    await second.close()


PIECES = st.sampled_from(
    [b"CONNECT ", b"GET ", b"http://h/", b"h:1", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r\n\r\n",
     b"Host: h", AUTH.encode(), b"Content-Length: 5", b"Content-Length: -1", b"Transfer-Encoding: chunked",
     b"5\r\nhello\r\n", b"0\r\n\r\n", b":", b"\0", b"\xff", b"\x04\x01", b"\x05\x01\x00",
     b"Expect: 100-continue"]
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES | st.binary(max_size=30), max_size=20))
def test_no_bytes_break_it_or_make_it_hang(pieces: list[bytes]) -> None:
    async def play() -> None:
        async with world() as at:
            for name in ("h:80", "h:1"):
                at.origins.errors[name] = DialError("tcp.refused", "no", blame=Blame.TARGET)
            reader, writer = await at.connect()
            for piece in pieces:
                writer.write(piece)
            writer.write_eof()
            async with asyncio.timeout(20):
                try:
                    answer = await reader.read()
                except ConnectionResetError:
                    return
            assert answer[:5] in (b"", b"HTTP/") or answer[0] in (0, 5)

    asyncio.run(play())
