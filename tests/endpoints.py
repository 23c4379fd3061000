"""Endpoints for tests of the listener: scripted ways out, an echo to reach, raw clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from gotunnel.address import HostPort
from gotunnel.errors import DialError
from gotunnel.listener.auth import Keys
from gotunnel.listener.proxy import Endpoint
from gotunnel.upstream.dialer import Stream
from gotunnel.upstream.direct import DirectDialer

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Script:
    """A way out that leads every target to `to`, once `open` is set, or fails with `error`."""

    label = "script"

    def __init__(self, to: HostPort | None = None, error: DialError | None = None) -> None:
        self.to, self.error = to, error
        self.asked: list[HostPort] = []
        self.open = asyncio.Event()
        self.open.set()

    async def dial(self, target: HostPort) -> Stream:
        self.asked.append(target)
        await self.open.wait()
        if self.error is not None:
            raise self.error
        assert self.to is not None
        return await DirectDialer().dial(self.to)

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[HostPort]:
    """A server that gives back what it gets; with the first line `GET …` it answers as HTTP does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if data.startswith(b"GET "):
                    data = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
                writer.write(data)
                await writer.drain()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield HostPort(*server.sockets[0].getsockname()[:2])


@contextlib.asynccontextmanager
async def endpoint(dialer: Any, *, secret: str = "", **options: Any) -> AsyncIterator[HostPort]:
    """An endpoint that listens on a free port of loopback."""
    made = Endpoint(dialer, keys=Keys(secret), **options)
    try:
        yield await made.start()
    finally:
        await made.close()


@contextlib.asynccontextmanager
async def peer(address: HostPort, said: bytes = b"") -> AsyncIterator[Peer]:
    """A raw client that has said something."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        writer.write(said)
        yield reader, writer
    finally:
        writer.close()


async def rest(reader: asyncio.StreamReader, seconds: float = 20.0) -> bytes:
    """All until the other side closes; a reset is an end too."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(seconds):
            while piece := await reader.read(65536):
                data += piece
    return data
