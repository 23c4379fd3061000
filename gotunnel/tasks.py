"""Owned tasks and backoff.

Rules:
- No bare `create_task`: an owner (`Tasks`) names each task, keeps it, hears of its failure and ends it.
- Backoff is pure: it gives delays, the caller sleeps; randomness is injected.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
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


class Backoff:
    """Delays in seconds that double from `first` to `last`, each jittered to 50–100 % of its value."""

    def __init__(self, first: float, last: float, rng: random.Random | None = None) -> None:
        if not 0 < first <= last:
            raise ValueError("want 0 < first <= last")
        self._first, self._last = first, last
        self._next = first
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not cryptography

    def delay(self) -> float:
        """The next delay."""
        value = self._next
        self._next = min(self._last, value * 2)
        return value * (0.5 + self._rng.random() / 2)

    def reset(self) -> None:
        """Start from `first` again, after a success."""
        self._next = self._first
