"""Which way out is tried first: pure functions over a snapshot of the candidates.

Rules:
- Healthy before resting, as configured within each; one that was put last (it was to blame for a failed run)
  goes behind the other healthy ones.
- `fastest` orders the healthy by their median dial time, unknown ones first so that they get measured.
- `round-robin` turns the healthy by one for each dial.
- Those whose breaker gives no permission are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from gotunnel.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Candidate:
    """A way out as the order sees it; `seconds` is its median dial time, None if unknown."""

    index: int
    closed: bool
    usable: bool
    put_last: int = 0
    seconds: float | None = None


def order(candidates: Sequence[Candidate], strategy: str = "ordered", turn: int = 0) -> list[int]:
    """The indices to try, best first."""
    usable = [c for c in candidates if c.usable]
    healthy = [c for c in usable if c.closed]
    resting = [c for c in usable if not c.closed]
    if strategy == "fastest":
        healthy.sort(key=lambda c: -1.0 if c.seconds is None else c.seconds)
    elif strategy == "round-robin" and healthy:
        shift = turn % len(healthy)
        healthy = healthy[shift:] + healthy[:shift]
    healthy.sort(key=lambda c: c.put_last)
    return [c.index for c in healthy + resting]
