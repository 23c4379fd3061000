"""What the endpoint takes on at most, and what becomes of who comes beyond."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import subprocess
import sys

import pytest

from gotunnel import openfiles
from gotunnel.address import HostPort
from gotunnel.listener import proxy
from gotunnel.listener.auth import Keys
from gotunnel.listener.limits import Seldom, Slots
from gotunnel.wire.socks5 import reply
from tests.endpoints import Script, echo, endpoint, peer, rest
from tests.peers import until

CONNECT = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n"
SOCKS = b"\x05\x01\x00\x05\x01\x00\x03\x01a\x00\x50"
OK = b"HTTP/1.1 200 "


def test_slots() -> None:
    slots = Slots(3, 2)
    assert slots.take("a") is slots.take("a") is None
    assert "limits.per_client" in (slots.take("a") or "")
    assert slots.take("b") is None
    assert "limits.connections" in (slots.take("c") or "")
    slots.give_back("a")
    assert slots.take("c") is None
    for client in ("a", "b", "c"):
        slots.give_back(client)
    assert len(slots) == 0


def test_said_once_a_minute() -> None:
    now = 100.0
    seldom = Seldom(60.0, clock=lambda: now)
    assert [seldom() for _ in range(4)] == [0, None, None, None]
    now = 161.0
    assert [seldom(), seldom()] == [3, None]


async def test_beyond_the_limit_is_told_in_the_client_s_own_protocol_and_said_once() -> None:
    told: list[str] = []
    async with (
        echo() as target,
        endpoint(way := Script(target), connections=2, tell=told.append) as address,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(2):
            reader, _ = await stack.enter_async_context(peer(address, CONNECT))
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(OK)
        async with peer(address, CONNECT) as (reader, writer):
            head = await rest(reader)
            assert head.startswith(b"HTTP/1.1 503 gotunnel: http.rate-limited: 2 connections are open")
        async with peer(address, SOCKS) as (reader, writer):
            assert await rest(reader) == b"\x05\x00" + reply(1)
        async with peer(address, b"\x04\x01") as (reader, writer):
            writer.write_eof()
            assert await rest(reader) == b""
        assert len(way.asked) == 2
        assert len(told) == 1
        assert "limits.connections" in told[0]
        await stack.aclose()
        await until_served(address)


async def until_served(address: HostPort) -> None:
    """Slots come back when sockets are gone."""
    for _ in range(100):
        async with peer(address, CONNECT) as (reader, _):
            if (await reader.readline()).startswith(OK):
                return
        await asyncio.sleep(0.02)
    pytest.fail("no slot came back")


async def test_per_client() -> None:
    told: list[str] = []
    async with (
        echo() as target,
        endpoint(Script(target), per_client=1, tell=told.append) as address,
        peer(address),
    ):
        async with peer(address, CONNECT) as (reader, _):
            assert b" 503 " in await reader.readline()
        reader, writer = await asyncio.open_connection(
            address.host, address.port, local_addr=("127.0.0.2", 0)
        )
        writer.write(CONNECT)
        assert (await reader.readline()).startswith(OK)
        writer.close()
    assert len(told) == 1
    assert "127.0.0.1" in told[0]


async def test_a_crowd_beyond_the_limit_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "_REFUSALS", 1)
    async with (
        endpoint(Script(), connections=1, tell=lambda _: None) as address,
        peer(address),  # has the slot
        peer(address),  # is being refused
        peer(address, CONNECT) as (reader, _),
    ):
        assert await rest(reader) == b""


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"CONNECT exam",
        b"\x05",
        b"\x05\x01\x00\x05\x01\x00\x03\xff" + b"a" * 100,
        b"GET http://a/ HTTP/1.1\r\n",
    ],
)
async def test_a_slow_client_loses_its_slot(monkeypatch: pytest.MonkeyPatch, said: bytes) -> None:
    monkeypatch.setattr(proxy, "HEAD_TIMEOUT", 0.3)
    async with endpoint(way := Script(), connections=1, tell=lambda _: None) as address:
        async with peer(address, said) as (reader, writer):

            async def drip() -> None:
                with contextlib.suppress(ConnectionError):
                    while said:
                        writer.write(b"a")  # a byte now and then buys no time
                        await writer.drain()
                        await asyncio.sleep(0.05)

            dripping = asyncio.get_running_loop().create_task(drip())
            assert b"200" not in await rest(reader)
            dripping.cancel()
        assert way.asked == []
        async with peer(address, b"nonsense\r\n\r\n") as (reader, _):
            assert (await rest(reader)).startswith(b"HTTP/1.1 400 ")  # served: the slot is free


class Stuck(asyncio.Transport):
    """The transport of a client that reads nothing: what was written never leaves, `close` doesn't end it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.calls: list[str] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.calls.append("write")

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def is_closing(self) -> bool:
        return "close" in self.calls

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


async def test_who_does_not_read_its_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "LINGER", 0.1)
    made = proxy.Endpoint(Script(), keys=Keys(), connections=1)
    client, transport = made._accept(), Stuck()
    client.connection_made(transport)
    client.data_received(b"nonsense\r\n\r\n")
    await until(lambda: "abort" in transport.calls)
    assert transport.calls == ["write", "write_eof", "close", "abort"]
    assert len(made._slots) == 1
    client.connection_lost(None)
    assert len(made._slots) == 0
    await made.close()


async def test_heads_are_bounded() -> None:
    async with endpoint(way := Script(), head=2000) as address:
        async with peer(address, CONNECT[:-2] + b"X: " + b"a" * 5000) as (reader, _):
            assert (await rest(reader)).startswith(b"HTTP/1.1 431 ")
        whole = CONNECT[:-2] + b"X: " + b"a" * 2000 + b"\r\n\r\n"
        async with peer(address, whole) as (reader, _):
            assert (await rest(reader)).startswith(b"HTTP/1.1 431 ")
        assert way.asked == []


def test_open_files_are_raised_and_the_former_limit_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(openfiles, "_before", None)
    lower = min(512, soft)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (lower, hard))
        assert openfiles.raise_limit() > lower
        assert openfiles.limit_before() == lower
        openfiles.raise_limit()
        assert openfiles.limit_before() == lower
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_cmd_gets_back_the_limit_that_we_were_started_with() -> None:
    line = [
        "sh",
        "-c",
        'ulimit -Sn 300; exec "$@"',
        "sh",
        sys.executable,
        "-m",
        "gotunnel",
        "run",
        "--via",
        "direct:",
    ]
    done = subprocess.run([*line, "--", "sh", "-c", "ulimit -Sn; ulimit -Hn"], capture_output=True, text=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert done.stdout.split() == ["300", "unlimited" if hard == resource.RLIM_INFINITY else str(hard)]
