"""Which range of a body is fetched next, by whom: a pure board, no I/O and no clock.

Rules:
- The front is led by one open answer that runs on until it meets what others have taken; they take from
  behind.
- A worker holds one piece at a time; what it hasn't got when it fails is free again.
- When nothing is free, an outstanding piece that is slow is halved if it is large, else asked for a second
  time, from where it has come to; the first to reach its end wins, the other is told to stop.
- `left` counts the bytes that nobody has brought yet; at zero the body is whole.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import field
from typing import NamedTuple

from gotunnel.dataclass import dataclass

LEAST = 64 * 1024  # bytes of a piece
MOST = 4 * 1024 * 1024
HALVED = 512 * 1024  # bytes from which on a slow piece is halved


@dataclass(eq=False, slots=True)
class Piece:
    """[start, end), of which [start, reached) is there; `holders`: worker -> its place."""

    start: int
    end: int
    reached: int
    elastic: bool = False
    holders: dict[int, int] = field(default_factory=dict)

    @property
    def left(self) -> int:
        return self.end - self.reached


class Step(NamedTuple):
    """What a worker brought: `size` bytes belong at `place`; `done`: it stops here; so do the `losers`."""

    place: int
    size: int
    done: bool
    losers: tuple[int, ...] = ()


def worth(size: int, left: int, workers: int) -> int:
    """The size of a piece, where a connection could take `size` bytes, so that the tail stays short."""
    return max(LEAST, min(size, MOST, left // (2 * max(1, workers))))


class Board:
    """The body's bytes from `start` to `total`, none there yet."""

    def __init__(self, start: int, total: int) -> None:
        self.total = total
        self.left = total - start
        self.requests = 0  # pieces given out
        self._free = [(start, total)] if start < total else []  # in order, never touching each other
        self._held: dict[int, Piece] = {}

    def lead(self, worker: int) -> Piece:
        """The whole of it, for the answer that is already open; others may take from its end."""
        (start, end), self._free = self._free[0], []
        return self._hand(worker, Piece(start, end, start, elastic=True))

    def take(self, worker: int, size: int, slow: Callable[[int, int], bool]) -> Piece | None:
        """About `size` bytes to fetch from `reached` on, None where there is nothing for now.

        `slow(holder, left)`: is it worth while to ask a second time for what `holder` still lacks?
        """
        if worker in self._held:
            raise ValueError("one piece at a time")
        size = max(size, 1)
        if self._free:
            start, end = self._free.pop()
            cut = end - size
            if cut - start >= LEAST:
                self._free.append((start, cut))
                start = cut
            return self._hand(worker, Piece(start, end, start))
        leader = next((p for p in self._held.values() if p.elastic and p.left >= 2 * LEAST), None)
        if leader is not None:
            end, leader.end = leader.end, leader.end - min(size, leader.left // 2)
            return self._hand(worker, Piece(leader.end, end, leader.end))
        alone = [
            piece
            for holder, piece in self._held.items()
            if len(piece.holders) == 1 and slow(holder, piece.left)
        ]
        if not alone:
            return None
        slowest = max(alone, key=lambda piece: piece.left)
        if slowest.left >= HALVED:  # its connection is lost for that, which a duplicate's bytes outweigh
            end, slowest.end = slowest.end, slowest.reached + slowest.left // 2
            return self._hand(worker, Piece(slowest.end, end, slowest.end))
        return self._hand(worker, slowest)

    def _hand(self, worker: int, piece: Piece) -> Piece:
        piece.holders[worker] = piece.reached
        self._held[worker] = piece
        self.requests += 1
        return piece

    def holds(self, worker: int) -> bool:
        """False once its piece was brought by another."""
        return worker in self._held

    def advance(self, worker: int, count: int) -> Step:
        """`worker` has `count` more bytes; what is beyond its piece's end counts for nothing."""
        piece = self._held.get(worker)
        if piece is None:
            return Step(0, 0, True)
        place = piece.holders[worker]
        count = min(count, piece.end - place)
        now = piece.holders[worker] = place + count
        if now > piece.reached:
            self.left -= now - piece.reached
            piece.reached = now
        if now < piece.end:
            return Step(place, count, False)
        for holder in piece.holders:
            del self._held[holder]
        return Step(place, count, True, tuple(holder for holder in piece.holders if holder != worker))

    def give_back(self, worker: int) -> None:
        """`worker` has failed: what nobody else holds of its piece is free again."""
        piece = self._held.pop(worker, None)
        if piece is None:
            return
        del piece.holders[worker]
        if not piece.holders and piece.left:
            bisect.insort(self._free, (piece.reached, piece.end))
            self._join()

    def _join(self) -> None:
        joined: list[tuple[int, int]] = []
        for start, end in self._free:
            if joined and joined[-1][1] == start:
                joined[-1] = (joined[-1][0], end)
            else:
                joined.append((start, end))
        self._free = joined

    @property
    def prefix(self) -> int:
        """Everything before this place is there."""
        missing = [start for start, _ in self._free]
        missing += [piece.reached for piece in self._held.values()]
        return min(missing, default=self.total)
