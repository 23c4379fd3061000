"""When traffic is out of the ordinary: exponentially weighted means and deviations, for each way out.

Rules:
- Requests (dials, and downloads of the module proxy) and their failures are counted in windows of 10 s.
- Only windows with a request are looked at or learnt from.  Silence is no alert, and after a night of it the
  first build is compared with the builds before, not with the night.
- Only more than usual is an alert: less is people going home, and a way out that fails shows in its failures.
- Requests are compared as 2·sqrt(n + 3/8) (Anscombe 1948), where counts of any size scatter by about 1;
  failures by the scatter of a share, sqrt(p(1-p)/n).  The deviation is as measured, but no less.
- An alert needs STREAK windows in a row beyond `sigma`: of 8640 windows a day a dozen are beyond 3 by chance.
  A rise in requests must also be a jump, beyond `sigma` and half as much again over the last minutes too: the
  hourly mean lags behind each morning.  The failures of a streak must be too many together, too.
- What is far out teaches no more than what is just out, so that a burst neither hides the next one nor is
  usual at once; a new level that stays is usual after some hours.
- Warm-up: nothing is said before WARM_UP windows.  After an alert the same signal of the same way out is
  quiet for COOL_DOWN.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import field

from gotunnel.dataclass import dataclass
from gotunnel.observe.events import RUN, Alert, Dial, Emit, Event, Fetch

WINDOW = 10.0  # seconds
HALF_LIFE = 360  # windows: an hour of traffic
RECENT = 30  # windows: five minutes
WARM_UP = 180  # windows: half an hour of traffic
STREAK = 3  # windows
COOL_DOWN = 900.0  # seconds
JUMP = 1.5  # times the recent rate
_MOST = 256  # ways out: reloads may bring ever new names
_RARE = 0.01  # a share of failures below which none is usual
# answers that say nothing about the way out
_NO_FAILURE = ("module.not-found", "sum.mismatch", "module.bad-zip")


@dataclass(slots=True)
class Mean:
    """Exponentially weighted mean and variance of what it was taught; `half_life` in lessons."""

    half_life: float
    count: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def teach(self, value: float) -> None:
        """All lessons weigh the same until there are as many as the average looks back over."""
        self.count += 1
        part = max(1 / self.count, 1 - 0.5 ** (1 / self.half_life))
        off = value - self.mean
        self.mean += part * off
        self.variance = (1 - part) * (self.variance + part * off * off)


@dataclass(slots=True)
class Way:
    """What is known of one way out; the first two are the window that is open."""

    requests: int = 0
    failures: int = 0
    usual: Mean = field(default_factory=lambda: Mean(HALF_LIFE))
    recent: Mean = field(default_factory=lambda: Mean(RECENT))
    share: Mean = field(default_factory=lambda: Mean(HALF_LIFE))
    scatter: Mean = field(
        default_factory=lambda: Mean(HALF_LIFE)
    )  # of squares, 1 where failures are by chance
    busy: list[tuple[int, float]] = field(default_factory=list)  # windows beyond: requests, deviations
    failing: list[tuple[int, int, float]] = field(default_factory=list)  # requests, failures, deviations
    quiet: dict[str, float] = field(default_factory=dict)  # signal -> end of its cool-down


class Alerts:
    """An `Emit` that counts, and tells `emit` of alerts.  `clock` in seconds, such as time.monotonic.

    A window is judged when the next one begins, so `tick` has to be called now and then.
    """

    def __init__(self, sigma: float, emit: Emit, clock: Callable[[], float] = time.monotonic) -> None:
        if not sigma > 0:
            raise ValueError("want sigma > 0")
        self._sigma, self._emit, self._clock = sigma, emit, clock
        self._ways: OrderedDict[str, Way] = OrderedDict()
        self._window = int(clock() // WINDOW)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Dial):
            self.count(event.upstream, event.ok)
        elif isinstance(event, Fetch) and event.upstream and not event.cached:
            self.count(event.upstream, event.error is None or event.error in _NO_FAILURE)

    def count(self, upstream: str, ok: bool) -> None:
        """One request by a way out."""
        self.tick()
        way = self._ways.setdefault(upstream, Way())
        self._ways.move_to_end(upstream)
        if len(self._ways) > _MOST:
            self._ways.popitem(last=False)
        way.requests += 1
        way.failures += not ok

    def tick(self) -> None:
        """Judge the window that has ended, if one has."""
        now = self._clock()
        window = int(now // WINDOW)
        if window <= self._window:
            return
        self._window = window
        alerts = [alert for name, way in self._ways.items() for alert in judge(name, way, self._sigma, now)]
        mine = RUN.set("")  # an alert is nobody's own
        try:
            for alert in alerts:
                self._emit(alert)
        finally:
            RUN.reset(mine)


def judge(name: str, way: Way, sigma: float, now: float) -> list[Alert]:
    """End the window of `way`: what is out of the ordinary, after which the window teaches."""
    requests, failures = way.requests, way.failures
    way.requests = way.failures = 0
    if not requests:
        way.busy.clear()
        return []
    found = [_requests(name, way, requests, sigma), _failures(name, way, requests, failures, sigma)]
    alerts = []
    for alert in found:
        if alert is not None and now >= way.quiet.get(alert.signal, -math.inf):
            way.quiet[alert.signal] = now + COOL_DOWN
            alerts.append(alert)
    return alerts


def _requests(name: str, way: Way, requests: int, sigma: float) -> Alert | None:
    value = 2 * math.sqrt(requests + 0.375)
    usual, deviation = way.usual.mean, max(1.0, math.sqrt(way.usual.variance))
    off = (value - usual) / deviation
    warm = way.usual.count >= WARM_UP
    # the minutes before, without those of the streak
    above = (value - way.recent.mean) / max(1.0, math.sqrt(way.recent.variance))
    jumped = above > sigma and requests > JUMP * _count(way.recent.mean)
    if warm and off > sigma and jumped:
        way.busy.append((requests, off))
        del way.busy[:-STREAK]
    else:
        way.busy.clear()
        way.recent.teach(value)
    if not warm:
        way.usual.teach(value)
    else:
        way.usual.teach(usual + deviation * max(-sigma, min(sigma, off)))
    if len(way.busy) < STREAK:
        return None
    rate = sum(count for count, _ in way.busy) / len(way.busy) / WINDOW
    least = min(off for _, off in way.busy)
    way.recent.teach(value)  # told: what stays so is no jump for ever
    return Alert("request_rate", rate, _count(usual) / WINDOW, least, name)


def _failures(name: str, way: Way, requests: int, failures: int, sigma: float) -> Alert | None:
    usual = way.share.mean
    p = min(max(usual, _RARE), 0.99)
    chance = math.sqrt(p * (1 - p) / requests)
    deviation = chance * max(1.0, math.sqrt(way.scatter.mean))
    off = (failures / requests - p) / deviation
    warm = way.share.count >= WARM_UP
    if warm and off > sigma:
        way.failing.append((requests, failures, off))
        del way.failing[:-RECENT]
    else:
        way.failing.clear()
    clipped = max(-sigma, min(sigma, off)) if warm else off
    way.scatter.teach(min((clipped * deviation / chance) ** 2, 100.0))
    way.share.teach(
        min(1.0, max(0.0, p + clipped * deviation)) if off > sigma and warm else failures / requests
    )
    of = sum(count for count, _, _ in way.failing)
    failed = sum(count for _, count, _ in way.failing)
    # of a few requests one failure is far out by p(1-p)/n: those of the streak count together, as above
    together = 2 * math.sqrt(failed + 0.375) - 2 * math.sqrt(of * p + 0.375)
    if len(way.failing) < STREAK or together < sigma:
        return None
    least = min(off for _, _, off in way.failing)
    return Alert("failure_rate", 100 * failed / of, 100 * usual, least, name)


def _count(value: float) -> float:
    """The requests that a mean of 2·sqrt(n + 3/8) stands for."""
    return max(0.0, value * value / 4 - 0.375)
