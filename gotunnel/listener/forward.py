"""Absolute-form requests (RFC 9112 §3.2.2): what clients send a proxy for http:// URLs.

Rules:
- h11 frames both sides, so that a request never reaches another origin than its own, and the client's
  connection may be kept.
- Hop-by-hop headers (RFC 9110 §7.6.1) and everything `Proxy-` stay here: the secret never leaves.
- One connection to the origin for each request: plain http is rare, and simple is sound.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from urllib.parse import urlsplit

import h11

from gotunnel.address import HostPort, one_line
from gotunnel.errors import DialError, StreamLost
from gotunnel.upstream.dialer import Stream
from gotunnel.wire.http1 import answer

_HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-connection"}


async def forward(
    client: Stream, http: h11.Connection, request: h11.Request, dial: Callable[[HostPort], Awaitable[Stream]]
) -> bool:
    """Carry one request out and its answer back; True if the client's connection may be kept."""
    from gotunnel.listener.proxy import failure

    url = urlsplit(request.target.decode("latin-1"))
    try:
        if url.scheme != "http" or not url.netloc:
            raise ValueError(f"{one_line(request.target.decode('latin-1'), 100)!r}: want http://HOST/…")
        target = HostPort.parse(url.netloc.rpartition("@")[2], 80)
    except ValueError as error:
        client.write(answer(400, f"gotunnel: bad request target: {error}"))
        return False
    try:
        origin = await dial(target)
    except DialError as error:
        status, reason = failure(error)
        client.write(answer(status, reason))
        return False
    try:
        return await _exchange(
            client, http, request, origin, url.path + (f"?{url.query}" if url.query else "")
        )
    except (StreamLost, h11.RemoteProtocolError, h11.LocalProtocolError) as error:
        if http.our_state is h11.SEND_RESPONSE:
            words = f"gotunnel: http.truncated: {target}: {one_line(str(error), 150)}"
            client.write(answer(502, words))
            return False
        client.abort()  # half an answer must not look whole
        return False
    finally:
        origin.abort()


async def _exchange(
    client: Stream, http: h11.Connection, request: h11.Request, origin: Stream, path: str
) -> bool:
    out = h11.Connection(h11.CLIENT)
    headers = [(k, v) for k, v in _end_to_end(request.headers) if not k.startswith(b"proxy-")]
    head = h11.Request(
        method=request.method, target=path or "/", headers=[*headers, (b"Connection", b"close")]
    )
    origin.write(out.send(head) or b"")
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if http.they_are_waiting_for_100_continue:
                client.write(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            http.receive_data(await client.read())
            continue
        if isinstance(event, h11.Data | h11.EndOfMessage):
            origin.write(out.send(event) or b"")
            await origin.drain()
        if not isinstance(event, h11.Data):
            break
    while True:
        event = out.next_event()
        if event is h11.NEED_DATA:
            out.receive_data(await origin.read())
        elif isinstance(event, h11.Response):
            answer_head = h11.Response(
                status_code=event.status_code, reason=event.reason, headers=_end_to_end(event.headers)
            )
            client.write(http.send(answer_head) or b"")
        elif isinstance(event, h11.Data | h11.EndOfMessage):
            client.write(http.send(event) or b"")
            await client.drain()
            if isinstance(event, h11.EndOfMessage):
                break
        elif not isinstance(event, h11.InformationalResponse):
            raise StreamLost("the origin closed the connection")
    if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
        return False
    rest, closed = http.trailing_data
    client.unread(rest)
    return not closed


def _end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    named = {
        token.strip().lower() for key, value in headers if key == b"connection" for token in value.split(b",")
    }
    return [(k, v) for k, v in headers if k not in _HOP_BY_HOP and k not in named]
