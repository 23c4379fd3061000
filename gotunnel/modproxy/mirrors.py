"""Which of several equal sources is asked first, and when the next is asked beside it.  Pure.

Rules:
- Measured is the time to the whole answer of small files only: a zip's depends on its size.
- A source that failed by transport comes after those that didn't, for REST seconds from its last failure;
  404 is an answer.  One that was never measured keeps its place behind the measured, unless those failed.
- The list's own order decides between what differs by less than a quarter: mirrors must not take turns, for
  the caches of a mirror and the connections to it are warm.
- The hedge comes after about 1.5 times the p95 of the source in use, from FLOOR to CEILING.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

from gotunnel.modproxy.fetch import Source

FLOOR = 0.3  # seconds
CEILING = 2.0
ZIP = 8.0  # a zip: its answer is waited for whole
REST = 30.0
FEW = 4
_SAMPLES = 32


class _Health:
    def __init__(self) -> None:
        self.times: deque[float] = deque(maxlen=_SAMPLES)
        self.failed_at: float | None = None

    def middle(self) -> float | None:
        return sorted(self.times)[len(self.times) // 2] if len(self.times) >= FEW else None

    def p95(self) -> float | None:
        if len(self.times) < FEW:
            return None
        return sorted(self.times)[math.ceil(len(self.times) * 0.95) - 1]


class Mirrors:
    """What was measured of each source; `hedge` is "auto", "off" or seconds, `clock` monotonic."""

    def __init__(self, clock: Callable[[], float], hedge: float | str = "auto") -> None:
        self._clock, self._hedge = clock, hedge
        self._health: dict[str, _Health] = {}

    def answered(self, source: Source, seconds: float | None) -> None:
        """It answered; `seconds` None where the time says nothing."""
        health = self._health.setdefault(source.url, _Health())
        health.failed_at = None
        if seconds is not None:
            health.times.append(seconds)

    def failed(self, source: Source) -> None:
        """It could not be reached, broke off, or served what is wrong."""
        self._health.setdefault(source.url, _Health()).failed_at = self._clock()

    def order(self, equal: Sequence[Source]) -> tuple[Source, ...]:
        """The best first."""
        if len(equal) < 2:
            return tuple(equal)
        now = self._clock()

        def rank(source: Source) -> tuple[bool, bool, int]:
            health = self._health.get(source.url) or _Health()
            rests = health.failed_at is not None and now - health.failed_at < REST
            middle = health.middle()
            # steps of a quarter: what is alike keeps the order of the list
            step = 0 if middle is None else round(math.log(max(middle, 0.001), 1.25))
            return rests, middle is None, step

        return tuple(sorted(equal, key=rank))

    def delay(self, source: Source, *, zip_: bool = False) -> float | None:
        """Seconds after which the next equal source is asked too, None for never."""
        if self._hedge == "off":
            return None
        if isinstance(self._hedge, int | float):
            wanted = float(self._hedge)
        else:
            p95 = (self._health.get(source.url) or _Health()).p95()
            wanted = CEILING if p95 is None else min(CEILING, max(FLOOR, p95 * 1.5))
        return max(wanted, ZIP) if zip_ else wanted
