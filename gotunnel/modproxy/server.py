"""The module proxy's socket: HTTP by aiohttp, one secret a project.

Rules:
- The first element of the path is the secret, compared in constant time; a stranger gets the same 404 for
  everything, and nothing is looked up or dialled for them.
- In the shared mode there is no secret: a project added under "" is everybody's who passes `check` (Basic
  credentials) or, with neither, everybody's; TLS and client certificates are the `context`'s business.
- aiohttp is imported by `prepare`, or when the first connection is there, in a thread: a run that needs no
  module doesn't pay for it.
- An answer that fails after its head is cut off: the client sees that it isn't whole.
- Errors are one line of text/plain: go prints it after `server response:`.  Small answers leave in one write;
  files are sent by sendfile; a client that goes away ends what nobody else waits for.
- Heads are bounded by aiohttp (8 KiB a line, 128 fields), connections by `connections`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import logging
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from gotunnel.address import one_line, redact
from gotunnel.errors import ModuleError
from gotunnel.modproxy import STRANGER
from gotunnel.modproxy.proxy import Answer, Project
from gotunnel.modproxy.walk import sourced
from gotunnel.modproxy.web_import import import_web
from gotunnel.storage.store import StoreError
from gotunnel.tasks import Tasks, in_thread

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.web_request import BaseRequest

KEEP_ALIVE = 75.0  # seconds that a connection may idle
HEAD = 20.0  # seconds for the first head
_EARLY = 64 << 10  # bytes that are kept until aiohttp is there
_NONSENSE = b"400 bad request\n"
_SERVER = {"Server": "-"}  # aiohttp would say what listens here, and its versions, to a stranger
_TEXT = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"} | _SERVER
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_log = logging.getLogger("gotunnel.modproxy")

Check = Callable[[str, str], bool]


class Answers(Protocol):
    """What is needed of a ModProxy."""

    async def answer(self, path: str, project: Project, *, priority: int = 0) -> Answer:
        """The answer to `path`.  Raises ModuleError."""


class Server:
    """Serves `proxy` below /SECRET/.

    `check` says whether user and password may come in (shared mode), `connections` is the most there may be
    at once.
    """

    def __init__(
        self,
        proxy: Answers,
        *,
        check: Check | None = None,
        context: ssl.SSLContext | None = None,
        connections: int = 1024,
    ) -> None:
        self._proxy, self._check, self._context, self._most = proxy, check, context, connections
        self._projects: dict[bytes, tuple[str, Project]] = {}
        self._tasks = Tasks("modproxy-server")
        self._listeners: list[asyncio.Server] = []
        self._web: Any = None
        self._protocol: Any = None
        self._http: web.Server | None = None
        self._ready: asyncio.Task[None] | None = None
        self._open = 0

    def add(self, secret: str, project: Project) -> None:
        """Answer for `project` below /`secret`/; "" is the shared mode."""
        self._projects[_digest(secret)] = (secret, project)

    def remove(self, secret: str) -> None:
        """Whoever comes with it is a stranger from now on."""
        self._projects.pop(_digest(secret), None)

    async def start(self, sock: socket.socket) -> None:
        """Serve on a bound socket, which is ours from now on."""
        listener = await asyncio.get_running_loop().create_server(
            lambda: _Door(self), sock=sock, ssl=self._context, backlog=256
        )
        self._listeners.append(listener)

    async def prepare(self) -> None:
        """Import what answers need; done by the first connection otherwise."""
        if self._ready is None:
            self._ready = self._tasks.spawn("prepare", self._prepare())
        await asyncio.shield(self._ready)

    async def _prepare(self) -> None:
        self._web = await in_thread("import aiohttp", import_web)
        self._http = self._web.Server(self._handle, handler_cancellation=True)
        self._protocol = _protocol_class(self._web)

    def _speaker(self) -> asyncio.Protocol:
        """aiohttp's end of one connection."""
        speaker: asyncio.Protocol = self._protocol(
            self._http,
            loop=asyncio.get_running_loop(),
            access_log=None,
            keepalive_timeout=KEEP_ALIVE,
            lingering_time=1.0,
        )
        return speaker

    async def close(self) -> None:
        """Stop listening, end what is under way."""
        for listener in self._listeners:
            listener.close()
        await self._tasks.close()
        if self._http is not None:
            await self._http.shutdown(timeout=0.5)
        self._listeners.clear()

    # --- connections ----------------------------------------------------------------------------

    def entered(self, transport: asyncio.Transport) -> bool:
        """Count a connection in; False where there are too many."""
        if self._open >= self._most:
            return False
        self._open += 1
        return True

    def left(self) -> None:
        """Count it out."""
        self._open -= 1

    def pass_on(self, door: _Door, transport: asyncio.Transport) -> None:
        """Have aiohttp speak on this connection, as soon as it is there."""
        if self._http is None:
            transport.pause_reading()
            self._tasks.spawn("connection", self._pass_on_later(door, transport))
        else:
            door.opened(self._speaker(), transport)

    async def _pass_on_later(self, door: _Door, transport: asyncio.Transport) -> None:
        try:
            await self.prepare()
        except Exception as error:
            _log.error("the module proxy can't answer: %r", error)
            transport.abort()
            return
        if not transport.is_closing() and self._http is not None:
            door.opened(self._speaker(), transport)
            transport.resume_reading()

    # --- requests -------------------------------------------------------------------------------

    async def _handle(self, request: BaseRequest) -> web.StreamResponse:
        found = self._admitted(request)
        if found is None:
            return self._reply(404, STRANGER)
        path, project = found
        if project is None:
            headers = {"WWW-Authenticate": 'Basic realm="gotunnel"'}
            return self._reply(401, b"gotunnel: who are you?\n", headers)
        if request.method not in ("GET", "HEAD"):
            return self._reply(405, b"gotunnel: only GET and HEAD\n", {"Allow": "GET, HEAD"})
        try:
            for last in (False, True):
                answer = await self._proxy.answer(path, project)
                try:
                    return await self._send(request, answer)
                except (FileNotFoundError, StoreError):
                    if last:  # pruned just now, twice
                        return self._reply(500, b"gotunnel: the module store lost the file\n")
            raise AssertionError
        except ModuleError as error:
            return self._reply(error.http_status, told(error))
        except Exception as error:
            _log.error("the module proxy failed: %s", redact(repr(error)))
            return self._reply(500, b"gotunnel: the module proxy failed; its log says more\n")

    def _admitted(self, request: BaseRequest) -> tuple[str, Project | None] | None:
        """(path, project); None for a stranger, a project of None where credentials are wanted."""
        path = request.path_qs
        secret, _, rest = path.removeprefix("/").partition("/")
        known = self._projects.get(_digest(secret))
        if secret and known and hmac.compare_digest(known[0].encode(), secret.encode("utf-8", "replace")):
            return rest, known[1]
        shared = self._projects.get(_digest(""))
        if shared is None:
            return None
        if self._check is not None and not self._allowed(request.headers.get("Authorization", "")):
            return rest, None
        return path.removeprefix("/"), shared[1]

    def _allowed(self, header: str) -> bool:
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "basic" or self._check is None:
            return False
        try:
            user, colon, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return False
        return bool(colon) and self._check(user, password)

    def _reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> web.StreamResponse:
        response: web.StreamResponse = self._web.Response(
            status=status, body=body, headers=_TEXT | (headers or {})
        )
        return response

    async def _send(self, request: BaseRequest, answer: Answer) -> web.StreamResponse:
        headers = _SERVER | dict(answer.headers)
        etag = headers.get("ETag", "")
        if etag and etag in request.headers.get("If-None-Match", ""):
            return self._reply(304, b"", {"ETag": etag})
        size, body = answer.size, answer.body
        start, end, status = 0, size or 0, answer.status
        if etag and size:
            headers["Accept-Ranges"] = "bytes"
            part = _part(request.headers.get("Range", ""), size)
            if part and request.headers.get("If-Range", etag) == etag and not _streams(body):
                start, end = part
                status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{size}"
        if isinstance(body, bytes):
            part_of = body if status == 200 else body[start:end]
            whole: web.StreamResponse = self._web.Response(status=status, body=part_of, headers=headers)
            return whole
        response: web.StreamResponse = self._web.StreamResponse(status=status, headers=headers)
        if size is not None:
            response.content_length = end - start
        if isinstance(body, Path):
            with body.open("rb") as file:
                await self._send_file(request, response, file, start, end - start)
        else:
            await self._send_pieces(request, response, body)
        return response

    async def _send_file(
        self, request: BaseRequest, response: web.StreamResponse, file: IO[bytes], start: int, count: int
    ) -> None:
        await response.prepare(request)
        transport = request.transport
        if request.method == "GET" and transport is not None and count:
            with contextlib.suppress(ConnectionError):
                await asyncio.get_running_loop().sendfile(transport, file, start, count)
        await response.write_eof()

    async def _send_pieces(
        self, request: BaseRequest, response: web.StreamResponse, pieces: AsyncIterator[bytes]
    ) -> None:
        first = await anext(pieces, b"")  # a file that was pruned says so before the head is sent
        try:
            await response.prepare(request)
            if request.method == "GET":
                if first:
                    await response.write(first)
                async for piece in pieces:
                    await response.write(piece)
            await response.write_eof()
        except (ModuleError, StoreError, OSError) as error:
            _log.debug("an answer was cut off: %s", redact(str(error)))
            if request.transport is not None:
                request.transport.abort()  # a second head in the middle of the body would look like content
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()


class _Door(asyncio.Protocol):
    """The first owner of a connection: counts it, then lets aiohttp's protocol speak, whose callbacks it
    passes on.

    What comes before aiohttp is there is kept: Python 3.11.2, Debian 12's, reads on where a transport was
    paused in `connection_made`.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._inner: asyncio.Protocol | None = None
        self._transport: asyncio.Transport
        self._counted = False
        self._tail = self._early = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        if not self._server.entered(transport):
            transport.abort()
            return
        self._counted = True
        self._timer = asyncio.get_running_loop().call_later(HEAD, transport.abort)
        self._transport = transport
        self._server.pass_on(self, transport)

    def opened(self, inner: asyncio.Protocol, transport: asyncio.Transport) -> None:
        """aiohttp is there."""
        self._inner = inner
        inner.connection_made(transport)
        if self._early:
            early, self._early = self._early, b""
            self.data_received(early)

    def data_received(self, data: bytes) -> None:
        if self._inner is None:
            self._early += data
            if len(self._early) > _EARLY:
                self._transport.abort()
            return
        if self._timer is not None:
            self._tail = self._tail[-3:] + data
            if b"\r\n\r\n" in self._tail:
                self._timer.cancel()
                self._timer, self._tail = None, b""
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._inner is not None else None

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._counted:
            self._server.left()
        if self._inner is not None:
            self._inner.connection_lost(exc)


def told(error: ModuleError) -> bytes:
    """What go prints after `server response:`."""
    return f"gotunnel: {error.finding}: {one_line(redact(sourced(error)), 900)}\n".encode()


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _part(header: str, size: int) -> tuple[int, int] | None:
    """(start, end) of the one range that is asked for; None where it isn't one that can be met."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or len(header) > 50:
        return None
    start = int(found[1])
    end = min(size, int(found[2]) + 1) if found[2] else size
    return (start, end) if start < end else None


def _streams(body: object) -> bool:
    return not isinstance(body, bytes | Path)


def _protocol_class(web: Any) -> Any:
    """aiohttp's protocol, silent on a broken request: its text and its log would tell the secret."""

    class Quiet(web.RequestHandler):  # type: ignore[misc]
        __slots__ = ()

        def handle_error(self, request: Any, status: int = 500, exc: Any = None, message: Any = None) -> Any:
            reply = web.Response(status=status, body=_NONSENSE, headers=_TEXT)
            reply.force_close()
            return reply

    return Quiet
