"""HTTP/1.1 heads: CONNECT as a client, requests as a server.  No sockets here.

Rules:
- h11 parses; we bound (HEAD_LIMIT) and decide.
- A CONNECT is accepted by any 2xx (RFC 9110 §9.3.6); 1xx are passed over; bytes after the head belong to
  the tunnel and are handed on.
- A refusal's body is read over within a bound, so that the next request (a login has several rounds) can use
  the same connection.
- What we write never holds CR, LF or NUL from a value: h11 refuses them.
"""

from __future__ import annotations

import base64

import h11

from gotunnel.address import HostPort, one_line
from gotunnel.dataclass import dataclass

HEAD_LIMIT = 64 * 1024
_START = b"HTTP/"
BODY_LIMIT = 256 * 1024  # of a refusal that is read over to keep its connection


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
        return next(iter(self.values(name)), "")

    def values(self, name: str) -> tuple[str, ...]:
        """All values of header `name` (lower case), in their order."""
        return tuple(value for key, value in self.headers if key == name)


def basic(user: str, password: str) -> str:
    """A Basic credential (RFC 7617), in UTF-8; bytes of an environment that are none go out as they came."""
    pair = f"{user}:{password}".encode("utf-8", "surrogateescape")
    return "Basic " + base64.b64encode(pair).decode("ascii")


class ConnectClient:
    """A CONNECT request and its answer: `request()`, then `feed` until it gives a Reply.

    After a refusal `rest` tells whether the same connection takes another try, which `again` gives.
    """

    def __init__(self, target: HostPort, authorization: str = "", limit: int = HEAD_LIMIT) -> None:
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=limit)
        self._target = target
        self._authorization = authorization
        self._seen = 0
        self._limit = limit
        self._framed = False  # the end of the answer's body can be told without the connection's

    def request(self) -> bytes:
        """The bytes to send.  Raises ValueError where the target can't be said in HTTP."""
        try:
            where = str(self._target).encode("ascii")
            headers = [(b"Host", where), (b"User-Agent", b"gotunnel")]
            if self._authorization:
                headers.append((b"Proxy-Authorization", self._authorization.encode("latin-1")))
            event = h11.Request(method=b"CONNECT", target=where, headers=headers)
        except (UnicodeError, h11.LocalProtocolError):
            raise ValueError("the name can't be said in HTTP; want ASCII (xn--…)") from None
        return (self._h11.send(event) or b"") + (self._h11.send(h11.EndOfMessage()) or b"")

    def feed(self, data: bytes) -> Reply | None:
        """The reply, once its head is whole; `data` b"" is EOF.  Raises HeadError."""
        if self._seen < len(_START):
            # an SSH or SOCKS server would have us wait for the end of its head
            place = self._seen
            self._seen += len(data)
            if not data[: len(_START) - place] == _START[place : self._seen]:
                raise HeadError(f"it speaks no HTTP: {one_line(repr(data[:30]))}")
        else:
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
                raise HeadError("it closed the connection without an answer")  # h11: ConnectionClosed
        except h11.RemoteProtocolError as error:
            if not data:
                where = "in the middle of its answer" if self._seen else "without an answer"
                raise HeadError(f"it closed the connection {where}") from error
            raise HeadError(one_line(str(error), 200)) from error

    def rest(self, data: bytes | None = None) -> bool | None:
        """Read over a refusal's body: True once `again` may be used, False if never, None: feed it more.

        `data` b"" is EOF, None stands for what came with the head.
        """
        self._seen += len(data or b"")
        if self._h11.our_state is h11.MUST_CLOSE or not self._framed:
            return False
        try:
            if data is not None:
                self._h11.receive_data(data)
            while True:
                event = self._h11.next_event()
                if isinstance(event, h11.EndOfMessage):
                    return self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE
                if event is h11.NEED_DATA:
                    return None if self._seen <= BODY_LIMIT + self._limit else False
                if not isinstance(event, h11.Data):
                    return False
        except h11.RemoteProtocolError:
            return False

    def again(self, authorization: str) -> bytes:
        """The bytes of another try on the same connection, after `rest` gave True."""
        self._h11.start_next_cycle()
        self._authorization = authorization
        self._seen = 0
        return self.request()

    def _reply(self, event: h11.Response) -> Reply:
        headers = tuple((k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in event.headers)
        self._framed = any(k in ("content-length", "transfer-encoding") for k, _ in headers)
        trailing = b""
        if 200 <= event.status_code < 300:
            trailing, _ = self._h11.trailing_data
        return Reply(event.status_code, event.reason.decode("latin-1"), headers, trailing)


def answer(status: int, reason: str, body: str = "", headers: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A whole response that ends the connection, head and body in one piece.

    `reason` is cut down to visible ASCII: go prints it word for word in its own errors.
    """
    phrase = one_line(reason, 300).replace("…", "...").encode("ascii", "replace").decode("ascii")
    payload = (body or phrase).encode("utf-8") + b"\n"
    head = [f"HTTP/1.1 {status} {phrase}"]
    head += [f"{key}: {value}" for key, value in headers]
    head += [
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(payload)}",
        "Connection: close",
    ]
    return "\r\n".join(head).encode("ascii") + b"\r\n\r\n" + payload
