"""What a person is told: one line for each thing they must know, on standard error.

Rules:
- Each line starts `gotunnel: `; nothing goes to standard output.
- A way out that goes down or takes over is said once, not for each request.
- Secrets are masked and control characters removed here, whoever wrote the text.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from gotunnel.address import one_line, redact
from gotunnel.observe.events import BreakerChange, Event, Failover

_wipes: list[Callable[[], bytes]] = []  # takes the line of progress away, while there is one


def wiped_by(wipe: Callable[[], bytes]) -> None:
    """What `wipe` gives is written before each line from now on."""
    _wipes[:] = [wipe]


def tell(text: str) -> None:
    """One line to standard error."""
    if sys.stderr is None:
        return  # it was closed before we came
    try:
        before = "".join(wipe().decode() for wipe in _wipes)
        sys.stderr.write(f"{before}gotunnel: {one_line(redact(text), 1000)}\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody listens any more


def teller(*, quiet: bool) -> Callable[[str], None]:
    """`tell`, for what is no error: `quiet` leaves it out."""
    return (lambda text: None) if quiet else tell


class Console:
    """Turns events into lines; `quiet` leaves errors only."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._down: dict[str, str] = {}
        self._moved: set[tuple[str, str, str]] = set()  # failovers told: from, to, reason

    def __call__(self, event: Event) -> None:
        if self._quiet:
            return
        if isinstance(event, BreakerChange):
            if event.state == "open" and event.reason != self._down.get(event.upstream):
                self._down[event.upstream] = event.reason or ""
                tell(f"way out {event.upstream} is down: {event.reason}: {event.detail}")
            elif event.state == "closed" and self._down.pop(event.upstream, None) is not None:
                tell(f"way out {event.upstream} works again")
        elif isinstance(event, Failover):
            move = (event.source, event.to, event.reason)
            if event.source in self._down:
                tell(f"now by {event.to}")
            elif move in self._moved:
                return  # some targets go that way each time
            else:
                self._moved.add(move)
                tell(f"now by {event.to}, since {event.source}: {event.reason}: {event.detail}")
