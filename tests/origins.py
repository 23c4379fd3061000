"""The local endpoint over a scripted dialer, and clients that speak raw bytes to it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import h11

from gotunnel.address import HostPort
from gotunnel.errors import DialError
from gotunnel.listener.auth import Keys
from gotunnel.listener.proxy import Endpoint
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import Stream

SECRET = "s3cret-of-this-run"
AUTH = "Proxy-Authorization: Basic " + base64.b64encode(f"gotunnel:{SECRET}".encode()).decode()

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Origins:
    """A dialer whose targets are servers on loopback, by the target's text."""

    label = "origins"

    def __init__(self) -> None:
        self.dialled: list[str] = []
        self.asked = asyncio.Event()  # a dial has come
        self.errors: dict[str, DialError] = {}
        self.gate: asyncio.Event | None = None  # where set, a dial waits for it
        self._ports: dict[str, int] = {}
        self._servers: list[asyncio.Server] = []
        self._tasks = Tasks("origins")

    async def serve(self, target: str, handler: Handler) -> None:
        """From now on `target` is a server that treats each connection with `handler`, then closes it."""

        async def treat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await handler(reader, writer)
            except (ConnectionError, asyncio.IncompleteReadError, h11.RemoteProtocolError):
                writer.transport.abort()
            finally:
                writer.close()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._tasks.spawn(target, treat(reader, writer))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self._servers.append(server)
        self._ports[target] = server.sockets[0].getsockname()[1]

    async def dial(self, target: HostPort) -> Stream:
        self.dialled.append(str(target))
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        if (error := self.errors.get(str(target))) is not None:
            raise error
        _, stream = await asyncio.get_running_loop().create_connection(
            Stream, "127.0.0.1", self._ports[str(target)]
        )
        return stream

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        await self._tasks.close()


class World:
    """An endpoint, its origins, and what it told of failures."""

    def __init__(self) -> None:
        self.origins = Origins()
        self.failed: list[tuple[str, str]] = []
        self.endpoint = Endpoint(
            self.origins,
            keys=Keys(SECRET),
            on_failure=lambda target, error: self.failed.append((str(target), error.finding)),
        )
        self.address = HostPort("127.0.0.1", 1)
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        return f"http://gotunnel:{SECRET}@{self.address}"

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(self.address.host, self.address.port)
        self._writers.append(writer)
        return reader, writer

    async def say(self, data: bytes) -> bytes:
        """Everything that the endpoint answers to `data` until it closes."""
        reader, writer = await self.connect()
        writer.write(data)
        async with asyncio.timeout(20):
            return await reader.read()

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        await self.endpoint.close()
        await self.origins.close()
        for writer in self._writers:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    """Such a world, closed at the end."""
    made = World()
    made.address = await made.endpoint.start()
    try:
        yield made
    finally:
        await made.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back what comes, and ends when that ends."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
