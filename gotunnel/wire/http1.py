"""HTTP/1.1 heads: CONNECT as a client, requests as a server.  No sockets here.

Rules:
- h11 parses; we bound (HEAD_LIMIT) and decide.
- A CONNECT is accepted by any 2xx (RFC 9110 §9.3.6); 1xx are passed over; bytes after the head belong to
  the tunnel and are handed on.
- What we write never holds CR, LF or NUL from a value: h11 refuses them.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import h11

from gotunnel.address import HostPort, one_line

HEAD_LIMIT = 64 * 1024


class HeadError(Exception):
    """What came is no HTTP, or larger than the bound."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a CONNECT: `trailing` are the tunnel's first bytes when it was accepted."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    trailing: bytes

    @property
    def accepted(self) -> bool:
        return 200 <= self.status < 300

    def header(self, name: str) -> str:
        """The first value of header `name` (lower case), or ""."""
        return next((value for key, value in self.headers if key == name), "")


def basic(user: str, password: str) -> str:
    """A Basic credential (RFC 7617), in UTF-8."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")


class ConnectClient:
    """One CONNECT request and its answer: `request()`, then `feed` until it gives a Reply."""

    def __init__(self, target: HostPort, authorization: str = "", limit: int = HEAD_LIMIT) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=limit)
        self._target = target
        self._authorization = authorization
        self._seen = 0
        self._limit = limit

    def request(self) -> bytes:
        """The bytes to send."""
        headers = [("Host", str(self._target)), ("User-Agent", "gotunnel")]
        if self._authorization:
            headers.append(("Proxy-Authorization", self._authorization))
        event = h11.Request(method="CONNECT", target=str(self._target), headers=headers)
        return (self._h11.send(event) or b"") + (self._h11.send(h11.EndOfMessage()) or b"")

    def feed(self, data: bytes) -> Reply | None:
        """The reply, once its head is whole; `data` b"" is EOF.  Raises HeadError."""
        self._seen += len(data)
        try:
            self._h11.receive_data(data)
            while True:
                event = self._h11.next_event()
                if isinstance(event, h11.InformationalResponse):
                    continue
                if isinstance(event, h11.Response):
                    return self._reply(event)
                if event is h11.NEED_DATA:
                    # an endless row of 1xx is bounded too
                    if self._seen > 4 * self._limit:
                        raise HeadError("the answer's head never ends")
                    return None
                raise HeadError("it closed the connection without an answer")
        except h11.RemoteProtocolError as error:
            raise HeadError(one_line(str(error), 200)) from error

    def _reply(self, event: h11.Response) -> Reply:
        headers = tuple((k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in event.headers)
        trailing = b""
        if 200 <= event.status_code < 300:
            trailing, _ = self._h11.trailing_data
        return Reply(event.status_code, event.reason.decode("latin-1"), headers, trailing)


def answer(status: int, reason: str, body: str = "", headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A whole response that ends the connection, head and body in one piece.

    `reason` is cut down to visible ASCII: go prints it word for word in its own errors.
    """
    phrase = one_line(reason.encode("ascii", "replace").decode("ascii"), 300)
    payload = (body or phrase).encode("utf-8") + b"\n"
    head = [f"HTTP/1.1 {status} {phrase}"]
    head += [f"{key}: {value}" for key, value in headers]
    head += [
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(payload)}",
        "Connection: close",
    ]
    return "\r\n".join(head).encode("ascii") + b"\r\n\r\n" + payload
