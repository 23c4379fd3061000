"""Scripted peers: servers inside the test, for what the real ones can't be made to say on demand."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import DialError
from gotunnel.upstream.dialer import Dialer, Stream

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[HostPort]:
    """A server on loopback that treats each connection as `talk` says, then closes it; ended at the exit."""
    tasks: set[asyncio.Task[object]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await talk(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()  # what nobody takes must not hold up the end
        finally:
            tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield HostPort(*server.sockets[0].getsockname()[:2])
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Gives back what it gets; half-closes when its peer does."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
    await reader.read(1)


async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads for ever, and says nothing."""
    while await reader.read(65536):
        pass


async def say(stream: Stream, text: bytes) -> bytes:
    """Send `text` over an echo, and give back what came."""
    stream.write(text)
    return await stream.read_exactly(len(text))


async def refusal_of(dialer: Dialer, target: HostPort) -> DialError:
    """The error of a dial that must fail."""
    with pytest.raises(DialError) as caught:
        (await dialer.dial(target)).abort()
    assert str(caught.value).isprintable()
    return caught.value


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def slow_resolver(*_: object, **__: object) -> list[object]:
    """In the place of socket.getaddrinfo: a resolver that doesn't answer within a second."""
    time.sleep(1.0)
    return []
