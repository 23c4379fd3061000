"""A page in the browser of somebody who runs gotunnel: it can send requests here, under its own rules."""

# ruff: noqa: E501
from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security import House, ask, house, say, status_of


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house() as made:
        yield made


def bearer(served: House) -> str:
    return f"Authorization: Bearer {served.running['token']}\r\n"


HOSTS = ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example", "localhost.evil.example:{port}",
         "evil.example@127.0.0.1", "0x7f.1.evil.example", "", "127.0.0.1\r\nHost: evil.example"]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
def test_a_name_that_was_made_to_point_here_opens_nothing(served: House, host: str) -> None:
    port = served.port("admin")
    head = f"GET /api/status HTTP/1.1\r\nHost: {host.format(port=port)}\r\nConnection: close\r\n{bearer(served)}\r\n"
    got = say(port, head.encode())
    assert status_of(got) in (400, 421)
    assert served.running["token"].encode() not in got
    assert b'"ways"' not in got


def test_the_right_name_does_open(served: House) -> None:
    for host in ("127.0.0.1", "localhost", f"localhost:{served.port('admin')}", "LOCALHOST."):
        assert ask(served.port("admin"), "/api/status", bearer(served), host=host)[0] == 200


@pytest.mark.parametrize(
    "header",
    ["Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Site: same-site",
     "Origin: http://127.0.0.1:1", "Origin: http://localhost"],
)  # fmt: skip
@pytest.mark.parametrize("request_", [("GET", "/api/status"), ("POST", "/api/runs"), ("POST", "/api/reload")])
def test_another_site_asks_for_nothing_even_with_the_token(
    served: House, header: str, request_: tuple[str, str]
) -> None:
    method, path = request_
    status, body = ask(served.port("admin"), path, f"{header}\r\n{bearer(served)}", method)
    assert (status, b'"ways"' in body) == (403, False)


def test_the_cookie_opens_what_can_be_read_and_nothing_that_acts(served: House) -> None:
    port = served.port("admin")
    got = say(
        port,
        f"GET /?token={served.running['token']} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(),
    )
    [cookie] = [line for line in got.decode().split("\r\n") if line.lower().startswith("set-cookie:")]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert served.running["token"] not in cookie
    sent = "Cookie: " + cookie.partition(":")[2].partition(";")[0].strip() + "\r\n"
    assert ask(port, "/api/status", sent)[0] == 200
    for method, path in [
        ("POST", "/api/runs"),
        ("POST", "/api/reload"),
        ("GET", "/api/environment"),
        ("DELETE", "/api/runs/x"),
    ]:
        assert ask(port, path, sent, method)[0] == 401, path


def test_no_answer_lets_another_origin_read_it(served: House) -> None:
    for what in ("admin", "modproxy", "proxy"):
        for method in ("GET", "OPTIONS"):
            head = (f"{method} / HTTP/1.1\r\nHost: 127.0.0.1:{served.port(what)}\r\nOrigin: https://evil.example\r\n"
                    "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Private-Network: true\r\n"
                    "Connection: close\r\n\r\n")  # fmt: skip
            got = say(served.port(what), head.encode()).lower()
            assert status_of(got.upper()) in (403, 404, 405, 407)
            assert b"access-control-allow" not in got


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "PUT"])
def test_the_module_proxy_does_not_say_what_it_is(served: House, method: str) -> None:
    """By a name that points here a page can read the answer: it must not tell what listens, or its version."""
    before = list(served.world.asked)
    head = f"{method} /x/a.example/m/@v/list HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    got = say(served.port("modproxy"), head.encode())
    assert got.startswith(b"HTTP/1.1 404 ")
    for word in (b"gotunnel", b"aiohttp", b"python", b"goproxy", b"module"):
        assert word not in got.lower()
    assert served.world.asked == before


@pytest.mark.parametrize("what", ["proxy", "modproxy", "admin"])
def test_a_page_that_posts_another_protocol_gets_nowhere(served: House, what: str) -> None:
    """A form's text/plain body may look like a CONNECT: it must stay a body."""
    before = list(served.world.asked)
    body = b"CONNECT t.example:80 HTTP/1.1\r\nHost: t.example\r\n\r\n"
    head = f"POST / HTTP/1.1\r\nHost: evil.example\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    got = say(served.port(what), head.encode() + body)
    assert status_of(got) in (403, 404, 405, 407, 421)
    assert served.world.asked == before
