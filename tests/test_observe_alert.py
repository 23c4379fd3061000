"""Alerts: silent over ordinary days, heard when something happens."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest

from gotunnel.observe.alert import COOL_DOWN, WARM_UP, WINDOW, Alerts, Way, judge
from gotunnel.observe.events import RUN, Alert, BreakerChange, Dial, Event, Fetch

DAY = 8640  # windows


def poisson(rng: random.Random, mean: float) -> int:
    if mean > 50:
        return max(0, round(rng.gauss(mean, math.sqrt(mean))))
    limit, count, product = math.exp(-mean), 0, rng.random()
    while product > limit:
        count += 1
        product *= rng.random()
    return count


def traffic(
    rng: random.Random, days: float, mean: float, swing: float, failing: float
) -> Iterator[tuple[int, int]]:
    """(requests, failures) of each window: a sine over the day, arrivals and failures by chance."""
    for window in range(int(days * DAY)):
        requests = poisson(rng, mean * (1 + swing * math.sin(2 * math.pi * window / DAY)))
        yield requests, min(requests, poisson(rng, requests * failing))


def alerts_of(way: Way, windows: Iterator[tuple[int, int]], start: int = 0) -> list[tuple[int, Alert]]:
    found = []
    for number, (way.requests, way.failures) in enumerate(windows, start):
        found += [(number - start, alert) for alert in judge("a", way, 3.0, number * WINDOW)]
    return found


@pytest.mark.parametrize(
    ("days", "mean", "swing", "failing"),
    [(1, 20, 0.9, 0.01), (1, 3, 0.5, 0.05), (7, 200, 0.95, 0.002), (7, 0.5, 0.9, 0.02)],
)
def test_ordinary_days_are_silent(days: int, mean: float, swing: float, failing: float) -> None:
    assert alerts_of(Way(), traffic(random.Random(7), days, mean, swing, failing)) == []


def test_builds_after_hours_of_silence_are_ordinary() -> None:
    """A developer: two minutes of a build now and then, and nothing between them or at night."""
    rng, way = random.Random(7), Way()

    def days() -> Iterator[tuple[int, int]]:
        for window in range(5 * DAY):
            at_work = 9 <= window % DAY / 360 < 18
            requests = poisson(rng, 40) if at_work and window % 90 < 12 else 0
            yield requests, poisson(rng, requests * 0.005)

    assert alerts_of(way, days()) == []
    assert way.usual.count > WARM_UP


@pytest.mark.parametrize("hour", [3, 9, 15, 21])
def test_a_burst_is_told_within_a_minute_and_once(hour: int) -> None:
    rng, way = random.Random(hour), Way()
    assert alerts_of(way, traffic(rng, 1 + hour / 24, 20, 0.6, 0.01)) == []
    now = 20 * (1 + 0.6 * math.sin(2 * math.pi * hour / 24))
    start = DAY + hour * 360
    found = alerts_of(way, ((poisson(rng, 5 * now), 0) for _ in range(60)), start)
    assert [alert.signal for _, alert in found] == ["request_rate"]
    number, alert = found[0]
    assert number < 6
    assert alert.sigma > 3
    assert alert.value == pytest.approx(5 * now / WINDOW, rel=0.5)
    assert alert.mean < alert.value / 2


@pytest.mark.parametrize(("requests", "share"), [(50, 0.3), (5, 0.8), (1, 1.0)])
def test_a_way_out_that_begins_to_fail_is_told_on_small_traffic_too(requests: int, share: float) -> None:
    rng, way = random.Random(1), Way()
    assert alerts_of(way, ((requests, poisson(rng, requests * 0.005)) for _ in range(DAY // 2))) == []
    failing = ((requests, round(requests * share)) for _ in range(12))
    ((number, alert),) = alerts_of(way, failing, DAY)
    assert (alert.signal, alert.upstream) == ("failure_rate", "a")
    assert number < 12
    assert alert.value == pytest.approx(100 * share, abs=5)
    assert alert.mean < 2


def test_nothing_is_said_while_warming_up_nor_while_cooling_down() -> None:
    way = Way()
    assert alerts_of(way, iter([(1, 0)] * (WARM_UP - 20) + [(500, 500)] * 10)) == []
    way = Way()
    assert alerts_of(way, iter([(20, 0)] * DAY)) == []
    bursts = ([(200, 0)] * 6 + [(20, 0)] * 24) * 6  # one each five minutes
    told = [number for number, _ in alerts_of(way, iter(bursts), DAY)]
    assert len(told) == 2
    assert (told[1] - told[0]) * WINDOW >= COOL_DOWN


def test_events_are_counted_and_the_alert_is_nobody_s_own() -> None:
    now, heard, runs = 0.0, list[Event](), list[str]()

    def emit(event: Event) -> None:
        heard.append(event)
        runs.append(RUN.get())
        alerts(event)  # it comes back, as everything does

    alerts = Alerts(3.0, emit, lambda: now)
    token = RUN.set("somebody")
    for window in range(WARM_UP + 50):
        bad = window >= WARM_UP + 40
        for _ in range(10):
            alerts(Dial("tokyo", "h:443", 1.0, ok=not bad))
        alerts(Fetch("p", "s", "tokyo", 0, 1.0, cached=False, error="module.not-found"))  # an answer
        alerts(Fetch("p", "store", "", 0, 1.0, cached=True))
        alerts(BreakerChange("tokyo", "open"))
        now += WINDOW
        alerts.tick()
    assert [(event.name, runs[0]) for event in heard] == [("alert", "")]
    assert isinstance(heard[0], Alert)
    assert heard[0].value == pytest.approx(100 * 10 / 11, abs=1)
    assert RUN.get() == "somebody"
    RUN.reset(token)
