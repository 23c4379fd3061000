"""Somebody who can be asked: one question at a time, and a clock that stands still meanwhile.

Rules:
- A person is slow: no time limit of ours runs while a question is open.  Limits that a question may fall
  into are kept by `clock` (`tasks.time_limit`).
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Ask(Protocol):
    """Asks a person.  None: nobody there, or nobody who would answer.  `echo`: what is typed may be seen."""

    async def __call__(self, prompt: str, *, echo: bool = False) -> str | None: ...


class Asking:
    """All questions of one engine."""

    def __init__(self, ask: Ask | None) -> None:
        self._ask = ask
        self._turn = asyncio.Lock()
        self._open = 0  # questions, those that wait for their turn too
        self._since = 0.0
        self._stood = 0.0  # seconds

    @property
    def possible(self) -> bool:
        """Is there somebody to ask?"""
        return self._ask is not None

    @property
    def busy(self) -> bool:
        """Is somebody being asked?"""
        return self._open > 0

    def clock(self) -> float:
        """Seconds of a monotonic clock that stands still while somebody is being asked."""
        return (self._since if self._open else time.monotonic()) - self._stood

    async def __call__(self, prompt: str, *, echo: bool = False) -> str | None:
        if self._ask is None:
            return None
        if not self._open:
            self._since = time.monotonic()
        self._open += 1
        try:
            async with self._turn:
                return await self._ask(prompt, echo=echo)
        finally:
            self._open -= 1
            if not self._open:
                self._stood += time.monotonic() - self._since


NOBODY = Asking(None)
