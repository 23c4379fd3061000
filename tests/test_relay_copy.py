"""The relay between two real sockets; what the clients at both ends see."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gotunnel.errors import StreamLost
from gotunnel.relay.copy import Outcome
from tests.joined import Joined, joined, linger, send, sha256

__all__ = ["joined"]


async def test_32_megabytes_both_ways_at_once(joined: Joined) -> None:
    await joined.open()
    joined.start()
    sent_left, sent_right, got_left, got_right = await asyncio.gather(
        send(joined.left[1], 1, 128),
        send(joined.right[1], 2, 128),
        sha256(joined.left[0]),
        sha256(joined.right[0]),
    )
    assert (sent_left, sent_right) == (got_right, got_left)
    outcome = await joined.relay
    assert outcome == Outcome(32 << 20, 32 << 20, None)


@pytest.mark.parametrize("first", ["left", "right"])
async def test_half_close_leaves_the_other_way_open(joined: Joined, first: str) -> None:
    await joined.open()
    joined.start()
    one, other = (joined.left, joined.right) if first == "left" else (joined.right, joined.left)
    one[1].write(b"question")
    one[1].write_eof()
    assert await other[0].read() == b"question"
    other[1].write(b"a later answer")
    await asyncio.sleep(0.05)
    other[1].write_eof()
    assert await one[0].read() == b"a later answer"
    assert (await joined.relay).error is None


async def test_what_came_before_the_relay_is_passed_on_first(joined: Joined) -> None:
    await joined.open()
    joined.left[1].write(b"early ")
    joined.inner[0].unread(b"very " + await joined.inner[0].read())
    joined.start()
    joined.left[1].write(b"late")
    joined.left[1].write_eof()
    assert await joined.right[0].read() == b"very early late"


async def stuff(writer: asyncio.StreamWriter) -> int:
    """Write until nothing has gone for a second; the bytes."""
    written = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            while written < 64 << 20:
                await writer.drain()
                writer.write(bytes(65536))
                written += 65536
    return written


@pytest.mark.parametrize("early", [False, True], ids=["in the middle", "before the relay begins"])
async def test_a_slow_reader_holds_the_sender_and_bounds_memory(joined: Joined, early: bool) -> None:
    await joined.open(buffer=16384)
    if not early:
        joined.start()
    writer = joined.left[1]
    written = await stuff(writer)
    if early:
        joined.start()
        written += await stuff(writer)
    assert written < 4 << 20  # kernel buffers and two transports' worth
    held = joined.inner[1]._transport
    assert isinstance(held, asyncio.WriteTransport)
    assert held.get_write_buffer_size() < 1 << 20
    writer.write_eof()
    got = 0
    while data := await joined.right[0].read(1 << 20):
        got += len(data)
    assert got == written


@pytest.mark.parametrize("way", ["left", "right"])
async def test_a_side_that_is_lost_resets_the_other(joined: Joined, way: str) -> None:
    await joined.open()
    joined.start()
    lost, other = (joined.left, joined.right) if way == "left" else (joined.right, joined.left)
    lost[1].write(b"half a bo")
    assert await other[0].readexactly(9) == b"half a bo"
    linger(lost[1])
    with pytest.raises(ConnectionResetError):
        await other[0].read()
    assert isinstance((await joined.relay).error, ConnectionResetError)


async def test_a_cancel_resets_both(joined: Joined) -> None:
    await joined.open()
    joined.start()
    joined.left[1].write(b"x")
    await joined.right[0].readexactly(1)
    joined.relay.cancel()
    for reader, _ in (joined.left, joined.right):
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_a_stream_that_was_lost_before_is_a_loss_for_the_other(joined: Joined) -> None:
    await joined.open()
    linger(joined.left[1])
    with pytest.raises(StreamLost):
        await joined.inner[0].read()
    joined.start()
    with pytest.raises(ConnectionResetError):
        await joined.right[0].read()
