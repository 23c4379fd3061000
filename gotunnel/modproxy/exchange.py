"""One HTTP/1.1 connection as a client: a request goes out, a head comes, its body is pushed to a sink.

Rules (RFC 9112):
- h11 reads heads and chunks; a body with a Content-Length goes from the stream to the sink piece by piece,
  counted by us.
- A body is whole only with its Content-Length, its last chunk, or, with neither, at a clean EOF (over TLS a
  close_notify); anything else is a loss.
- What comes while nothing was asked, or after the end of an answer, ends the connection.
- Before a body has a sink at most HELD bytes are kept, then the stream is paused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import h11

from gotunnel.address import HostPort, one_line
from gotunnel.dataclass import dataclass
from gotunnel.errors import StreamLost
from gotunnel.modproxy.failed import Failed, by, local
from gotunnel.upstream.dialer import Stream

HEAD_LIMIT = 64 * 1024
HELD = 256 * 1024

Sink = Callable[[bytes], bool]  # takes a piece of a body; True: enough, drop the rest


@dataclass(frozen=True, slots=True)
class Head:
    """An answer's head; names of headers in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    length: int | None
    chunked: bool
    keep: bool

    def header(self, name: str) -> str:
        """The first value of header `name` (lower case), or ""."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def etag(self) -> str:
        """The strong validator, "" for none (RFC 9110 §8.8.3)."""
        tag = self.header("etag").strip()
        return tag if len(tag) >= 2 and tag[0] == tag[-1] == '"' else ""


class Connection:
    """An open connection to `target` by the way out `via`; a stream pushes to it all its life."""

    def __init__(
        self, stream: Stream, target: HostPort, via: str, on_end: Callable[[Connection], None]
    ) -> None:
        self.target, self.via = target, via
        self.answers = 0  # complete ones so far
        self.begun = False  # a byte of the current answer has come
        self.alive = True
        self.idle_since = 0.0
        self.last = 0.0  # when something last came
        self._stream = stream
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._http: h11.Connection | None = None  # while an answer is due
        self._heading: asyncio.Future[Head] | None = None
        self._head: Head | None = None
        self._left = 0
        self._keep = False
        self._seen = False
        self._pending = bytearray()
        self._paused = False
        self._held = False
        self._eof = False
        self._sink: Sink | None = None
        self._done: asyncio.Future[None] | None = None
        self._failure: Failed | None = None
        stream.hand_over(self)

    def __str__(self) -> str:
        return f"{self.target}{by(self.via)}"

    # --- for who asks ------------------------------------------------------------------------

    async def ask(self, path: str, headers: list[tuple[str, str]], timeout: float) -> Head:
        """GET `path`; the head of the answer, which has to come within `timeout` seconds.  Raises Failed."""
        self._http = http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
        self._head, self.begun, self._seen = None, False, False
        self._heading = self._loop.create_future()
        try:
            request = http.send(h11.Request(method="GET", target=path, headers=headers)) or b""
            request += http.send(h11.EndOfMessage()) or b""
        except h11.LocalProtocolError as error:
            raise Failed("unknown", f"{self.target}: can't be asked: {error}", again=False) from error
        try:
            if self._failure is not None:
                raise self._failure
            self._stream.write(request)
            async with asyncio.timeout(timeout):
                return await self._heading
        except TimeoutError:
            self.abort()
            words = f"{self}: no answer in {timeout:.0f} s"
            raise Failed("http.timeout", words, again=True, upstream=self.via) from None
        except BaseException:
            self.abort()
            raise
        finally:
            self._heading = None

    async def body(self, sink: Sink, stall: float) -> bool:
        """Push the body to `sink`; True when it is whole, False when the sink had enough.

        `stall`: seconds without a byte after which it is given up.  Raises Failed.  Unless the body came
        whole and the server keeps the connection, it is closed.
        """
        assert self._head is not None
        self._sink, self._done = sink, self._loop.create_future()
        self.last = self._loop.time()
        whole = False
        try:
            self._begin_body()
            while not self._done.done():
                silent = 0.0 if self._held else self._loop.time() - self.last
                if silent >= stall:
                    words = f"{self}: nothing came for {stall:g} s in the middle of the answer"
                    raise Failed("http.timeout", words, again=True, upstream=self.via, stalled=True)
                await asyncio.wait([self._done], timeout=stall - silent + 0.001)
            self._done.result()
            whole = self._head is None
            return whole
        finally:
            self._sink, self._done = None, None
            if whole and self._keep and self.alive:
                self.go_on()
                self._on_end(self)  # only now: who takes it next asks at once
            else:
                self.abort()

    def abort(self) -> None:
        """Close at once."""
        self._end(Failed("http.truncated", f"{self}: given up", again=True, upstream=self.via))
        self._stream.abort()

    def hold(self) -> None:
        """Bring no more of the body until `go_on`; meanwhile its silence is no stall."""
        self._held = True
        if self.alive:
            self._stream.transport.pause_reading()

    def go_on(self) -> None:
        """Bring more."""
        if self._held:
            self._held = self._paused = False
            self.last = self._loop.time()
            if self.alive:
                self._stream.transport.resume_reading()

    @property
    def reusable(self) -> bool:
        """True while another request may be sent."""
        return self.alive and self._http is None

    # --- the answer --------------------------------------------------------------------------

    def _begin_body(self) -> None:
        pending = bytes(self._pending)
        self._pending.clear()
        if self._head is not None and self._head.chunked:
            self._chunks(pending)
        elif pending or self._left == 0:
            self._piece(pending)
        if self._eof:
            self.eof_received()
        elif self._failure is not None:
            self._end(self._failure)
        elif self._paused and not self._held:
            self._paused = False
            self._stream.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.last = self._loop.time()
        self.begun = True
        if self._sink is not None:
            if self._head is None:
                self.abort()
            elif self._head.chunked:
                self._chunks(data)
            else:
                self._piece(data)
        elif self._head is not None:
            self._pending += data
            if len(self._pending) > HELD and not self._paused:
                self._paused = True
                self._stream.transport.pause_reading()
        elif self._http is not None and self.alive:
            self._feed_head(data)
        elif self.alive:
            self.abort()

    def _feed_head(self, data: bytes) -> None:
        assert self._http is not None
        try:
            # h11 would wait for the end of a head
            if not self._seen and not data.startswith(b"HTTP/"[: len(data)]):
                raise h11.RemoteProtocolError(repr(data[:40]))
            self._seen = True
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.InformationalResponse):
                    continue
                if isinstance(event, h11.Response):
                    break
                if event is h11.NEED_DATA:
                    return
                raise h11.RemoteProtocolError("it closed the connection")
        except h11.RemoteProtocolError as error:
            self._fail_head(error, data)
            return
        self._head = head = _read_head(event)
        self._left = head.length or 0
        if head.length is not None or not head.chunked:
            self._pending += self._http.trailing_data[0]
        if self._heading is not None and not self._heading.done():
            self._heading.set_result(head)

    def _fail_head(self, error: h11.RemoteProtocolError, data: bytes) -> None:
        if not data:
            words = f"{self}: closed the connection without an answer"
            self._end(Failed("http.truncated", words, again=True, upstream=self.via))
            return
        endless = "too long" in str(error) or error.error_status_hint == 431
        words = "the answer's head never ends" if endless else f"answers no HTTP: {one_line(str(error), 150)}"
        finding = "http.endless" if endless else "unknown"
        self._end(Failed(finding, f"{self}: {words}", again=not endless, upstream=self.via))

    def _piece(self, data: bytes) -> None:
        assert self._head is not None
        if self._head.length is None:
            if data:
                self._give(data)
            return
        extra = len(data) > self._left
        if extra:
            data = data[: self._left]
        self._left -= len(data)
        if data and not self._give(data):
            return
        if self._left == 0:
            self._whole(keep=self._head.keep and not extra)

    def _chunks(self, data: bytes) -> None:
        assert self._http is not None
        assert self._head is not None
        try:
            if data:
                self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if isinstance(event, h11.Data):
                    if not self._give(bytes(event.data)):
                        return
                elif isinstance(event, h11.EndOfMessage):
                    self._whole(keep=self._head.keep and not self._http.trailing_data[0])
                    return
                else:
                    return
        except h11.RemoteProtocolError as error:
            words = f"{self}: broken chunks: {one_line(str(error), 150)}"
            self._end(Failed("http.truncated", words, again=True, upstream=self.via))

    def _give(self, data: bytes) -> bool:
        """Push to the sink; False when nothing more is wanted."""
        assert self._sink is not None
        try:
            enough = self._sink(data)
        except Failed as error:
            error.upstream = error.upstream or self.via
            self._end(error)
            return False
        except OSError as error:
            self._end(local(error, "the downloaded file"))
            return False
        if enough and self._left == 0 and self._head is not None and self._head.length is not None:
            return True  # it ended there anyhow
        if enough and self._done is not None and not self._done.done():
            self._done.set_result(None)
            self.alive = False
        return not enough

    def _whole(self, *, keep: bool) -> None:
        self._head = self._http = None
        self.answers += 1
        self._keep = keep and not self._eof
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    # --- ends --------------------------------------------------------------------------------

    def eof_received(self) -> bool:
        self._eof = True
        if self._head is None:
            words = f"{self}: closed the connection without an answer"
        elif self._sink is None:
            return True  # what is pending may be all of it
        elif self._head.length is None and not self._head.chunked:
            self._whole(keep=False)
            return True
        else:
            words = f"{self}: ended in the middle of the answer"
        self._end(Failed("http.truncated", words, again=True, upstream=self.via))
        self._stream.abort()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        words = f"{self}: the connection broke: {one_line(str(exc or 'closed'), 150)}"
        failure = Failed("http.truncated", words, again=True, upstream=self.via)
        failure.__cause__ = exc if exc is not None else StreamLost("closed")
        self._end(failure)

    def pause_writing(self) -> None:
        """A request is small."""

    def resume_writing(self) -> None:
        """A request is small."""

    def _end(self, failure: Failed) -> None:
        self._failure = self._failure or failure
        was_alive, self.alive = self.alive, False
        for waiting in (self._heading, self._done):
            if waiting is not None and not waiting.done():
                waiting.set_exception(failure)
                waiting.exception()  # who waits may have been cancelled meanwhile
        if was_alive:
            self._on_end(self)


def _read_head(event: h11.Response) -> Head:
    headers = tuple((k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in event.headers)
    first = dict(reversed(headers))
    chunked = "transfer-encoding" in first
    length: int | None = None
    if event.status_code in (204, 304):
        length = 0
    elif not chunked and "content-length" in first:
        length = int(first["content-length"])  # h11 has looked at it
    tokens = {token.strip().lower() for key, v in headers if key == "connection" for token in v.split(",")}
    keep = event.http_version >= b"1.1" and "close" not in tokens
    return Head(event.status_code, headers, length, chunked, keep)
