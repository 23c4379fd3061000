"""The breaker of one way out: a pure state machine, the clock is an argument.

Rules:
- closed -> open at the first failure that is the hop's fault (DESIGN rule 2): trying a dead hop again costs
  the user seconds each time, trying another costs nothing.
- open -> half-open when its rest is over; then one trial at a time.
- half-open -> closed on success; -> open, resting twice as long (REST_FIRST to REST_LAST), on failure.
- A failure may ask for a longer rest (`retry_after`: a refused key).
"""

from __future__ import annotations

import enum
from collections.abc import Callable

REST_FIRST = 0.5  # seconds
REST_LAST = 30.0


class State(enum.Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """All times are seconds of one monotonic clock.

    `jitter` gives a factor for each rest, so that many clients don't come back to a host all at once.
    """

    def __init__(
        self,
        *,
        first: float = REST_FIRST,
        last: float = REST_LAST,
        jitter: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._first, self._last = first, last
        self._jitter = jitter
        self._rest = first
        self._until = 0.0
        self._trying = False
        self.state = State.CLOSED

    def usable(self, now: float) -> bool:
        """May a dial go this way now?"""
        if self.state is State.CLOSED:
            return True
        return now >= self._until and not self._trying

    def rests_until(self) -> float:
        """When an open breaker may be tried again; 0 if it is closed."""
        return 0.0 if self.state is State.CLOSED else self._until

    def trial(self, now: float) -> bool:
        """A dial goes this way; True if that turned open into half-open."""
        if self.state is State.CLOSED:
            return False
        changed = self.state is State.OPEN
        self.state = State.HALF_OPEN
        self._trying = True
        return changed

    def success(self) -> bool:
        """The hop carried something; True if that closed the breaker."""
        changed = self.state is not State.CLOSED
        self.state = State.CLOSED
        self._rest = self._first
        self._trying = False
        return changed

    def failure(self, now: float, *, retry_after: float = 0.0) -> bool:
        """The hop is at fault; True if that opened the breaker."""
        changed = self.state is not State.OPEN
        if self.state is State.HALF_OPEN:
            self._rest = min(self._last, self._rest * 2)
        if self.state is not State.OPEN:
            self._until = now + max(self._rest * self._jitter(), retry_after)
        else:
            self._until = max(self._until, now + retry_after)
        self.state = State.OPEN
        self._trying = False
        return changed

    def no_verdict(self) -> None:
        """A trial ended without saying anything of the hop (cancelled, or the target's fault)."""
        self._trying = False
