"""The breaker, with a clock that is only a number."""

from __future__ import annotations

import pytest

from gotunnel.pool.breaker import URGENT, Breaker, State


def test_opens_at_the_first_failure_rests_and_lets_one_trial_through() -> None:
    breaker = Breaker(first=1.0, last=4.0)
    assert breaker.usable(0.0)
    assert breaker.trial(0.0) is False  # nothing is on trial while it is closed
    assert breaker.failure(10.0) is True
    assert (breaker.state, breaker.rests_until()) == (State.OPEN, 11.0)
    assert not breaker.usable(10.9)
    assert breaker.usable(11.0)
    assert breaker.trial(11.0) is True
    assert breaker.state is State.HALF_OPEN
    assert not breaker.usable(11.0)  # one trial at a time
    assert breaker.success() is True
    assert (breaker.state, breaker.rests_until()) == (State.CLOSED, 0.0)
    assert breaker.success() is False


def test_the_rest_doubles_to_its_bound_and_a_success_starts_anew() -> None:
    breaker, now, rests = Breaker(first=1.0, last=4.0), 0.0, []
    for _ in range(5):
        breaker.failure(now)
        rests.append(breaker.rests_until() - now)
        now = breaker.rests_until()
        breaker.trial(now)
    assert rests == [1.0, 2.0, 4.0, 4.0, 4.0]
    breaker.success()
    breaker.failure(now)
    assert breaker.rests_until() - now == 1.0


def test_rests_are_jittered_but_a_refused_key_waits_its_whole_time() -> None:
    breaker = Breaker(first=1.0, jitter=lambda: 0.75)
    breaker.failure(0.0)
    assert breaker.rests_until() == 0.75
    refused = Breaker(first=1.0, jitter=lambda: 0.75)
    refused.failure(0.0, retry_after=60.0)
    assert refused.rests_until() == 60.0


def test_a_second_failure_of_dials_begun_before_does_not_lengthen_the_rest() -> None:
    breaker = Breaker(first=1.0)
    breaker.failure(0.0)
    assert breaker.failure(0.9) is False
    assert breaker.rests_until() == 1.0


def test_a_refused_key_rests_as_long_as_it_asks() -> None:
    breaker = Breaker(first=1.0)
    breaker.failure(0.0, retry_after=60.0)
    assert breaker.rests_until() == 60.0
    breaker.failure(5.0, retry_after=60.0)
    assert breaker.rests_until() == 65.0


def test_a_trial_without_verdict_makes_room_for_the_next() -> None:
    breaker = Breaker(first=1.0)
    breaker.failure(0.0)
    breaker.trial(1.0)
    breaker.no_verdict()
    assert breaker.usable(1.0)
    assert breaker.trial(1.0) is False  # half-open already


# a dial begun, and when it failed; then until when the breaker rests (the first rest is 1 s)
BURSTS = {
    "all begun before": ([(0.0, 10.0), (0.1, 10.0), (9.9, 10.001)], 11.0),
    "some fail during the trial": ([(0.0, 10.0), (9.0, 11.5), (9.5, 11.6)], 11.0),
    "the trial fails": ([(0.0, 10.0), (11.2, 11.7)], 13.7),
    "and so do old dials after it": ([(0.0, 10.0), (11.2, 11.7), (9.9, 11.8), (9.9, 13.8)], 13.7),
}


@pytest.mark.parametrize("name", BURSTS)
def test_many_dials_that_fail_at_once_are_one_failure(name: str) -> None:
    dials, rests = BURSTS[name]
    breaker = Breaker(first=1.0)
    events = sorted([(began, 0, began) for began, _ in dials] + [(end, 1, began) for began, end in dials])
    trials = []
    for now, ended, began in events:
        if ended:
            breaker.failure(now, began=began)
        elif breaker.state is State.OPEN and breaker.usable(now):
            trials.append(breaker.trial(now))
    assert breaker.rests_until() == pytest.approx(rests)
    assert all(trials)


def test_an_old_failure_leaves_a_trial_alone() -> None:
    breaker = Breaker(first=1.0)
    breaker.failure(10.0, began=9.0)
    breaker.trial(11.0)
    assert breaker.failure(11.1, began=9.5) is False
    assert breaker.state is State.HALF_OPEN
    assert not breaker.usable(11.2)
    breaker.success()
    assert breaker.failure(11.3, began=9.6) is False  # it works, as was seen since
    assert breaker.usable(11.3)
    assert breaker.failure(12.0, began=11.5) is True


def test_who_has_no_other_way_asks_sooner_but_not_at_once() -> None:
    breaker = Breaker(first=8.0)
    breaker.failure(0.0)
    assert not breaker.usable(URGENT - 0.1, urgent=True)
    assert breaker.usable(URGENT, urgent=True)
    assert not breaker.usable(URGENT)
    breaker.trial(URGENT)
    assert not breaker.usable(URGENT + 0.5, urgent=True)
    assert breaker.usable(2 * URGENT, urgent=True)  # that trial hangs
    refused = Breaker(first=8.0)
    refused.failure(0.0, retry_after=60.0)
    assert not refused.usable(59.0, urgent=True)
