"""One file from one source: what broke goes on by another way out, until it is whole or no try helps.

Rules (RFC 9110 §13.1.5, §14; contract §8):
- Bytes of two answers are joined only under the same strong ETag, the same final URL and the same total, with
  a Content-Range that says exactly what was asked; else it starts from zero.  Last-Modified is never taken
  for a validator.
- A way out that failed for this file comes last for it; one whose body stalled comes last for all.
- It goes on as long as `Patience` says.
- 404 and 410 are final; so is an answer that is no module file (a login page), by this way out.
"""

from __future__ import annotations

import asyncio
import re

from gotunnel.address import HostPort
from gotunnel.dataclass import dataclass
from gotunnel.modproxy.client import Connections, Exchange, Gate, Url
from gotunnel.modproxy.exchange import Head
from gotunnel.modproxy.failed import Failed, Patience, by, refused
from gotunnel.modproxy.part import Part, Timing
from gotunnel.modproxy.spool import Spool
from gotunnel.modproxy.striped import Striped
from gotunnel.observe.events import Emit, Resume
from gotunnel.tasks import Backoff

PAUSE = 5.0  # seconds of a Retry-After that are waited for
STRIPE = 1024 * 1024  # bytes from which on ranges are worth their requests
_TEXT = 4096  # bytes of an error's body
_PAGE = re.compile(rb"\s*<(!doctype\s+html|html)\b", re.IGNORECASE)


@dataclass(slots=True)
class Transfer:
    """Fetch `url` into `spool`."""

    connections: Connections
    gate: Gate
    url: Url
    spool: Spool
    timing: Timing
    emit: Emit
    subject: tuple[str, str]
    avoid: frozenset[str] = frozenset()
    whole: bool = False  # join nothing
    offset: int = 0  # bytes from the front that are there
    resumed: int = 0
    part: Part | None = None
    head: Head | None = None  # of the answer that began it
    via: str = ""
    _broke: str | None = None  # by which way the body came that broke
    _best: int = 0

    async def run(self) -> None:
        """Until the file is whole.  Raises Failed."""
        backoff = Backoff(0.1, 2.0)
        loop = asyncio.get_running_loop()
        patience = Patience(loop.time())
        while True:
            best = self._best
            try:
                await self._try()
                return
            except Failed as error:
                self._best = max(self._best, self.offset)
                if self._best > best:
                    patience.progress(loop.time(), self._best - best)
                    backoff.reset()
                # a source that refuses in the middle of a file may be starting again
                final = not error.again and not (error.waited and self.offset)
                down = self.connections.down(self.url, error.upstream)
                worked = self.connections.worked
                if final or not patience.goes_on(loop.time(), error, down=down, worked=worked):
                    raise
                alone = self._note(error)
                pause = min(error.pause, PAUSE) if alone or error.answered else 0.0
                if alone and not error.waited:
                    pause = max(pause, backoff.delay())
                await asyncio.sleep(pause)

    def _note(self, error: Failed) -> bool:
        """Learn from a failure; True if no way out is left that hasn't failed."""
        target = self.url.target
        if error.upstream:
            self.avoid |= {error.upstream}
        if error.stalled and error.upstream:
            self.connections.ways.stalled(target, error.upstream)
            self.connections.drop_kept(target, error.upstream)
        if error.odd:
            self.part, self.whole = None, True
        if self.part is None or self.whole:
            self.offset = 0
        return not any(way not in self.avoid for way in self.connections.ways.ways(target))

    async def _try(self) -> None:
        part = self.part if self.offset and not self.whole else None
        if part is None:
            self.offset = 0
        elif self.offset == part.total:  # it broke after its last byte
            return
        exchange = await self.connections.get(
            self.url,
            part.header(self.offset) if part is not None else (),
            first_byte=self.timing.going_on if part is not None else self.timing.first_byte,
            stall=self.timing.stall,
            avoid=self.avoid,
        )
        try:
            await self._accept(exchange, part)
        except BaseException:
            exchange.drop()
            raise
        try:
            await self._receive(exchange)
        except Failed:
            self._broke = exchange.via
            raise

    async def _accept(self, exchange: Exchange, part: Part | None) -> None:
        """Judge the head; after this `offset` is where its body begins."""
        head = exchange.head
        if part is not None and head.status == 206:
            part.check(exchange, self.offset)
            part.ranges = True
        elif part is not None and head.status == 416:
            words = f"{exchange.connection}: it has no such range any more"
            raise Failed("http.truncated", words, again=True, upstream=exchange.via, odd=True)
        elif head.status != 200:
            raise await self._refusal(exchange)
        else:
            self._begin(exchange)
        if self._broke is not None:
            module, version = self.subject
            self.emit(Resume(module, version, self.offset, self._broke, exchange.via))
            self.resumed += 1
            self._broke = None
        self.via = exchange.via

    def _begin(self, exchange: Exchange) -> None:
        head = exchange.head
        said = ""
        if head.header("content-encoding").strip().lower() not in ("", "identity"):
            said = f"sends it as {head.header('content-encoding')[:40]}, which nobody asked for"
            finding = "http.server-error"
        elif head.header("content-type").partition(";")[0].strip().lower() == "text/html":
            said, finding = "a web page came in place of a module's file", "http.captive-portal"
        elif head.length is not None and head.length > self.spool.limit:
            words = f"{exchange.connection}: {head.length} bytes, more than {self.spool.limit} are allowed"
            raise Failed("http.endless", words, again=False, upstream=exchange.via)
        if said:
            words = f"{exchange.connection}: {said}"
            raise Failed(finding, words, again=self._other_way(exchange.via), upstream=exchange.via)
        self.offset = 0
        self.spool.cut(0)
        self.spool.expect(head.length)
        self.head = head
        self.part = None
        if head.etag:
            ranges = head.header("accept-ranges").strip().lower() == "bytes"
            self.part = Part(head.etag, exchange.url.place, head.length, ranges)

    def _other_way(self, via: str) -> bool:
        target: HostPort = self.url.target
        return any(way not in self.avoid | {via} for way in self.connections.ways.ways(target))

    async def _refusal(self, exchange: Exchange) -> Failed:
        head = exchange.head
        text = ""
        if head.header("content-type").partition(";")[0].strip().lower() == "text/plain":
            body = await exchange.text(_TEXT, self.timing.stall)
            text = " ".join(body.decode("utf-8", "replace").split())
        else:
            exchange.drop()
        target = exchange.url.target
        if head.status not in (200, 206) and head.status < 400:
            words = f"{exchange.connection}: answered {head.status}, which says nothing here"
            return Failed("unknown", words, again=False, upstream=exchange.via, answered=head.status)
        return refused(target, exchange.via, head.status, text, head.header("retry-after").strip())

    async def _receive(self, exchange: Exchange) -> None:
        if self._worth_ranges():
            await self._in_ranges(exchange)
        else:
            self.spool.fed_by(exchange.connection)
            await exchange.body(self._append, self.timing.stall)
        total = self.part.total if self.part is not None else None
        if total is not None and self.offset != total:
            words = f"{exchange.connection}: {self.offset} bytes came of {total}"
            raise Failed("http.truncated", words, again=True, upstream=exchange.via, odd=True)
        self.spool.cut(self.offset)
        if _PAGE.match(self.spool.start(64)):
            self.part = None  # nothing is joined to that
            words = f"{exchange.url.target}{by(exchange.via)}: a web page came in place of a module's file"
            raise Failed(
                "http.captive-portal", words, again=self._other_way(exchange.via), upstream=exchange.via
            )

    def _append(self, data: bytes) -> bool:
        self.spool.write(data, self.offset)
        self.offset += len(data)
        return False

    def _worth_ranges(self) -> bool:
        part = self.part
        return (
            part is not None
            and part.ranges
            and part.total is not None
            and part.total - self.offset > STRIPE
            and not self.whole
            and self.spool.path is not None
        )

    async def _in_ranges(self, exchange: Exchange) -> None:
        assert self.part is not None
        assert self.part.total is not None
        self.spool.cut(self.part.total)
        striped = Striped(
            self.connections, self.gate, self.spool, self.timing, self.emit, self.subject, self.part,
            exchange.url, self.offset, self.avoid - {exchange.via},
        )  # fmt: skip
        try:
            await striped.run(exchange)
        finally:
            self.offset = striped.board.prefix
            self.resumed += striped.resumed
            self.avoid |= frozenset(striped.failed)
            self.via = striped.via or self.via
