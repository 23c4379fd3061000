"""An upstream proxy by HTTP CONNECT (RFC 9110 §9.3.6), in clear or inside TLS.

Rules:
- The proxy is reached by the dialer before it, so that it may stand anywhere in a chain.
- Blame: the proxy that can't be reached, answers no HTTP or knows us not is at fault itself; 403 is its
  policy for this target; 502 and 504 are its word about the target.
- What a refusal says is the proxy's own text: a password of ours in it is masked before anybody sees it.
- After the 200 the stream belongs to the caller, together with what came in the same packet.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

from gotunnel.address import HostPort, one_line
from gotunnel.errors import Blame, ConfigError, DialError, StreamLost
from gotunnel.observe.logs import mask
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.upstream.proxy_auth import ProxyAuth
from gotunnel.upstream.tls import explain, start_tls
from gotunnel.wire.http1 import ConnectClient, HeadError, Reply

ANSWER_TIMEOUT = 15.0
_REST_TIMEOUT = 5.0  # for the body of a refusal; without it a new connection does as well


class ConnectDialer:
    """Dials through one HTTP proxy; `password` is asked for when it is needed, so that it may change.

    `tls` makes it an https:// proxy, whose certificate must be for `server_name` (default: its host).
    """

    def __init__(
        self,
        before: Dialer,
        address: HostPort,
        *,
        label: str,
        user: str = "",
        password: Callable[[], str] = str,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
        timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        self._before = before
        self._address = address
        self._label = label
        self._tls = tls
        self._server_name = server_name
        self._timeout = timeout
        self._auth = ProxyAuth(
            label=label, host=address.host, user=user, password=password, tls=tls is not None
        )

    @property
    def label(self) -> str:
        return self._label

    async def warm(self) -> None:
        await self._before.warm()

    async def close(self) -> None:
        """Nothing is kept; the dialer before has its own owner."""

    async def dial(self, target: HostPort) -> Stream:
        try:
            login = self._auth.login(str(target))
            talk = _Talk(self._label, self._timeout, target, await login.first())
        except ConfigError as error:
            raise unreadable_password(error, "proxy.auth-required", self._label) from error
        except ValueError as error:
            raise DialError(
                "proxy.denied", f"{self._label}: {target}: {error}", blame=Blame.POLICY, hop=self._label
            ) from error
        stream = await self._open()
        try:
            while True:
                try:
                    reply = await talk.ask(stream)
                except DialError as error:
                    if error.finding != "hop.closed" or not talk.reused or login.bound:
                        raise
                    talk.afresh()  # it had promised to keep the connection, and closed it
                    stream = await self._reopen(stream)
                    continue
                if reply.accepted:
                    break
                if reply.status != 407:
                    raise refusal(reply, target, self._label)
                authorization = await login.answer(reply)
                if not await talk.next(stream, authorization):
                    if login.bound:
                        words = f"{self._label}: closes the connection in the middle of a login"
                        raise DialError(
                            "proxy.auth-required", words, blame=Blame.CREDENTIALS, hop=self._label
                        )
                    stream = await self._reopen(stream)
        except BaseException:
            stream.abort()
            raise
        login.accepted(reply)
        if reply.trailing:
            stream.unread(reply.trailing)
        return stream

    async def _open(self) -> Stream:
        stream = await dial_hop(self._before, self._address, self._label)
        if self._tls is None:
            return stream
        name = self._server_name or self._address.host
        return await start_tls(stream, self._tls, name, label=self._label, blame=Blame.HOP)

    async def _reopen(self, stream: Stream) -> Stream:
        stream.abort()
        return await self._open()


class _Talk:
    """The requests of one dial, over one connection or several; every error is a DialError."""

    def __init__(self, label: str, timeout: float, target: HostPort, authorization: str) -> None:
        self._label = label
        self._timeout = timeout
        self._target = target
        self._authorization = authorization
        self.afresh()

    def afresh(self) -> None:
        """The same request, for a new connection.  Raises ValueError where it can't be said in HTTP."""
        self._client = ConnectClient(self._target, self._authorization)
        self._request = self._client.request()
        self.reused = False

    async def next(self, stream: Stream, authorization: str) -> bool:
        """Prepare the next request; False where it wants a new connection."""
        self._authorization = authorization
        keeps: bool | None = False
        with contextlib.suppress(StreamLost, TimeoutError):
            async with asyncio.timeout(_REST_TIMEOUT):
                keeps = self._client.rest()
                while keeps is None:
                    keeps = self._client.rest(await stream.read())
        if not keeps:
            self.afresh()
            return False
        self._request = self._client.again(authorization)
        self.reused = True
        return True

    async def ask(self, stream: Stream) -> Reply:
        """Send the request and read the reply's head."""
        before = stream.received
        try:
            async with asyncio.timeout(self._timeout):
                stream.write(self._request)
                while True:
                    reply = self._client.feed(await stream.read())
                    if reply is not None:
                        return reply
        except TimeoutError:
            raise DialError(
                "hop.stalled",
                f"{self._label}: no answer to CONNECT {self._target} in {self._timeout:.0f} s",
                blame=Blame.HOP,
                hop=self._label,
            ) from None
        except (HeadError, StreamLost) as error:
            if isinstance(error.__cause__, ssl.SSLError):
                raise explain(error.__cause__, label=self._label, blame=Blame.HOP) from error
            spoke = isinstance(error, HeadError) and stream.received > before
            raise DialError(
                "proxy.not-a-proxy" if spoke else "hop.closed",
                f"{self._label}: {error}",
                blame=Blame.HOP,
                hop=self._label,
            ) from error


def unreadable_password(error: ConfigError, finding: str, label: str) -> DialError:
    """A password file or variable was there at the start and is gone now."""
    return DialError(finding, f"{label}: {error}", blame=Blame.CREDENTIALS, hop=label)


async def dial_hop(before: Dialer, address: HostPort, label: str) -> Stream:
    """Reach a hop's own address by the dialer before it; what fails there is this hop's fault.

    An earlier hop that is itself at fault keeps its blame and label; one that merely can't reach this
    hop makes this hop the one at fault: the way out as a whole leads nowhere.
    """
    try:
        return await before.dial(address)
    except DialError as error:
        if error.charges_hop:
            raise
        raise DialError(
            error.finding,
            f"{label}: {error.detail}",
            blame=Blame.HOP,
            hop=label,
            retry_after=error.retry_after,
        ) from error


# status -> (finding, whom to blame, may another way help)
REFUSALS: dict[int, tuple[str, Blame, bool]] = {
    400: ("proxy.not-a-proxy", Blame.HOP, True),
    401: ("proxy.auth-required", Blame.CREDENTIALS, True),  # tinyproxy's word for a wrong password
    403: ("proxy.denied", Blame.POLICY, True),
    404: ("proxy.not-a-proxy", Blame.HOP, True),
    405: ("proxy.not-a-proxy", Blame.HOP, True),
    407: ("proxy.auth-required", Blame.CREDENTIALS, True),
    429: ("http.rate-limited", Blame.POLICY, True),
    501: ("proxy.not-a-proxy", Blame.HOP, True),
    502: ("proxy.bad-gateway", Blame.TARGET, True),
    503: ("proxy.bad-gateway", Blame.TARGET, True),
    504: ("proxy.bad-gateway", Blame.TARGET, True),
}


def refusal(reply: Reply, target: HostPort, label: str) -> DialError:
    """What a CONNECT that was not accepted means."""
    default = (
        ("proxy.bad-gateway", Blame.TARGET, True)
        if reply.status >= 500
        else ("proxy.denied", Blame.POLICY, True)
    )
    if 300 <= reply.status < 400 or reply.status < 200:
        default = ("proxy.not-a-proxy", Blame.HOP, True)
    finding, blame, another = REFUSALS.get(reply.status, default)
    words = f"{label}: CONNECT {target}: {reply.status} {one_line(mask(reply.reason), 120)}".rstrip()
    if reply.status == 407:
        scheme = one_line(reply.header("proxy-authenticate").split(" ")[0].split(",")[0], 30)
        words += f" (wants {scheme or 'credentials'})"
    return DialError(finding, words, blame=blame, another_way=another, hop=label)
