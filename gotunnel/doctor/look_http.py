"""One HTTP request over an open stream, bounded: what came back, and how it ended.

Rules:
- At most `BODY_BYTES` in `BODY_SECONDS` are read; the first `KEPT` bytes are kept.
- `end` says how the body ended: "whole", "truncated" (less than promised), "endless" (more than the bound,
  and no length was promised), "long" (promised to be that long), "slow" (still coming), "stalled" (stopped).
- No answer at all raises DialError: http.timeout, http.truncated, or unknown for what is no HTTP.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import field

import h11

from gotunnel import __version__
from gotunnel.address import one_line
from gotunnel.dataclass import dataclass
from gotunnel.errors import Blame, DialError, StreamLost
from gotunnel.upstream.dialer import Stream

HEAD_SECONDS = 3.0
BODY_SECONDS = 3.0
BODY_BYTES = 1024 * 1024
KEPT = 256 * 1024  # a page has its go-import tags far down
_STALL = 1.5  # seconds without a byte, at the end of the time
_FULL_PACKET = 1600  # a request of this many bytes fills at least one packet of an Ethernet


@dataclass(frozen=True, slots=True)
class Request:
    """`host` is the Host header; `padded` makes the head larger than a packet: large ones are tried."""

    host: str
    path: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    padded: bool = False


@dataclass(slots=True)
class Answer:
    """`headers` with names in lower case; `size` counts the body's bytes that came."""

    status: int
    headers: dict[str, str]
    first_byte_ms: float
    body: bytes = b""
    size: int = 0
    end: str = "whole"
    detail: str = ""
    offered: tuple[str, ...] = field(default=())  # schemes of WWW-Authenticate or Proxy-Authenticate


async def fetch(stream: Stream, request: Request, *, label: str, seconds: float = HEAD_SECONDS) -> Answer:
    """Ask, and read the answer as far as the bounds allow.  Raises DialError where none came."""
    http = h11.Connection(h11.CLIENT)
    started = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            _send(stream, http, request)
            answer = await _head(stream, http, started)
    except TimeoutError:
        words = f"{label}: no answer to the request in {seconds:.0f} s"
        raise DialError("http.timeout", words, blame=Blame.TARGET) from None
    except StreamLost as error:
        reset = "reset" in str(error).lower()
        words = f"{label}: the connection broke before the answer: {error}"
        raise DialError("tcp.reset" if reset else "http.truncated", words, blame=Blame.TARGET) from error
    except (h11.RemoteProtocolError, h11.LocalProtocolError) as error:
        words = f"{label}: what it answers is no HTTP: {one_line(str(error), 120)}"
        raise DialError("unknown", words, blame=Blame.TARGET) from error
    await _body(stream, http, answer)
    return answer


def _send(stream: Stream, http: h11.Connection, request: Request) -> None:
    headers = [("Host", request.host), ("User-Agent", f"gotunnel/{__version__} (doctor)")]
    headers += [*request.headers, ("Accept-Encoding", "identity"), ("Connection", "close")]
    if request.body:
        headers.append(("Content-Length", str(len(request.body))))
    if request.padded:
        headers.append(("X-Padding", "x" * _FULL_PACKET))
    head = http.send(h11.Request(method=request.method, target=request.path, headers=headers)) or b""
    body = (http.send(h11.Data(request.body)) or b"") if request.body else b""
    stream.write(head + body + (http.send(h11.EndOfMessage()) or b""))


async def _head(stream: Stream, http: h11.Connection, started: float) -> Answer:
    first: float | None = None
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            data = await stream.read()
            if not data:
                raise StreamLost("it was closed")
            if first is None:
                first = 1000 * (time.monotonic() - started)
                if not data.startswith(b"HTTP/"[: len(data)]):  # h11 would wait for the end of a head
                    raise h11.RemoteProtocolError(repr(data[:40]))
            http.receive_data(data)
        elif isinstance(event, h11.Response):
            return _answer(event, first or 0.0)
        elif not isinstance(event, h11.InformationalResponse):
            raise h11.RemoteProtocolError(f"{type(event).__name__} before the head")


def _answer(event: h11.Response, first_byte_ms: float) -> Answer:
    pairs = [(n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in event.headers]
    schemes = [
        value.split(" ", 1)[0].rstrip(",")
        for name, value in pairs
        if name.endswith("-authenticate") and value
    ]
    return Answer(event.status_code, dict(pairs), first_byte_ms, offered=tuple(dict.fromkeys(schemes)))


async def _body(stream: Stream, http: h11.Connection, answer: Answer) -> None:
    sized = "content-length" in answer.headers
    framed = sized or "transfer-encoding" in answer.headers
    last = time.monotonic()
    kept = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while answer.size <= BODY_BYTES:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await stream.read())
                elif isinstance(event, h11.Data):
                    answer.size += len(event.data)
                    kept += event.data[: KEPT - len(kept)] if len(kept) < KEPT else b""
                    last = time.monotonic()
                else:
                    break
            else:
                answer.end = "long" if sized else "endless"
    except TimeoutError:
        answer.end = "stalled" if time.monotonic() - last >= _STALL else "slow"
        answer.detail = f"after {answer.size} bytes in {BODY_SECONDS:.0f} s"
    except (StreamLost, h11.RemoteProtocolError) as error:
        if framed:  # an answer that ends with its connection is whole whenever that ends
            answer.end = "truncated"
            answer.detail = f"after {answer.size} bytes: {one_line(str(error), 100)}"
    answer.body = bytes(kept)
