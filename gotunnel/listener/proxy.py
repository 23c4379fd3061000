"""The endpoint: HTTP CONNECT and absolute-form on one loopback port.

Rules:
- The `200` is withheld until a way out has really reached the target; before that the pool may try as many
  ways as it has, and the client never knows.
- The reason phrase of a failure is `gotunnel: FINDING: words`: go prints it word for word, and so does the
  next reader of its output learn exactly what happened.
- Without the secret: 407, nothing dialled.
- Heads are bounded in size (`head`) and time (HEAD_TIMEOUT).
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable

import h11

from gotunnel.address import HostPort, one_line
from gotunnel.errors import ConfigError, DialError, NoWayOut, StreamLost
from gotunnel.listener.auth import allowed
from gotunnel.listener.forward import forward
from gotunnel.relay.copy import relay
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.wire.http1 import HEAD_LIMIT, answer

HEAD_TIMEOUT = 60.0  # seconds for a head to arrive; an idle keep-alive connection ends after it too
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_AUTHENTICATE = (("Proxy-Authenticate", 'Basic realm="gotunnel"'),)

_log = logging.getLogger("gotunnel.listener")


class Endpoint:
    """The local proxy.  `on_failure` hears of every target that could not be reached."""

    def __init__(
        self,
        dialer: Dialer,
        *,
        secret: str,
        user: str = "",
        head: int = HEAD_LIMIT,
        on_failure: Callable[[HostPort, DialError], None] | None = None,
    ) -> None:
        self._dialer = dialer
        self._user, self._secret = user, secret
        self._head = head
        self._on_failure = on_failure
        self._tasks = Tasks("listener")
        self._server: asyncio.Server | None = None

    async def start(self, address: HostPort | None = None) -> HostPort:
        """Listen; port 0 (the default) takes a free one.  Raises ConfigError where it can't."""
        host, port = (address.host, address.port) if address is not None else ("127.0.0.1", 0)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._accept, host, port, backlog=1024)
        except OSError as error:
            words = "already in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
            raise ConfigError(
                f"listen.proxy {host}:{port}: {words}; choose another address, or port 0 for a free one"
            ) from error
        bound = self._server.sockets[0].getsockname()
        return HostPort(bound[0], bound[1])

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        await self._tasks.close()

    def _accept(self) -> asyncio.Protocol:
        stream = Stream()
        self._tasks.spawn("client", self._serve(stream))
        return stream

    async def _serve(self, client: Stream) -> None:
        try:
            while await self._one(client):
                pass
        except (StreamLost, TimeoutError):
            pass  # the client went away
        finally:
            client.close()

    async def _one(self, client: Stream) -> bool:
        """Serve one request; True if another may follow on the same connection."""
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._head)
        request = await self._request(client, http)
        if request is None:
            return False
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in request.headers}
        if not allowed(headers.get("proxy-authorization", ""), self._secret, self._user):
            reason = "gotunnel: this endpoint wants the secret of its run"
            client.write(answer(407, reason, headers=_AUTHENTICATE))
            return False
        if request.method == b"CONNECT":
            await self._connect(client, request.target.decode("latin-1"), http.trailing_data[0])
            return False
        return await forward(client, http, request, self._dial)

    async def _request(self, client: Stream, http: h11.Connection) -> h11.Request | None:
        async with asyncio.timeout(HEAD_TIMEOUT):
            while True:
                try:
                    event = http.next_event()
                except h11.RemoteProtocolError as error:
                    client.write(answer(error.error_status_hint, f"gotunnel: bad request: {error}"))
                    return None
                if isinstance(event, h11.Request):
                    return event
                if event is not h11.NEED_DATA:
                    return None
                http.receive_data(await client.read())

    async def _connect(self, client: Stream, text: str, trailing: bytes) -> None:
        try:
            target = HostPort.parse(text)
        except ValueError as error:
            client.write(answer(400, f"gotunnel: bad CONNECT target: {one_line(str(error), 200)}"))
            return
        try:
            upstream = await self._dial(target)
        except DialError as error:
            client.write(answer(*failure(error)))
            return
        if client.is_lost:
            upstream.abort()
            return
        client.write(_ESTABLISHED)
        if trailing:
            client.unread(trailing)
        outcome = await relay(client, upstream)
        _log.debug("%s: %d sent, %d received, %s", target, outcome.sent, outcome.received, outcome.error)

    async def _dial(self, target: HostPort) -> Stream:
        try:
            return await self._dialer.dial(target)
        except DialError as error:
            if self._on_failure is not None:
                self._on_failure(target, error)
            raise


def failure(error: DialError) -> tuple[int, str]:
    """(status, reason phrase) of a target that could not be reached."""
    status = 504 if error.finding.endswith((".timeout", ".stalled")) else 502
    words = error.detail
    if isinstance(error, NoWayOut) and len(error.failures) == 1:
        words = error.failures[0][1].detail
    return status, f"gotunnel: {error.finding}: {one_line(words, 250)}"
