"""The kernel's path of the relay: what goes through it, and that nothing of it is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import pytest

from gotunnel.relay import splice
from gotunnel.relay.copy import Outcome
from gotunnel.relay.splice import BULK
from tests.joined import Joined, joined, linger, send, sha256

__all__ = ["joined"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="splice(2) is Linux's")


def pipes() -> int:
    """Open pipe ends of this process."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            count += os.readlink(f"/proc/self/fd/{name}").startswith("pipe:")
    return count


async def carried(joined: Joined) -> int:
    """Carry enough for both directions to change over; the pipe ends there were before."""
    await joined.open()
    before = pipes()
    joined.start()
    for writer, reader in ((joined.left[1], joined.right[0]), (joined.right[1], joined.left[0])):
        writer.write(bytes(4 * BULK))
        await reader.readexactly(4 * BULK)
    assert pipes() == before + 4
    return before


async def test_a_direction_that_carries_much_goes_through_a_pipe_and_a_small_one_does_not(
    joined: Joined,
) -> None:
    await joined.open()
    before = pipes()
    joined.start()
    joined.left[1].write(bytes(1000))
    await joined.right[0].readexactly(1000)
    assert pipes() == before
    joined.left[1].write(bytes(4 * BULK))
    await joined.right[0].readexactly(4 * BULK)
    assert pipes() == before + 2
    joined.left[1].write_eof()
    assert await joined.right[0].read() == b""
    assert pipes() == before
    joined.right[1].write_eof()
    assert await joined.left[0].read() == b""
    assert await joined.relay == Outcome(4 * BULK + 1000, 0, None)


async def test_half_close_after_much(joined: Joined) -> None:
    before = await carried(joined)
    joined.left[1].write(b"the last")
    joined.left[1].write_eof()
    assert await joined.right[0].read() == b"the last"
    sent, got = await asyncio.gather(send(joined.right[1], 3, 64), sha256(joined.left[0]))
    assert sent == got
    assert (await joined.relay).error is None
    assert pipes() == before


@pytest.mark.parametrize("way", ["left", "right"])
async def test_a_reset_after_much_is_a_reset_for_the_other(joined: Joined, way: str) -> None:
    before = await carried(joined)
    lost, other = (joined.left, joined.right) if way == "left" else (joined.right, joined.left)
    linger(lost[1])
    with pytest.raises(ConnectionResetError):
        await other[0].read()
    await joined.relay
    assert pipes() == before


async def test_a_cancel_after_much_resets_both_and_leaves_nothing(joined: Joined) -> None:
    before = await carried(joined)
    joined.relay.cancel()
    for reader, _ in (joined.left, joined.right):
        with pytest.raises(ConnectionResetError):
            await reader.read()
    assert pipes() == before


async def test_where_the_kernel_has_no_splice_all_is_copied(
    joined: Joined, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splice, "_splice", None)
    await joined.open()
    before = pipes()
    joined.start()
    sent, got = await asyncio.gather(send(joined.left[1], 1, 16), sha256(joined.right[0]))
    assert sent == got
    assert pipes() == before
