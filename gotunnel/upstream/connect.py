"""An upstream proxy by HTTP CONNECT (RFC 9110 §9.3.6).

Rules:
- The proxy is reached by the dialer before it, so that it may stand anywhere in a chain.
- Blame: the proxy that can't be reached, answers no HTTP or knows us not is at fault itself; 403 is its
  policy for this target; 502 and 504 are its word about the target.
- After the 200 the stream belongs to the caller, together with what came in the same packet.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gotunnel.address import HostPort, one_line
from gotunnel.errors import Blame, DialError, StreamLost
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.wire.http1 import ConnectClient, HeadError, Reply, basic

ANSWER_TIMEOUT = 15.0


class ConnectDialer:
    """Dials through one HTTP proxy; `password` is asked for when it is needed, so that it may change."""

    def __init__(
        self,
        before: Dialer,
        address: HostPort,
        *,
        label: str,
        user: str = "",
        password: Callable[[], str] = str,
        timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        self._before = before
        self._address = address
        self._label = label
        self._user = user
        self._password = password
        self._timeout = timeout

    @property
    def label(self) -> str:
        return self._label

    async def warm(self) -> None:
        await self._before.warm()

    async def close(self) -> None:
        """Nothing is kept; the dialer before has its own owner."""

    async def dial(self, target: HostPort) -> Stream:
        stream = await dial_hop(self._before, self._address, self._label)
        try:
            async with asyncio.timeout(self._timeout):
                reply = await self._ask(stream, target)
        except TimeoutError:
            stream.abort()
            raise DialError(
                "hop.stalled",
                f"{self._label}: no answer to CONNECT {target} in {self._timeout:.0f} s",
                blame=Blame.HOP,
                hop=self._label,
            ) from None
        except (HeadError, StreamLost) as error:
            stream.abort()
            raise DialError(
                "proxy.not-a-proxy" if isinstance(error, HeadError) else "hop.closed",
                f"{self._label}: {error}",
                blame=Blame.HOP,
                hop=self._label,
            ) from error
        except BaseException:
            stream.abort()
            raise
        if not reply.accepted:
            stream.abort()
            raise refusal(reply, target, self._label)
        if reply.trailing:
            stream.unread(reply.trailing)
        return stream

    async def _ask(self, stream: Stream, target: HostPort) -> Reply:
        credential = basic(self._user, self._password()) if self._user else ""
        client = ConnectClient(target, credential)
        stream.write(client.request())
        while True:
            reply = client.feed(await stream.read())
            if reply is not None:
                return reply


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
    401: ("proxy.not-a-proxy", Blame.HOP, True),
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
    words = f"{label}: CONNECT {target}: {reply.status} {one_line(reply.reason, 120)}".rstrip()
    if reply.status == 407:
        scheme = one_line(reply.header("proxy-authenticate").split(" ")[0].split(",")[0], 30)
        words += f" (wants {scheme or 'credentials'})"
    return DialError(finding, words, blame=blame, another_way=another, hop=label)
