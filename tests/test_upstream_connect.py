"""HTTP proxies: whom a refusal is charged to, and that the tunnel's first bytes are not lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import Blame, ConfigError, DialError
from gotunnel.upstream.connect import REFUSALS, ConnectDialer, dial_hop
from gotunnel.upstream.dialer import Stream
from gotunnel.upstream.direct import DirectDialer
from tests.conftest import need
from tests.lab.proc import dead_port
from tests.lab.proxies import HttpProxy
from tests.lab.silent import Silent
from tests.peers import Talk, echo, refusal_of, say, serving, silence, until

TARGET = HostPort("git.example", 443)


def answering(*pieces: bytes) -> Talk:
    """A proxy that reads a head and answers in these pieces, then echoes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        await echo(reader, writer)

    return talk


def through(address: HostPort, **options: object) -> ConnectDialer:
    return ConnectDialer(DirectDialer(), address, label=f"http://{address}", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "finding", "blame"),
    [(status, finding, blame) for status, (finding, blame, _) in REFUSALS.items()]
    + [
        (301, "proxy.not-a-proxy", Blame.HOP),
        (302, "proxy.not-a-proxy", Blame.HOP),
        (418, "proxy.denied", Blame.POLICY),
        (451, "proxy.denied", Blame.POLICY),
        (500, "proxy.bad-gateway", Blame.TARGET),
        (599, "proxy.bad-gateway", Blame.TARGET),
    ],
)
async def test_whom_a_status_is_charged_to(status: int, finding: str, blame: Blame) -> None:
    async with serving(answering(b"HTTP/1.1 %d Some Words\r\n\r\n" % status)) as proxy:
        error = await refusal_of(through(proxy), TARGET)
    assert (error.finding, error.blame, error.another_way) == (finding, blame, True)
    if status != 407:  # that one is `proxy_auth`'s to answer
        assert f"CONNECT git.example:443: {status} Some Words" in str(error)
    assert error.hop == f"http://{proxy}"


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x",),
        (b"HTTP/1.1 200 OK\r\n\r\nSSH-", b"2.0-x"),
        tuple(bytes([c]) for c in b"HTTP/1.0 200 OK\r\nA: b\r\n\r\nSSH-2.0-x"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 204 Fine\r\n\r\nSSH-2.0-x"),
    ],
)
async def test_a_server_that_speaks_first_is_heard(pieces: tuple[bytes, ...]) -> None:
    async with serving(answering(*pieces)) as proxy:
        stream = await through(proxy).dial(TARGET)
        assert await stream.read_exactly(9) == b"SSH-2.0-x"
        assert await say(stream, b"hello") == b"hello"
        stream.abort()


@pytest.mark.parametrize(
    ("pieces", "finding"),
    [
        ((b"SSH-2.0-OpenSSH_9.2\r\n",), "proxy.not-a-proxy"),
        ((b"\x05\x00" * 40000,), "proxy.not-a-proxy"),
        ((b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000,), "proxy.not-a-proxy"),
    ],
)
async def test_who_speaks_no_http_is_no_proxy(pieces: tuple[bytes, ...], finding: str) -> None:
    async with serving(answering(*pieces)) as proxy:
        error = await refusal_of(through(proxy), TARGET)
        assert (error.finding, error.blame) == (finding, Blame.HOP)


@pytest.mark.parametrize(
    ("mode", "finding"),
    [
        ("silent", "hop.stalled"),
        ("refuse", "tcp.refused"),
        ("close", "hop.closed tcp.reset"),
        ("reset", "hop.closed tcp.reset"),
    ],
)
def test_a_proxy_that_misbehaves_is_charged(mode: str, finding: str, tmp_path: Path) -> None:
    with Silent(tmp_path, mode) as server:
        proxy = HostPort(server.address, server.port)
        error = asyncio.run(refusal_of(through(proxy, timeout=0.2), TARGET))
        assert error.finding in finding.split()
        assert (error.blame, error.hop) == (Blame.HOP, f"http://{proxy}")


async def test_an_earlier_hop_at_fault_keeps_the_blame() -> None:
    class Broken(DirectDialer):
        async def dial(self, target: HostPort) -> Stream:
            raise DialError(
                "ssh.auth-failed", "x", blame=Blame.CREDENTIALS, hop="ssh://first", retry_after=60
            )

    error = await refusal_of(ConnectDialer(Broken(), TARGET, label="http://second"), TARGET)
    assert (error.hop, error.blame, error.retry_after) == ("ssh://first", Blame.CREDENTIALS, 60)
    with pytest.raises(DialError) as caught:
        await dial_hop(DirectDialer(), HostPort("127.0.0.1", dead_port()), "http://second")
    assert (caught.value.hop, caught.value.blame) == ("http://second", Blame.HOP)


async def test_a_cancelled_dial_leaves_no_connection() -> None:
    ended: list[bool] = []

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await silence(reader, writer)
        ended.append(True)

    async with serving(wait) as proxy:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await through(proxy).dial(TARGET)
        await until(lambda: ended)


async def test_what_cannot_be_asked_is_refused_before_anything_is_dialled() -> None:
    def gone() -> str:
        raise ConfigError("password_file /gone: No such file or directory")

    nowhere = HostPort("127.0.0.1", 1)
    error = await refusal_of(through(nowhere, user="u", password=gone), TARGET)
    assert (error.finding, error.blame) == ("proxy.auth-required", Blame.CREDENTIALS)
    error = await refusal_of(through(nowhere), HostPort("bücher.example", 443))
    assert (error.finding, error.blame) == ("proxy.denied", Blame.POLICY)


async def test_a_real_proxy_with_and_without_its_password(tmp_path: Path) -> None:
    need(HttpProxy.available())
    with HttpProxy(tmp_path, user="dev", password="s3cret") as server:
        proxy = HostPort(server.address, server.port)
        async with serving(echo) as target:
            stream = await through(proxy, user="dev", password=lambda: "s3cret").dial(target)
            assert await say(stream, b"hello") == b"hello"
            stream.abort()
            for options in ({}, {"user": "dev", "password": lambda: "wr0ng"}):
                error = await refusal_of(through(proxy, **options), target)
                assert (error.finding, error.blame) == ("proxy.auth-required", Blame.CREDENTIALS)
                assert "wr0ng" not in str(error)
        refused = await refusal_of(
            through(proxy, user="dev", password=lambda: "s3cret"), HostPort("127.0.0.1", dead_port())
        )
        assert (refused.finding, refused.blame) == ("proxy.bad-gateway", Blame.TARGET)


async def test_ssh_in_a_proxy_is_heard_from_its_first_byte(tmp_path: Path) -> None:
    need(HttpProxy.available())

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-first\r\n")
        await echo(reader, writer)

    with HttpProxy(tmp_path) as server:
        async with serving(greet) as target:
            stream = await through(HostPort(server.address, server.port)).dial(target)
            assert await stream.read_exactly(15) == b"SSH-2.0-first\r\n"
            assert await say(stream, b"hello") == b"hello"
            stream.abort()
