"""The module origin: the GOPROXY protocol, HTTP/1.1 over TLS, on Unix sockets.

Rules:
- One socket for each jump host, so that the origin knows by which way a request came.
- A request takes PAUSE seconds; a zip comes in two halves with a pause between, so that it has a middle.
- Whoever watches is told when the first half of a zip must have arrived, and at the end of each answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Self

from gotunnel.dataclass import dataclass

PAUSE = 0.03  # seconds
_IDLE = 60.0  # seconds without a request after which a connection is closed


@dataclass(frozen=True, slots=True)
class Served:
    """One answer, or the first half of one: `way` is the jump host, `at` the loop's time in seconds."""

    way: str
    path: str
    status: int
    at: float

    @property
    def is_zip(self) -> bool:
        """True for a whole module."""
        return self.status == 200 and self.path.endswith(".zip")


Watch = Callable[[Served], Awaitable[None]]


async def unwatched(_: Served) -> None:
    """Nobody is told."""


class Origin:
    """Serves `files` (bodies by URL path); without `tls` it speaks plain http."""

    def __init__(self, files: Mapping[str, bytes], tls: ssl.SSLContext | None) -> None:
        self._files, self._tls = files, tls
        self._servers: list[asyncio.Server] = []
        self._open: set[asyncio.StreamWriter] = set()
        self.at_half: Watch = unwatched
        self.at_end: Watch = unwatched

    async def listen(self, socket: Path, way: str) -> None:
        """Serve on `socket` what comes by `way`."""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._open.add(writer)
            # a jump host that is killed takes its connections with it
            with contextlib.suppress(OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
                await self._serve(reader, writer, way)
            self._open.discard(writer)
            writer.transport.abort()

        self._servers.append(await asyncio.start_unix_server(serve, str(socket), ssl=self._tls))

    async def __aenter__(self) -> Self:
        """Nothing is open yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening, and drop what is open."""
        for server in self._servers:
            server.close()
        for writer in self._open:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        while True:
            async with asyncio.timeout(_IDLE):
                head = await reader.readuntil(b"\r\n\r\n")
            method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
            target = rest.partition(b" ")[0].decode("ascii", "replace")
            path = urllib.parse.unquote(urllib.parse.urlsplit(target).path)
            body = self._files.get(path) if method == b"GET" else None
            status = 404 if body is None else 200
            data = b"not found\n" if body is None else body
            words = "200 OK" if status == 200 else "404 Not Found"
            await asyncio.sleep(PAUSE)
            half = len(data) // 2 if path.endswith(".zip") else len(data)
            start = f"HTTP/1.1 {words}\r\nContent-Type: text/plain\r\nContent-Length: {len(data)}\r\n\r\n"
            writer.write(start.encode() + data[:half])
            await writer.drain()
            if half < len(data):
                await asyncio.sleep(PAUSE)
                await self.at_half(self._note(way, path, status))
                writer.write(data[half:])
                await writer.drain()
            await self.at_end(self._note(way, path, status))

    def _note(self, way: str, path: str, status: int) -> Served:
        return Served(way, path, status, asyncio.get_running_loop().time())
