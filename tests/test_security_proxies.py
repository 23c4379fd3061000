"""An upstream proxy that plays its own game: what it adds is nobody's, what it changes is found out."""

# ruff: noqa: E501
from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from gotunnel.address import HostPort
from gotunnel.upstream.connect import ConnectDialer
from gotunnel.upstream.direct import DirectDialer
from tests.modfakes import module_zip
from tests.peers import refusal_of, serving
from tests.security import House, ask, house, reply

TARGET = HostPort("t.example", 443)


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house() as made:
        yield made


def test_headers_that_it_adds_to_a_connect_change_nothing(served: House) -> None:
    """Cookies, redirects, lengths, proxy settings: all of it is read over."""
    served.world.talks["mirror.example:80/a.example/m/@v/list"] = reply(b"v1.0.0\n")
    normal = served.world.connected
    try:
        for extra in (b"Set-Cookie: a=b\r\n", b"Location: http://thief.example/\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
                      b"Alt-Svc: h2=\"thief.example:443\"\r\n", b"Proxy-Authenticate: Basic realm=x\r\n", b"Connection: close\r\n",
                      b"X: \x1b[31m\r\n" * 100):  # fmt: skip
            served.world.connected = b"HTTP/1.1 200 \x1b[31mOK\r\n" + extra + b"\r\n"
            number = len(served.world.heads)
            path = f"a{number}.example/m/@v/list"
            served.world.talks[f"mirror.example:80/{path}"] = reply(b"v1.0.0\n")
            assert served.module(path) == (200, b"v1.0.0\n"), extra
            assert b"a=b" not in b"".join(served.world.heads[number:])
            assert "thief.example:80" not in served.world.asked
    finally:
        served.world.connected = normal


def test_a_body_after_its_200_is_the_target_s_word_and_no_more(served: House) -> None:
    """It can forge what is plain; what is verified it can only break."""
    normal = served.world.connected
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
    evil = module_zip("package m // evil\n")
    try:
        for path, body in {
            "forged.example/m/@v/v1.0.0.zip": evil,
            "forged.example/m/@v/v1.0.0.info": b'{"Version":"v6.6.6"}',
        }.items():
            served.world.connected = b"HTTP/1.1 200 OK\r\n\r\n" + forged % (len(body), body)
            status, answer = served.module(path)
            assert status == 502, answer
            assert b"evil" not in answer
    finally:
        served.world.connected = normal


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000 + b"\r\n", b"HTTP/1.1 100 Continue\r\n\r\n" * 40_000, b"HTTP/1.1 200 " + b"x" * 300_000,
     b"HTTP/1.1 403 \x1b]0;owned\x07\r\n\r\n", b"HTTP/1.1 407 no\r\nProxy-Authenticate: \x1b[31m\x07\r\n\r\n", b"SSH-2.0-x\r\n", b"\0" * 100_000,
     b"HTTP/1.1 302 Found\r\nLocation: http://thief.example/\r\n\r\n", b"HTTP/1.1 999 x\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\n\r\n"],
    ids=lambda answer: repr(answer[:30]),
)  # fmt: skip
async def test_an_answer_that_is_none_is_refused_in_clean_words(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.write_eof()
        await reader.read()

    async with serving(talk) as address:
        dialer = ConnectDialer(DirectDialer(), address, label="http://proxy")
        error = await refusal_of(dialer, TARGET)  # asserts that it is printable
        assert len(error.detail) < 500


def test_what_it_makes_of_plain_http_is_passed_on_as_plain_http_and_marked_by_nothing(served: House) -> None:
    """A plain page may be rewritten by anybody on the way: two lengths in it don't reach the client."""
    from tests.test_security_requests import authorization

    both = "Transfer-Encoding: chunked\r\nX-Injected: 1\r\n"
    served.world.talks["plain.example:80/both"] = lambda conn, _: conn.sendall(
        f"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n{both}\r\n5\r\nhello\r\n0\r\n\r\n".encode()
    )
    from tests.security import say

    head = (
        b"GET http://plain.example/both HTTP/1.1\r\nHost: plain.example\r\nConnection: close\r\n"
        + authorization(served)
    )
    got = say(served.port("proxy"), head + b"\r\n").lower()
    assert got.count(b"content-length") + got.count(b"transfer-encoding") == 1
    assert b"hello" in got


def test_the_service_still_works(served: House) -> None:
    assert ask(served.port("admin"), "/healthz") == (200, b"ok\n")
    assert "Traceback" not in served.said
