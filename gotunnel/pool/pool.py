"""The pool: tries candidates until one reaches the target; whoever holds it never sees the failures.

Rules:
- Order, breaker and hedge decide (pure); this file does the I/O and feeds them.
- At most two dials at once for one target; the loser is closed when it arrives.
- Only the hop's own faults open its breaker; a target that refuses is tried by another way, and if all ways
  say so, the target is to blame.
- There is no way out but the listed ones: when none is usable the dial fails, it never goes direct.
- While a person is asked for a login, no time limit runs.
- A way out that has worked before is waited for (PATIENCE); one that never did is not.  While none is usable
  those that have worked are tried again sooner than they rest else.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Sequence

from gotunnel.address import HostPort
from gotunnel.errors import Blame, DialError, NoWayOut
from gotunnel.observe.events import BreakerChange, Dial, Emit, Failover
from gotunnel.pool.breaker import Breaker, State
from gotunnel.pool.hedge import DialTimes, delay
from gotunnel.pool.order import Candidate, order
from gotunnel.tasks import Tasks, time_limit
from gotunnel.upstream.asking import NOBODY, Asking
from gotunnel.upstream.dialer import Dialer, Stream

PATIENCE = 8.0  # seconds that a dial waits for a way out that has worked before
BRIEFLY = 2.5  # seconds for one that hasn't, but failed as of a moment only
_MOMENT = {"hop.closed", "tcp.reset", "ssh.handshake"}  # a restart, MaxStartups, a damaged packet
DEADLINE = 11.0  # seconds for one dial in all; a run without a way out ends within 15
STUCK = 4.0  # seconds after which the older of two pending dials makes room for a third


class Upstream:
    """A configured way out and what is known of it."""

    def __init__(self, name: str, dialer: Dialer, tags: Sequence[str] = ()) -> None:
        self.name = name
        self.dialer = dialer
        self.tags = tuple(tags)
        self.breaker = Breaker(jitter=lambda: random.uniform(0.75, 1.25))  # noqa: S311 - no secret
        self.times = DialTimes()
        self.put_last = 0
        self.has_worked = False
        self.carried_at = 0.0  # when bytes were last seen to come this way, by the pool's clock
        self._opened: deque[tuple[Stream, int]] = deque(maxlen=16)  # recent, with the bytes read when opened
        self.last_error: DialError | None = None  # of the last dial, None after a success

    def opened(self, stream: Stream) -> None:
        """A dial has succeeded; what comes by `stream` is what shows life, since an sshd may accept a
        channel and carry nothing."""
        self._opened.append((stream, stream.received))

    def look(self, now: float) -> None:
        """Has any recent stream brought something since the last look?"""
        for index, (stream, before) in enumerate(self._opened):
            if stream.received > before:
                self._opened[index] = (stream, stream.received)
                self.carried_at = now

    @property
    def may_return(self) -> bool:
        """True if it is worth waiting for."""
        return self.has_worked or (self.last_error is not None and self.last_error.finding in _MOMENT)

    @property
    def is_down(self) -> bool:
        """True if the last thing known of it is its own fault or refusal."""
        error = self.last_error
        return error is not None and (error.charges_hop or error.blame is Blame.POLICY)


class Pool:
    """Several ways out as one dialer."""

    def __init__(
        self,
        upstreams: Sequence[Upstream],
        *,
        emit: Emit,
        strategy: str = "ordered",
        hedge: float | str | None = "auto",
        clock: Callable[[], float] = time.monotonic,
        asking: Asking = NOBODY,
    ) -> None:
        if not upstreams:
            raise ValueError("a pool wants at least one way out")
        self.upstreams = tuple(upstreams)
        self._emit = emit
        self._strategy = strategy
        self._hedge = hedge
        self._clock = clock
        self._asking = asking
        self._turn = 0
        self._blamed = 0
        self._current: Upstream | None = None
        self._broken: Upstream | None = None  # whose established hop broke last
        self._tasks = Tasks("pool")
        self._changed = asyncio.Event()

    @property
    def label(self) -> str:
        return "pool"

    patience = 2.0  # seconds that a run waits for a way out to come back, between two attempts

    @property
    def all_down(self) -> bool:
        """True when the last word of every way out was a failure of its own."""
        return all(u.is_down for u in self.upstreams)

    def put_last(self, name: str) -> None:
        """Try this way out after all others from now on (it was to blame for a failed run)."""
        for upstream in self.upstreams:
            if upstream.name == name:
                self._blamed += 1
                upstream.put_last = self._blamed

    def blame(self) -> str | None:
        """Put the way out that a run failed on behind all others; its name, if there is another.

        That is the one whose hop broke meanwhile, else the one that carried last.
        """
        culprit, self._broken = self._broken or self._current, None
        if culprit is None or len(self.upstreams) < 2:
            return None
        self.put_last(culprit.name)
        return culprit.name

    async def wait_usable(self, target: HostPort) -> None:
        """Wait, without an end, until a way out works again: it reaches `target`, or its own hops work.

        Only a dial tells: a proxy has nothing that could be opened before.
        """
        while True:
            pause = max(0.05, min(u.breaker.rests_until() for u in self.upstreams) - self._clock())
            await asyncio.sleep(pause)
            stream = await self._race(self._candidates(), target, [], [])
            if stream is not None:
                stream.abort()
            if not self.all_down:
                return

    async def refresh(self) -> HostPort | None:
        """Nothing to learn: what happens is seen here."""
        return None

    def failures(self) -> list[tuple[str, DialError]]:
        """(name, error) of each way out whose last dial failed."""
        return [(u.name, u.last_error) for u in self.upstreams if u.last_error is not None]

    async def warm(self) -> None:
        """Open all ways out at once; returns when one is open, or all have failed (never raises)."""
        tasks = [self._tasks.spawn(f"warm {u.name}", self._warm(u)) for u in self.upstreams]
        for done in asyncio.as_completed(tasks):
            if await done:
                return

    async def _warm(self, upstream: Upstream) -> bool:
        try:
            await upstream.dialer.warm()
        except DialError as error:
            self.report(upstream, error)
            return False
        return True

    async def close(self) -> None:
        await self._tasks.close()

    def lost(self, name: str, error: DialError) -> None:
        """An established hop of this way out broke."""
        for upstream in self.upstreams:
            if upstream.name == name:
                self._broken = upstream
                self.report(upstream, error)

    # --- dialling ----------------------------------------------------------------------------

    async def dial(self, target: HostPort) -> Stream:
        return await self.dial_by(target)

    async def dial_by(
        self, target: HostPort, *, only: str = "", avoid: frozenset[str] = frozenset()
    ) -> Stream:
        started = self._clock()
        failures: list[tuple[str, DialError]] = []
        pending: list[Upstream] = []

        def wanted() -> list[Upstream]:
            self._turn += 1
            candidates = [u for u in self._candidates() if only in ("", u.name)]
            return sorted(candidates, key=lambda u: u.name in avoid)

        try:
            async with time_limit(DEADLINE, self._asking.clock):
                while True:
                    stream = await self._race(wanted(), target, failures, pending)
                    if stream is not None:
                        return stream
                    if only or not await self._wait_for_one(started, failures):
                        break
        except TimeoutError:
            failures += [self._hangs(upstream) for upstream in pending]
        resting = [
            (name, error)
            for name, error in self.failures()
            if name not in dict(failures) and only in ("", name)
        ]
        raise NoWayOut(str(target), [*_last_each(failures), *resting])

    def ways(self, target: HostPort) -> tuple[str, ...]:
        return tuple(u.name for u in self._candidates())

    def stalled(self, target: HostPort, name: str) -> None:
        if len(self.upstreams) > 1:
            self.put_last(name)

    def _candidates(self) -> list[Upstream]:
        snapshot = [
            Candidate(i, u.breaker.state is State.CLOSED, self._usable(u), u.put_last, u.times.median())
            for i, u in enumerate(self.upstreams)
        ]
        return [self.upstreams[i] for i in order(snapshot, self._strategy, self._turn)]

    def _usable(self, upstream: Upstream) -> bool:
        """May a dial go this way now?"""
        now = self._clock()
        if upstream.breaker.usable(now):
            return True
        urgent = upstream.may_return and not any(u.breaker.usable(now) for u in self.upstreams)
        return urgent and upstream.breaker.usable(now, urgent=True)

    async def _wait_for_one(self, started: float, failures: list[tuple[str, DialError]]) -> bool:
        """Wait until a way out may be tried again; False if that is not worth it."""
        if failures and not any(error.charges_hop for _, error in failures):
            return False  # the ways work; the target doesn't
        returning = [u for u in self.upstreams if u.may_return and u.breaker.state is not State.CLOSED]
        left = started - self._clock() + (PATIENCE if any(u.has_worked for u in returning) else BRIEFLY)
        if not returning or left <= 0:
            return False
        rested = min(u.breaker.rests_until(urgent=True) for u in returning)
        pause = min(max(rested - self._clock(), 0.05), left + 0.05)
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._changed.wait()
        return True

    async def _race(
        self,
        candidates: Sequence[Upstream],
        target: HostPort,
        failures: list[tuple[str, DialError]],
        pending: list[Upstream],
    ) -> Stream | None:
        """Dial by the candidates in order, two at once at most; None when all have failed.

        Adds to `failures` what failed and, if it is cancelled, to `pending` whose dials had no answer yet.
        """
        queue = deque(candidates)
        tried: list[Upstream] = []
        running: dict[asyncio.Task[Stream], Upstream] = {}
        go_on = True
        try:
            while queue or running:
                # meanwhile another dial may have found it dead
                while queue and not self._usable(queue[0]):
                    queue.popleft()
                if not queue and not running:
                    break
                if queue and go_on:
                    if len(running) == 2:
                        older, upstream = next(iter(running.items()))
                        del running[older]
                        older.cancel()
                        _close_late(older)
                        failures.append(self._hangs(upstream))
                    tried.append(queue.popleft())
                    # at once, not when the task runs: a trial is for one dial
                    job = self._try(tried[-1], target, self._begin(tried[-1]))
                    running[self._tasks.spawn(f"dial {target}", job)] = tried[-1]
                done, _ = await asyncio.wait(
                    set(running),
                    timeout=self._pause(tried[-1], len(running)) if queue else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                # a hedge is due, or a candidate has failed; who waits for a person makes no room for others
                go_on = bool(done) or len(running) < 2 or not self._asking.busy
                for task in done:
                    upstream = running.pop(task)
                    error = task.exception()
                    if error is None:
                        self._won(upstream, tried, target)
                        return task.result()
                    if not isinstance(error, DialError):
                        raise error
                    failures.append((upstream.name, error))
            return None
        except asyncio.CancelledError:
            pending += running.values()
            raise
        finally:
            for task in running:
                _close_late(task)

    def _pause(self, latest: Upstream, running: int) -> float | None:
        """Seconds until the next candidate is started beside (or instead of) those that run."""
        pause = delay(latest.times, self._hedge)
        return STUCK if running == 2 or pause is None else pause

    def _hangs(self, upstream: Upstream) -> tuple[str, DialError]:
        """(name, error) of a way out whose dial has had no answer for too long."""
        words = f"{upstream.name}: no answer yet"
        error = DialError("hop.stalled", words, blame=Blame.HOP, hop=upstream.name)
        if not upstream.has_worked:  # one that has may only have met a slow target
            self.report(upstream, error)
        return upstream.name, error

    async def try_one(self, upstream: Upstream, target: HostPort) -> Stream:
        """A probe's dial by one way out.  Its failure is a verdict; its success is none yet: see `settle`."""
        return await self._try(upstream, target, self._begin(upstream), settle=False)

    def settle(self, upstream: Upstream, stream: Stream | None = None) -> None:
        """A way out has opened `stream`, or (None) has carried something."""
        upstream.last_error = None
        upstream.has_worked = True
        if stream is None:
            upstream.carried_at = self._clock()
        else:
            upstream.opened(stream)
        self._carried(upstream)

    def _begin(self, upstream: Upstream) -> float:
        """A dial goes this way from now on, the time that is returned."""
        now = self._clock()
        if upstream.breaker.trial(now):
            self._emit(BreakerChange(upstream.name, State.HALF_OPEN.value))
        return now

    async def _try(
        self, upstream: Upstream, target: HostPort, started: float, *, settle: bool = True
    ) -> Stream:
        try:
            stream = await upstream.dialer.dial(target)
        except DialError as error:
            ms = (self._clock() - started) * 1000
            self._emit(Dial(upstream.name, str(target), ms, False, error.finding, error.detail))
            self.report(upstream, error, began=started)
            raise
        except BaseException:
            upstream.breaker.no_verdict()
            raise
        seconds = self._clock() - started
        if upstream.has_worked:  # the first dial includes the handshake and says nothing of the next
            upstream.times.add(seconds)
        self._emit(Dial(upstream.name, str(target), seconds * 1000, True))
        stream.via = upstream.name
        if settle:
            self.settle(upstream, stream)
        return stream

    def _won(self, winner: Upstream, tried: Sequence[Upstream], target: HostPort) -> None:
        before, self._current = self._current, winner
        if before is winner:
            return
        passed = before or min(self.upstreams, key=lambda u: u.put_last)
        if passed is winner or (passed not in tried and not passed.is_down):
            return  # a return to the preferred one is no failover
        error = passed.last_error
        self._emit(
            Failover(
                passed.name,
                winner.name,
                str(target),
                error.finding if error else "hop.stalled",
                error.detail if error else "slow to answer; the next one was faster",
            )
        )

    # --- verdicts ----------------------------------------------------------------------------

    def report(self, upstream: Upstream, error: DialError, *, began: float | None = None) -> None:
        """A dial (begun then), a handshake or an established hop of `upstream` failed."""
        upstream.last_error = error
        if not error.charges_hop:
            self._carried(upstream)
            return
        if upstream.breaker.failure(self._clock(), began=began, retry_after=error.retry_after):
            self._emit(BreakerChange(upstream.name, State.OPEN.value, error.finding, error.detail))

    def _carried(self, upstream: Upstream) -> None:
        if upstream.breaker.success():
            self._emit(BreakerChange(upstream.name, State.CLOSED.value))
        self._changed.set()


def _last_each(failures: Sequence[tuple[str, DialError]]) -> list[tuple[str, DialError]]:
    return list({name: (name, error) for name, error in failures}.values())


def _close_late(task: asyncio.Task[Stream]) -> None:
    """A losing dial goes on to its end, since sshd counts abandoned handshakes; what it opens is closed."""

    def close(done: asyncio.Task[Stream]) -> None:
        if not done.cancelled() and done.exception() is None:
            done.result().abort()

    task.add_done_callback(close)
