"""Absolute-form requests: http:// URLs, by raw bytes and by curl."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import h11
import pytest

from gotunnel.errors import Blame, DialError
from tests.conftest import need
from tests.origins import AUTH, Handler, World, world


@pytest.fixture
async def at() -> AsyncIterator[World]:
    async with world() as made:
        yield made


def get(url: str, *headers: str, method: str = "GET", version: str = "1.1", body: str = "") -> bytes:
    lines = [f"{method} {url} HTTP/{version}", "Host: wrong.example", AUTH, *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


class Origin:
    """An origin that keeps what it was asked and always gives the same answer."""

    def __init__(self, answer: bytes, *, cut: bool = False) -> None:
        self.answer, self.cut = answer, cut
        self.heads: list[str] = []
        self.bodies: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        http = h11.Connection(h11.SERVER)
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode())
        http.receive_data(head)
        body = b""
        while not isinstance(event := http.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                http.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Data):
                body += event.data
        self.bodies.append(body)
        writer.write(self.answer)
        await writer.drain()
        if self.cut:
            writer.transport.abort()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def close(answer: bytes) -> tuple[str, bytes]:
    """(head, body) of an answer."""
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body


async def test_what_the_origin_gets(at: World) -> None:
    origin = Origin(OK)
    await at.origins.serve("h.example:8080", origin)
    hop_by_hop = ["Proxy-Connection: keep-alive", "Connection: close, X-Mine", "X-Mine: 1", "Keep-Alive: 5",
                  "TE: trailers", "Upgrade: h2c", "Proxy-Foo: bar"]  # fmt: skip
    answer = await at.say(
        get("http://u:p@h.example:8080/a/b;c?d=e&f=%20#g", *hop_by_hop, "Accept: x", "Cookie: y")
    )
    assert close(answer)[0].startswith("HTTP/1.1 200 OK")
    assert answer.endswith(b"ok")
    line, *headers = origin.heads[0].rstrip().split("\r\n")
    assert line == "GET /a/b;c?d=e&f=%20 HTTP/1.1"
    assert sorted(header.lower() for header in headers) == [
        "accept: x", "connection: close", "cookie: y", "host: h.example:8080"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://h.example", "GET / "),
        ("HTTP://h.example?x=1", "GET /?x=1 "),
        ("http://h.example/?", "GET /? "),
        ("http://h.example:80//x", "GET //x "),
    ],
)
async def test_the_path_is_passed_on_as_it_is(at: World, url: str, line: str) -> None:
    origin = Origin(OK)
    await at.origins.serve("h.example:80", origin)
    assert b"200 OK" in await at.say(get(url, "Connection: close"))
    assert origin.heads[0].startswith(line)


@pytest.mark.parametrize(
    "url", ["/", "https://h.example/", "ftp://h/", "http://", "http:///x", "http://h:0/", "http://h:x/", "http://[::1/",
            "http://[zz]/", "*", "h.example"]
)  # fmt: skip
async def test_targets_that_are_none(at: World, url: str) -> None:
    answer = await at.say(get(url))
    assert answer.startswith(b"HTTP/1.1 400 gotunnel: bad request target: ")
    assert at.origins.dialled == []


async def test_keep_alive_over_two_origins(at: World) -> None:
    one, two = (
        Origin(OK),
        Origin(b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    )
    await at.origins.serve("one.example:80", one)
    await at.origins.serve("two.example:80", two)
    answer = await at.say(
        get("http://one.example/1")
        + get("http://two.example/2")
        + get("http://one.example/3", "Connection: close")
    )
    assert [head.split()[1] for head in one.heads + two.heads] == ["/1", "/3", "/2"]
    assert answer.count(b"200 OK") == 2
    assert b"3\r\nabc\r\n0\r\n\r\n" in answer


@pytest.mark.parametrize(
    ("headers", "body", "wanted"),
    [
        (["Content-Length: 5"], "hello", b"hello"),
        (["Transfer-Encoding: chunked"], "3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nTrailer: x\r\n\r\n", b"hello"),
        (["Content-Length: 5", "Connection: close, content-length"], "hello", b"hello"),
        (["Content-Length: 0"], "", b""),
    ],
    ids=["length", "chunked with trailers", "framing named in Connection", "empty"],
)
async def test_a_post_with_its_body(at: World, headers: list[str], body: str, wanted: bytes) -> None:
    origin = Origin(OK)
    await at.origins.serve("h.example:80", origin)
    request = get("http://h.example/", *headers, method="POST", body=body)
    answer = await at.say(
        request + get("http://h.example/", "Connection: close") * ("close" not in str(headers))
    )
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert origin.bodies[0] == wanted


async def test_100_continue_is_ours_to_say(at: World) -> None:
    origin = Origin(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    await at.origins.serve("h.example:80", origin)
    reader, writer = await at.connect()
    writer.write(get("http://h.example/", "Expect: 100-continue", "Content-Length: 2", method="PUT"))
    async with asyncio.timeout(20):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        writer.write(b"hi")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    assert origin.bodies == [b"hi"]
    assert "expect" not in origin.heads[0].lower()


async def test_head_has_no_body_and_keeps_its_length(at: World) -> None:
    await at.origins.serve("h.example:80", Origin(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"))
    answer = await at.say(get("http://h.example/", "Connection: close", method="HEAD"))
    head, body = close(answer)
    assert "content-length: 1000" in head.lower()
    assert body == b""


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    ("answer", "whole"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", False),
        (b"HTTP/1.0 200 OK\r\n\r\n12345", True),
    ],
    ids=["length", "chunked", "until close"],
)
async def test_half_an_answer_never_looks_whole(at: World, answer: bytes, whole: bool, version: str) -> None:
    await at.origins.serve("h.example:80", Origin(answer))
    reader, writer = await at.connect()
    writer.write(get("http://h.example/", "Connection: close", version=version))
    got = b""
    async with asyncio.timeout(20):
        try:
            while data := await reader.read(4096):
                got += data
        except ConnectionResetError:
            assert not whole
        else:
            assert whole
    if whole:
        assert b"12345" in got


@pytest.mark.parametrize(
    "answer", [b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 101 Switching\r\n\r\n"],
    ids=["nothing", "garbage", "half a head", "101"],
)  # fmt: skip
async def test_an_origin_that_answers_no_http_is_a_502(at: World, answer: bytes) -> None:
    await at.origins.serve("h.example:80", Origin(answer))
    said = await at.say(get("http://h.example/"))
    assert said.startswith(b"HTTP/1.1 502 gotunnel: http.truncated: h.example:80: ")


async def test_an_early_answer_reaches_the_client_though_the_body_was_not_wanted(at: World) -> None:
    async def refuses(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.2)

    await at.origins.serve("h.example:80", refuses)
    reader, writer = await at.connect()
    writer.write(get("http://h.example/", "Content-Length: 30000000", method="POST"))
    writer.write(bytes(30_000_000))
    async with asyncio.timeout(20):
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 413 ")


async def test_a_client_that_breaks_off_its_body_gets_no_answer(at: World) -> None:
    origin = Origin(OK)
    await at.origins.serve("h.example:80", origin)
    reader, writer = await at.connect()
    writer.write(get("http://h.example/", "Content-Length: 10", method="POST", body="half"))
    writer.write_eof()
    with pytest.raises(ConnectionResetError):
        async with asyncio.timeout(20):
            await reader.read()
    assert origin.bodies == []


async def test_no_way_to_the_origin(at: World) -> None:
    at.origins.errors["h.example:80"] = DialError("tcp.timeout", "no answer", blame=Blame.TARGET)
    answer = await at.say(
        get("http://h.example/", "Content-Length: 400000", method="POST", body="x" * 400000)
    )
    assert answer.startswith(b"HTTP/1.1 504 gotunnel: tcp.timeout: no answer\r\n")
    assert at.failed == [("h.example:80", "tcp.timeout")]


async def test_curl_moves_megabytes_up_and_down(at: World, tmp_path: Path) -> None:
    need((shutil.which("curl") is not None, "not installed: curl"))
    data = os.urandom(3 << 20)
    origin: Handler = Origin(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    await at.origins.serve("h.example:80", origin)
    (tmp_path / "up").write_bytes(data)
    url = "http://h.example/x"
    process = await asyncio.create_subprocess_exec(
        "curl", "-sS", "--max-time", "30", "--proxy", at.url, "-T", str(tmp_path / "up"), url, "-o",
        str(tmp_path / "1"), "--next", "-sS", "--proxy", at.url, url, "-o", str(tmp_path / "2"),
    )  # fmt: skip
    assert await process.wait() == 0
    assert isinstance(origin, Origin)
    assert hashlib.sha256(origin.bodies[0]).digest() == hashlib.sha256(data).digest()
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes() == data
