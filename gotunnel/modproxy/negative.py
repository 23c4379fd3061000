"""What every source has just said isn't there: remembered briefly, in memory.

Rules:
- Only questions that name no version are kept: go asks for each prefix of an unknown import (`github.com`,
  `github.com/user`) again and again.  A file that failed is never remembered as missing.
- Bounded: the oldest go first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

V = TypeVar("V")


class Brief(Generic[V]):
    """Values by name for `seconds`, `most` of them."""

    def __init__(self, seconds: float, clock: Callable[[], float], most: int = 4096) -> None:
        self._seconds, self._clock, self._most = seconds, clock, most
        self._kept: dict[str, tuple[float, V]] = {}

    def add(self, name: str, value: V) -> None:
        """Keep it from now on."""
        self._kept.pop(name, None)
        self._kept[name] = (self._clock() + self._seconds, value)
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]

    def get(self, name: str) -> V | None:
        """The value, unless its time is over."""
        found = self._kept.get(name)
        if found is None:
            return None
        if found[0] <= self._clock():
            del self._kept[name]
            return None
        return found[1]

    def drop(self, name: str) -> None:
        """Forget it."""
        self._kept.pop(name, None)
