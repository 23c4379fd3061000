"""Is an established hop still alive?  Pure: times in, a decision out.

Rules:
- Any byte from the hop is life; what an opaque stream inside it doesn't say means nothing.
- Only while an answer is due on some stream is silence looked at; idle hops have asyncssh's keepalive.
- Silence is followed by a question (a keepalive request, which every server answers, if only by a refusal);
  the hop is dead when that stays unanswered.  Together within 5 s, longer only where the round trip is long.
- The wait is long enough for TCP to resend a lost question or answer several times: at 300 ms and 3 % loss a
  false death takes four losses in a row.
"""

from __future__ import annotations

import enum

SILENT = 1.0  # seconds without a byte while an answer is due: ask
UNANSWERED = 3.5  # seconds after the question: dead
_SILENT_ROUNDS = 3  # … or so many round trips, whichever is longer
_UNANSWERED_ROUNDS = 12


class Decision(enum.Enum):
    """What is to be done now."""

    WAIT = "wait"
    ASK = "ask"
    DEAD = "dead"


class Watch:
    """One connection's watch; all times are seconds of one monotonic clock."""

    def __init__(self, now: float, rtt: float = 0.0) -> None:
        self._heard = now
        self._due_since: float | None = None
        self._asked: float | None = None
        self.rtt = rtt

    def heard(self, now: float) -> None:
        """Bytes have come from the hop."""
        self._heard = now
        self._asked = None

    def answered(self, now: float) -> None:
        """The question was answered; measures the round trip."""
        if self._asked is not None:
            sample = now - self._asked
            self.rtt = sample if not self.rtt else 0.8 * self.rtt + 0.2 * sample
        self.heard(now)

    def decide(self, now: float, *, due: bool) -> Decision:
        """Call often; `due` while some stream waits for an answer.  ASK means that it is asked now."""
        if not due:
            self._due_since = self._asked = None
            return Decision.WAIT
        if self._due_since is None:
            self._due_since = now
        if self._asked is not None:
            patience = max(UNANSWERED, _UNANSWERED_ROUNDS * self.rtt)
            return Decision.DEAD if now - self._asked >= patience else Decision.WAIT
        if now - max(self._heard, self._due_since) >= max(SILENT, _SILENT_ROUNDS * self.rtt):
            self._asked = now
            return Decision.ASK
        return Decision.WAIT
