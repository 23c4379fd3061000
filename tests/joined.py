"""A relay between two real sockets, for tests that hold its ends."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from gotunnel.relay.copy import Outcome, relay
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import Stream


class Joined:
    """`left` and `right` are the ends that people hold; between them runs the relay."""

    def __init__(self) -> None:
        self.tasks = Tasks("test")
        self.inner: list[Stream] = []
        self.left: tuple[asyncio.StreamReader, asyncio.StreamWriter]
        self.right: tuple[asyncio.StreamReader, asyncio.StreamWriter]
        self.relay: asyncio.Task[Outcome]

    async def open(self, *, buffer: int = 0) -> None:
        loop = asyncio.get_running_loop()
        ends = []
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0)) as server:
                ours = socket.socket()
                if buffer:
                    for sock in (server, ours):
                        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                            sock.setsockopt(socket.SOL_SOCKET, option, buffer)
                ours.connect(server.getsockname())
                theirs, _ = server.accept()
            for sock in (ours, theirs):
                sock.setblocking(False)
            _, stream = await loop.create_connection(Stream, sock=ours)
            self.inner.append(stream)
            ends.append(await asyncio.open_connection(sock=theirs))
        self.left, self.right = ends

    def start(self) -> None:
        self.relay = self.tasks.spawn("relay", relay(*self.inner))


@pytest.fixture
async def joined() -> AsyncIterator[Joined]:
    made = Joined()
    async with asyncio.timeout(60):
        yield made
        await made.tasks.close()
        for _, writer in (made.left, made.right):
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def sha256(reader: asyncio.StreamReader) -> str:
    digest = hashlib.sha256()
    while data := await reader.read(1 << 20):
        digest.update(data)
    return digest.hexdigest()


async def send(writer: asyncio.StreamWriter, seed: int, pieces: int) -> str:
    digest = hashlib.sha256()
    for number in range(pieces):
        piece = hashlib.sha256(b"%d %d" % (seed, number)).digest() * 8192  # 256 KiB
        digest.update(piece)
        writer.write(piece)
        await writer.drain()
    writer.write_eof()
    return digest.hexdigest()


def linger(writer: asyncio.StreamWriter) -> None:
    """Close it as a killed process with unread data does: by a reset."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
