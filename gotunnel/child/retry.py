"""CMD, repeated when only the network failed.

Rules:
- Whether a repeat may mend a failure is `classify`'s to say.  Here is when: at most `retries` times, with
  backoff, with the way out that was to blame put last, and never while every way out is down.
- One line says why it is repeated.
- Every way out down: one line for each and status 69, but only if CMD had asked for the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

from gotunnel.address import HostPort
from gotunnel.child.classify import Output, Verdict, is_go_command
from gotunnel.child.run import Child, ChildResult
from gotunnel.child.signals import Signals
from gotunnel.errors import DialError, NoWayOut
from gotunnel.observe.events import Attempt, Emit
from gotunnel.pool.pool import Pool
from gotunnel.tasks import Backoff

NO_WAY_OUT = 69
TIMED_OUT = 124
WAIT_FOR_A_WAY = 2.0  # seconds, between two attempts, for a way out to come back


class Runner:
    """Runs CMD as often as it takes.

    `retries` is the most repeats; `any_command` allows them for commands other than go (the user gave
    --retries).  `backoff` is the first and last delay in seconds.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        signals: Signals,
        emit: Emit,
        tell: Callable[[str], None],
        retries: int = 3,
        any_command: bool = False,
        backoff: tuple[float, float] = (0.5, 10.0),
    ) -> None:
        self._argv = list(argv)
        self._signals = signals
        self._emit = emit
        self._tell = tell
        self._any_command = any_command
        self._retries = retries
        self._backoff = Backoff(*backoff)
        self._no_way = False  # did the current attempt ask for the network and find every way out down?
        self.attempts = 0
        self.wants_mirror = False

    def failed(self, target: HostPort, error: DialError) -> None:
        """The listener could not reach a target for CMD."""
        if isinstance(error, NoWayOut):
            self._no_way = True

    async def run(self, env: Mapping[str, str], pool: Pool, *, timeout: float | None = None) -> int:
        """CMD's status, or 69, 124, 128+N.  Raises CommandError if CMD can't be started."""
        deadline = None if timeout is None else time.monotonic() + timeout
        retries = self._retries
        while True:
            self.attempts += 1
            self._no_way = False
            output = Output() if self._reads_output else None
            result = await self._once(env, output, deadline)
            if result is None:
                self._tell(f"the --timeout of {timeout:g} s has passed; {self._argv[0]} was ended")
                return TIMED_OUT
            if output is None:
                verdict = Verdict(None, "", False, "")
            else:
                verdict = output.verdict(self._argv, result.status, allow_any=self._any_command)
            self._emit(
                Attempt(self.attempts, self._argv[0], result.status, verdict.finding, verdict.detail or None)
            )
            if verdict.once:
                retries = min(retries, 1)
            if self._signals.interrupted is not None or not verdict.retry or self.attempts > retries:
                return self._status(result, verdict, pool)
            if not await self._way_back(pool, deadline):
                return self._status(result, verdict, pool)
            await self._prepare(verdict, pool, retries, deadline)
            if self._signals.interrupted is not None:
                return 128 + self._signals.interrupted

    @property
    def _reads_output(self) -> bool:
        """A command that isn't go keeps its terminal on standard error, unless it is to be repeated."""
        return is_go_command(self._argv) or (self._any_command and self._retries > 0)

    async def _once(
        self, env: Mapping[str, str], output: Output | None, deadline: float | None
    ) -> ChildResult | None:
        """One run of CMD; None if the deadline ended it."""
        async with Child(
            self._argv, env=env, signals=self._signals, on_stderr=output.feed if output else None
        ) as child:
            if deadline is None:
                result = await child.wait()
            else:
                waiting = asyncio.ensure_future(child.wait())  # noqa: TID251 - awaited on each path below
                done, _ = await asyncio.wait({waiting}, timeout=max(0.0, deadline - time.monotonic()))
                if not done:
                    child.terminate()
                    await waiting
                    return None
                result = waiting.result()
        if result.note:
            self._tell(result.note)
        return result

    async def _way_back(self, pool: Pool, deadline: float | None) -> bool:
        """Is there a way out to repeat CMD by?  Waits a little for one to come back."""
        if not (self._no_way and pool.all_down):
            return True
        limit = WAIT_FOR_A_WAY if deadline is None else min(WAIT_FOR_A_WAY, deadline - time.monotonic())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, limit)):
                return await pool.wait_usable()
        return False

    async def _prepare(self, verdict: Verdict, pool: Pool, retries: int, deadline: float | None) -> None:
        blamed = pool.blame_current()
        pause = self._backoff.delay()
        if deadline is not None:
            pause = min(pause, max(0.0, deadline - time.monotonic()))
        way = f", by another way than {blamed} if one works" if blamed else ""
        self._tell(
            f"{verdict.finding}: {verdict.detail}; repeating the command ({self.attempts} of {retries}){way}"
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._signals.wait()

    def _status(self, result: ChildResult, verdict: Verdict, pool: Pool) -> int:
        if result.status == 0 or result.signal is not None or self._signals.interrupted is not None:
            return result.status
        if self._no_way and pool.all_down:
            self._tell("no way out works:")
            for name, error in pool.failures():
                self._tell(f"  {name}: {error.finding}: {error.detail}")
            return NO_WAY_OUT
        self.wants_mirror = verdict.retry
        if verdict.retry:
            count = self.attempts
            times = "once" if count == 1 else f"{count} times"
            self._tell(f"{verdict.finding}: {verdict.detail}; tried {times}")
        return result.status
