"""Requests made to be read in two ways: CR, LF and NUL, two lengths, heads in heads."""

# ruff: noqa: E501
from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from tests.security import House, house, reply, say, status_of


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house() as made:
        yield made


def authorization(served: House) -> bytes:
    return b"Proxy-Authorization: Basic " + base64.b64encode(f"gotunnel:{served.secret}".encode()) + b"\r\n"


TARGETS = [b"t.example\r\nX: y:443", b"t.example\n:443", b"t.example\0:443", b"t.example%0d%0a:443", b"t.example:443\0",
           b"t.example:443 \x0bHTTP/1.1", b"t example:443", b"t.example:99999", b"t.example:-1", b"t.example:0", b":443",
           b"[::1%25\r\n]:443", b"t.example:443@u.example:443", b"t\\u.example:443", b"\xc3\xa9.example:443",
           b"t.example:443#x", b"t.example:443?x", b"a" * 300 + b":443", b"t.example:" + b"4" * 5000]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("form", [b"CONNECT %s HTTP/1.1\r\n", b"GET http://%s/x HTTP/1.1\r\n"])
def test_a_target_is_a_host_and_a_port_or_nothing(served: House, form: bytes, target: bytes) -> None:
    before = len(served.world.asked)
    say(
        served.port("proxy"),
        form % target + b"Host: h.example\r\n" + authorization(served) + b"\r\n",
        shut=True,
    )
    for asked in served.world.asked[before:]:  # what is dialled is clean, whatever came
        host, _, port = asked.rpartition(":")
        assert all(c.isalnum() or c in ".-%" for c in host), asked  # % is a letter here, and stays one
        assert 1 <= int(port) <= 65535
        assert host != "h.example"


@pytest.mark.parametrize(
    "bad", [b"X: a\0b\r\n", b"X: a\rb\r\n", b"X : a\r\n", b" folded: x\r\n", b"X\r\n", b"\0: x\r\n"]
)
def test_a_header_that_two_would_read_differently_is_refused(served: House, bad: bytes) -> None:
    before = len(served.world.asked)
    head = (
        b"GET http://plain.example/ HTTP/1.1\r\nHost: plain.example\r\n"
        + authorization(served)
        + bad
        + b"\r\n"
    )
    assert status_of(say(served.port("proxy"), head, shut=True)) in (400, 407)
    assert len(served.world.asked) == before


SMUGGLED = {
    "two lengths": b"Content-Length: 0\r\nContent-Length: 44\r\n",
    "a list of lengths": b"Content-Length: 0, 44\r\n",
    "length and chunks": b"Content-Length: 44\r\nTransfer-Encoding: chunked\r\n",
    "chunks twice": b"Transfer-Encoding: chunked, chunked\r\n",
    "another coding": b"Transfer-Encoding: xchunked\r\n",
    "coding with a tab": b"Transfer-Encoding:\x0bchunked\r\n",
    "a signed length": b"Content-Length: +44\r\n",
    "a hex length": b"Content-Length: 0x2c\r\n",
}


@pytest.mark.parametrize("kind", SMUGGLED)
def test_a_second_request_hides_in_no_body(served: House, kind: str) -> None:
    """The origin sees one request with one framing, and the hidden one is never let out."""
    served.world.talks["plain.example:80/first"] = reply(b"first")
    before = len(served.world.heads)
    hidden = b"GET http://plain.example/hidden HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST http://plain.example/first HTTP/1.1\r\nHost: plain.example\r\n" + authorization(served)
    say(served.port("proxy"), head + SMUGGLED[kind] + b"\r\n0\r\n\r\n" + hidden, shut=True)
    seen = served.world.heads[before:]
    assert all(b" /hidden " not in one for one in seen)
    for one in seen:
        lengths = one.lower().count(b"\ncontent-length:")
        assert lengths + one.lower().count(b"\ntransfer-encoding:") <= 1, one
    assert len(seen) <= 1


def test_the_origin_hears_of_no_secret_and_of_its_own_name_only(served: House) -> None:
    served.world.talks["plain.example:80/x"] = reply(b"ok")
    before = len(served.world.heads)
    head = (b"GET http://u:p@plain.example/x HTTP/1.1\r\nHost: other.example\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\n"
            b"Proxy-Connection: keep-alive\r\n" + authorization(served) + b"\r\n")  # fmt: skip
    assert status_of(say(served.port("proxy"), head)) == 200
    [seen] = served.world.heads[before:]
    assert seen.startswith(b"GET /x HTTP/1.1\r\n")
    assert b"\r\nHost: plain.example\r\n" in seen
    for word in (b"proxy-", b"x-hop", b"other.example", served.secret.encode().lower(), b"u:p@"):
        assert word not in seen.lower()


PATHS = ["a.example/m/@v/..%2f..%2fetc", "../../../etc/passwd", "a.example/m/@v/v1.0.0.zip%00", "a.example/%0d%0aX:%20y/@v/list",
         "a.example/m/@v/v1.0.0%0a.info", "file:///etc/passwd", "sumdb/../../x", "sumdb/127.0.0.1:22/latest", "a.example//m/@v/list",
         "%2e%2e/@v/list", "a.example/m/@v/../../../x.info", "127.0.0.1/m/../@v/list", "a.example/m/@v/" + "v" * 5000 + ".info"]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_the_module_proxy_asks_for_no_path_that_leaves_its_module(served: House, path: str) -> None:
    before, store = len(served.world.heads), set(served.directory.rglob("*"))
    others = set(served.world.asked)
    status, body = served.module(path)
    assert 400 <= status < 500
    assert b"root:" not in body
    for head in served.world.heads[before:]:
        assert b".." not in head.partition(b"\r\n")[0]
        assert b"X: y" not in head
    assert set(served.world.asked) - {"mirror.example:80", "plain.example:80", "probe.example:80"} <= others
    assert {p for p in set(served.directory.rglob("*")) - store if p.name in ("passwd", "x")} == set()
