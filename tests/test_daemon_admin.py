"""The admin endpoint: who may see what, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import pytest
from aiohttp.web_request import BaseRequest

from gotunnel.daemon import admin as room
from gotunnel.daemon.admin import Admin, Reply
from gotunnel.tasks import Tasks
from tests.scripted import SECRETS, Script

TOKEN = "Zm9vYmFyYmF6cXV4Zm9vYmFy"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Lab:
    """A service that is scripted, and a client that sends just what it is told."""

    def __init__(self, login: tuple[str, str] | None = None) -> None:
        self.script = Script()
        self.script.hour()
        self.ready = (True, "")
        self.got: list[Any] = []
        self.admin = Admin(
            token=TOKEN,
            login=login,
            snapshot=self.script.history.snapshot,
            metrics=self.script.metrics.render,
            ready=lambda: self.ready,
            hosts=frozenset({"Ops.Corp.Example"}),
            api={("POST", "/api/runs"): self.post, ("DELETE", "/api/runs/{id}"): self.delete},
        )
        self.port = 0

    async def post(self, request: BaseRequest, parts: Mapping[str, str]) -> Reply:
        self.got.append(await request.json())
        return 201, {"id": "r1"}

    async def delete(self, request: BaseRequest, parts: Mapping[str, str]) -> Reply:
        if parts["id"] == "broken":
            raise OSError(f"no {SECRETS[0]} there")
        self.got.append(parts["id"])
        return 200, {}

    async def ask(
        self, path: str, headers: Mapping[str, str] = {}, method: str = "GET", body: bytes = b""
    ) -> tuple[int, dict[str, str], str]:
        """(status, headers, text)."""
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
            url = f"http://127.0.0.1:{self.port}{path}"
            async with http.request(
                method,
                url,
                headers=dict(headers),
                data=io.BytesIO(body) if body else None,
                allow_redirects=False,
            ) as answer:
                return answer.status, dict(answer.headers), await answer.text()

    async def status(self, path: str, headers: Mapping[str, str] = {}, method: str = "GET") -> int:
        return (await self.ask(path, headers, method))[0]

    async def raw(self, data: bytes) -> bytes:
        """What comes back until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        return answer


@pytest.fixture
async def lab(request: pytest.FixtureRequest) -> AsyncIterator[Lab]:
    made = Lab(getattr(request, "param", None))
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    made.port = sock.getsockname()[1]
    await made.admin.start(sock)
    yield made
    await made.admin.close()


async def test_health_says_one_word_to_anybody_and_the_reason_to_who_has_the_token(lab: Lab) -> None:
    assert (await lab.ask("/healthz"))[::2] == (200, "ok\n")
    assert (await lab.ask("/readyz"))[::2] == (200, "ready\n")
    lab.ready = (False, f"no way out: http://u:{SECRETS[0]}@h\nsplit")
    assert (await lab.ask("/readyz"))[::2] == (503, "unready\n")
    assert (await lab.ask("/readyz", BEARER))[::2] == (503, "unready: no way out: http://u:***@h split\n")


@pytest.mark.parametrize("path", ["/", "/app.js", "/style.css", "/metrics", "/events", "/api/status"])
async def test_everything_else_wants_the_token(lab: Lab, path: str) -> None:
    basic = base64.b64encode(f"prometheus:{TOKEN}".encode()).decode()
    for headers in (
        {},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer "},
        {"Authorization": TOKEN},
        {"Authorization": "Basic %%%"},
        {"Cookie": f"gotunnel-{lab.port}={TOKEN}"},  # a cookie never is the token
        {"Cookie": f"gotunnel-{lab.port}=ä"},
    ):
        status, told, text = await lab.ask(path, headers)
        assert (status, "WWW-Authenticate" in told) == (401, True), headers
        assert TOKEN not in text
    assert await lab.status(path + "?token=wrong") == 401
    if path != "/events":
        assert await lab.status(path, BEARER) == 200
        assert await lab.status(path, BEARER, "HEAD") == 200
    status = await lab.status(path, {"Authorization": f"Basic {basic}"})
    assert status == (200 if path == "/metrics" else 401)


@pytest.mark.parametrize("lab", [("team", "the words: of all")], indirect=True)
async def test_a_user_s_password_reads_as_basic_and_is_a_token(lab: Lab) -> None:
    def basic(user: str, password: str) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}

    right = basic("team", "the words: of all")
    for path in ("/", "/app.js", "/metrics", "/api/status"):
        assert await lab.status(path, right) == 200
        assert await lab.status(path, right | {"Sec-Fetch-Site": "cross-site"}) == 403
        status, told, text = await lab.ask(path)
        assert (status, told["WWW-Authenticate"]) == (401, 'Basic realm="gotunnel"')
        assert "user and password of listen.auth" in text
    nobody = {"Authorization": "Basic dGVhbQ=="}  # no colon in it
    for wrong in (basic("team", "other"), basic("Team", "the words: of all"), basic("", ""), nobody):
        assert await lab.status("/api/status", wrong) == 401
    # a browser sends it by itself: it opens nothing that acts
    assert (await lab.ask("/api/runs", right, "POST", b"{}"))[0] == 401
    for token in ("the words: of all", TOKEN):
        bearer = {"Authorization": f"Bearer {token}"}
        assert (await lab.ask("/api/runs", bearer, "POST", b"{}"))[0] == 201
    assert await lab.status("/metrics", basic("prometheus", TOKEN)) == 200


async def test_the_address_with_the_token_gives_a_cookie_that_reads_and_does_not_act(lab: Lab) -> None:
    status, headers, _ = await lab.ask(f"/?token={TOKEN}")
    assert (status, headers["Location"]) == (303, "/")
    cookie, *rest = headers["Set-Cookie"].split("; ")
    assert set(rest) == {"HttpOnly", "Path=/", "SameSite=Strict"}
    assert TOKEN not in cookie
    holder = {"Cookie": cookie}
    for path in ("/", "/app.js", "/metrics", "/api/status"):
        assert await lab.status(path, holder) == 200
    assert await lab.status(f"/?token={TOKEN}", holder) == 303  # opened again: out of the address line
    assert (await lab.ask("/api/runs", holder, "POST", b"{}"))[0] == 401
    assert await lab.status("/api/runs/r1", holder, "DELETE") == 401
    assert lab.got == []


async def test_names_that_are_not_ours_and_other_sites_are_refused(lab: Lab) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "10.9.8.7", "localhost.evil", "", "a b"):
        assert await lab.status("/api/status", BEARER | {"Host": host}) in (400, 421), host
        assert await lab.status("/healthz", {"Host": host}) in (400, 421)
    for host in ("localhost", "LocalHost:1", "127.0.0.1", "[::1]:80", "ops.corp.example:443"):
        assert await lab.status("/api/status", BEARER | {"Host": host}) == 200, host
    here = f"127.0.0.1:{lab.port}"
    for sent in (
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ):  # fmt: skip
        assert await lab.status("/api/status", BEARER | sent) == 403, sent
        assert await lab.status(f"/?token={TOKEN}", sent) == 403
    ours = {"Origin": f"http://{here}", "Sec-Fetch-Site": "same-origin"}
    assert await lab.status("/api/status", BEARER | ours) == 200
    twice = f"GET /healthz HTTP/1.1\r\nHost: {here}\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert (await lab.raw(twice.encode())).split()[1] in (b"400", b"421")


async def test_paths_methods_and_the_api(lab: Lab) -> None:
    assert await lab.status("/nothing", BEARER) == 404
    assert await lab.status("/../etc/passwd", BEARER) == 404
    assert await lab.status("/static/app.js", BEARER) == 404
    status, headers, _ = await lab.ask("/metrics", BEARER, "POST", b"x")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    status, headers, _ = await lab.ask("/api/runs/r1", BEARER)
    assert (status, headers["Allow"]) == (405, "DELETE")
    status, headers, text = await lab.ask("/api/runs", BEARER, "POST", b'{"a":1}')
    assert (status, json.loads(text)) == (201, {"id": "r1"})
    assert await lab.status("/api/runs/r1", BEARER, "DELETE") == 200
    assert await lab.status("/api/runs/", BEARER, "DELETE") == 404
    assert lab.got == [{"a": 1}, "r1"]


async def test_a_fault_is_told_without_its_words(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    status, _, text = await lab.ask("/api/runs/broken", BEARER, "DELETE")
    assert (status, text) == (500, "gotunnel: a fault of gotunnel's\n")
    assert TOKEN not in caplog.text


async def test_every_answer_keeps_itself_to_itself(lab: Lab) -> None:
    cases = [("/", BEARER), ("/", {}), ("/none", {}), ("/healthz", {}), ("/metrics", BEARER)]
    for path, headers in [*cases, ("/", {"Host": "evil.example"})]:
        told = (await lab.ask(path, headers))[1]
        assert "default-src 'self'" in told["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in told["Content-Security-Policy"]
        assert (told["X-Content-Type-Options"], told["Cache-Control"]) == ("nosniff", "no-store")
        assert told["Referrer-Policy"] == "no-referrer"


async def test_heads_and_bodies_are_bounded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "BODY", 1 << 20)
    assert (await lab.ask("/api/runs", BEARER, "POST", b'"' + b"x" * (1 << 20) + b'"'))[0] == 413
    long = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000 + b"\r\n\r\n"
    answer = await lab.raw(long)
    assert answer.split()[1] == b"400"
    assert b"xxx" not in answer
    assert b"aiohttp" not in answer
    assert (await lab.raw(b"\x16\x03\x01 no HTTP at all\r\n\r\n")).startswith(b"HTTP/1.")
    monkeypatch.setattr(room, "HEAD", 0.1)
    assert await lab.raw(b"GET /healthz HT") == b""  # no head comes: it is let go
    assert lab.got == []


async def test_events_begin_with_the_present_and_come_at_a_pace(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "PACE", 0.2)
    monkeypatch.setattr(room, "BEAT", 0.5)
    monkeypatch.setattr(room, "HEAD", 2.0)
    async with events_of(lab) as get, asyncio.timeout(30):
        answer = await get()
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        first = await _event(answer)
        assert [way["state"] for way in first["ways"]] == ["up", "up", "unknown"]
        for _ in range(50):  # a burst is one event, with what came last
            lab.admin.push()
            lab.script.look()
        lab.script.fail_over()
        second = await _event(answer)
        assert second["ways"][0]["state"] == "down"
        assert second["failovers"]["last"][0]["to"] == "office"
        for _ in range(4):  # nothing new: we live, for longer than a head may take
            assert await answer.content.readuntil(b"\n\n") == b":\n\n"
        tasks = Tasks("test")
        closing = tasks.spawn("close", lab.admin.close())
        assert b"data:" not in await answer.content.read()
        await closing


@contextlib.asynccontextmanager
async def events_of(lab: Lab) -> AsyncIterator[Callable[[], Awaitable[aiohttp.ClientResponse]]]:
    """Opens /events as often as it is called; in the end all are closed."""
    opened: list[aiohttp.ClientResponse] = []

    async def get() -> aiohttp.ClientResponse:
        opened.append(await http.get(f"http://127.0.0.1:{lab.port}/events"))
        return opened[-1]

    async with aiohttp.ClientSession(headers=BEARER) as http:
        yield get
        for answer in opened:
            answer.close()


async def _event(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    lines = (await answer.content.readuntil(b"\n\n")).decode().splitlines()
    assert lines[0] == "event: snapshot"
    return dict(json.loads(next(line for line in lines if line.startswith("data: "))[6:]))


async def test_pages_that_are_left_are_forgotten_and_their_number_is_bounded(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "LISTENERS", 2)
    monkeypatch.setattr(room, "PACE", 0.05)
    async with events_of(lab) as get, asyncio.timeout(30):
        one, two = await get(), await get()
        await _event(one)
        await _event(two)
        assert (await get()).status == 503
        one.close()
        while (again := await get()).status == 503:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await _event(again)


async def test_no_secret_is_in_anything_that_is_told(lab: Lab) -> None:
    lab.script.fail_over()
    for path in ("/", "/app.js", "/style.css", "/metrics", "/api/status", "/readyz", "/none"):
        _, headers, text = await lab.ask(path, BEARER)
        told = f"{headers}{text}"
        assert [secret for secret in (*SECRETS, TOKEN) if secret in told] == [], path
    async with events_of(lab) as get:
        told = json.dumps(await _event(await get()))
        assert [secret for secret in (*SECRETS, TOKEN) if secret in told] == []


def test_no_token_no_endpoint() -> None:
    with pytest.raises(ValueError, match="everybody"):
        Admin(token="", snapshot=dict, metrics=lambda: ("", b""), ready=lambda: (True, ""))
