"""A SOCKS proxy, by the protocol objects of python-socks.

Rules:
- python-socks opens its own sockets and takes no stream; we drive its connectors over ours, so that SOCKS
  may stand anywhere in a chain.
- socks5 and socks4 resolve the target here (in our resolver thread), socks5h and socks4a at the far end.
- A proxy that has answered something and then takes long is at work on the target: that is the target's time.
- Blame by the reply code (RFC 1928 §6): "not allowed by ruleset" is policy, "refused" and "unreachable" are
  the target's, the rest is the proxy's.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from gotunnel.address import HostPort, one_line
from gotunnel.errors import Blame, ConfigError, DialError, StreamLost
from gotunnel.upstream.connect import dial_hop, unreadable_password
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.upstream.direct import resolve, translate

ANSWER_TIMEOUT = 15.0

# SOCKS5 reply code -> (finding, whom to blame)
REPLIES5: dict[int, tuple[str, Blame]] = {
    1: ("socks.denied", Blame.TARGET),  # "general failure": what most servers say of an unreachable target
    2: ("socks.denied", Blame.POLICY),
    3: ("net.unreachable", Blame.TARGET),
    4: ("net.unreachable", Blame.TARGET),
    5: ("tcp.refused", Blame.TARGET),
    6: ("tcp.timeout", Blame.TARGET),
    7: ("socks.denied", Blame.HOP),
    8: ("socks.denied", Blame.POLICY),
}
# SOCKS4 reply code (0x5b rejected or failed; 0x5c, 0x5d: identd)
REPLIES4: dict[int, tuple[str, Blame]] = {
    0x5B: ("socks.denied", Blame.TARGET),
    0x5C: ("socks.auth-failed", Blame.CREDENTIALS),
    0x5D: ("socks.auth-failed", Blame.CREDENTIALS),
}


class SocksDialer:
    """Dials through one SOCKS proxy of `version` 4 or 5."""

    def __init__(
        self,
        before: Dialer,
        address: HostPort,
        *,
        label: str,
        version: int = 5,
        remote_names: bool = True,
        user: str = "",
        password: Callable[[], str] = str,
        timeout: float = ANSWER_TIMEOUT,
    ) -> None:
        self._before = before
        self._address = address
        self._label = label
        self._version = version
        self._remote_names = remote_names
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
        connector = self._connector()
        host = await self._host_for(target)
        stream = await dial_hop(self._before, self._address, self._label)
        try:
            async with asyncio.timeout(self._timeout):
                await connector.connect(_Exactly(stream), host, target.port)
        except TimeoutError:
            stream.abort()
            if stream.received:
                raise DialError(
                    "tcp.timeout",
                    f"{target}: no answer in {self._timeout:.0f} s through {self._label}",
                    blame=Blame.TARGET,
                ) from None
            raise DialError(
                "hop.stalled",
                f"{self._label}: no answer in {self._timeout:.0f} s",
                blame=Blame.HOP,
                hop=self._label,
            ) from None
        except Exception as error:
            stream.abort()
            raise self._refusal(error, target) from error
        except BaseException:
            stream.abort()
            raise
        return stream

    def _connector(self) -> Any:
        from python_socks import ProxyType
        from python_socks._connectors.factory_async import create_connector

        try:
            password = self._password()
        except ConfigError as error:
            raise unreadable_password(error, "socks.auth-failed", self._label) from error
        if not (self._user + password).isascii():  # python-socks' own error would show a piece of it
            raise DialError(
                "socks.auth-failed",
                f"{self._label}: a SOCKS user or password can only be ASCII here",
                blame=Blame.CREDENTIALS,
                hop=self._label,
            )
        return create_connector(
            proxy_type=ProxyType.SOCKS4 if self._version == 4 else ProxyType.SOCKS5,
            username=self._user or None,
            password=password or None,
            rdns=True,  # where names are to be resolved here, `_host_for` has done it
            resolver=None,  # type: ignore[arg-type]  # never asked with rdns
        )

    async def _host_for(self, target: HostPort) -> str:
        if self._remote_names or (target.ip is not None and self._version == 5):
            return target.host
        try:
            async with asyncio.timeout(self._timeout):
                addresses = await resolve(target)
        except TimeoutError:
            raise DialError(
                "dns.timeout", f"{target.host}: no answer in {self._timeout:.0f} s", blame=Blame.TARGET
            ) from None
        except OSError as error:
            raise translate(error, target) from error
        for family, _, _, _, address in addresses:
            if self._version == 5 or family == socket.AF_INET:
                return str(address[0])
        raise DialError(
            "net.unreachable",
            f"{target.host}: no IPv4 address, which socks4 needs",
            blame=Blame.POLICY,
            hop=self._label,
        )

    def _refusal(self, error: Exception, target: HostPort) -> DialError:
        from python_socks._protocols.errors import ReplyError

        code = getattr(error, "error_code", None)
        words = one_line(str(error), 200)
        if isinstance(error, ReplyError):
            table = REPLIES4 if self._version == 4 else REPLIES5
            if code is not None:
                finding, blame = table.get(int(code), ("socks.denied", Blame.HOP))
                return DialError(
                    finding, f"{self._label}: {target}: {words.lower()}", blame=blame, hop=self._label
                )
            lowered = words.lower()
            if "authentication" in lowered:
                hint = "" if self._user else " (it wants a user and password)"
                return DialError(
                    "socks.auth-failed",
                    f"{self._label}: {lowered}{hint}",
                    blame=Blame.CREDENTIALS,
                    hop=self._label,
                )
            return DialError(
                "proxy.not-a-proxy",
                f"{self._label}: no SOCKS answer: {words}",
                blame=Blame.HOP,
                hop=self._label,
            )
        if isinstance(error, StreamLost):
            return DialError("hop.closed", f"{self._label}: {words}", blame=Blame.HOP, hop=self._label)
        if isinstance(error, UnicodeError | ValueError | OverflowError):
            return DialError(
                "socks.denied",
                f"{self._label}: {target}: can't be said in SOCKS: {words}",
                blame=Blame.POLICY,
                hop=self._label,
            )
        return DialError("hop.closed", f"{self._label}: {words}", blame=Blame.HOP, hop=self._label)


class _Exactly:
    """The two calls that python-socks makes on a stream."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def write(self, data: bytes) -> None:
        self._stream.write(data)

    async def read_exactly(self, count: int) -> bytes:
        return await self._stream.read_exactly(count)
