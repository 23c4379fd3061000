"""The pool, over ways out that follow a script: each test is a dialogue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import Blame, DialError, NoWayOut
from gotunnel.observe.events import BreakerChange, Dial, Event, Failover
from gotunnel.pool import pool as pool_module
from gotunnel.pool.breaker import State
from gotunnel.pool.pool import Pool, Upstream
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import Stream

TARGET = HostPort("modules.example", 443)


class Ends(Stream):
    """A stream that knows whether it was aborted."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


def refused() -> DialError:
    return DialError("tcp.refused", "the hop refused", blame=Blame.HOP)


def no_such_target() -> DialError:
    return DialError("dns.not-found", "no such host", blame=Blame.TARGET)


class Silence:
    """Answers only when it is told to; `cancelled` counts dials that were given up."""

    def __init__(self) -> None:
        self.speak: asyncio.Future[DialError | None] = asyncio.get_running_loop().create_future()
        self.asked = asyncio.Event()
        self.cancelled = 0


Line = DialError | Silence | None  # fails, is silent, carries


class Scripted:
    """A dialer that answers dial after dial by its script, then always as in the last line."""

    def __init__(self, label: str, *script: Line) -> None:
        self.label = label
        self.script = list(script) or [None]
        self.dials = 0
        self.opened: list[Ends] = []
        self.warm_error: DialError | None = None

    async def dial(self, target: HostPort) -> Stream:
        self.dials += 1
        line = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(line, Silence):
            silence = line
            silence.asked.set()
            try:
                line = await asyncio.shield(silence.speak)
            except asyncio.CancelledError:
                silence.cancelled += 1
                raise
        if line is not None:
            raise line
        self.opened.append(Ends())
        return self.opened[-1]

    async def warm(self) -> None:
        if self.warm_error is not None:
            raise self.warm_error

    async def close(self) -> None:
        """Nothing is kept."""


class Scene:
    """A pool of scripted ways out, what it told, and a clock that can be set forward."""

    def __init__(
        self,
        *dialers: Scripted,
        hedge: float | str = "off",
        strategy: str = "ordered",
        worked: Sequence[str] = (),
    ) -> None:
        self.events: list[Event] = []
        self.ahead = 0.0
        self.tasks = Tasks("test")
        self.ways = [Upstream(dialer.label, dialer) for dialer in dialers]
        for way in self.ways:
            way.has_worked = way.name in worked
        self.pool = Pool(self.ways, emit=self.events.append, hedge=hedge, strategy=strategy, clock=self.clock)

    def clock(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead

    @property
    def failovers(self) -> list[tuple[str, str, str]]:
        return [(e.source, e.to, e.reason) for e in self.events if isinstance(e, Failover)]

    @property
    def breakers(self) -> list[tuple[str, str]]:
        return [(e.upstream, e.state) for e in self.events if isinstance(e, BreakerChange)]


async def test_the_first_fails_and_the_second_carries_within_the_same_dial() -> None:
    a, b = Scripted("a", refused()), Scripted("b")
    scene = Scene(a, b)
    assert await scene.pool.dial(TARGET) is b.opened[0]
    assert scene.breakers == [("a", "open")]
    assert scene.failovers == [("a", "b", "tcp.refused")]
    assert [(e.upstream, e.ok, e.error) for e in scene.events if isinstance(e, Dial)] == [
        ("a", False, "tcp.refused"),
        ("b", True, None),
    ]
    # the next dial doesn't ask a again, and says nothing new
    await scene.pool.dial(TARGET)
    assert (a.dials, b.dials) == (1, 2)
    assert len(scene.failovers) == 1


async def test_a_rested_way_is_tried_once_more_and_taken_back_in_silence() -> None:
    a, b = Scripted("a", refused(), None), Scripted("b", None, refused())
    scene = Scene(a, b)
    await scene.pool.dial(TARGET)
    scene.ahead += 1.0  # a has rested, but b is healthy and comes first; it fails, and a carries
    assert await scene.pool.dial(TARGET) is a.opened[0]
    assert scene.breakers == [("a", "open"), ("b", "open"), ("a", "half-open"), ("a", "closed")]
    assert scene.failovers == [("a", "b", "tcp.refused"), ("b", "a", "tcp.refused")]


async def test_a_return_to_the_preferred_way_is_no_failover() -> None:
    a, b = Scripted("a", no_such_target(), None), Scripted("b")
    scene = Scene(a, b)
    await scene.pool.dial(TARGET)
    await scene.pool.dial(TARGET)
    assert (a.dials, b.dials) == (2, 1)
    assert scene.failovers == [("a", "b", "dns.not-found")]


async def test_the_target_s_fault_opens_no_breaker_and_another_way_is_tried() -> None:
    a, b = Scripted("a", no_such_target()), Scripted("b", no_such_target())
    scene = Scene(a, b, worked="ab")
    with pytest.raises(NoWayOut) as caught:
        await scene.pool.dial(TARGET)
    assert [name for name, _ in caught.value.failures] == ["a", "b"]
    assert (caught.value.blame, caught.value.finding) == (Blame.TARGET, "dns.not-found")
    assert scene.breakers == []
    assert not scene.pool.all_down
    assert (a.dials, b.dials) == (1, 1)


async def test_policy_and_credentials_are_charged_as_they_should() -> None:
    policy = DialError("ssh.forwarding-denied", "forbidden", blame=Blame.POLICY)
    key = DialError("ssh.auth-failed", "refused", blame=Blame.CREDENTIALS, retry_after=60.0)
    scene = Scene(Scripted("a", policy), Scripted("b", key))
    with pytest.raises(NoWayOut):
        await scene.pool.dial(TARGET)
    assert scene.breakers == [("b", "open")]
    assert scene.pool.all_down
    assert scene.ways[1].breaker.rests_until() >= scene.clock() + 50


async def test_all_down_tells_the_reason_of_each_those_that_rest_too() -> None:
    scene = Scene(Scripted("a", refused()), Scripted("b", DialError("hop.closed", "gone", blame=Blame.HOP)))
    for _ in range(2):
        with pytest.raises(NoWayOut) as caught:
            await scene.pool.dial(TARGET)
        assert "a: tcp.refused: the hop refused" in str(caught.value)
        assert "b: hop.closed: gone" in str(caught.value)
    assert scene.pool.all_down
    assert {name for name, _ in scene.pool.failures()} == {"a", "b"}


async def test_a_way_that_never_worked_is_not_waited_for() -> None:
    a = Scripted("a", refused())
    scene = Scene(a)
    async with asyncio.timeout(3):
        for _ in range(3):
            with pytest.raises(NoWayOut):
                await scene.pool.dial(TARGET)
    assert a.dials == 1  # it rests


async def test_one_that_failed_as_of_a_moment_is_tried_again_at_once() -> None:
    """sshd drops a connection for its MaxStartups, or is being restarted: no word on the way itself."""
    dropped = DialError("hop.closed", "closed the connection during the SSH handshake", blame=Blame.HOP)
    a, b = Scripted("a", dropped, None), Scripted("b", refused(), refused())
    scene = Scene(a, b)
    async with asyncio.timeout(3):
        assert await scene.pool.dial(TARGET) is a.opened[0]


async def test_but_not_for_long() -> None:
    dropped = DialError("hop.closed", "closed the connection during the SSH handshake", blame=Blame.HOP)
    a = Scripted("a", *[dropped] * 20)
    scene = Scene(a)
    async with asyncio.timeout(6):
        with pytest.raises(NoWayOut):
            await scene.pool.dial(TARGET)
    assert 2 <= a.dials <= 6


async def test_a_way_that_has_worked_is_waited_for() -> None:
    a = Scripted("a", refused(), refused(), None)
    scene = Scene(a, worked="a")
    async with asyncio.timeout(10):
        assert await scene.pool.dial(TARGET) is a.opened[0]
    assert a.dials == 3
    assert scene.breakers[-1] == ("a", "closed")


async def test_a_black_hole_costs_about_the_hedge_delay_and_its_late_stream_is_closed() -> None:
    hole = Silence()
    a, b = Scripted("a", hole), Scripted("b")
    scene = Scene(a, b, hedge=0.05)
    async with asyncio.timeout(3):
        assert await scene.pool.dial(TARGET) is b.opened[0]
    assert scene.failovers == [("a", "b", "hop.stalled")]
    hole.speak.set_result(None)  # it goes on to its end, since sshd counts abandoned handshakes
    await asyncio.sleep(0.05)
    assert hole.cancelled == 0
    assert a.opened[0].aborted
    assert not b.opened[0].aborted


async def test_of_two_that_answer_at_once_one_is_kept_and_the_other_closed() -> None:
    one, two = Silence(), Silence()
    a, b = Scripted("a", one), Scripted("b", two)
    scene = Scene(a, b, hedge=0.01)
    dial = scene.tasks.spawn("dial", scene.pool.dial(TARGET))
    await two.asked.wait()
    one.speak.set_result(None)
    two.speak.set_result(None)
    kept = await dial
    await asyncio.sleep(0.01)
    assert {a.opened[0].aborted, b.opened[0].aborted} == {True, False}
    assert isinstance(kept, Ends)
    assert not kept.aborted


@pytest.mark.parametrize(
    ("worked", "breakers"),
    [("", [("a", "open")]), ("a", [])],
    ids=["it never worked", "it may only have met a slow target"],
)
async def test_at_most_two_at_once_and_the_older_makes_room_for_a_third(
    monkeypatch: pytest.MonkeyPatch, worked: str, breakers: list[tuple[str, str]]
) -> None:
    monkeypatch.setattr(pool_module, "STUCK", 1.0)
    one, two = Silence(), Silence()
    a, b, c = Scripted("a", one), Scripted("b", two), Scripted("c")
    scene = Scene(a, b, c, hedge=0.01, worked=worked)
    dial = scene.tasks.spawn("dial", scene.pool.dial(TARGET))
    await two.asked.wait()
    await asyncio.sleep(0.05)
    assert c.dials == 0
    async with asyncio.timeout(5):
        assert await dial is c.opened[0]
    await asyncio.sleep(0)
    assert (one.cancelled, two.cancelled) == (1, 0)
    assert scene.breakers == breakers
    two.speak.set_result(None)
    await scene.pool.close()


async def test_the_deadline_ends_a_dial_that_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "DEADLINE", 0.2)
    hole, slow = Silence(), Silence()
    scene = Scene(Scripted("a", hole), Scripted("b", slow), hedge=0.01, worked="b")
    with pytest.raises(NoWayOut) as caught:
        await scene.pool.dial(TARGET)
    assert [(name, error.finding) for name, error in caught.value.failures] == [
        ("a", "hop.stalled"),
        ("b", "hop.stalled"),
    ]
    assert scene.breakers == [("a", "open")]  # b has worked; it may only have met a slow target
    assert (hole.cancelled, slow.cancelled) == (0, 0)
    await scene.pool.close()


async def test_a_way_that_dies_meanwhile_is_passed_over() -> None:
    slow = Silence()
    a, b, c = Scripted("a", slow), Scripted("b"), Scripted("c")
    scene = Scene(a, b, c)
    dial = scene.tasks.spawn("dial", scene.pool.dial(TARGET))
    await slow.asked.wait()
    scene.pool.lost("b", DialError("hop.closed", "gone", blame=Blame.HOP))
    slow.speak.set_result(refused())
    assert await dial is c.opened[0]
    assert b.dials == 0


async def test_a_cancelled_dial_leaves_nothing_behind() -> None:
    one, two = Silence(), Silence()
    a, b = Scripted("a", one), Scripted("b", two)
    scene = Scene(a, b, hedge=0.01)
    dial = scene.tasks.spawn("dial", scene.pool.dial(TARGET))
    await two.asked.wait()
    dial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await dial
    one.speak.set_result(None)
    two.speak.set_result(refused())
    await asyncio.sleep(0.01)
    assert a.opened[0].aborted
    await scene.pool.close()
    assert len(scene.pool._tasks) == 0
    assert scene.failovers == []


async def test_closing_the_pool_ends_dials_that_hang() -> None:
    hole = Silence()
    scene = Scene(Scripted("a", hole), Scripted("b"), hedge=0.01)
    await scene.pool.dial(TARGET)
    await scene.pool.close()
    assert hole.cancelled == 1


async def test_a_bug_in_a_dialer_is_no_verdict_and_is_not_hidden() -> None:
    class Broken(Scripted):
        async def dial(self, target: HostPort) -> Stream:
            raise KeyError("bug")

    scene = Scene(Broken("a"))
    scene.ways[0].breaker.failure(scene.clock() - 10)
    with pytest.raises(KeyError):
        await scene.pool.dial(TARGET)
    assert scene.ways[0].breaker.state is State.HALF_OPEN
    assert scene.ways[0].breaker.usable(scene.clock())  # not on trial for ever


async def test_put_last_goes_behind_the_others() -> None:
    a, b = Scripted("a"), Scripted("b")
    scene = Scene(a, b)
    await scene.pool.dial(TARGET)
    assert scene.pool.blame() == "a"
    assert await scene.pool.dial(TARGET) is b.opened[0]
    assert scene.pool.blame() == "b"
    assert await scene.pool.dial(TARGET) is a.opened[1]
    assert Scene(Scripted("alone")).pool.blame() is None


async def test_blamed_is_the_way_that_broke_not_the_one_that_took_over() -> None:
    a, b = Scripted("a"), Scripted("b")
    scene = Scene(a, b)
    await scene.pool.dial(TARGET)
    scene.pool.lost("a", refused())
    assert await scene.pool.dial(TARGET) is b.opened[0]
    assert scene.pool.blame() == "a"
    assert scene.pool.blame() == "b"  # nothing broke since


async def test_round_robin_takes_turns_without_calling_it_failover() -> None:
    a, b = Scripted("a"), Scripted("b")
    scene = Scene(a, b, strategy="round-robin")
    for _ in range(6):
        await scene.pool.dial(TARGET)
    assert (a.dials, b.dials) == (3, 3)
    assert scene.failovers == []


async def test_warm_opens_all_and_a_dead_one_opens_its_breaker() -> None:
    a, b = Scripted("a"), Scripted("b")
    a.warm_error = refused()
    scene = Scene(a, b)
    await scene.pool.warm()
    assert await scene.pool.dial(TARGET) is b.opened[0]
    assert a.dials == 0
    assert scene.failovers == [("a", "b", "tcp.refused")]
    b.warm_error = refused()
    await scene.pool.warm()
    assert scene.pool.all_down


@pytest.mark.parametrize("answer", [None, no_such_target], ids=["it carries", "it works, the target doesn't"])
async def test_wait_usable_wants_a_dial_that_shows_it(answer: Callable[[], DialError] | None) -> None:
    a = Scripted("a", refused(), refused(), None if answer is None else answer())
    scene = Scene(a)
    with pytest.raises(NoWayOut):
        await scene.pool.dial(TARGET)
    async with asyncio.timeout(10):
        await scene.pool.wait_usable(TARGET)
    assert a.dials == 3
    assert not scene.pool.all_down
    assert all(stream.aborted for stream in a.opened)


async def test_a_pool_wants_a_way_out() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Pool([], emit=lambda event: None)


async def test_many_dials_when_a_rest_is_over_are_one_trial_and_one_failure() -> None:
    dead, sound = Scripted("dead", refused()), Scripted("sound")
    scene = Scene(dead, sound, worked=["dead", "sound"])
    await scene.pool.dial(TARGET)
    rests = scene.ways[0].breaker.rests_until() - scene.clock()
    scene.ahead += rests + 0.01
    scene.ways[1].breaker.failure(scene.clock())  # so that all of them want the dead one
    await asyncio.gather(*(scene.pool.dial(TARGET) for _ in range(20)))
    told = [e.state for e in scene.events if isinstance(e, BreakerChange) and e.upstream == "dead"]
    assert told.count("half-open") == dead.dials - 1 <= 3
    assert scene.ways[0].breaker.rests_until() - scene.clock() < 4.0
