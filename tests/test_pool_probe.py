"""Probes through the data path: what is health, who is probed, a jump host that carries nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import asyncssh
import pytest

from gotunnel.address import HostPort
from gotunnel.errors import Blame, DialError
from gotunnel.observe.events import BreakerChange, Event
from gotunnel.pool.breaker import State
from gotunnel.pool.pool import Pool, Upstream
from gotunnel.pool.probe import Prober, ProbeTarget
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.upstream.direct import DirectDialer
from tests.jumps import jumping, plan_for, scripted
from tests.lab.keys import Key
from tests.lab.proc import dead_port
from tests.peers import Talk, echo, serving, silence, until


class Scene:
    """A pool over `dialers` with a clock that can be set forward, and its prober."""

    def __init__(
        self,
        target: HostPort,
        *dialers: Dialer,
        tls: bool = False,
        timeout: float = 0.5,
        others: Sequence[HostPort] = (),
    ) -> None:
        self.ahead = 0.0
        self.events: list[Event] = []
        self.ways = [Upstream(f"way{n}", dialer) for n, dialer in enumerate(dialers)]
        self.pool = Pool(self.ways, emit=self.events.append, hedge="off", clock=self.clock)
        self.prober = Prober(
            self.pool,
            [ProbeTarget(where, tls, "/") for where in (target, *others)],
            every=30.0,
            timeout=timeout,
            clock=self.clock,
        )

    def clock(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead

    @property
    def breakers(self) -> list[tuple[str, str, str | None]]:
        return [(e.upstream, e.state, e.reason) for e in self.events if isinstance(e, BreakerChange)]


class To:
    """A way out that leads every target to `where`, and counts its dials; it may be down."""

    label = "to"

    def __init__(self, where: HostPort) -> None:
        self._where = where
        self.dials = 0
        self.error: DialError | None = None

    async def dial(self, target: HostPort) -> Stream:
        self.dials += 1
        if self.error is not None:
            raise self.error
        return await DirectDialer().dial(self._where)

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing is kept."""


def down() -> DialError:
    return DialError("tcp.refused", "the hop refused", blame=Blame.HOP)


@pytest.mark.parametrize(
    ("url", "address", "tls", "path"),
    [
        ("https://proxy.golang.org", "proxy.golang.org:443", True, "/"),
        ("http://mirror.example:3000/base/x", "mirror.example:3000", False, "/base/x"),
        ("https://user:secret@goproxy.corp.example/", "goproxy.corp.example:443", True, "/"),
        ("http://[::1]:8080/a?b=c", "[::1]:8080", False, "/a"),
        ("HTTPS://Example.org:8443", "Example.org:8443", True, "/"),
    ],
)
def test_where_a_probe_goes(url: str, address: str, tls: bool, path: str) -> None:
    target = ProbeTarget.parse(url)
    assert (str(target.address), target.tls, target.path) == (address, tls, path)


@pytest.mark.parametrize(
    "url",
    ["", "proxy.golang.org", "file:///srv/goproxy", "off", "https://", "https://:443", "http://x:0",
     "http://x:99999", "http://[::1", "https://a..b", "https://.x", f"https://{'x' * 64}.example"],
)  # fmt: skip
def test_where_no_probe_can_go(url: str) -> None:
    with pytest.raises(ValueError, match=r"want|port|address|name|URL"):
        ProbeTarget.parse(url)


def saying(answer: bytes) -> Talk:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await writer.drain()

    return talk


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 500 Oh\r\n\r\n", b"\x15\x03\x01\x00\x02\x02\x28", b"\x00garbage"]
)
async def test_any_answer_is_health(answer: bytes, tls: bool) -> None:
    async with serving(saying(answer)) as target:
        scene = Scene(target, DirectDialer(), tls=tls, timeout=10.0)
        assert await scene.prober.once(scene.ways[0])
        assert scene.ways[0].has_worked
        assert scene.breakers == []


async def test_what_is_asked_is_a_request_that_a_server_understands() -> None:
    asked: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.read(4096))
        writer.write(b"x")

    async with serving(talk) as target:
        for tls in (False, True):
            scene = Scene(target, DirectDialer(), tls=tls, timeout=10.0)
            assert await scene.prober.once(scene.ways[0])
    assert asked[0].startswith(b"HEAD / HTTP/1.1\r\nHost: 127.0.0.1:")
    assert asked[1][:2] == b"\x16\x03"  # a TLS handshake record


@pytest.mark.parametrize(
    ("talk", "reason"), [(saying(b""), "hop.closed"), (silence, "hop.stalled")], ids=["closed", "silent"]
)
async def test_no_answer_is_no_health(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]], reason: str
) -> None:
    async with serving(talk) as target:
        scene = Scene(target, DirectDialer())
        assert not await scene.prober.once(scene.ways[0])
        assert scene.breakers == [("way0", "open", reason)]
        assert not scene.ways[0].has_worked


async def test_a_jump_host_that_carries_nothing_is_found_and_left(tmp_path: Path, client_key: Key) -> None:
    """It accepts every channel, so to dials it looks well; only a probe tells, and only one takes it back."""
    known = tmp_path / "known_hosts"
    swallows: asyncssh.SSHTCPSession[bytes] | bool = asyncssh.SSHTCPSession()
    async with (
        serving(echo) as target,
        scripted(lambda host, port: swallows, known, client_key) as server,
        jumping(plan_for(server, client_key, known)) as jump,
    ):
        scene = Scene(target, jump, To(target))
        (await scene.pool.dial(target)).abort()
        assert scene.pool.upstreams[0].has_worked  # a dial can't tell
        assert not await scene.prober.once(scene.ways[0])
        assert scene.breakers == [("way0", "open", "hop.stalled")]
        scene.ahead += 60.0  # its rest is over: users are still not sent there
        for _ in range(3):
            (await scene.pool.dial(target)).abort()
        assert scene.breakers == [("way0", "open", "hop.stalled")]
        assert scene.prober.due()[0] is scene.ways[0]
        swallows = True
        assert await scene.prober.once(scene.ways[0])
        assert scene.ways[0].breaker.state is State.CLOSED


async def test_a_user_of_such_a_jump_host_does_not_keep_the_probe_away(
    tmp_path: Path, client_key: Key
) -> None:
    """Dials that succeed and bring nothing are no sign of life."""
    known = tmp_path / "known_hosts"
    async with (
        serving(echo) as target,
        scripted(lambda host, port: asyncssh.SSHTCPSession(), known, client_key) as server,
        jumping(plan_for(server, client_key, known)) as jump,
    ):
        scene = Scene(target, jump)
        assert scene.prober.due() == []  # its interval begins
        for _ in range(4):
            scene.ahead += 10.0
            (await scene.pool.dial(target)).write(b"hello")
        assert scene.prober.due() == scene.ways


async def test_one_that_works_for_the_user_is_not_probed() -> None:
    async with serving(echo) as target:
        way = To(target)
        scene = Scene(target, way)
        assert scene.prober.due() == []
        for _ in range(4):
            scene.ahead += 20.0
            stream = await scene.pool.dial(target)
            stream.write(b"hello")
            await stream.read()
            assert scene.prober.due() == []
            stream.abort()
        scene.ahead += 31.0
        assert scene.prober.due() == scene.ways


async def test_one_that_failed_is_probed_after_its_rest_and_taken_back() -> None:
    async with serving(echo) as target:
        way = To(target)
        scene = Scene(target, way, DirectDialer())
        way.error = down()
        (await scene.pool.dial(target)).abort()
        assert scene.breakers == [("way0", "open", "tcp.refused")]
        assert scene.prober.due() == []
        scene.ahead += 0.7  # half a second, jittered
        assert scene.prober.due() == [scene.ways[0]]
        assert not await scene.prober.once(scene.ways[0])  # still down: it rests twice as long
        scene.ahead += 0.6
        assert scene.prober.due() == []
        scene.ahead += 0.8
        way.error = None
        tasks = Tasks("test")
        tasks.spawn("prober", scene.prober.run())
        await until(lambda: scene.ways[0].breaker.state is State.CLOSED)
        await tasks.close()
        assert [state for name, state, _ in scene.breakers if name == "way0"][-1] == "closed"


async def test_a_silent_mirror_does_not_count_as_the_death_of_every_way_out() -> None:
    """It is asked first; when all ways out seem dead the next one is, and stays the one that is asked."""
    async with serving(silence) as mute, serving(saying(b"x")) as other:
        scene = Scene(mute, DirectDialer(), DirectDialer(), timeout=1.0, others=[other])
        first, second = scene.ways
        assert not await scene.prober.once(first)
        assert not await scene.prober.once(second)
        assert scene.pool.all_down
        scene.ahead += 60
        assert await scene.prober.once(first)
        assert await scene.prober.once(second)
        assert not scene.pool.all_down


async def test_one_dead_way_out_does_not_change_who_is_asked() -> None:
    async with serving(saying(b"x")) as asked:
        dead = To(asked)
        dead.error = down()
        scene = Scene(asked, dead, DirectDialer(), others=[HostPort("127.0.0.1", dead_port())])
        assert await scene.prober.once(scene.ways[1])
        assert not await scene.prober.once(scene.ways[0])
        assert await scene.prober.once(scene.ways[1])


async def test_a_target_that_refuses_is_not_the_ways_fault() -> None:
    scene = Scene(HostPort("127.0.0.1", dead_port()), DirectDialer())
    assert not await scene.prober.once(scene.ways[0])
    assert scene.breakers == []


async def test_a_probe_that_is_cancelled_leaves_its_way_usable() -> None:
    async with serving(silence) as target:
        way = To(target)
        scene = Scene(target, way, timeout=60.0)
        scene.pool.report(scene.ways[0], down())
        scene.ahead += 1.0
        tasks = Tasks("test")
        tasks.spawn("probe", scene.prober.once(scene.ways[0]))
        await until(lambda: way.dials)
        await asyncio.sleep(0.1)
        await tasks.close()
        assert scene.prober.due() == scene.ways


async def test_a_slow_probe_is_no_verdict_while_others_bytes_come_the_same_way() -> None:
    """A bulk transfer on a bad line holds a probe up for longer than its time."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(4) != b"bulk":
            await silence(reader, writer)
        while not writer.is_closing():
            writer.write(b"more")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(talk) as target:
        scene = Scene(target, DirectDialer(), timeout=0.3)
        bulk = await scene.pool.dial(target)
        assert not await scene.prober.once(scene.ways[0])  # nothing comes by any stream: dead
        assert scene.breakers == [("way0", "open", "hop.stalled")]
        scene.ahead += 60.0
        bulk.write(b"bulk")
        await bulk.read_exactly(4)
        scene.pool.settle(scene.ways[0])
        before = list(scene.breakers)
        assert not await scene.prober.once(scene.ways[0])
        assert scene.breakers == before
        bulk.abort()
