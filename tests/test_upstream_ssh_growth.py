"""How many links: decisions by numbers, then links to a real sshd."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import DialError
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import APART, Stream
from gotunnel.upstream.direct import DirectDialer
from gotunnel.upstream.ssh import SshDialer
from gotunnel.upstream.ssh_growth import (
    AUTO,
    FIRST_AT_ONCE,
    GROW_PAUSE,
    LOSSY,
    MORE,
    Growth,
    Load,
    Traffic,
    place,
)
from gotunnel.upstream.tcp_info import tcp_traffic
from tests.conftest import need
from tests.hour import Origin
from tests.inside import Inside, inside
from tests.jumps import callers, jumping, plan_for
from tests.lab import keys, netns
from tests.lab.keys import Key
from tests.lab.netns import Namespace
from tests.lab.sshd import Sshd, can_run_sshd
from tests.lab.wan import Line, WanLink, can_make_wan
from tests.peers import serving, until

Start = Callable[..., Sshd]
GOOD = Traffic(arrived=100, sent=5)
LOST = Traffic(arrived=100, disordered=6, sent=5)


def seen(growth: Growth, start: float, seconds: float, links: int, traffic: Traffic) -> float:
    """Look twice a second; gives the time of the last look."""
    now = start
    for step in range(int(seconds * 2)):
        now = start + step / 2
        growth.looked(now, links, traffic)
    return now


def busy(links: int, streams: int = 9, apart: int = 1) -> list[Load]:
    return [Load(streams, apart)] * links


def times(traffic: Traffic, factor: int) -> Traffic:
    return sum((traffic for _ in range(factor)), Traffic())


# --- decisions ------------------------------------------------------------------------------------


def test_the_users_number_is_the_number_and_a_person_logs_in_once() -> None:
    growth = Growth(asked=5)
    assert growth.limit(seen(growth, 0, 10, 5, LOST)) == 5
    growth = Growth()
    growth.one_only()
    now = seen(growth, 0, 10, 1, LOST)
    assert growth.limit(now) == 1
    assert growth.to_open(now, busy(1), 0, 32) == 0
    assert growth.to_come(now, busy(1), 0, 32) == 0


def test_a_clean_line_has_eight_at_most() -> None:
    growth = Growth()
    now = seen(growth, 0, 20, 8, GOOD)
    assert not growth.lossy(now)
    assert growth.limit(now) == AUTO
    assert growth.to_come(now, busy(8), 0, 32) == 0


@pytest.mark.parametrize(
    "traffic",
    [
        Traffic(arrived=100, disordered=6, sent=5),
        Traffic(arrived=5, sent=100, resent=2),
    ],
    ids=["down", "up"],
)
def test_loss_that_goes_on_asks_for_more(traffic: Traffic) -> None:
    growth = Growth()
    now = seen(growth, 0, 3, 8, traffic)
    assert growth.lossy(now)
    assert growth.limit(now) == MORE
    assert not growth.lossy(now + 1000)  # it is not believed in for ever


def test_one_burst_is_no_loss() -> None:
    growth = Growth()
    seen(growth, 0, 2, 8, GOOD)
    growth.looked(2.0, 8, Traffic(arrived=100, disordered=90))
    assert not growth.lossy(seen(growth, 2.5, 10, 8, GOOD))


def test_a_few_segments_say_nothing() -> None:
    growth = Growth()
    assert not growth.lossy(seen(growth, 0, 10, 1, Traffic(arrived=2, disordered=1)))


@pytest.mark.parametrize(("factor", "limit"), [(2, LOSSY), (1, MORE)])
def test_the_second_step_up_wants_the_first_to_have_brought_more(factor: int, limit: int) -> None:
    """Where a queue overflows the total stays what it was."""
    growth = Growth()
    now = seen(growth, 0, 5, 8, LOST)
    now = seen(growth, now + 0.5, 5, 12, times(LOST, 10))  # between two steps nothing is compared
    assert growth.limit(now) == MORE
    assert growth.to_come(now, busy(14), 0, 32) == LOSSY - 14  # not known yet: worth waiting for
    now = seen(growth, now + 0.5, 5, 16, times(LOST, factor))
    assert growth.limit(now) == limit
    assert growth.to_come(now, busy(16), 0, 32) == limit - 16


def test_few_handshakes_at_once_and_more_as_they_succeed() -> None:
    growth = Growth()
    assert growth.to_open(0, busy(1), 0, 8) == FIRST_AT_ONCE
    assert growth.to_open(0, busy(1), FIRST_AT_ONCE, 8) == 0
    for _ in range(10):
        growth.admitted()
    assert growth.to_open(0, busy(1), 0, 100) == AUTO - 1
    growth.turned_away(0)
    assert growth.to_open(0, busy(1), 0, 100) == 4
    growth.turned_away(0)
    growth.turned_away(0)  # in a row: it doesn't want us
    assert growth.to_open(GROW_PAUSE - 1, busy(1), 0, 100) == 0
    assert growth.to_come(GROW_PAUSE - 1, busy(1), 0, 100) == 0
    assert growth.to_open(GROW_PAUSE + 1, busy(1), 0, 100) == 1


def test_a_refused_key_is_not_tried_with_again_soon() -> None:
    growth = Growth()
    growth.turned_away(0, final=True)
    assert growth.to_open(GROW_PAUSE - 1, busy(1), 0, 8) == 0


def test_ordinary_streams_ask_for_one_link_at_a_time_when_all_are_full() -> None:
    growth = Growth()
    assert growth.to_open(0, [Load(4, 0), Load(3, 0)], 0, 1) == 0
    assert growth.to_open(0, [Load(4, 0), Load(4, 0)], 0, 1) == 1
    assert growth.to_open(0, [Load(4, 0), Load(4, 0)], 1, 1) == 0
    assert growth.to_open(0, busy(AUTO), 0, 1) == 0
    now = seen(growth, 0, 5, 8, LOST)
    assert growth.to_open(now, [Load(2, 0)], 0, 1) == 1  # under loss two streams are many


def test_a_stream_goes_where_the_fewest_of_its_kind_are() -> None:
    loads = [Load(1, 1), Load(7, 0), Load(2, 1)]
    assert place(loads, apart=False) == 0
    assert place(loads, apart=True) == 1
    assert place([Load(3, 1), Load(2, 1)], apart=True) == 1


def test_the_kernels_struct_is_read_where_it_says() -> None:
    info = bytearray(228)
    for at, value in ((100, 1), (152, 2), (156, 3), (224, 4)):
        info[at : at + 4] = value.to_bytes(4, "little")
    if (1).to_bytes(2, "little") == memoryview(b"\1\0").cast("H").tobytes():
        assert tcp_traffic(bytes(info)) == Traffic(arrived=2, disordered=4, sent=3, resent=1)


# --- links to a real sshd -------------------------------------------------------------------------


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65536):
        pass
    writer.close()


async def dials(jump: SshDialer, target: HostPort, count: int, apart: int) -> list[Stream]:
    """That many at once, each wanting to be apart."""

    async def one() -> Stream:
        APART.set(apart)
        return await jump.dial(target)

    return list(await asyncio.gather(*(one() for _ in range(count))))


async def test_streams_that_want_to_be_apart_get_a_link_each(
    sshd: Start, client_key: Key, tmp_path: Path
) -> None:
    server = sshd()  # MaxStartups as it comes: a burst of eight more would lose some
    plan = plan_for(server, client_key, tmp_path / "known_hosts", connections=12)
    async with serving(mute) as target, jumping(plan) as jump:
        streams = await dials(jump, target, 12, 12)
        assert jump.links == 12
        assert [link.carries.apart for link in jump._links] == [1] * 12
        more = await dials(jump, target, 3, 12)  # there are no more links: they share
        assert jump.links == 12
        assert sorted(link.carries.apart for link in jump._links) == [1] * 9 + [2] * 3
        for stream in streams + more:
            stream.abort()
        await until(lambda: not any(link.carries.apart for link in jump._links))
        await jump.dial(target)  # one of no such wish asks for none
        assert jump.links == 12
    assert callers(server) == 12


async def test_where_no_other_link_is_to_be_had_the_streams_share(
    sshd: Start, client_key: Key, tmp_path: Path
) -> None:
    server = sshd()
    plan = plan_for(server, client_key, tmp_path / "known_hosts", connections=8)
    async with serving(mute) as target, jumping(plan) as jump:
        await jump.warm()
        server.forget_keys()
        streams = await asyncio.wait_for(dials(jump, target, 8, 8), 5)
        assert len(streams) == 8
        assert jump.links == 1
        calls = callers(server)
        await dials(jump, target, 2, 8)
        assert callers(server) == calls  # nor is it asked again at once


async def test_who_waits_for_a_link_hears_of_the_end(sshd: Start, client_key: Key, tmp_path: Path) -> None:
    server = sshd()
    plan = plan_for(server, client_key, tmp_path / "known_hosts", connections=8)
    async with serving(mute) as target, jumping(plan) as jump:
        await dials(jump, target, 1, 2)
        await until(lambda: jump.links == 2)
        server.freeze()
        try:
            waiting = Tasks("test").spawn("dials", dials(jump, target, 3, 8))
            await until(lambda: len(jump._waiters) >= 2)
            await asyncio.wait_for(jump.close(), 5)
            with pytest.raises(DialError):
                await asyncio.wait_for(waiting, 5)
        finally:
            server.thaw()


# --- a line that loses ----------------------------------------------------------------------------


class Bad:
    """A jump host 60 ms away over a line that loses 1 %, and an origin beside it."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        near, far = stack.enter_context(Namespace("near")), stack.enter_context(Namespace("far"))
        link = stack.enter_context(WanLink(near, far, Line(delay=30, loss=1), directory))
        far.add_route(f"{link.address_a}/32", "dev", "wan0", "congctl", "cubic")
        self.key = keys.new_key(directory / "id")
        self.jump = Sshd(directory / "sshd", place=far, address=link.address_b, authorized=[self.key])
        stack.enter_context(self.jump)
        self.known = self.jump.write_known_hosts(directory / "known_hosts")
        origin = stack.enter_context(Origin(directory / "origin", place=far, address=link.address_b))
        self.target = HostPort(origin.address, origin.port)
        self.inside: Inside = stack.enter_context(inside(near))


@pytest.fixture
def bad(tmp_path: Path) -> Iterator[Bad]:
    need(netns.can_make_namespaces(), can_make_wan(), can_run_sshd())
    with ExitStack() as stack:
        yield Bad(stack, tmp_path)


def test_a_line_that_loses_gets_more_links_than_a_clean_one(bad: Bad) -> None:
    async def work() -> None:
        jump = SshDialer(DirectDialer(), plan_for(bad.jump, bad.key, bad.known), label="ssh://jump")

        async def one() -> None:
            APART.set(16)
            stream = await jump.dial(bad.target)
            try:
                stream.write(b"bulk 100000000\n")
                while await stream.read():
                    pass
            finally:
                stream.abort()

        await jump.warm()
        assert not jump.lossy
        tasks = Tasks("test")
        for _ in range(16):
            tasks.spawn("body", one())
        try:
            await until(lambda: jump.links > AUTO, 30)
            assert jump.lossy
        finally:
            await tasks.close()
            await jump.close()

    bad.inside.run(work())
