"""SOCKS5 as a server (RFC 1928, user and password by RFC 1929).  No sockets here.

Rules:
- Bytes in by `feed`, in pieces of any size; events out: what to `Send`, the one `Request`, or a `Refusal`
  that is to be sent before the connection is closed.  No event: more bytes are needed.
- CONNECT only.  Names are passed on as names: they are resolved by the way out, never here.
- With a check, user and password are a must; without one anybody may, and who insists on giving a
  password may give any.
- Each message is parsed as soon as it is whole, so that no more than one (513 bytes) waits here; what
  follows the request is the tunnel's, and is in `trailing`.
- Nothing that a client can send raises.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from gotunnel.address import HostPort, one_line
from gotunnel.dataclass import dataclass
from gotunnel.errors import Blame, DialError

VERSION = 5
_NO_AUTH, _PASSWORD, _NONE_ACCEPTABLE = 0x00, 0x02, 0xFF
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4

SUCCEEDED, FAILED, DENIED, NET_UNREACHABLE = 0, 1, 2, 3
HOST_UNREACHABLE, REFUSED, TTL_EXPIRED, BAD_COMMAND, BAD_ADDRESS_TYPE = 4, 5, 6, 7, 8

# finding -> reply code; the rest by their kind in `reply_code`
REPLIES = {
    "tcp.refused": REFUSED,
    "net.unreachable": NET_UNREACHABLE,
    "dns.not-found": HOST_UNREACHABLE,
}


@dataclass(frozen=True, slots=True)
class Send:
    """Bytes for the client; the dialogue goes on."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """The client wants `target`; answer it by `reply`."""

    target: HostPort


@dataclass(frozen=True, slots=True)
class Refusal:
    """The last bytes for the client, and why, in words for a log."""

    data: bytes
    words: str


Event = Send | Request | Refusal
Check = Callable[[bytes, bytes], bool]


def reply(code: int) -> bytes:
    """The answer to a request; the bound address is not told (all zero), as it is the way out's."""
    return bytes((VERSION, code, 0, _IPV4, 0, 0, 0, 0, 0, 0))


def reply_code(error: DialError) -> int:
    """What a client is told of a target that could not be reached (RFC 1928 §6)."""
    if error.blame is Blame.POLICY:
        return DENIED
    if error.finding.endswith((".timeout", ".stalled")):
        return TTL_EXPIRED
    return REPLIES.get(error.finding, FAILED)


class Socks5Server:
    """One client's dialogue, up to its request.  `check` says whether a user and password are right."""

    def __init__(self, check: Check | None = None) -> None:
        self._check = check
        self._buffer = bytearray()
        self._step: Callable[[], Event | None] | None = self._greeting

    @property
    def trailing(self) -> bytes:
        """What came after the request: the tunnel's first bytes."""
        return bytes(self._buffer)

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes; the events that they complete.

        After a Request or a Refusal all further bytes are `trailing`, and there are no more events.
        """
        self._buffer += data
        events: list[Event] = []
        while self._step is not None and (event := self._step()) is not None:
            events.append(event)
        return events

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _refuse(self, data: bytes, words: str) -> Refusal:
        self._step = None
        return Refusal(data, words)

    def _greeting(self) -> Event | None:
        """VER NMETHODS METHODS"""
        data = self._buffer
        if data and data[0] != VERSION:
            return self._refuse(b"", f"version {data[0]}, want SOCKS5")
        if len(data) < 2 or len(data) < 2 + data[1]:
            return None
        offered = self._take(2 + data[1])[2:]
        if self._check is None and _NO_AUTH in offered:
            self._step = self._request
            return Send(bytes((VERSION, _NO_AUTH)))
        if _PASSWORD in offered:
            self._step = self._login
            return Send(bytes((VERSION, _PASSWORD)))
        wanted = "no authentication" if self._check is None else "user and password"
        return self._refuse(bytes((VERSION, _NONE_ACCEPTABLE)), f"the client offers no way to {wanted}")

    def _login(self) -> Event | None:
        """VER ULEN UNAME PLEN PASSWD (RFC 1929)"""
        data = self._buffer
        if data and data[0] != 1:
            return self._refuse(b"\x01\x01", f"version {data[0]} of user and password, want 1")
        if len(data) < 2 or len(data) < 3 + data[1] or len(data) < 3 + data[1] + data[2 + data[1]]:
            return None
        user_end = 2 + data[1]
        message = self._take(user_end + 1 + data[user_end])
        if self._check is not None and not self._check(message[2:user_end], message[user_end + 1 :]):
            return self._refuse(b"\x01\x01", "wrong user or password")
        self._step = self._request
        return Send(b"\x01\x00")

    def _request(self) -> Event | None:
        """VER CMD RSV ATYP ADDR PORT"""
        data = self._buffer
        if data and data[0] != VERSION:
            return self._refuse(reply(FAILED), f"a request of version {data[0]}, want 5")
        if len(data) < 5:
            return None
        command, kind = data[1], data[3]
        lengths = {_IPV4: 4, _IPV6: 16, _NAME: 1 + data[4]}
        if kind not in lengths:
            return self._refuse(reply(BAD_ADDRESS_TYPE), f"address type {kind}, want a name, IPv4 or IPv6")
        end = 4 + lengths[kind] + 2
        if len(data) < end:
            return None
        message = self._take(end)
        if command != _CONNECT:
            return self._refuse(reply(BAD_COMMAND), f"command {command}, only CONNECT (1) is served")
        try:
            target = _target(kind, message[4:-2], int.from_bytes(message[-2:], "big"))
        except ValueError as error:
            return self._refuse(reply(FAILED), f"bad target: {one_line(str(error), 200)}")
        self._step = None
        return Request(target)


def _target(kind: int, address: bytes, port: int) -> HostPort:
    """Raises ValueError in words."""
    if kind != _NAME:
        host = str(ipaddress.ip_address(address))
    else:
        try:
            host = address[1:].decode("ascii")
        except UnicodeDecodeError:
            raise ValueError("a name that is not ASCII; write its xn-- form") from None
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
    return HostPort.parse(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
