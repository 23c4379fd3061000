"""SOCKS proxies: scripted for what they may answer, microsocks for the real thing."""

from __future__ import annotations

import asyncio
import socket
import struct
from pathlib import Path

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import Blame, ConfigError
from gotunnel.upstream.direct import DirectDialer
from gotunnel.upstream.socks import REPLIES4, REPLIES5, SocksDialer
from tests.conftest import need
from tests.lab.proc import dead_port
from tests.lab.proxies import SocksProxy
from tests.lab.silent import Silent
from tests.peers import Talk, echo, refusal_of, say, serving, silence, slow_resolver, until

TARGET = HostPort("git.example", 443)
LOCAL = HostPort("localhost", 443)
BOUND = b"\x01\x7f\0\0\x01\0\x50"


def through(address: HostPort, **options: object) -> SocksDialer:
    return SocksDialer(DirectDialer(), address, label=f"socks5h://{address}", **options)  # type: ignore[arg-type]


def five(reply: bytes, *, method: bytes = b"\x05\0", asked: list[bytes] | None = None) -> Talk:
    """A SOCKS5 server that answers a request with `reply`, then echoes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly((await reader.readexactly(2))[1])
        writer.write(method)
        head = await reader.readexactly(4)
        size = {1: 4, 4: 16, 3: 0}[head[3]] or (await reader.readexactly(1))[0]
        host = await reader.readexactly(size)
        if asked is not None:
            asked.append(head[3:] + host + await reader.readexactly(2))
        else:
            await reader.readexactly(2)
        for byte in reply:  # cut as it may be
            writer.write(bytes([byte]))
            await writer.drain()
        await echo(reader, writer)

    return talk


def four(code: int, asked: list[bytes] | None = None) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readexactly(8)
        request += await reader.readuntil(b"\0")
        if request[4:7] == b"\0\0\0":
            request += await reader.readuntil(b"\0")
        if asked is not None:
            asked.append(request)
        writer.write(bytes([0, code]) + bytes(6))
        await echo(reader, writer)

    return talk


@pytest.mark.parametrize(("code", "verdict"), [*REPLIES5.items(), (9, ("proxy.not-a-proxy", Blame.HOP))])
async def test_whom_a_reply_of_socks5_is_charged_to(code: int, verdict: tuple[str, Blame]) -> None:
    async with serving(five(bytes([5, code, 0]) + BOUND)) as proxy:
        error = await refusal_of(through(proxy), TARGET)
    assert (error.finding, error.blame) == verdict
    assert error.hop == f"socks5h://{proxy}"


@pytest.mark.parametrize(("code", "verdict"), [*REPLIES4.items(), (0x5E, ("proxy.not-a-proxy", Blame.HOP))])
async def test_whom_a_reply_of_socks4_is_charged_to(code: int, verdict: tuple[str, Blame]) -> None:
    async with serving(four(code)) as proxy:
        error = await refusal_of(through(proxy, version=4), TARGET)
    assert (error.finding, error.blame) == verdict


@pytest.mark.parametrize("bound", [BOUND, b"\x04" + bytes(18), b"\x03\x04name\0\x50"])
async def test_accepted_and_the_tunnels_first_bytes_kept(bound: bytes) -> None:
    async with serving(five(b"\x05\0\0" + bound + b"SSH-2.0-x")) as proxy:
        stream = await through(proxy).dial(TARGET)
        assert await stream.read_exactly(9) == b"SSH-2.0-x"
        assert await say(stream, b"hello") == b"hello"
        stream.abort()


@pytest.mark.parametrize(
    ("target", "remote", "said"),
    [
        (TARGET, True, b"\x03git.example\x01\xbb"),
        (HostPort("bücher.example", 443), True, b"\x03xn--bcher-kva.example\x01\xbb"),
        (HostPort("192.0.2.1", 443), True, b"\x01\xc0\0\x02\x01\x01\xbb"),
        (HostPort("::1", 443), False, b"\x04" + bytes(15) + b"\x01\x01\xbb"),
    ],
)  # fmt: skip
async def test_what_socks5_is_asked_for(target: HostPort, remote: bool, said: bytes) -> None:
    asked: list[bytes] = []
    async with serving(five(b"\x05\0\0" + BOUND, asked=asked)) as proxy:
        (await through(proxy, remote_names=remote).dial(target)).abort()
    assert asked == [said]


async def test_names_are_resolved_here_or_there() -> None:
    asked: list[bytes] = []
    async with serving(four(0x5A, asked)) as proxy:
        (await through(proxy, version=4, user="me").dial(TARGET)).abort()
        (await through(proxy, version=4, remote_names=False).dial(LOCAL)).abort()
        await until(lambda: len(asked) == 2)
    assert asked[0] == b"\x04\x01\x01\xbb\0\0\0\x01me\0git.example\0"
    assert asked[1] == b"\x04\x01\x01\xbb\x7f\0\0\x01\0"


async def test_what_socks_cannot_say() -> None:
    nowhere = HostPort("127.0.0.1", 1)
    error = await refusal_of(through(nowhere, version=4, remote_names=False), HostPort("2001:db8::1", 443))
    assert (error.finding, error.blame) == ("net.unreachable", Blame.POLICY)
    async with serving(five(b"\x05\0\0" + BOUND)) as proxy:
        error = await refusal_of(through(proxy), HostPort("a" * 64 + ".example", 443))
        assert (error.finding, error.blame) == ("socks.denied", Blame.POLICY)


async def test_a_password_that_cannot_be_said_or_read_is_not_shown() -> None:
    nowhere = HostPort("127.0.0.1", 1)
    error = await refusal_of(through(nowhere, user="u", password=lambda: "hünter2"), TARGET)
    assert (error.finding, error.blame) == ("socks.auth-failed", Blame.CREDENTIALS)
    assert "ü" not in str(error)

    def gone() -> str:
        raise ConfigError("password_file /gone: No such file or directory")

    error = await refusal_of(through(nowhere, user="u", password=gone), TARGET)
    assert (error.finding, error.blame) == ("socks.auth-failed", Blame.CREDENTIALS)


@pytest.mark.parametrize(
    ("said", "finding", "blame"),
    [
        (b"\x05\xff", "socks.auth-failed", Blame.CREDENTIALS),
        (b"\x05\x02", "socks.auth-failed", Blame.CREDENTIALS),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "proxy.not-a-proxy", Blame.HOP),
        (b"\x05", "hop.closed", Blame.HOP),
        (b"", "hop.closed", Blame.HOP),
        (b"\x05\0", "hop.closed", Blame.HOP),
        (b"\x05\0\x05\0\0\x03\xffshort", "hop.closed", Blame.HOP),
        (b"\x05\0\x05\0\0\x07aaaaaaa", "proxy.not-a-proxy", Blame.HOP),
        (b"\x05\0\x05\0\0\x03\x02\xff\xfe\0\0", "socks.denied", Blame.POLICY),
    ],
)
async def test_garbage_and_early_ends(said: bytes, finding: str, blame: Blame) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(3)
        writer.write(said)
        writer.write_eof()
        await silence(reader, writer)

    async with serving(talk) as proxy:
        error = await refusal_of(through(proxy), TARGET)
    assert error.finding == finding
    assert error.blame is blame


async def test_a_proxy_that_is_at_work_on_the_target_is_not_charged() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x05\0")
        await silence(reader, writer)

    async with serving(slow) as proxy:
        error = await refusal_of(through(proxy, timeout=0.2), TARGET)
        assert (error.finding, error.blame) == ("tcp.timeout", Blame.TARGET)


@pytest.mark.parametrize(
    ("mode", "finding"),
    [("silent", "hop.stalled"), ("refuse", "tcp.refused"), ("reset", "hop.closed tcp.reset")],
)
def test_a_proxy_that_misbehaves_is_charged(mode: str, finding: str, tmp_path: Path) -> None:
    with Silent(tmp_path, mode) as server:
        dialer = through(HostPort(server.address, server.port), timeout=0.2)
        error = asyncio.run(refusal_of(dialer, TARGET))
    assert error.finding in finding.split()
    assert error.blame is Blame.HOP


async def test_our_resolver_has_its_time_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", slow_resolver)
    error = await refusal_of(through(HostPort("127.0.0.1", 1), remote_names=False, timeout=0.1), TARGET)
    assert (error.finding, error.blame) == ("dns.timeout", Blame.TARGET)


async def test_a_real_proxy_with_and_without_its_password(tmp_path: Path) -> None:
    need(SocksProxy.available())
    with SocksProxy(tmp_path, user="dev", password="s3cret") as server:
        proxy = HostPort(server.address, server.port)
        login = through(proxy, user="dev", password=lambda: "s3cret")
        async with serving(echo) as target:
            stream = await login.dial(HostPort("localhost", target.port))
            payload = struct.pack("<1000I", *range(1000))
            assert await say(stream, payload) == payload
            stream.abort()
            for options in ({}, {"user": "dev", "password": lambda: "wr0ng"}):
                error = await refusal_of(through(proxy, **options), target)
                assert (error.finding, error.blame) == ("socks.auth-failed", Blame.CREDENTIALS)
                assert "wr0ng" not in str(error)
        error = await refusal_of(login, HostPort("127.0.0.1", dead_port()))
        assert (error.finding, error.blame) == ("tcp.refused", Blame.TARGET)
