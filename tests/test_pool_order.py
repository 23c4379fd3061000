"""Who is tried first."""

from __future__ import annotations

import pytest

from gotunnel.pool.order import Candidate, order


def up(index: int, *, seconds: float | None = None, put_last: int = 0) -> Candidate:
    return Candidate(index, True, True, put_last, seconds)


def resting(index: int, *, usable: bool = True) -> Candidate:
    return Candidate(index, False, usable)


@pytest.mark.parametrize(
    ("candidates", "strategy", "turn", "wanted"),
    [
        ([up(0), up(1)], "ordered", 5, [0, 1]),
        ([resting(0), up(1)], "ordered", 0, [1, 0]),
        ([resting(0, usable=False), up(1)], "ordered", 0, [1]),
        ([resting(0, usable=False)], "ordered", 0, []),
        ([up(0, put_last=2), up(1, put_last=1), up(2)], "ordered", 0, [2, 1, 0]),
        ([up(0, put_last=1), resting(1)], "ordered", 0, [0, 1]),
        ([up(0, seconds=0.3), up(1, seconds=0.1), up(2)], "fastest", 0, [2, 1, 0]),
        ([up(0, seconds=0.1, put_last=1), up(1, seconds=0.3)], "fastest", 0, [1, 0]),
        ([up(0), up(1), up(2)], "round-robin", 1, [1, 2, 0]),
        ([up(0), resting(1), up(2)], "round-robin", 1, [2, 0, 1]),
        ([], "round-robin", 1, []),
    ],
)
def test_order(candidates: list[Candidate], strategy: str, turn: int, wanted: list[int]) -> None:
    assert order(candidates, strategy, turn) == wanted
