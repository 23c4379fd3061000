"""SOCKS5 on the endpoint's port, by real clients and byte by byte."""

from __future__ import annotations

import asyncio
import logging

import pytest
from python_socks import ProxyError, ProxyType
from python_socks.async_.asyncio import Proxy

from gotunnel.address import HostPort
from gotunnel.errors import Blame, DialError
from gotunnel.wire.socks5 import reply
from tests.conftest import need
from tests.endpoints import Script, echo, endpoint, peer, rest
from tests.lab import proc
from tests.peers import until

SECRET = "the-secret-of-this-run"
LOGIN = b"\x05\x01\x02\x01\x08gotunnel" + bytes([len(SECRET)]) + SECRET.encode()
NAME = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"
TARGET = HostPort("example.com", 443)


def client(address: HostPort, password: str | None = SECRET) -> Proxy:
    user = None if password is None else "gotunnel"
    return Proxy(ProxyType.SOCKS5, address.host, address.port, username=user, password=password, rdns=True)


async def curl(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--max-time", "20", *words, stdout=-1, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_curl_by_name_with_the_secret() -> None:
    need((proc.tool("curl") is not None, "not installed: curl"))
    async with echo() as target, endpoint(way := Script(target), secret=SECRET) as address:
        login = ["--proxy-user", f"gotunnel:{SECRET}"]
        status, out = await curl("--socks5-hostname", str(address), *login, "http://example.com:8080/")
        assert (status, out) == (0, "hello")
        assert way.asked == [HostPort("example.com", 8080)]  # a name that is never resolved here
        status, out = await curl("--socks5-hostname", str(address), "http://example.com/")
        assert status == 97  # CURLE_PROXY
        status, out = await curl("-x", f"http://gotunnel:{SECRET}@{address}", "http://example.com/")
        assert (status, out) == (0, "hello")  # HTTP on the same port
        assert len(way.asked) == 2


async def test_python_socks() -> None:
    async with echo() as target, endpoint(Script(target), secret=SECRET) as address:
        reader, writer = await asyncio.open_connection(sock=await client(address).connect("example.com", 443))
        writer.write(b"ping" * 1000)
        writer.write_eof()
        assert await rest(reader) == b"ping" * 1000  # half-close is kept
        writer.close()


@pytest.mark.parametrize("password", ["wrong", None])
async def test_without_the_secret_nothing_is_dialled(password: str | None) -> None:
    async with endpoint(way := Script(), secret=SECRET) as address:
        with pytest.raises(ProxyError):
            await client(address, password).connect("example.com", 443)
        assert way.asked == []


async def test_reply_is_withheld_until_the_target_is_reached() -> None:
    async with echo() as target, endpoint(way := Script(target), secret=SECRET) as address:
        way.open.clear()
        async with peer(address, LOGIN + NAME + b"early") as (reader, _):
            assert await reader.readexactly(4) == b"\x05\x02\x01\x00"
            await until(lambda: way.asked == [TARGET])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.2)
            way.open.set()
            assert await reader.readexactly(10) == reply(0)
            assert await reader.readexactly(5) == b"early"  # sent before the reply, and not lost


async def test_failures_have_their_code_and_are_told() -> None:
    heard: list[HostPort] = []
    way = Script(error=DialError("tcp.refused", "no", blame=Blame.TARGET))
    async with (
        endpoint(way, on_failure=lambda target, _: heard.append(target)) as address,
        peer(address, b"\x05\x01\x00" + NAME) as (reader, _),
    ):
        assert await rest(reader) == b"\x05\x00" + reply(5)
        assert heard == [TARGET]


async def test_bad_requests_are_answered_and_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gotunnel.listener")
    async with endpoint(way := Script(), secret=SECRET) as address:
        for said, heard in (
            (LOGIN + NAME.replace(b".", b"\0"), b"\x05\x02\x01\x00" + reply(1)),
            (LOGIN + NAME.replace(b"\x05\x01", b"\x05\x03", 1), b"\x05\x02\x01\x00" + reply(7)),
            (b"\x05\x01\x00", b"\x05\xff"),
        ):
            async with peer(address, said) as (reader, _):
                assert await rest(reader) == heard
        assert way.asked == []
    assert len(caplog.records) == 3
    assert SECRET not in caplog.text


async def test_socks4_is_refused_and_said_once() -> None:
    told: list[str] = []
    async with endpoint(way := Script(), tell=told.append) as address:
        for _ in range(3):
            async with peer(address, b"\x04\x01\x00\x50\x0a\x00\x00\x01me\x00") as (reader, _):
                assert await rest(reader) == b"\x00\x5b" + bytes(6)
        assert way.asked == []
    assert len(told) == 1
    assert "SOCKS4" in told[0]
    assert "socks5h" in told[0]
