"""The board of ranges: whatever order its workers bring, lose and repeat pieces in, the body is whole."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gotunnel.modproxy.stripes import HALVED, LEAST, MOST, Board, worth


def always(_holder: int, _left: int) -> bool:
    return True


def never(_holder: int, _left: int) -> bool:
    return False


def test_the_leader_streams_from_the_front_and_others_take_from_behind() -> None:
    board = Board(0, 10 * LEAST)
    board.lead(0)
    first, second = board.take(1, LEAST, never), board.take(2, 2 * LEAST, never)
    assert first is not None
    assert second is not None
    assert (first.start, first.end) == (9 * LEAST, 10 * LEAST)
    assert (second.start, second.end) == (7 * LEAST, 9 * LEAST)
    step = board.advance(0, 8 * LEAST)
    assert (step.place, step.size, step.done) == (0, 7 * LEAST, True)  # what is another's counts for nothing


def test_a_straggler_is_asked_again_from_where_it_has_come_to_and_the_first_to_end_wins() -> None:
    board = Board(0, LEAST)
    slow = board.take(1, LEAST, never)
    board.advance(1, 1000)
    assert board.take(2, LEAST, never) is None
    twin = board.take(2, LEAST, always)
    assert slow is twin is not None
    assert board.take(3, LEAST, always) is None  # twice is enough
    step = board.advance(2, LEAST)
    assert (step.place, step.size, step.done, step.losers) == (1000, LEAST - 1000, True, (1,))
    assert board.left == 0
    assert not board.holds(1)
    assert board.advance(1, 5) == (0, 0, True, ())


def test_a_large_straggler_is_halved() -> None:
    board = Board(0, 2 * HALVED)
    slow = board.take(1, 2 * HALVED, never)
    assert slow is not None
    board.advance(1, 1000)
    half = board.take(2, LEAST, always)
    assert half is not None
    assert (half.start, half.end, slow.end) == (slow.end, 2 * HALVED, 1000 + (2 * HALVED - 1000) // 2)
    assert board.advance(1, 2 * HALVED).done
    assert board.advance(2, 2 * HALVED).done
    assert board.left == 0


def test_what_a_failed_worker_had_not_brought_is_free_again_and_joined_with_its_neighbours() -> None:
    board = Board(0, 4 * LEAST)
    back, front = board.take(1, 2 * LEAST, never), board.take(2, 2 * LEAST, never)
    assert back is not None
    assert front is not None
    board.advance(2, 10)
    board.give_back(1)
    board.give_back(2)
    assert board.prefix == 10
    rest = board.take(3, 100 * LEAST, never)
    assert rest is not None
    assert (rest.start, rest.end) == (10, 4 * LEAST)


def test_if_one_of_two_on_a_piece_fails_the_other_goes_on() -> None:
    board = Board(0, LEAST)
    board.take(1, LEAST, never)
    board.take(2, LEAST, always)
    board.advance(1, 100)
    board.give_back(1)
    assert board.take(3, LEAST, never) is None
    assert board.advance(2, LEAST).done
    assert board.left == 0


@given(size=st.integers(0, 10**10), left=st.integers(0, 10**10), workers=st.integers(0, 64))
def test_a_piece_is_worth_asking_for_and_never_huge(size: int, left: int, workers: int) -> None:
    assert LEAST <= worth(size, left, workers) <= MOST


@settings(max_examples=300, deadline=None)
@given(
    total=st.integers(1, 60 * LEAST),
    start=st.integers(0, LEAST),
    workers=st.integers(1, 8),
    lead=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_every_byte_comes_exactly_once_whatever_fails(
    total: int, start: int, workers: int, lead: bool, seed: int
) -> None:
    """Random steps: who takes, how much comes, who fails; every byte is the one of its place in the end."""
    rng = random.Random(seed)
    start = min(start, total)
    board = Board(start, total)
    have = bytearray(total)  # 1 where a byte was written
    busy: set[int] = set()
    fresh = failures = twins = 0
    if lead and start < total:
        board.lead(0)
        busy.add(0)
    while board.left:
        idle = [number for number in range(1, workers + 1) if number not in busy]
        act = rng.random()
        if idle and (act < 0.4 or not busy):
            size = rng.randint(1, 12 * LEAST)
            piece = board.take(idle[0], size, lambda _h, _l: rng.random() < 0.5)
            if piece is not None:
                busy.add(idle[0])
                assert board.holds(idle[0])
                twins += len(piece.holders) - 1
        elif busy:
            number = rng.choice(sorted(busy))
            if act < 0.5 and failures < 40:
                failures += 1
                board.give_back(number)
                busy.discard(number)
                continue
            before = board.left
            step = board.advance(number, rng.randint(1, 3 * LEAST))
            fresh += before - board.left
            have[step.place : step.place + step.size] = b"\1" * step.size
            if step.done:
                busy.discard(number)
                busy.difference_update(step.losers)
        assert board.prefix <= total
        assert not have[start : board.prefix].count(0), "the prefix has a hole"
    assert fresh == total - start  # each byte counted once
    assert have.count(1) == total - start  # and written, in its place
    assert board.prefix == total
    assert board.requests <= 2 + total // LEAST + failures + twins + 60
