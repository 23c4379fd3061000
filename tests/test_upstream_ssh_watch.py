"""The watch over a hop: a dialogue in times, with a clock of its own."""

from __future__ import annotations

import random

from gotunnel.upstream.ssh_watch import Decision, Watch


def test_an_idle_hop_is_never_asked() -> None:
    watch = Watch(0.0)
    assert {watch.decide(float(t), due=False) for t in range(10_000)} == {Decision.WAIT}


def test_silence_with_an_answer_due_is_asked_about_and_then_dead_within_five_seconds() -> None:
    watch = Watch(0.0)
    told = [(t / 4, watch.decide(t / 4, due=True)) for t in range(60)]
    asked = next(t for t, decision in told if decision is Decision.ASK)
    dead = next(t for t, decision in told if decision is Decision.DEAD)
    assert 1.0 <= asked < dead <= 5.0


def test_time_before_an_answer_was_due_is_no_silence() -> None:
    watch = Watch(0.0)
    watch.decide(99.0, due=False)
    assert watch.decide(100.0, due=True) is Decision.WAIT
    assert watch.decide(101.0, due=True) is Decision.ASK


def test_any_byte_is_life() -> None:
    watch = Watch(0.0)
    assert watch.decide(0.0, due=True) is Decision.WAIT
    assert watch.decide(1.0, due=True) is Decision.ASK
    watch.heard(4.9)
    assert watch.decide(5.5, due=True) is Decision.WAIT
    assert watch.decide(5.9, due=True) is Decision.ASK  # a new question, with its own time
    assert watch.decide(9.3, due=True) is Decision.WAIT


def test_an_origin_silent_for_a_minute_is_not_the_hop_s_death() -> None:
    watch = Watch(0.0)
    for tick in range(240):
        now = tick / 4
        decision = watch.decide(now, due=True)
        assert decision is not Decision.DEAD
        if decision is Decision.ASK:
            watch.answered(now + 0.2)


def tcp_delivers(rng: random.Random, loss: float, rtt: float) -> float:
    """Seconds that TCP takes for one small message: resent after a tail-loss probe, then by doubling RTOs."""
    wait, at = 2 * rtt, 0.0
    while rng.random() < loss:
        at += wait
        wait = max(wait, rtt + 0.2) * (1 if at == 2 * rtt else 2)
    return at + rtt / 2


def test_an_hour_at_300_ms_and_3_percent_loss_gives_no_false_death() -> None:
    rng, rtt, loss = random.Random(7), 0.3, 0.03
    for _ in range(20):  # twenty hours, a question answered after every silence
        watch, now, answer = Watch(0.0, rtt), 0.0, None
        while now < 3600:
            now += 0.25
            if answer is not None and now >= answer:
                watch.answered(answer)
                answer = None
            decision = watch.decide(now, due=True)
            assert decision is not Decision.DEAD
            if decision is Decision.ASK:
                answer = now + tcp_delivers(rng, loss, rtt) + tcp_delivers(rng, loss, rtt)
