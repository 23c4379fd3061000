"""How soon a way out that fails is noticed: pools of real dialers in namespaces, measured.

Each test states its figure; the bounds leave room for a busy machine.  GOTUNNEL_LONG runs the slow ones.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import DialError, StreamLost
from gotunnel.observe.events import Event
from gotunnel.pool.pool import Pool, Upstream
from gotunnel.upstream.chain import ChainBuilder
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.upstream.spec import HopSpec, parse_chain
from tests.conftest import need
from tests.gotunnel_in_lab import finish, jump, start, ways
from tests.inside import Inside, inside
from tests.lab import netns
from tests.lab.netns import Namespace
from tests.lab.proxies import HttpProxy
from tests.lab.silent import Silent
from tests.lab.topology import HOPS, MODULES, PLAIN, Topology
from tests.lab.wan import Line, WanLink, can_make_wan

LONG = bool(os.environ.get("GOTUNNEL_LONG"))
RTT = 0.1  # seconds, of the WAN link
NOISE = 0.4  # seconds that a busy machine may add
needs_long = pytest.mark.skipif(not LONG, reason="takes a minute: set GOTUNNEL_LONG")


# --- at dial: a WAN link of 100 ms --------------------------------------------------------------


class Wan:
    """A client and a far side with servers of each kind, 100 ms apart; a proxy there that works."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self.client = stack.enter_context(Namespace("near"))
        self.far = stack.enter_context(Namespace("far"))
        link = WanLink(self.client, self.far, Line(delay=RTT * 500), directory)
        stack.callback(link.close)
        self.address = link.address_b
        where = {"place": self.far, "address": self.address}
        self.good = stack.enter_context(HttpProxy(directory / "good", **where))  # type: ignore[arg-type]
        self.bad = {
            mode: stack.enter_context(Silent(directory / mode, mode, **where))  # type: ignore[arg-type]
            for mode in ("refuse", "reset", "silent")
        }
        stack.enter_context(netns.drop(self.far, 9999))
        self.inside = stack.enter_context(inside(self.client))

    def chain(self, name: str) -> str:
        port = {"good": self.good.port, "black hole": 9999}.get(name) or self.bad[name].port
        return f"http://{self.address}:{port}"

    @property
    def target(self) -> HostPort:
        """What the good proxy reaches: its own port."""
        return HostPort(self.address, self.good.port)


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wan]:
    need(netns.can_make_namespaces(), can_make_wan(), HttpProxy.available())
    with ExitStack() as stack:
        yield Wan(stack, tmp_path_factory.mktemp("wan"))


class Timed:
    """A dialer that notes when each dial began."""

    def __init__(self, dialer: Dialer) -> None:
        self._dialer = dialer
        self.label = dialer.label
        self.began: list[float] = []

    async def dial(self, target: HostPort) -> Stream:
        self.began.append(time.monotonic())
        return await self._dialer.dial(target)

    async def warm(self) -> None:
        await self._dialer.warm()

    async def close(self) -> None:
        await self._dialer.close()


async def switch_time(first: str, second: str, target: HostPort, hedge: str, warm: int = 0) -> float:
    """Seconds from the first way's dial to the second's; the dial must succeed."""
    builder = ChainBuilder()
    timed = [Timed(builder.build(parse_chain(chain))) for chain in (first, second)]
    pool = Pool([Upstream(d.label, d) for d in timed], emit=lambda event: None, hedge=hedge)
    try:
        for _ in range(warm):
            pool.upstreams[0].times.add(2.5 * RTT)
        async with asyncio.timeout(8):
            stream = await pool.dial(target)
        stream.abort()
        return timed[1].began[0] - timed[0].began[0]
    finally:
        await pool.close()
        await builder.close()


@pytest.mark.parametrize(("how", "round_trips"), [("refuse", 1), ("reset", 2)])
def test_a_refusal_leads_to_the_next_within_its_own_round_trips(wan: Wan, how: str, round_trips: int) -> None:
    """Refused: one round trip.  Reset after the connection stands: that one too."""
    took = wan.inside.run(switch_time(wan.chain(how), wan.chain("good"), wan.target, "off"))
    print(f"{how}: {took * 1000:.0f} ms at a round trip of {RTT * 1000:.0f} ms")
    assert took < round_trips * RTT + NOISE


@pytest.mark.parametrize("warm", [0, 20], ids=["unknown", "known"])
@pytest.mark.parametrize("how", ["black hole", "silent"])
def test_a_black_hole_is_hedged_within_a_second(wan: Wan, how: str, warm: int) -> None:
    """One second while its dial times are unknown, else 1.5 times their p95."""
    took = wan.inside.run(switch_time(wan.chain(how), wan.chain("good"), wan.target, "auto", warm))
    print(f"{how}: {took * 1000:.0f} ms")
    assert took < 1.0 + NOISE
    if warm:
        assert took < 1.5 * 2.5 * RTT + NOISE


# --- an established hop -------------------------------------------------------------------------


class Hop:
    """A pool of jump host 1 alone, in the client of the lab, and what it told of losses."""

    def __init__(self, lab: Topology, known: Path) -> None:
        lab.sshd1.write_known_hosts(known)
        config = known.with_name("ssh_config")
        config.write_text("")
        options = f"identity={lab.key.private}&known_hosts={known}&config={config}"
        self.chain = parse_chain(f"ssh://{lab.sshd1.user}@{HOPS['jump1']}.2?{options}")
        self.lost: list[tuple[float, DialError]] = []
        self.events: list[Event] = []

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Pool]:
        def lost(hop: tuple[HopSpec, ...], error: DialError) -> None:
            self.lost.append((time.monotonic(), error))

        builder = ChainBuilder(on_lost=lost)
        pool = Pool([Upstream("one", builder.build(self.chain))], emit=self.events.append)
        try:
            yield pool
        finally:
            await pool.close()
            await builder.close()


async def wait_for(condition: Callable[[], object], seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.02)


async def read_all(stream: Stream) -> None:
    while await stream.read():
        pass


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: plain.lab.example\r\nConnection: close\r\n\r\n".encode()


@pytest.fixture
def in_client(lab: Topology) -> Iterator[Inside]:
    with inside(lab.client) as made:
        yield made


@pytest.mark.parametrize("stage", ["request", "body"])
def test_a_hop_cut_off_under_a_download_is_dead_within_five_seconds(
    lab: Topology, in_client: Inside, tmp_path: Path, stage: str
) -> None:
    """Cut off while the answer is awaited, and in the middle of a body; 8 s are allowed to a busy machine."""
    lab.plain.behave(delay=60.0 if stage == "request" else 0.0, zip_rate=500.0)
    zip_path = next(lab.corpus.directory.rglob("*.zip")).relative_to(lab.corpus.directory)
    hop = Hop(lab, tmp_path / "known_hosts")

    async def scene() -> tuple[float, float]:
        async with hop.opened() as pool, asyncio.timeout(25):
            stream = await pool.dial(HostPort(PLAIN, 80))
            stream.write(get(f"/{zip_path}"))
            if stage == "body":
                while stream.received < 600:
                    await stream.read()
                await asyncio.sleep(1.0)
            cut = time.monotonic()
            await asyncio.to_thread(lab.cut, "jump1")
            with pytest.raises(StreamLost):
                await read_all(stream)
            closed = time.monotonic() - cut
            await wait_for(lambda: hop.lost, 1)
            return closed, hop.lost[0][0] - cut

    closed, dead = in_client.run(scene())
    print(f"{stage}: stream closed after {closed:.1f} s, hop dead after {dead:.1f} s")
    assert max(closed, dead) < 8
    assert hop.lost[0][1].finding == "hop.stalled"


def test_go_is_carried_on_by_the_second_when_the_first_is_cut_off(lab: Topology) -> None:
    """Power cut under a download: known within 5 s (8 allowed), and go is repeated at most once."""
    lab.modules.behave(zip_rate=300)  # bytes a second: none is whole when the link is cut
    options = ways(lab, jump(lab, 1), jump(lab, 2))
    began = time.monotonic()
    process, events = start(
        lab, options, ["go", "mod", "download"], env=lab.go_env(), cwd=lab.fresh_project()
    )
    lab.modules.wait_for(r"\.zip$", 2)
    lab.cut("jump1")
    cut = datetime.datetime.now(datetime.UTC)
    lab.modules.behave()
    ran = finish(process, events, began)
    assert ran.status == 0, ran.stderr
    assert len(ran.events("attempt")) <= 2
    # its transfers may all have gone on by the second, and the run be over, before the hop itself is given up
    known = [e["ts"] for e in ran.events("breaker") if e["state"] == "open" and "jump1" in e["upstream"]]
    known += [e["ts"] for e in (*ran.events("resume"), *ran.events("failover")) if "jump1" in e["from"]]
    took = (datetime.datetime.fromisoformat(min(known)) - cut).total_seconds()
    print(f"known after {took:.1f} s, the run took {ran.seconds:.1f} s")
    assert took < 8
    assert "10.80.0.12" in {r["client"] for r in lab.modules.requests()}
    assert lab.direct_attempts() == []


def test_an_origin_that_is_silent_is_no_false_death(lab: Topology, in_client: Inside, tmp_path: Path) -> None:
    """10 s, or 60 s with GOTUNNEL_LONG: the stream stays, and the answer comes."""
    silence = 60.0 if LONG else 10.0
    lab.plain.behave(delay=silence)
    hop = Hop(lab, tmp_path / "known_hosts")

    async def scene() -> tuple[bytes, float]:
        async with hop.opened() as pool, asyncio.timeout(silence + 20):
            began = time.monotonic()
            stream = await pool.dial(HostPort(PLAIN, 80))
            stream.write(get("/nothing-there"))
            answer = await stream.read()
            stream.abort()
            return answer, time.monotonic() - began

    answer, took = in_client.run(scene(), silence + 30)
    assert answer.startswith((b"HTTP/1.1 404", b"HTTP/1.0 404"))
    assert took >= silence
    assert hop.lost == []


@needs_long
@pytest.mark.timeout(150)
def test_a_hop_cut_off_while_idle_is_found_within_45_seconds(
    lab: Topology, in_client: Inside, tmp_path: Path
) -> None:
    """By asyncssh's keepalive."""
    hop = Hop(lab, tmp_path / "known_hosts")

    async def scene() -> float:
        async with hop.opened() as pool:
            (await pool.dial(HostPort(MODULES, 443))).abort()
            await asyncio.sleep(1.0)
            await asyncio.to_thread(lab.cut, "jump1")
            cut = time.monotonic()
            await wait_for(lambda: hop.lost, 60)
            return hop.lost[0][0] - cut

    took = in_client.run(scene(), 80)
    print(f"idle: dead after {took:.1f} s")
    assert took < 45 + 5
    assert hop.lost[0][1].finding in ("hop.stalled", "hop.closed")
