"""The admin endpoint of `serve`: health, metrics, the status page, and the API that `run` uses.

Rules:
- /healthz and /readyz say one word to anybody; everything else wants the token: `Authorization: Bearer`,
  for what can only be read also the cookie that `/?token=` sets, for /metrics also Basic (any user).
- Where `listen.auth` names a user, the password is as good as the token, and user and password (Basic, which
  a browser asks for) open what can only be read.
- Cookies know no ports: what it holds is derived from the token, and opens no API that acts or hands out
  secrets.
- `Host` names loopback, the address that was connected to, or a configured host: else a page of another
  site could have its name point here (DNS rebinding).  What a browser sends for another site is refused.
- Heads, bodies, connections and listeners are bounded; a connection that sends no head is ended.
- Answers say no more of an error than its kind: neither the request nor the token is repeated or logged.
- aiohttp is imported by `start`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from gotunnel.address import HostPort, one_line, redact
from gotunnel.daemon.page import HEADERS, File, load
from gotunnel.tasks import Tasks, in_thread

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.web_request import BaseRequest

BODY = 16 << 20  # bytes of a request's body: a run tells its go.sum
CONNECTIONS = 256
LISTENERS = 64  # of /events
HEAD = 20.0  # seconds for the first head
KEEP_ALIVE = 75.0  # seconds that a connection may idle
PACE = 1.0  # seconds between two events for a page
BEAT = 15.0  # seconds of silence after which a page hears that we live
STUCK = 30.0  # seconds after which a page that takes nothing is let go
_TEXT = "text/plain; charset=utf-8"
_UNAUTHORIZED = (
    "gotunnel: the token is wanted (it stands in server.json of the runtime directory): "
    "open /?token=TOKEN, or send `Authorization: Bearer TOKEN`\n"
)
_LOGIN = (
    "gotunnel: the user and password of listen.auth are wanted; what acts wants "
    "`Authorization: Bearer PASSWORD`\n"
)

_log = logging.getLogger("gotunnel.admin")

Reply = tuple[int, Any]  # status, and what is sent as JSON
Handler = Callable[["BaseRequest", Mapping[str, str]], Awaitable["web.StreamResponse | Reply"]]
"""Gets the request and the parts of its path that were in braces."""


class Admin:
    """Serves until `close`.

    `login` is the user and the password that `listen.auth` names.

    `snapshot` is JSON-ready; `metrics` gives (content type, text); `ready` (is it, why not); `hosts` are the
    names by which it may be reached beside loopback's; `api` holds handlers by (method, path), where a
    part of the path in braces stands for any: `("DELETE", "/api/runs/{id}")`.
    """

    def __init__(
        self,
        *,
        token: str,
        login: tuple[str, str] | None = None,
        snapshot: Callable[[], Mapping[str, Any]],
        metrics: Callable[[], tuple[str, bytes]],
        ready: Callable[[], tuple[bool, str]],
        hosts: frozenset[str] = frozenset(),
        api: Mapping[tuple[str, str], Handler] | None = None,
    ) -> None:
        if not token:
            raise ValueError("an admin endpoint without a token is everybody's")
        self._tokens = [_digest(token), *([_digest(login[1])] if login else [])]
        self._login = None if login is None else _digest(":".join(login))
        self._cookie = hmac.new(token.encode(), b"gotunnel admin cookie", hashlib.sha256).hexdigest()
        self._snapshot, self._metrics, self._ready = snapshot, metrics, ready
        self._hosts = frozenset(host.rstrip(".").lower() for host in hosts)
        self._api = [(method, path.split("/"), handler) for (method, path), handler in (api or {}).items()]
        self._tasks = Tasks("admin")
        self._news = asyncio.Condition()
        self._version = 0
        self._told: tuple[int, bytes] = (-1, b"")  # the last event, made once for all
        self._pages = 0
        self._files: dict[str, File] = {}
        self._web: Any = None
        self._http: web.Server | None = None
        self._listener: asyncio.Server | None = None
        self._name = "gotunnel"
        self._closing = False

    async def start(self, sock: socket.socket) -> None:
        """Serve on a bound socket, which is ours from now on."""
        self._web = await in_thread("import aiohttp", _import_web)
        self._files = await in_thread("status page", load)
        address = sock.getsockname()
        self._name = f"gotunnel-{address[1]}" if isinstance(address, tuple) else "gotunnel"
        loop = asyncio.get_running_loop()

        def request(*parts: Any) -> BaseRequest:
            made: BaseRequest = self._web.BaseRequest(*parts, loop, client_max_size=BODY)
            return made

        self._http = http = self._web.Server(self._handle, request_factory=request, handler_cancellation=True)
        protocol = _protocol_class(self._web)
        self._listener = await loop.create_server(
            lambda: protocol(
                http, loop=loop, access_log=None, keepalive_timeout=KEEP_ALIVE, lingering_time=1.0
            ),
            sock=sock,
            backlog=64,
        )

    def push(self) -> None:
        """The snapshot has changed: the pages that are open hear of it, at most once in PACE seconds."""
        self._version += 1
        if self._pages and not self._closing:
            self._tasks.spawn("push", self._wake())

    async def close(self) -> None:
        """Stop listening, let the pages go."""
        self._closing = True
        if self._listener is not None:
            self._listener.close()
        await self._wake()
        await self._tasks.close()
        if self._http is not None:
            await self._http.shutdown(timeout=0.5)

    async def _wake(self) -> None:
        async with self._news:
            self._news.notify_all()

    # --- who may ----------------------------------------------------------------------------------

    async def _handle(self, request: BaseRequest) -> web.StreamResponse:
        request.protocol.head_came()  # type: ignore[attr-defined]
        try:
            response = await self._answer(request)
        except self._web.HTTPException as error:  # a body that is too large, or no JSON
            response = self._text(error.status, f"gotunnel: {one_line(error.reason, 80)}\n")
            response.force_close()
        except Exception:
            _log.exception("%s of the admin endpoint failed", request.method)
            response = self._text(500, "gotunnel: a fault of gotunnel's\n")
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    async def _answer(self, request: BaseRequest) -> web.StreamResponse:
        if self._http is not None and len(self._http.connections) > CONNECTIONS:
            return self._text(503, "gotunnel: too many connections\n")
        if not self._host_is_ours(request):
            return self._text(421, "gotunnel: this is no host of mine\n")
        if not _same_site(request):
            return self._text(403, "gotunnel: another site asks: type the address instead\n")
        method = "GET" if request.method == "HEAD" else request.method
        handler, parts, allow = self._find(method, request.path)
        if handler is None and not allow:
            return self._text(404, "gotunnel: there is nothing here\n")
        if handler is None:
            return self._text(405, "gotunnel: not this way\n", {"Allow": ", ".join(sorted(allow))})
        if handler not in (self._healthz, self._readyz) and not self._may(request, handler):
            if handler == self._page and (given := parse_qs(request.query_string).get("token")):
                return self._enter(given[0])
            words = _UNAUTHORIZED if self._login is None else _LOGIN
            return self._text(401, words, {"WWW-Authenticate": self._challenge(handler)})
        if handler == self._page and "token" in parse_qs(request.query_string):
            return self._text(303, "", {"Location": "/"})  # the token leaves the address line
        answered = await handler(request, parts)
        if isinstance(answered, tuple):
            return self._json(*answered)
        return answered

    def _find(self, method: str, path: str) -> tuple[Handler | None, dict[str, str], set[str]]:
        """(handler, parts of the path, methods that there are)."""
        own: Mapping[str, Handler] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics_text,
            "/events": self._events,
            "/api/status": self._status,
            **dict.fromkeys(self._files, self._page),
        }
        if path in own:
            return (own[path] if method == "GET" else None), {}, {"GET", "HEAD"}
        allow: set[str] = set()
        for there, pattern, handler in self._api:
            if (parts := _match(pattern, path.split("/"))) is not None:
                if there == method:
                    return handler, parts, {there}
                allow.add(there)
        return None, {}, allow

    def _host_is_ours(self, request: BaseRequest) -> bool:
        given = request.headers.getall("Host", [])
        try:
            (host,) = (HostPort.parse(text, default_port=80) for text in given)
        except ValueError:
            return False
        if host.is_loopback or host.host.rstrip(".").lower() in self._hosts:
            return True
        here = request.transport.get_extra_info("sockname") if request.transport is not None else None
        return isinstance(here, tuple) and host.host == here[0]

    def _may(self, request: BaseRequest, handler: Handler) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._is_token(given.strip())
        if not self._only_reads(handler):
            return False
        if scheme.lower() == "basic":
            with contextlib.suppress(binascii.Error, ValueError):
                both = base64.b64decode(given.strip(), validate=True)
                if self._login is not None and hmac.compare_digest(_digest(both), self._login):
                    return True
                return handler == self._metrics_text and self._is_token(both.partition(b":")[2])
            return False
        cookie = request.cookies.get(self._name, "")
        return hmac.compare_digest(cookie.encode("utf-8", "replace"), self._cookie.encode())

    def _only_reads(self, handler: Handler) -> bool:
        return handler in (self._page, self._events, self._status, self._metrics_text)

    def _is_token(self, given: str | bytes) -> bool:
        return (
            sum(hmac.compare_digest(_digest(given), token) for token in self._tokens) > 0
        )  # none is left out

    def _challenge(self, handler: Handler) -> str:
        basic = handler == self._metrics_text or (self._login is not None and self._only_reads(handler))
        return 'Basic realm="gotunnel"' if basic else "Bearer"

    def _enter(self, token: str) -> web.StreamResponse:
        """The address with the token was opened: a cookie takes its place."""
        if not self._is_token(token):
            return self._text(401, _UNAUTHORIZED, {"WWW-Authenticate": "Bearer"})
        response = self._text(303, "", {"Location": "/"})
        response.set_cookie(self._name, self._cookie, httponly=True, samesite="Strict", path="/")
        return response

    # --- what there is ----------------------------------------------------------------------------

    async def _healthz(self, request: BaseRequest, parts: Mapping[str, str]) -> web.StreamResponse:
        return self._text(200, "ok\n")

    async def _readyz(self, request: BaseRequest, parts: Mapping[str, str]) -> web.StreamResponse:
        ready, why = self._ready()
        word = "ready" if ready else "unready"
        if why and self._may(request, self._status):
            word += f": {one_line(redact(why))}"
        return self._text(200 if ready else 503, f"{word}\n")

    async def _metrics_text(self, request: BaseRequest, parts: Mapping[str, str]) -> web.StreamResponse:
        kind, body = self._metrics()
        return self._response(200, body, kind)

    async def _status(self, request: BaseRequest, parts: Mapping[str, str]) -> web.StreamResponse:
        return self._json(200, self._snapshot())

    async def _page(self, request: BaseRequest, parts: Mapping[str, str]) -> web.StreamResponse:
        file = self._files[request.path]
        return self._response(200, file.body, file.content_type)

    async def _events(self, request: BaseRequest, parts: Mapping[str, str]) -> web.StreamResponse:
        """Snapshots as server-sent events, the present one first."""
        if self._pages >= LISTENERS:
            return self._text(503, "gotunnel: too many pages are open\n")
        response: web.StreamResponse = self._web.StreamResponse(
            headers={**HEADERS, "Content-Type": "text/event-stream"}
        )
        response.force_close()
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        self._pages += 1
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                await self._write_events(response)
        finally:
            self._pages -= 1
        return response

    async def _write_events(self, response: web.StreamResponse) -> None:
        seen = -1
        while not self._closing:
            if seen == self._version:
                line = b":\n\n"
            else:
                seen, line = self._event()
            async with asyncio.timeout(STUCK):
                await response.write(line)
            await asyncio.sleep(PACE)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(BEAT), self._news:
                    await self._news.wait_for(lambda: self._version != seen or self._closing)  # noqa: B023

    def _event(self) -> tuple[int, bytes]:
        if self._told[0] != self._version:
            data = _dumps(self._snapshot())
            self._told = self._version, b"event: snapshot\nretry: 2000\ndata: " + data + b"\n\n"
        return self._told

    # --- answers ----------------------------------------------------------------------------------

    def _response(
        self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None
    ) -> web.StreamResponse:
        response: web.StreamResponse = self._web.Response(
            status=status, body=body, headers={"Content-Type": kind} | dict(headers or {})
        )
        return response

    def _text(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> web.StreamResponse:
        return self._response(status, text.encode(), _TEXT, headers)

    def _json(self, status: int, value: Any) -> web.StreamResponse:
        return self._response(status, _dumps(value) + b"\n", "application/json")


def _digest(secret: str | bytes) -> bytes:
    """Of one length, whatever is given: the comparison tells nothing."""
    return hashlib.sha256(secret.encode("utf-8", "replace") if isinstance(secret, str) else secret).digest()


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _same_site(request: BaseRequest) -> bool:
    """False for what a browser sends on behalf of a page that isn't ours; no browser, no such header."""
    site = request.headers.get("Sec-Fetch-Site", "none")
    origin = request.headers.get("Origin")
    ours = origin is None or origin == f"http://{request.headers.get('Host', '')}"
    return ours and site in ("none", "same-origin")


def _match(pattern: list[str], path: list[str]) -> dict[str, str] | None:
    """The parts of `path` that stand for those in braces; None where it is another path."""
    if len(pattern) != len(path):
        return None
    parts: dict[str, str] = {}
    for want, given in zip(pattern, path, strict=True):
        if want.startswith("{") and given:
            parts[want.strip("{}")] = given
        elif want != given:
            return None
    return parts


def _protocol_class(web: Any) -> Any:
    """aiohttp's protocol, which doesn't wait for ever for a head, and is silent on a broken one."""

    class Speaker(web.RequestHandler):  # type: ignore[misc]
        __slots__ = ("_timer",)

        def connection_made(self, transport: Any) -> None:
            self._timer = asyncio.get_running_loop().call_later(HEAD, transport.abort)
            super().connection_made(transport)

        def head_came(self) -> None:
            self._timer.cancel()

        def connection_lost(self, exc: BaseException | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def handle_error(self, request: Any, status: int = 500, exc: Any = None, message: Any = None) -> Any:
            self._timer.cancel()
            words = "a fault of gotunnel's" if status >= 500 else "no request that can be read"
            reply = web.Response(
                status=status,
                text=f"gotunnel: {words}\n",
                headers={"Content-Type": _TEXT} | dict(HEADERS),
            )
            reply.force_close()
            return reply

    return Speaker


def _import_web() -> Any:
    from aiohttp import web

    return web
