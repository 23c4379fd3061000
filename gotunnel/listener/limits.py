"""How much the endpoint takes on: connections in all and from one client's address.

Rules:
- A slot is held from accept until the socket is really gone, not until we have stopped serving it: a
  client that doesn't read its answer still costs a descriptor.
- A person is told at most once a minute, with the number of the refused.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable


class Slots:
    """Counts connections; at most `total` at once, `per_client` of them from one address."""

    def __init__(self, total: int, per_client: int) -> None:
        if total < 1 or per_client < 1:
            raise ValueError("want at least one connection")
        self._total, self._per_client = total, per_client
        self._by_client: Counter[str] = Counter()
        self._taken = 0

    def __len__(self) -> int:
        return self._taken

    def limit(self, total: int, per_client: int) -> None:
        """Other bounds from now on."""
        self._total, self._per_client = total, per_client

    def take(self, client: str) -> str | None:
        """Take a slot for this address: None, or why there is none, in words that name the key to raise."""
        if self._taken >= self._total:
            return f"{self._total} connections are open (limits.connections)"
        if self._by_client[client] >= self._per_client:
            return f"{self._per_client} connections are open from {client} (limits.per_client)"
        self._taken += 1
        self._by_client[client] += 1
        return None

    def give_back(self, client: str) -> None:
        """Return a slot that was taken for this address."""
        self._taken -= 1
        self._by_client[client] -= 1
        if self._by_client[client] <= 0:
            del self._by_client[client]


class Seldom:
    """Lets a message through at most once in `every` seconds, and counts those between."""

    def __init__(self, every: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._clock = every, clock
        self._next: float | None = None
        self._kept = 0

    def __call__(self) -> int | None:
        """None: keep silent.  Else say it now; the number that was kept back since the last time."""
        now = self._clock()
        if self._next is not None and now < self._next:
            self._kept += 1
            return None
        self._next = now + self._every
        kept, self._kept = self._kept, 0
        return kept
