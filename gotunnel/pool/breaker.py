"""The breaker of one way out: a pure state machine, the clock is an argument.

Rules:
- closed -> open at the first failure that is the hop's fault (DESIGN rule 2): trying a dead hop again costs
  the user seconds each time, trying another costs nothing.
- open -> half-open when its rest is over; then one trial at a time.
- half-open -> closed on success; -> open, resting twice as long (REST_FIRST to REST_LAST), on failure.
- A failure may ask for a longer rest (`retry_after`: a refused key).
- Only a failure that brings news counts: that of a dial begun before the breaker opened, or before the trial
  that is under way, tells what is known already.  Many dials that fail at once are one failure.
- Where every way out rests, who needs one asks sooner (`urgent`): after URGENT, and beside a trial that has
  had no answer for so long.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable

REST_FIRST = 0.5  # seconds
REST_LAST = 30.0
URGENT = 1.0  # after the last failure, or beside a trial without an answer


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
        self._soonest = 0.0  # where it is urgent
        self._trying = False
        self._since = -math.inf  # when it last opened, or was last put on trial
        self.state = State.CLOSED

    def usable(self, now: float, *, urgent: bool = False) -> bool:
        """May a dial go this way now?"""
        if self.state is State.CLOSED:
            return True
        if self._trying and (not urgent or now < self._since + URGENT):
            return False
        return now >= self.rests_until(urgent=urgent)

    def rests_until(self, *, urgent: bool = False) -> float:
        """When an open breaker may be tried again; 0 if it is closed."""
        if self.state is State.CLOSED:
            return 0.0
        return min(self._until, self._soonest) if urgent else self._until

    def trial(self, now: float) -> bool:
        """A dial goes this way; True if that turned open into half-open."""
        if self.state is State.CLOSED:
            return False
        changed = self.state is State.OPEN
        self.state = State.HALF_OPEN
        self._trying = True
        self._since = now
        return changed

    def success(self) -> bool:
        """The hop carried something; True if that closed the breaker."""
        changed = self.state is not State.CLOSED
        self.state = State.CLOSED
        self._rest = self._first
        self._trying = False
        return changed

    def failure(self, now: float, *, began: float | None = None, retry_after: float = 0.0) -> bool:
        """The hop is at fault, by a dial begun at `began`, or as was just seen; True if that opened it."""
        if began is not None and began < self._since:  # it hasn't seen what was seen since
            if self.state is State.OPEN and retry_after:
                self._rest_for(now, retry_after)
            return False
        changed = self.state is not State.OPEN
        if self.state is State.HALF_OPEN:
            self._rest = min(self._last, self._rest * 2)
        if changed:
            self._since = now
            self._until = now + self._rest * self._jitter()
            self._soonest = now + URGENT
        self._rest_for(now, retry_after)
        self.state = State.OPEN
        self._trying = False
        return changed

    def _rest_for(self, now: float, seconds: float) -> None:
        if seconds:
            self._until = max(self._until, now + seconds)
            self._soonest = max(self._soonest, now + seconds)

    def no_verdict(self) -> None:
        """A trial ended without saying anything of the hop (cancelled, or the target's fault)."""
        self._trying = False
