"""The breaker, with a clock that is only a number."""

from __future__ import annotations

from gotunnel.pool.breaker import Breaker, State


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
