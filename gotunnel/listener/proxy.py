"""The endpoint: HTTP CONNECT and absolute-form, and SOCKS5, on one port; the first byte tells which.

Rules:
- The `200` is withheld until a way out has really reached the target; before that the pool may try as many
  ways as it has, and the client never knows.
- The reason phrase of a failure is `gotunnel: FINDING: words`: go prints it word for word, and so does the
  next reader of its output learn exactly what happened.
- Without the secret: 407, nothing dialled.
- Heads are bounded in size (`head`) and time (HEAD_TIMEOUT, from accept to the head's last byte, whatever is
  spoken).
- With `tls` all of it is said inside TLS; a SOCKS client that can't is out of luck.
- Who comes beyond the limits is told so (503, a SOCKS reply), if few do; a slot is free again when its
  socket is gone.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from typing import cast

import h11

from gotunnel.address import HostPort, one_line
from gotunnel.errors import DialError, NoWayOut, StreamLost
from gotunnel.listener import socks
from gotunnel.listener.auth import Keys
from gotunnel.listener.forward import forward
from gotunnel.listener.limits import Seldom, Slots
from gotunnel.listener.sockets import BACKLOG, address_of, bind
from gotunnel.listener.tls import accept_tls
from gotunnel.observe.events import RUN
from gotunnel.relay.copy import relay
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.wire.http1 import HEAD_LIMIT, answer
from gotunnel.wire.socks5 import FAILED, SUCCEEDED, reply, reply_code

HEAD_TIMEOUT = 60.0  # seconds for a head to arrive; an idle keep-alive connection ends after it too
LINGER = 10.0  # seconds for a client to take the end of its answer
CONNECTIONS, PER_CLIENT = 4096, 1024
_REFUSALS = 64  # clients beyond the limits that are told so at one time; more are cut off
_REFUSAL_TIMEOUT = 2.0  # seconds for such a client to say what it speaks
_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_AUTHENTICATE = (("Proxy-Authenticate", 'Basic realm="gotunnel"'),)

_log = logging.getLogger("gotunnel.listener")


class Client(Stream):
    """An accepted connection; `address` is its peer's."""

    def __init__(self, opened: Callable[[Client], None], closed: Callable[[Client], None]) -> None:
        super().__init__(on_closed=lambda: closed(self))
        self._opened = opened
        self.address = ""
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self._opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.gone.set()


class Endpoint:
    """The local proxy.  `on_failure` hears of every target that could not be reached, `tell` of what a person
    must know."""

    def __init__(
        self,
        dialer: Dialer,
        *,
        keys: Keys,
        tls: ssl.SSLContext | None = None,
        head: int = HEAD_LIMIT,
        connections: int = CONNECTIONS,
        per_client: int = PER_CLIENT,
        on_failure: Callable[[HostPort, DialError], None] | None = None,
        tell: Callable[[str], None] = _log.warning,
    ) -> None:
        self._dialer = dialer
        self.keys = keys
        self._tls = tls
        self._head = head
        self._on_failure = on_failure
        self._tell = tell
        self._slots = Slots(connections, per_client)
        self._served: set[Client] = set()  # who holds a slot
        self._refusing = 0
        self._full, self._socks4 = Seldom(), Seldom()
        self._tasks = Tasks("listener")
        self._server: asyncio.Server | None = None

    async def start(self, where: HostPort | socket.socket | None = None) -> HostPort:
        """Listen there; port 0 (the default) takes a free one.  Raises ConfigError where it can't."""
        if not isinstance(where, socket.socket):
            where = bind(where or HostPort("127.0.0.1", 0), "listen.proxy")
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, sock=where, backlog=BACKLOG)
        return address_of(where)

    @property
    def connections(self) -> int:
        """Clients that are connected."""
        return len(self._slots)

    def limit(self, *, head: int, connections: int, per_client: int) -> None:
        """Other limits from now on; who is in stays in."""
        self._head = head
        self._slots.limit(connections, per_client)

    async def drain(self, seconds: float) -> None:
        """Stop listening, and let those who are in come to their end for so long."""
        if self._server is not None:
            self._server.close()
        end = asyncio.get_running_loop().time() + seconds
        while self._served and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110 - bounded, at the end
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        await self._tasks.close()

    def _accept(self) -> asyncio.Protocol:
        return Client(self._opened, self._closed)

    def _opened(self, client: Client) -> None:
        why = self._slots.take(client.address)
        if why is None:
            self._served.add(client)
            self._tasks.spawn("client", self._serve(client))
            return
        if (kept := self._full()) is not None:
            more = f"; {kept} more were refused before" if kept else ""
            self._tell(f"a client at {client.address} is refused: {why}{more}")
        if self._refusing >= _REFUSALS:
            client.abort()
        else:
            self._refusing += 1
            self._tasks.spawn("refuse", self._refuse(client, f"gotunnel: http.rate-limited: {why}"))

    def _closed(self, client: Client) -> None:
        if client in self._served:
            self._served.remove(client)
            self._slots.give_back(client.address)

    async def _refuse(self, client: Client, reason: str) -> None:
        """No slot for this one: say so in what it speaks, if it says that soon."""
        try:
            async with asyncio.timeout(_REFUSAL_TIMEOUT):
                first = await client.read()
                client.unread(first)
                if first[:1] == socks.SOCKS5:
                    if isinstance(await socks.handshake(client, self._check), HostPort):
                        client.write(reply(FAILED))
                elif first and first[:1] != socks.SOCKS4:
                    client.write(answer(503, reason))
                await self._drain(client)
        except (StreamLost, TimeoutError):
            pass
        finally:
            self._refusing -= 1
            client.abort()

    async def _serve(self, accepted: Client) -> None:
        loop = asyncio.get_running_loop()
        client = accepted
        try:
            deadline = loop.time() + HEAD_TIMEOUT
            if self._tls is not None:
                client = Client(lambda _: None, lambda _: None)
                await accept_tls(accepted, self._tls, client)
            async with asyncio.timeout_at(deadline):
                first = await client.read()
            client.unread(first)
            if first[:1] == socks.SOCKS5:
                await self._socks(client, deadline)
            elif first[:1] == socks.SOCKS4:
                client.write(socks.REFUSAL4)
                if self._socks4() is not None:
                    self._tell(f"a client at {client.address} is refused: {socks.WORDS4}")
            else:
                while first and await self._one(client, deadline):
                    deadline = loop.time() + HEAD_TIMEOUT
            await self._drain(client)
        except (StreamLost, TimeoutError):
            pass  # the client went away
        finally:
            client.close()
        try:
            async with asyncio.timeout(LINGER):
                await client.gone.wait()
        except TimeoutError:
            client.abort()

    async def _drain(self, client: Client) -> None:
        """Read what an answered client still sends: closed with bytes unread, the answer would be lost to a
        reset."""
        if client.is_lost or cast(asyncio.Transport, client.transport).is_closing():
            return
        client.write_eof()
        async with asyncio.timeout(LINGER):
            while await client.read():
                pass

    @property
    def _check(self) -> Callable[[bytes, bytes], bool] | None:
        """What a SOCKS client's user and password are held against."""

        def check(user: bytes, password: bytes) -> bool:
            run = self.keys.owner(user, password)
            RUN.set(run or "")
            return run is not None

        return check if self.keys.wanted else None

    async def _socks(self, client: Client, deadline: float) -> None:
        async with asyncio.timeout_at(deadline):
            asked = await socks.handshake(client, self._check)
        if isinstance(asked, HostPort):
            await self._tunnel(client, asked, reply(SUCCEEDED), lambda error: reply(reply_code(error)))
        elif asked is not None:
            _log.info("a SOCKS client at %s is refused: %s", client.address, asked)

    async def _one(self, client: Client, deadline: float) -> bool:
        """Serve one request; True if another may follow on the same connection."""
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=self._head)
        async with asyncio.timeout_at(deadline):
            request = await self._request(client, http)
        if request is None:
            return False
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in request.headers}
        run = self.keys.whose(headers.get("proxy-authorization", ""))
        if run is None:
            reason = "gotunnel: this endpoint wants the secret of its run"
            client.write(answer(407, reason, headers=_AUTHENTICATE))
            return False
        RUN.set(run)
        if request.method == b"CONNECT":
            await self._connect(client, request.target.decode("latin-1"), http.trailing_data[0])
            return False
        return await forward(client, http, request, self._dial)

    async def _request(self, client: Client, http: h11.Connection) -> h11.Request | None:
        while True:
            try:
                event = http.next_event()
            except h11.RemoteProtocolError as error:
                client.write(answer(error.error_status_hint, f"gotunnel: bad request: {error}"))
                return None
            if isinstance(event, h11.Request):
                if _size(event) <= self._head:
                    return event
                # h11 counts only what is not whole yet
                client.write(answer(431, "gotunnel: bad request: its head is too large"))
                return None
            if event is not h11.NEED_DATA:
                return None
            http.receive_data(await client.read())

    async def _connect(self, client: Client, text: str, trailing: bytes) -> None:
        try:
            target = HostPort.parse(text)
        except ValueError as error:
            client.write(answer(400, f"gotunnel: bad CONNECT target: {one_line(str(error), 200)}"))
            return
        if trailing:
            client.unread(trailing)
        await self._tunnel(client, target, _ESTABLISHED, lambda error: answer(*failure(error)))

    async def _tunnel(
        self, client: Client, target: HostPort, opened: bytes, refused: Callable[[DialError], bytes]
    ) -> None:
        """Reach the target, only then say `opened`, and relay until both sides are done."""
        try:
            upstream = await self._dial(target)
        except DialError as error:
            client.write(refused(error))
            return
        if client.is_lost:
            upstream.abort()
            return
        client.write(opened)
        outcome = await relay(client, upstream)
        _log.debug("%s: %d sent, %d received, %s", target, outcome.sent, outcome.received, outcome.error)

    async def _dial(self, target: HostPort) -> Stream:
        try:
            return await self._dialer.dial(target)
        except DialError as error:
            if self._on_failure is not None:
                self._on_failure(target, error)
            raise


def _size(request: h11.Request) -> int:
    """The bytes of its head, or a few less."""
    lines = sum(len(name) + len(value) + 4 for name, value in request.headers)
    return len(request.method) + len(request.target) + lines


def failure(error: DialError) -> tuple[int, str]:
    """(status, reason phrase) of a target that could not be reached."""
    status = 504 if error.finding.endswith((".timeout", ".stalled")) else 502
    words = error.detail
    if isinstance(error, NoWayOut) and len(error.failures) == 1:
        words = error.failures[0][1].detail
    return status, f"gotunnel: {error.finding}: {one_line(words, 250)}"
