"""Streams: pulled, then pushed; EOF is never a loss and a loss never an EOF."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import StreamLost
from gotunnel.upstream.dialer import LIMIT, Stream
from gotunnel.upstream.direct import DirectDialer
from tests.peers import echo, say, serving, until


class Wire:
    """A transport that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.sent = b""

    def write(self, data: bytes) -> None:
        self.sent += data

    def write_eof(self) -> None:
        self.told.append("eof")
        raise OSError(107, "Transport endpoint is not connected")

    def close(self) -> None:
        self.told.append("close")

    def abort(self) -> None:
        self.told.append("abort")

    def pause_reading(self) -> None:
        self.told.append("pause")

    def resume_reading(self) -> None:
        self.told.append("resume")

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Notes:
    """A receiver that notes what it is pushed."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def data_received(self, data: bytes) -> None:
        self.seen.append(data)

    def eof_received(self) -> bool:
        self.seen.append("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.seen.append(("lost", exc))

    def pause_writing(self) -> None:
        self.seen.append("pause")

    def resume_writing(self) -> None:
        self.seen.append("resume")


def opened() -> tuple[Stream, Wire]:
    stream, wire = Stream(), Wire()
    stream.connection_made(wire)  # type: ignore[arg-type]
    return stream, wire


async def test_reading_before_and_after_bytes_come() -> None:
    stream, _ = opened()
    stream.data_received(b"abcdef")
    assert await stream.read(2) == b"ab"
    assert await stream.read_exactly(3) == b"cde"
    stream.unread(b"XY")
    assert await stream.read() == b"XYf"
    asyncio.get_running_loop().call_later(0.01, stream.data_received, b"late")
    assert await stream.read() == b"late"
    assert stream.received == 10


async def test_eof_comes_after_the_bytes_and_stays() -> None:
    stream, _ = opened()
    stream.data_received(b"ab")
    assert stream.eof_received() is True  # or the transport would close our side too
    assert stream.at_eof
    assert [await stream.read(), await stream.read(), await stream.read()] == [b"ab", b"", b""]
    stream.connection_lost(None)
    assert await stream.read() == b""
    with pytest.raises(StreamLost, match="after 0 of 1"):
        await stream.read_exactly(1)


@pytest.mark.parametrize("cause", [None, ConnectionResetError("reset by peer")])
async def test_a_loss_is_no_eof_and_comes_after_the_bytes(cause: Exception | None) -> None:
    stream, _ = opened()
    stream.data_received(b"ab")
    stream.connection_lost(cause)
    assert await stream.read() == b"ab"
    with pytest.raises(StreamLost, match=str(cause or "closed")):
        await stream.read()
    with pytest.raises(StreamLost):
        await stream.drain()


async def test_whoever_waits_hears_of_a_loss() -> None:
    stream, _ = opened()
    stream.pause_writing()
    waiting = [asyncio.ensure_future(job()) for job in (stream.read, stream.drain, stream.drain)]  # noqa: TID251
    await asyncio.sleep(0)
    stream.connection_lost(ConnectionResetError("gone"))
    stream.connection_lost(None)  # told twice, heard once
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, StreamLost)


async def test_drain_waits_for_the_transport_and_survives_a_waiter_that_left() -> None:
    stream, _ = opened()
    await stream.drain()
    stream.pause_writing()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await stream.drain()
    asyncio.get_running_loop().call_later(0.01, stream.resume_writing)
    await stream.drain()
    assert not stream.write_paused


async def test_a_reader_that_does_not_come_stops_the_transport() -> None:
    stream, wire = opened()
    piece = bytes(64 * 1024)
    while "pause" not in wire.told:
        stream.data_received(piece)
    assert LIMIT < stream.received <= LIMIT + len(piece)
    while "resume" not in wire.told:
        await stream.read(len(piece))
    assert wire.told == ["pause", "resume"]


async def test_a_new_owner_gets_all_in_order_and_the_rest_as_it_comes() -> None:
    stream, wire = opened()
    notes = Notes()
    stream.data_received(bytes(LIMIT + 1))
    stream.data_received(b"SSH-")
    assert await stream.read(LIMIT) == bytes(LIMIT)
    stream.unread(b"first")
    stream.hand_over(notes)
    stream.data_received(b"2.0")
    stream.pause_writing()
    stream.resume_writing()
    stream.eof_received()
    stream.connection_lost(None)
    assert notes.seen == [b"first\0SSH-", b"2.0", "pause", "resume", "eof", ("lost", None)]
    assert wire.told[-1] == "resume"


async def test_who_gave_a_stream_away_reads_no_more() -> None:
    stream, _ = opened()
    stream.hand_over(Notes())
    with pytest.raises(RuntimeError):
        await stream.read()


async def test_a_new_owner_hears_of_an_end_that_was_before() -> None:
    stream, _ = opened()
    notes, cause = Notes(), ConnectionResetError("gone")
    stream.data_received(b"ab")
    stream.connection_lost(cause)
    stream.hand_over(notes)
    assert notes.seen == [b"ab", ("lost", cause)]
    ended, _ = opened()
    notes = Notes()
    ended.eof_received()
    ended.hand_over(notes)
    assert notes.seen == ["eof"]


async def test_a_dead_peer_raises_nothing_on_our_side() -> None:
    stream, wire = opened()
    stream.write_eof()  # the transport raises, as shutdown(2) does
    assert wire.told == ["eof"]
    stream.connection_lost(None)
    stream.write(b"x")
    stream.write_eof()
    stream.close()
    stream.abort()
    assert (wire.sent, wire.told) == (b"", ["eof"])


async def test_on_closed_is_called_once() -> None:
    count: list[int] = []
    stream = Stream(on_closed=lambda: count.append(1))
    stream.connection_made(Wire())  # type: ignore[arg-type]
    stream.connection_lost(None)
    stream.connection_lost(None)
    assert count == [1]


async def test_a_stream_that_never_opened_says_so() -> None:
    with pytest.raises(StreamLost, match="never opened"):
        Stream().write(b"x")
    Stream().close()
    Stream().abort()


async def test_real_sockets_half_close_both_ways() -> None:
    async with serving(echo) as target:
        stream = await DirectDialer().dial(target)
        assert await say(stream, b"hello") == b"hello"
        stream.write(b"last")
        stream.write_eof()
        assert await stream.read_exactly(4) == b"last"
        assert await stream.read() == b""
        stream.close()
        await until(lambda: stream.is_lost)


async def test_a_reset_of_a_real_peer_is_a_loss() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with serving(reset) as target:
        stream = await DirectDialer().dial(target)
        with pytest.raises(StreamLost):
            await stream.read()


async def test_a_protocol_that_a_socket_becomes_is_called_by_it() -> None:
    class Inner(asyncio.Protocol):
        def __init__(self) -> None:
            self.made: object = None
            self.data = b""
            self.lost = False

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.made = transport

        def data_received(self, data: bytes) -> None:
            self.data += data

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost = True

    async with serving(echo) as target:
        stream = await DirectDialer().dial(HostPort("localhost", target.port))
        first = await say(stream, b"ab")
        stream.unread(first)
        inner = Inner()
        stream.become(inner)
        stream.transport.write(b"cd")
        await until(lambda: inner.data == b"abcd")
        assert inner.made is stream.transport
        stream.transport.abort()
        await until(lambda: inner.lost)
