"""The short way of channel data: right bytes with it, without it, and across what interrupts it."""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gotunnel.errors import StreamLost
from gotunnel.upstream import ssh_feed, ssh_login
from gotunnel.upstream.dialer import Stream
from tests.jumps import jumping, plan_for
from tests.lab.keys import Key
from tests.lab.sshd import Sshd
from tests.peers import serving

Start = Callable[..., Sshd]
SIZE = 12_000_000
DATA = random.Random(5).randbytes(SIZE)


def sent_fast(feed: ssh_feed.Feed) -> int:
    """Packets that took the short way out."""
    return feed.sender.fast if feed.sender is not None else 0


@pytest.fixture
def feeds(monkeypatch: pytest.MonkeyPatch) -> list[ssh_feed.Feed]:
    """Every feed that a connection of the test got."""
    made: list[ssh_feed.Feed] = []

    class Seen(ssh_feed.Feed):
        def __init__(self, connection: asyncio.Protocol) -> None:
            super().__init__(connection)
            made.append(self)

    monkeypatch.setattr(ssh_login, "Feed", Seen)
    return made


async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends DATA in pieces of every size, then answers with the hash of what it is sent."""
    at, sizes = 0, random.Random(7)
    while at < SIZE:
        count = sizes.choice((1, 900, 1100, 20_000, 70_000, 1_000_000))
        writer.write(DATA[at : at + count])
        at += count
        await writer.drain()
    seen = hashlib.sha256()
    while data := await reader.read(1 << 18):
        seen.update(data)
    writer.write(seen.digest())
    await writer.drain()


async def exchange(stream: Stream) -> None:
    """Takes DATA, gives it back, and checks both."""
    got = bytearray()
    while len(got) < SIZE:
        data = await stream.read(1 << 18)
        assert data, "the end came early"
        got += data
    assert hashlib.sha256(got).digest() == hashlib.sha256(DATA).digest()
    for at in range(0, SIZE, 300_000):
        stream.write(DATA[at : at + 300_000])
        await stream.drain()
    stream.write_eof()
    assert await stream.read_exactly(32) == hashlib.sha256(DATA).digest()
    stream.close()


async def drain(stream: Stream) -> None:
    """Take all that comes."""
    while await stream.read(1 << 18):
        pass


async def test_bulk_takes_the_short_way(
    sshd: Start, client_key: Key, tmp_path: Path, feeds: list[ssh_feed.Feed]
) -> None:
    plan = plan_for(sshd(), client_key, tmp_path / "known_hosts")
    async with serving(speak) as target, jumping(plan) as jump:
        await asyncio.gather(*[exchange(await jump.dial(target)) for _ in range(3)])
    assert len(feeds) == 1
    assert (
        min(feeds[0].fast, sent_fast(feeds[0])) > 100
    )  # else this version of asyncssh isn't known: see `_KNOWN`


async def test_new_keys_in_the_middle(
    sshd: Start, client_key: Key, tmp_path: Path, feeds: list[ssh_feed.Feed]
) -> None:
    server = sshd(RekeyLimit="1M")
    plan = plan_for(server, client_key, tmp_path / "known_hosts")
    async with serving(speak) as target, jumping(plan) as jump:
        await exchange(await jump.dial(target))
    assert min(feeds[0].fast, sent_fast(feeds[0])) > 50


async def test_new_keys_that_we_ask_for_while_we_send(
    sshd: Start, client_key: Key, tmp_path: Path, feeds: list[ssh_feed.Feed]
) -> None:
    plan = plan_for(sshd(), client_key, tmp_path / "known_hosts")
    async with serving(speak) as target, jumping(plan) as jump:
        stream = await jump.dial(target)
        feeds[0]._connection._rekey_bytes = 2_000_000
        keys = {feeds[0]._connection._send_encryption._cipher._key}
        send_data = feeds[0]._connection.send_data

        def noting(*args: object) -> bool:
            keys.add(feeds[0]._connection._send_encryption._cipher._key)
            return bool(send_data(*args))

        feeds[0]._connection.send_data = noting
        await exchange(stream)
    assert len(keys) > 3
    assert sent_fast(feeds[0]) > 30


@pytest.mark.parametrize("change", [{"ciphers": "chacha20-poly1305@openssh.com"}, {"compression": True}])
async def test_what_it_does_not_know_goes_the_long_way(
    sshd: Start, client_key: Key, tmp_path: Path, feeds: list[ssh_feed.Feed], change: dict[str, object]
) -> None:
    plan = plan_for(sshd(), client_key, tmp_path / "known_hosts", **change)
    async with serving(speak) as target, jumping(plan) as jump:
        await exchange(await jump.dial(target))
    assert feeds[0].fast == sent_fast(feeds[0]) == 0


async def test_an_unknown_version_of_asyncssh_goes_the_long_way(
    sshd: Start, client_key: Key, tmp_path: Path, feeds: list[ssh_feed.Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_feed, "_KNOWN", ("0.",))
    plan = plan_for(sshd(), client_key, tmp_path / "known_hosts")
    async with serving(speak) as target, jumping(plan) as jump:
        await exchange(await jump.dial(target))
    assert feeds[0].fast == sent_fast(feeds[0]) == 0


async def test_a_socket_that_keeps_the_frames_of_who_wrote_to_it(
    sshd: Start, client_key: Key, tmp_path: Path, feeds: list[ssh_feed.Feed]
) -> None:
    """As asyncio's does when it breaks: their locals must not hold the channel's buffer."""
    plan = plan_for(sshd(), client_key, tmp_path / "known_hosts")
    async with serving(speak) as target, jumping(plan) as jump:
        stream = await jump.dial(target)
        kept, send = [], feeds[0]._connection._send

        def keeping(data: bytes) -> None:
            kept.append(sys._getframe())
            send(data)

        feeds[0]._connection._send = keeping
        await exchange(stream)
    assert sent_fast(feeds[0]) > 50
    assert len(kept) > 10


async def test_a_hop_inside_a_hop(
    sshd: Start, client_key: Key, tmp_path: Path, feeds: list[ssh_feed.Feed]
) -> None:
    outer, inner = (plan_for(sshd(), client_key, tmp_path / "known_hosts") for _ in range(2))
    async with serving(speak) as target, jumping(outer) as first, jumping(inner, first) as second:
        await exchange(await second.dial(target))
    assert [min(feed.fast, sent_fast(feed)) > 30 for feed in feeds] == [True, True]


async def test_a_damaged_packet_ends_the_connection(
    sshd: Start, client_key: Key, tmp_path: Path, feeds: list[ssh_feed.Feed]
) -> None:
    plan = plan_for(sshd(), client_key, tmp_path / "known_hosts")
    async with serving(speak) as target, jumping(plan) as jump:
        stream = await jump.dial(target)
        await stream.read(1)
        feed = feeds[0]
        deliver = feed._deliver

        def damage(start: int, end: int) -> bool:
            feed._buffer[end - 20] ^= 1
            return deliver(start, end)

        feed._deliver = damage  # type: ignore[method-assign]
        with pytest.raises(StreamLost, match="MAC verification failed"):
            await drain(stream)
