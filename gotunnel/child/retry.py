"""CMD, repeated when only the network failed.

Rules:
- Whether a repeat may mend a failure is `classify`'s to say.  Here is when: at most `retries` times, with
  backoff, with the way out that was to blame put last, and never while every way out is down.
- One line says why it is repeated.
- A signal that ends the run ends it before CMD is started (again), too: 128+N.
- Every way out down: one line for each and status 69, but only if CMD had asked for the network, and if there
  is nothing to go on with instead (a service has gone; what it did the run can do itself).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from gotunnel.address import HostPort, one_line
from gotunnel.child.classify import Output, Verdict, is_go_command
from gotunnel.child.run import Child, ChildResult
from gotunnel.child.signals import Signals
from gotunnel.errors import DialError, NoWayOut
from gotunnel.observe.events import Attempt, Emit
from gotunnel.tasks import Backoff, Tasks

NO_WAY_OUT = 69
TIMED_OUT = 124


class Health(Protocol):
    """What is known of the ways out: a Pool, or what a service says of its own."""

    @property
    def patience(self) -> float:
        """Seconds, between two attempts, for a way out to come back."""

    @property
    def all_down(self) -> bool:
        """True when the last word of every way out was a failure of its own."""

    def failures(self) -> list[tuple[str, DialError]]:
        """(name, error) of each way out whose last dial failed."""

    def blame(self) -> str | None:
        """Put the way out that a run failed on behind the others; its name."""

    async def wait_usable(self, target: HostPort) -> None:
        """Until a way out works again."""

    async def refresh(self) -> HostPort | None:
        """Learn how things stand now; the target that no way out reached, where that isn't told otherwise."""


Instead = Callable[[], Awaitable["tuple[Mapping[str, str], Health] | None"]]  # CMD's environment, ways out


class Runner:
    """Runs CMD as often as it takes.

    `retries` is the most repeats; `any_command` allows them for commands other than go (the user gave
    --retries).  `backoff` is the first and last delay in seconds.  `note` hears what is no error, in place
    of `tell`.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        signals: Signals,
        emit: Emit,
        tell: Callable[[str], None],
        note: Callable[[str], None] | None = None,
        retries: int = 3,
        any_command: bool = False,
        backoff: tuple[float, float] = (0.5, 10.0),
        wipe: Callable[[], bytes] = bytes,
    ) -> None:
        self._argv = list(argv)
        self._signals = signals
        self._emit = emit
        self._tell = tell
        self._note = note or tell
        self._wipe = wipe
        self._any_command = any_command
        self._retries = retries
        self._backoff = Backoff(*backoff)
        self._no_way: HostPort | None = None  # what was asked for, every way out in vain
        self.attempts = 0
        self.wants_mirror = False
        self.gave_up: tuple[str, str] | None = None  # (finding, detail)

    def failed(self, target: HostPort, error: DialError) -> None:
        """The listener could not reach a target for CMD."""
        if isinstance(error, NoWayOut):
            self._no_way = target

    async def run(
        self,
        env: Mapping[str, str],
        pool: Health,
        *,
        timeout: float | None = None,
        instead: Instead | None = None,
    ) -> int:
        """CMD's status, or 69, 124, 128+N.  Raises CommandError if CMD can't be started."""
        deadline = None if timeout is None else time.monotonic() + timeout
        retries = self._retries
        last: int | None = None  # the repeat that was allowed when `once` was first said
        while True:
            if self._signals.interrupted is not None:
                return 128 + self._signals.interrupted
            self.attempts += 1
            self._no_way = None
            output = Output() if self._reads_output else None
            result = await self._once(env, output, deadline)
            if result is None:
                return self._timed_out(timeout, f"{self._argv[0]} was ended")
            self._no_way = await pool.refresh() or self._no_way
            if output is None:
                verdict = Verdict(None, "", False, "")
            else:
                verdict = output.verdict(self._argv, result.status, allow_any=self._any_command)
            self._emit(
                Attempt(self.attempts, self._argv[0], result.status, verdict.finding, verdict.detail or None)
            )
            if verdict.once:
                retries = min(retries, self.attempts if last is None else last)
                last = retries
            if self._signals.interrupted is not None or not verdict.retry or self.attempts > retries:
                return self._status(result, verdict, pool)
            way_back = await self._way_back(pool, deadline)
            if self._signals.interrupted is not None:
                continue
            if not way_back:
                other = await instead() if instead is not None else None
                if other is None:
                    return self._status(result, verdict, pool)
                env, pool = other
            await self._prepare(verdict, pool, retries, deadline)
            if deadline is not None and time.monotonic() >= deadline:
                return self._timed_out(timeout, "no repeat is begun")

    def _timed_out(self, timeout: float | None, what: str) -> int:
        self._tell(f"the --timeout of {timeout:g} s has passed; {what}")
        return TIMED_OUT

    @property
    def _reads_output(self) -> bool:
        """A command that isn't go keeps its terminal on standard error, unless it is to be repeated."""
        return is_go_command(self._argv) or (self._any_command and self._retries > 0)

    async def _once(
        self, env: Mapping[str, str], output: Output | None, deadline: float | None
    ) -> ChildResult | None:
        """One run of CMD; None if the deadline ended it."""
        async with Child(
            self._argv,
            env=env,
            signals=self._signals,
            on_stderr=output.feed if output else None,
            wipe=self._wipe,
        ) as child:
            expired = False

            def expire() -> None:
                nonlocal expired
                expired = True
                child.terminate()

            timer = None
            if deadline is not None:
                left = max(0.0, deadline - time.monotonic())
                timer = asyncio.get_running_loop().call_later(left, expire)
            result = await child.wait()
            if timer is not None:
                timer.cancel()
        if result.note:
            self._tell(result.note)
        return None if expired else result

    async def _way_back(self, pool: Health, deadline: float | None) -> bool:
        """Is there a way out to repeat CMD by?  Waits a little for one to come back."""
        if self._no_way is None or not pool.all_down:
            return True
        limit = pool.patience
        if deadline is not None:
            limit = min(limit, deadline - time.monotonic())
        tasks = Tasks("way back")
        back = tasks.spawn("wait", pool.wait_usable(self._no_way))
        interrupted = tasks.spawn("signal", self._signals.wait())
        await asyncio.wait({back, interrupted}, timeout=max(0.0, limit), return_when=asyncio.FIRST_COMPLETED)
        worked = back.done()
        await tasks.close()
        return worked

    async def _prepare(self, verdict: Verdict, pool: Health, retries: int, deadline: float | None) -> None:
        blamed = pool.blame()
        pause = self._backoff.delay()
        if deadline is not None:
            pause = min(pause, max(0.0, deadline - time.monotonic()))
        way = f", {blamed} put last" if blamed else ""
        detail = one_line(verdict.detail, 90)
        self._note(f"repeating the command ({self.attempts} of {retries}{way}): {verdict.finding}: {detail}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._signals.wait()

    def _status(self, result: ChildResult, verdict: Verdict, pool: Health) -> int:
        if verdict.finding not in (None, "unknown", "build.failed") and result.status != 0:
            self.gave_up = (str(verdict.finding), verdict.detail)
        if result.status == 0 or result.signal is not None or self._signals.interrupted is not None:
            return result.status
        if self._no_way is not None and pool.all_down:
            self.gave_up = self.gave_up or (verdict.finding or "unknown", "no way out works")
            self._tell("no way out works:")
            for name, error in pool.failures():
                self._tell(f"{name.removesuffix(':')}: {error.finding}: {error.detail}")
            return NO_WAY_OUT
        self.wants_mirror = verdict.retry
        if verdict.retry:
            count = self.attempts
            times = "once" if count == 1 else f"{count} times"
            self._tell(f"{verdict.finding}: {verdict.detail}; tried {times}")
        return result.status
