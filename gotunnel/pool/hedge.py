"""When a second way out is tried beside the first: after about the p95 of its recent dial times.  Pure.

Rules:
- At least FLOOR (a busy machine jitters), at most CEILING (a black hole must not hold a request longer).
- With too few samples the CEILING holds: a first dial includes the SSH handshake.
"""

from __future__ import annotations

import math
from collections import deque

FLOOR = 0.25  # seconds
CEILING = 1.0
SAMPLES = 64
FEW = 5


class DialTimes:
    """Recent dial times of one way out, in seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=SAMPLES)

    def add(self, seconds: float) -> None:
        """A dial that succeeded took so long."""
        self._times.append(seconds)

    def p95(self) -> float | None:
        """None with fewer than FEW samples."""
        if len(self._times) < FEW:
            return None
        ordered = sorted(self._times)
        return ordered[math.ceil(len(ordered) * 0.95) - 1]

    def median(self) -> float | None:
        """None with fewer than FEW samples."""
        return None if len(self._times) < FEW else sorted(self._times)[len(self._times) // 2]


def delay(times: DialTimes, setting: float | str | None = "auto") -> float | None:
    """Seconds until a second way is tried, None for never; `setting` is auto, off or seconds."""
    if setting == "off" or setting is None:
        return None
    if isinstance(setting, int | float):
        return float(setting)
    p95 = times.p95()
    return CEILING if p95 is None else min(CEILING, max(FLOOR, p95 * 1.5))
