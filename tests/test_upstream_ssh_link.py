"""Links of a jump host: more when busy, watched while an answer is due, dead within seconds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import DialError, StreamLost
from gotunnel.tasks import Tasks
from gotunnel.upstream import ssh as ssh_dialer
from gotunnel.upstream import ssh_link
from gotunnel.upstream.dialer import Stream
from gotunnel.upstream.ssh_growth import Traffic
from gotunnel.upstream.ssh_link import SshLink
from tests.jumps import jumping, plan_for
from tests.lab.keys import Key
from tests.lab.sshd import Sshd
from tests.peers import serving, until

Start = Callable[..., Sshd]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass
    writer.close()


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


async def test_busy_links_get_company_and_idle_ones_go(
    sshd: Start, client_key: Key, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = sshd()
    plan = plan_for(server, client_key, known, connections=3)
    async with serving(echo) as target, jumping(plan) as jump:
        streams = [await jump.dial(target) for _ in range(4)]
        assert jump.links == 1
        streams.append(await jump.dial(target))  # the first link has its four: a second is opened beside it
        await until(lambda: jump.links == 2)
        streams += [await jump.dial(target) for _ in range(20)]
        await until(lambda: jump.links == 3)
        streams += [await jump.dial(target) for _ in range(5)]
        assert jump.links == 3  # never more than asked for
        for stream in streams:
            stream.write(b"x")
            assert await stream.read() == b"x"
            stream.abort()
        monkeypatch.setattr(ssh_dialer, "IDLE_LINK", 0.0)
        await asyncio.sleep(0.2)
        (await jump.dial(target)).abort()  # each dial looks after the links
        await until(lambda: jump.links == 1)


async def test_a_silent_origin_is_not_taken_for_a_dead_hop(sshd: Start, client_key: Key, known: Path) -> None:
    server = sshd()
    async with serving(mute) as target, jumping(plan_for(server, client_key, known)) as jump:
        stream = await jump.dial(target)
        stream.write(b"an answer is due, and none comes")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(8):
                await stream.read()
        assert jump.links == 1


async def test_a_hop_that_goes_silent_is_dead_within_five_seconds(
    sshd: Start, client_key: Key, known: Path
) -> None:
    server = sshd()
    lost: list[DialError] = []
    async with (
        serving(echo) as target,
        jumping(plan_for(server, client_key, known), on_lost=lost.append) as jump,
    ):
        stream = await jump.dial(target)
        stream.write(b"alive")
        assert await stream.read() == b"alive"
        server.freeze()  # as after a power cut: the kernel takes what we send, nobody answers
        try:
            stream.write(b"anybody?")
            started = time.monotonic()
            with pytest.raises(StreamLost):
                await stream.read()
            assert time.monotonic() - started < 7  # 5 s, on a busy machine
        finally:
            server.thaw()
        assert [error.finding for error in lost] == ["hop.stalled"]


async def test_one_of_two_links_may_die_without_the_hop(sshd: Start, client_key: Key, known: Path) -> None:
    server = sshd()
    lost: list[DialError] = []
    plan = plan_for(server, client_key, known, connections=2)
    async with serving(echo) as target, jumping(plan, on_lost=lost.append) as jump:
        for _ in range(6):
            await jump.dial(target)
        await until(lambda: jump.links == 2)
        jump._links[0].connection.abort()
        await until(lambda: jump.links == 1)
        stream = await jump.dial(HostPort(target.host, target.port))
        stream.write(b"still")
        assert await stream.read() == b"still"
        assert lost == []


@pytest.mark.parametrize("setting", [{"MaxSessions": "0"}, {"MaxStartups": "2"}, {"PermitOpen": "any"}])
async def test_a_stingy_server_still_forwards(
    sshd: Start, client_key: Key, known: Path, setting: dict[str, str]
) -> None:
    server = sshd(**setting)  # MaxSessions counts sessions, not forwarding; MaxStartups what is not logged in
    async with serving(echo) as target, jumping(plan_for(server, client_key, known)) as jump:
        streams = await asyncio.gather(*(jump.dial(target) for _ in range(40)))
        for stream in streams:
            stream.write(b"x")
            assert await stream.read() == b"x"


@pytest.mark.parametrize(
    ("flows", "replies_after", "opens_after", "finding"),
    [
        (True, None, 0.5, ""),  # both answers are behind what others are sent
        (True, 0.2, 5.0, "tcp.timeout"),  # the server has answered what was asked later
        (True, None, None, "tcp.timeout"),
        (False, None, None, "hop.stalled"),
        (False, 0.1, None, "tcp.timeout"),
    ],
)
async def test_an_answer_behind_bulk_is_waited_for(
    flows: bool,
    replies_after: float | None,
    opens_after: float | None,
    finding: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    feed: Any = SimpleNamespace(received=0, traffic=Traffic())

    async def come() -> None:
        while flows:
            await asyncio.sleep(0.02)
            feed.received += 100

    async def after(seconds: float | None) -> None:
        await asyncio.sleep(60 if seconds is None else seconds)

    async def open_channel(*_: object, **__: object) -> Stream:
        await after(opens_after)
        return Stream()

    async def answer(_name: bytes) -> None:
        """A keepalive's."""
        await after(replies_after)

    monkeypatch.setattr(ssh_link, "open_channel", open_channel)
    monkeypatch.setattr(ssh_link, "ALIVE_TIMEOUT", 0.3)
    lost: list[DialError] = []
    connection: Any = SimpleNamespace(
        _make_global_request=answer, is_closed=lambda: False, abort=lambda: None
    )
    link = SshLink(
        connection, feed, label="jump", on_dead=lambda _, error: lost.append(error), channel_timeout=0.25
    )
    tasks = Tasks("test")
    tasks.spawn("bytes", come())
    target = HostPort("origin.example", 443)
    if finding:
        with pytest.raises(DialError) as caught:
            await link.open(target)
        assert caught.value.finding == finding
    else:
        assert isinstance(await link.open(target), Stream)
    assert [error.finding for error in lost] == (["hop.stalled"] if finding == "hop.stalled" else [])
    await tasks.close()
    await link._tasks.close()
