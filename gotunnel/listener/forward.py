"""Absolute-form requests (RFC 9112 §3.2.2): what clients send a proxy for http:// URLs.

Rules:
- h11 frames both sides, so that a request never reaches another origin than its own, and the client's
  connection may be kept.
- Hop-by-hop headers (RFC 9110 §7.6.1) and everything `Proxy-` stay here: the secret never leaves.  Host is
  made of the URL, whatever the client wrote (RFC 9112 §3.2.2).  Trailers are dropped.
- One length: a request that has both a Content-Length and a coding is refused, an answer loses the length
  (RFC 9112 §6.3: the second could be read as another message by whoever comes after us).
- One connection to the origin for each request: plain http is rare, and simple is sound.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable

import h11

from gotunnel.address import HostPort, one_line, redact
from gotunnel.errors import DialError, StreamLost
from gotunnel.relay.copy import reset
from gotunnel.upstream.dialer import Stream
from gotunnel.wire.http1 import answer

_HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade"}
_ABSOLUTE = re.compile(r"(?i:http)://(?P<authority>[^/?#]+)(?P<path>.*)")
_FRAMING = {b"content-length", b"transfer-encoding"}  # h11 needs them, whatever Connection names


async def forward(
    client: Stream, http: h11.Connection, request: h11.Request, dial: Callable[[HostPort], Awaitable[Stream]]
) -> bool:
    """Carry one request out and its answer back; True if the client's connection may be kept."""
    from gotunnel.listener.proxy import failure

    if {key for key, _ in request.headers} >= _FRAMING:
        client.write(answer(400, "gotunnel: bad request: both Content-Length and Transfer-Encoding"))
        return False
    try:
        target, host, path = _split(request.target.decode("latin-1"))
    except ValueError as error:
        client.write(answer(400, f"gotunnel: bad request target: {redact(str(error))}"))
        return False
    try:
        origin = await dial(target)
    except DialError as error:
        status, reason = failure(error)
        client.write(answer(status, reason))
        return False
    headers = [(b"Host", host.encode("latin-1"))]
    headers += [(k, v) for k, v in _end_to_end(request.headers) if k not in (b"host", b"expect")]
    head = h11.Request(method=request.method, target=path, headers=[*headers, (b"Connection", b"close")])
    try:
        return await _exchange(client, http, head, origin)
    except (StreamLost, h11.RemoteProtocolError, h11.LocalProtocolError) as error:
        if http.our_state is h11.SEND_RESPONSE and http.their_state is not h11.ERROR:
            words = f"gotunnel: http.truncated: {target}: {one_line(str(error), 150)}"
            client.write(answer(502, words))
        else:
            reset(client)  # half an answer must not look whole
        return False
    finally:
        origin.abort()


def _split(text: str) -> tuple[HostPort, str, str]:
    """(target, authority for Host, origin-form) of an absolute-form target.  Raises ValueError."""
    match = _ABSOLUTE.fullmatch(text)
    if match is None:
        raise ValueError(f"{one_line(text, 100)!r}: want http://HOST/…")
    host = match["authority"].rpartition("@")[2]
    path = match["path"].partition("#")[0]
    return HostPort.parse(host, 80), host, path if path.startswith("/") else f"/{path}"


async def _exchange(client: Stream, http: h11.Connection, head: h11.Request, origin: Stream) -> bool:
    out = h11.Connection(h11.CLIENT)
    origin.write(out.send(head) or b"")
    await _send_body(client, http, out, origin)
    await _pass_answer(client, http, out, origin)
    if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
        return False
    rest, closed = http.trailing_data
    client.unread(rest)
    return not closed


async def _send_body(client: Stream, http: h11.Connection, out: h11.Connection, origin: Stream) -> None:
    """All of it, unless the origin goes away before: it may have answered already."""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if http.they_are_waiting_for_100_continue:
                client.write(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            http.receive_data(await client.read())
            continue
        if not isinstance(event, h11.Data):
            origin.write(out.send(h11.EndOfMessage()) or b"")
            return
        origin.write(out.send(event) or b"")
        try:
            await origin.drain()
        except StreamLost:
            return


async def _pass_answer(client: Stream, http: h11.Connection, out: h11.Connection, origin: Stream) -> None:
    while True:
        event = out.next_event()
        if event is h11.NEED_DATA:
            out.receive_data(await origin.read())
        elif isinstance(event, h11.Response):
            answer_head = h11.Response(
                status_code=event.status_code, reason=event.reason, headers=_end_to_end(event.headers)
            )
            client.write(http.send(answer_head) or b"")
        elif isinstance(event, h11.Data):
            client.write(http.send(event) or b"")
            await client.drain()
        elif isinstance(event, h11.EndOfMessage):
            client.write(http.send(h11.EndOfMessage()) or b"")
            return
        elif not isinstance(event, h11.InformationalResponse):
            raise StreamLost("the origin closed the connection")


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    named = {
        token.strip().lower() for key, value in headers if key == b"connection" for token in value.split(b",")
    }
    drop = (named | _HOP_BY_HOP) - _FRAMING
    if {key for key, _ in headers} >= _FRAMING:
        drop.add(b"content-length")
    return [(k, v) for k, v in headers if k not in drop and not k.startswith(b"proxy-")]
