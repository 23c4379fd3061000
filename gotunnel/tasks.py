"""Owned tasks, blocking calls, time limits and backoff.

Rules:
- No bare `create_task`: an owner (`Tasks`) names each task, keeps it, hears of its failure and ends it.
- What blocks runs in a daemon thread (`in_thread`): asyncio's own executor is joined at exit.  No job waits
  for another.  A thread that has nothing to do lingers: to start one costs more than most jobs do, and holds
  up the loop until it runs.
- Backoff is pure: it gives delays, the caller sleeps; randomness is injected.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
_Jobs = SimpleQueue[tuple[str, Callable[[], Callable[[], object]]]]  # a job gives what tells its end
_LINGER = 1.0  # seconds
_RNG = random.Random()  # noqa: S311 - jitter, not cryptography; seeding one costs more than the rest of a Backoff
_idle: list[_Jobs] = []  # of the threads that wait for a job
_log = logging.getLogger("gotunnel.tasks")


class Tasks:
    """The tasks of one object; `close` cancels what still runs and waits for it."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, name: str, job: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start `job` as a task that this owner keeps; an error nobody awaits is logged."""
        task = asyncio.get_running_loop().create_task(job, name=f"{self._owner}:{name}")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.debug("%s ended: %r", task.get_name(), error)

    def __len__(self) -> int:
        return len(self._running)

    async def close(self) -> None:
        """Cancel all and wait until each has ended, those that are started meanwhile too."""
        while running := [task for task in self._running if task is not asyncio.current_task()]:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            self._running.difference_update(running)  # their callbacks come only in the loop's next turn


async def in_thread(name: str, job: Callable[[], T]) -> T:
    """`job()` in a thread that holds up neither a cancel nor the end of the process.

    Raises what `job` raises, and RuntimeError where no thread is to be had.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(act: Callable[[], None]) -> None:
        if not answer.done():
            act()

    def work() -> Callable[[], object]:
        try:
            result = job()
        except Exception as error:
            failure = error
            act = lambda: answer.set_exception(failure)  # noqa: E731
        else:
            act = lambda: answer.set_result(result)  # noqa: E731
        return lambda: loop.call_soon_threadsafe(tell, act)

    try:
        jobs = _idle.pop()
    except IndexError:
        jobs = SimpleQueue()
        threading.Thread(target=_work, args=(jobs,), name=name, daemon=True).start()
    jobs.put((name, work))
    return await answer


def _work(jobs: _Jobs) -> None:
    """A thread of `in_thread`."""
    thread = threading.current_thread()
    while True:
        try:
            name, job = jobs.get(timeout=_LINGER)
        except Empty:
            try:
                _idle.remove(jobs)
            except ValueError:  # somebody has taken it just now, and brings a job
                continue
            return
        thread.name = name
        told = job()
        _idle.append(jobs)  # first, for whoever is told brings the next job
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody waits any more
            told()
        del job, told  # and what they hold


os.register_at_fork(after_in_child=_idle.clear)


@contextlib.asynccontextmanager
async def time_limit(seconds: float | None, clock: Callable[[], float]) -> AsyncIterator[None]:
    """`asyncio.timeout` by a clock of one's own, which may stand still.  Raises TimeoutError."""
    if seconds is None:
        yield
        return
    loop = asyncio.get_running_loop()
    end = clock() + seconds
    timer: asyncio.TimerHandle | None = None
    async with asyncio.timeout(None) as limit:

        def look() -> None:
            nonlocal timer
            left = end - clock()
            if left <= 0:
                limit.reschedule(loop.time())
            else:
                timer = loop.call_later(max(left, 0.05), look)

        timer = loop.call_later(seconds, look)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()


class Backoff:
    """Delays in seconds that double from `first` to `last`, each jittered to 50–100 % of its value."""

    def __init__(self, first: float, last: float, rng: random.Random | None = None) -> None:
        if not 0 < first <= last:
            raise ValueError("want 0 < first <= last")
        self._first, self._last = first, last
        self._next = first
        self._rng = rng or _RNG

    def delay(self) -> float:
        """The next delay."""
        value = self._next
        self._next = min(self._last, value * 2)
        return value * (0.5 + self._rng.random() / 2)

    def reset(self) -> None:
        """Start from `first` again, after a success."""
        self._next = self._first
