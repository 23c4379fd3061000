"""An HTTP origin on loopback that fails as it is told, and several ways out to it that can be killed.

`Origin.files` are its bodies by path; `Origin.script` holds a `Manner` for each coming request, after which
`Origin.manner` counts.  `Origin.asked` tells what was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import ssl
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import NamedTuple

from gotunnel.address import HostPort
from gotunnel.errors import Blame, DialError
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import Stream
from gotunnel.upstream.direct import DirectDialer


@dataclass(frozen=True)
class Manner:
    """How one request is answered.  Sizes count bytes of this answer's body."""

    status: int = 200
    etag: str = '"v1"'
    ranges: bool = True  # honours Range, and says so
    cut: int | None = None  # reset after so many bytes
    end: int | None = None  # FIN after so many bytes
    stall: int | None = None  # silence after so many bytes
    mute: bool = False  # no answer at all
    close: bool = False  # closed before an answer
    claim: int = 0  # added to the Content-Length that is said
    sized: bool = True  # has a Content-Length
    chunked: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None  # instead of the file
    content_range: str = ""  # instead of the right one
    rate: float = 0.0  # bytes a second, 0: all at once
    keep: bool = True


class Asked(NamedTuple):
    path: str
    headers: dict[str, str]
    connection: int


@dataclass
class Origin:
    files: dict[str, bytes] = field(default_factory=dict)
    manner: Manner = field(default_factory=Manner)
    script: deque[Manner] = field(default_factory=deque)
    asked: list[Asked] = field(default_factory=list)
    port: int = 0
    open: int = 0
    connections: int = 0
    most: int = 1000  # connections at once; more are answered 429

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ranges(self) -> list[str]:
        return [a.headers.get("range", "") for a in self.asked]

    async def deserted(self) -> None:
        """Wait until every connection is gone."""
        async with asyncio.timeout(5):
            while self.open:  # noqa: ASYNC110 - what ends is on the other side
                await asyncio.sleep(0.01)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            while await self._answer(reader, writer, number):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            writer.transport.abort()
        finally:
            self.open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        path = head[0].split()[1]
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        self.asked.append(Asked(path, headers, number))
        manner = self.script.popleft() if self.script else self.manner
        if self.open > self.most:
            manner = Manner(status=429)
        if manner.close:
            return False
        if manner.mute:
            await reader.read()
            return False
        status, body, lines = self._compose(path, headers, manner)
        text = f"HTTP/1.1 {status} Phrase\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines) + "\r\n"
        writer.write(text.encode())
        kept = await _send(writer, body, manner)
        if manner.stall is not None:
            await reader.read()  # until the other side has had enough
        return kept and manner.stall is None

    def _compose(
        self, path: str, headers: dict[str, str], manner: Manner
    ) -> tuple[int, bytes, list[tuple[str, str]]]:
        body = manner.body if manner.body is not None else self.files.get(path)
        status = manner.status if body is not None else 404
        body = body if body is not None else b"not found: no such file\n"
        lines = list(manner.headers)
        if status == 404 and not manner.headers:
            lines.append(("Content-Type", "text/plain; charset=utf-8"))
        if manner.etag:
            lines.append(("ETag", manner.etag))
        if manner.ranges:
            lines.append(("Accept-Ranges", "bytes"))
        wanted = headers.get("range", "")
        if wanted and manner.ranges and status == 200 and headers.get("if-range") in (None, manner.etag):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1 if last else len(body), len(body))
            right = f"bytes {start}-{end - 1}/{len(body)}"
            lines.append(("Content-Range", manner.content_range or right))
            status, body = 206, body[start:end]
        if manner.chunked:
            lines.append(("Transfer-Encoding", "chunked"))
        elif manner.sized:
            lines.append(("Content-Length", str(len(body) + manner.claim)))
        if not manner.keep:
            lines.append(("Connection", "close"))
        return status, body, lines


async def _send(writer: asyncio.StreamWriter, body: bytes, manner: Manner) -> bool:
    """Send the body as `manner` says; True if the connection is kept."""
    limits = [n for n in (manner.cut, manner.end, manner.stall) if n is not None]
    upto = min([*limits, len(body)])
    step = max(1024, int(manner.rate / 50)) if manner.rate else 64 * 1024
    for place in range(0, upto, step):
        piece = body[place : min(place + step, upto)]
        if manner.chunked:
            piece = f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        writer.write(piece)
        await writer.drain()
        if manner.rate:
            await asyncio.sleep(step / manner.rate)
    if manner.cut is not None and manner.cut <= len(body):
        await asyncio.sleep(0.01)  # what was written goes out first
        writer.transport.abort()
        return False
    if manner.end is not None:
        return False
    if manner.stall is not None:
        return False
    if manner.chunked:
        writer.write(b"0\r\n\r\n")
    return manner.keep and (manner.sized or manner.chunked)


@contextlib.asynccontextmanager
async def serving(origin: Origin, context: ssl.SSLContext | None = None) -> AsyncIterator[Origin]:
    tasks = Tasks("origin")

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.spawn("serve", origin.serve(reader, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    origin.port = server.sockets[0].getsockname()[1]
    try:
        yield origin
    finally:
        server.close()
        await tasks.close()
        await server.wait_closed()


class Line:
    """A way out that can be killed: its streams break, its dials fail as those of a dead hop."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.dead = False
        self.silent = False  # new dials hang
        self.dials = 0
        self.streams: list[Stream] = []
        self._direct = DirectDialer()

    async def dial(self, target: HostPort) -> Stream:
        self.dials += 1
        if self.silent:
            await asyncio.sleep(3600)
        if self.dead:
            raise DialError("tcp.refused", f"{self.label}: refused", blame=Blame.HOP, hop=self.label)
        stream = await self._direct.dial(target)
        self.streams.append(stream)
        return stream

    def kill(self) -> None:
        self.dead = True
        for stream in self.streams:
            stream.abort()

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing is kept."""


def bytes_of(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
