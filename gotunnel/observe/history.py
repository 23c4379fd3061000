"""The last hour: each way out, the module proxy, what went wrong.  The status page and `status` show it.

Rules:
- Pure: events and looks come in, a JSON-ready dict goes out; both clocks are injected.  One thread.
- Memory is bounded: sixty minutes in rings, a number of ways, sources and failures that is fixed.
- Secrets are masked and control characters removed when text comes in, never later.
- What wasn't measured is None, not 0 and not the last value.
- A module that isn't there (`module.not-found`) is an answer, no failure of a source.
"""

from __future__ import annotations

import datetime
import statistics
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any, Literal

from gotunnel import __version__
from gotunnel.address import one_line, redact
from gotunnel.dataclass import dataclass
from gotunnel.observe.events import Alert, BreakerChange, Dial, Event, Failover, Fetch

MINUTES = 60
WAYS = 200  # ways out that are followed at most
FAILURES = 50
_SOURCES = 24  # sources shown by name; the rest are "other"
_SAMPLES = 200  # of a source's latency
_RATE = 5.0  # seconds over which a rate is taken
_LATELY = 20  # failovers and alerts that are kept
MISSING = "module.not-found"

WayState = Literal["up", "down", "unknown", "half-open"]
Names = Literal["here", "far", "none"]
Explain = Callable[[str, str, str], tuple[str, Sequence[str]]]
"""(summary, fixes) of a finding's id, its subject and the way out."""


@dataclass(frozen=True, slots=True)
class WayNow:
    """A way out as it is now.

    `names`: where names are resolved.  `received` and `sent` are bytes so far; a counter that starts anew (a
    reload) may fall.  `last_error` is (finding, detail).
    """

    name: str
    state: WayState
    chain: str = ""
    names: Names = "none"
    links: int = 0
    open_streams: int = 0
    received: int = 0
    sent: int = 0
    latency_ms: float | None = None
    last_error: tuple[str, str] | None = None


def clean(text: str, limit: int = 300) -> str:
    """Fit to be shown: one line, secrets masked."""
    return one_line(redact(text), limit)


class Growth:
    """What a counter grew by since it was last read; one that fell has started anew."""

    def __init__(self) -> None:
        self._before = 0

    def of(self, value: int) -> int:
        """The growth up to `value`, never negative."""
        before, self._before = self._before, value
        return value - before if value >= before else max(0, value)


@dataclass(slots=True)
class _Minute:
    dials: int = 0
    dialled_ms: float = 0.0
    looked_ms: float | None = None  # used where nothing was dialled
    bytes: int = 0
    failures: int = 0

    @property
    def latency(self) -> float | None:
        return round(self.dialled_ms / self.dials, 1) if self.dials else self.looked_ms


class _Hour:
    """Sixty minutes, the last one being the present; minutes nobody wrote in are empty."""

    def __init__(self) -> None:
        self._minutes: deque[tuple[int, _Minute]] = deque(maxlen=MINUTES)

    def at(self, minute: int) -> _Minute:
        """The minute to write in; `minute` never falls."""
        if not self._minutes or self._minutes[-1][0] != minute:
            self._minutes.append((minute, _Minute()))
        return self._minutes[-1][1]

    def snapshot(self, minute: int) -> dict[str, list[Any]]:
        there = dict(self._minutes)
        row = [there.get(minute - ago, _NOTHING) for ago in range(MINUTES - 1, -1, -1)]
        return {
            "latency": [each.latency for each in row],
            "bytes": [each.bytes for each in row],
            "failures": [each.failures for each in row],
        }


_NOTHING = _Minute()


class _Way:
    def __init__(self, name: str) -> None:
        self.now = WayNow(name, "unknown")
        self.hour = _Hour()
        self.growth_in, self.growth_out = Growth(), Growth()
        self.bytes_in = self.bytes_out = 0
        self.recent: deque[tuple[float, int, int]] = deque()
        self.latency: float | None = None

    def look(self, now: WayNow, at: float, minute: int) -> None:
        came, went = self.growth_in.of(now.received), self.growth_out.of(now.sent)
        self.bytes_in += came
        self.bytes_out += went
        self.recent.append((at, self.bytes_in, self.bytes_out))
        while self.recent[0][0] < at - _RATE:
            self.recent.popleft()
        slot = self.hour.at(minute)
        slot.bytes += came + went
        # the same value twice was not measured twice
        if now.latency_ms is not None and now.latency_ms != self.now.latency_ms and now.state != "down":
            slot.looked_ms = round(now.latency_ms, 1)
        self.latency = now.latency_ms if now.latency_ms is not None else self.latency
        self.now = now

    def rates(self) -> tuple[int, int]:
        """Bytes a second (in, out)."""
        if len(self.recent) < 2:
            return 0, 0
        (begin, first_in, first_out), (end, last_in, last_out) = self.recent[0], self.recent[-1]
        span = max(end - begin, 0.5)
        return round((last_in - first_in) / span), round((last_out - first_out) / span)

    def snapshot(self, minute: int) -> dict[str, Any]:
        now, (rate_in, rate_out) = self.now, self.rates()
        error = now.last_error
        return {
            "name": clean(now.name, 120),
            "chain": clean(now.chain),
            "state": now.state,
            "names": now.names,
            "latency_ms": None if self.latency is None else round(self.latency, 1),
            "streams": now.open_streams,
            "links": now.links,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "rate_in": rate_in,
            "rate_out": rate_out,
            "last_error": error and {"finding": clean(error[0], 80), "detail": clean(error[1])},
            "hour": self.hour.snapshot(minute),
        }


@dataclass(slots=True)
class _Source:
    requests: int = 0
    failures: int = 0
    ms: deque[float] = field(default_factory=lambda: deque(maxlen=_SAMPLES))


class History:
    """An Emit with a memory.

    `explain` turns a finding into words; `clock` in seconds, `wall` the time of day.
    """

    def __init__(
        self,
        explain: Explain = lambda finding, subject, via: ("", ()),
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._explain, self._clock, self._wall = explain, clock, wall
        self._began, self._started = clock(), self._ts()
        self._ways: dict[str, _Way] = {}
        self._runs = 0
        self._store: dict[str, Any] | None = None
        self._requests = self._hits = self._missing = self._bytes = 0
        self._sources: dict[str, _Source] = {}
        self._failures: OrderedDict[tuple[str, str, str], dict[str, Any]] = OrderedDict()
        self._moves: OrderedDict[tuple[str, str, str], dict[str, Any]] = OrderedDict()
        self._failovers = 0
        self._alerts: deque[dict[str, Any]] = deque(maxlen=_LATELY)

    # --- what comes in ------------------------------------------------------------------------------

    def __call__(self, event: Event) -> None:
        match event:
            case Dial():
                self._dialled(event)
            case BreakerChange():
                finding, name = event.reason or "unknown", event.upstream
                latest = next(reversed(self._failures), ("", "", ""))
                if event.state == "open" and (latest[0], latest[2]) != (finding, name):  # told as a dial
                    self._fail(finding, name, name, event.detail)
            case Failover():
                self._moved(event)
            case Fetch():
                self._fetched(event)
            case Alert():
                self._alerts.append(
                    {
                        "ts": self._ts(),
                        "signal": clean(event.signal, 80),
                        "upstream": clean(event.upstream, 120),
                        "value": round(event.value, 2),
                        "mean": round(event.mean, 2),
                        "sigma": round(event.sigma, 1),
                    }
                )

    def look(
        self, ways: Sequence[WayNow], *, runs: int | None = None, store: Mapping[str, Any] | None = None
    ) -> None:
        """Each second: the ways out as they are; those that aren't named are forgotten.

        `runs` that use us now; `store`: what is known of the module store, JSON-ready (`url`, `bytes`).
        """
        at, minute = self._clock(), self._minute()
        ways = ways[:WAYS]
        self._ways = {way.name: self._ways.get(way.name) or _Way(way.name) for way in ways}
        for way in ways:
            self._ways[way.name].look(way, at, minute)
        self._runs = self._runs if runs is None else runs
        if store is not None:
            self._store = {k: clean(v) if isinstance(v, str) else v for k, v in store.items()}

    def _way(self, name: str) -> _Way | None:
        way = self._ways.get(name)
        if way is None and len(self._ways) < WAYS:
            way = self._ways[name] = _Way(name)  # the next look decides whether it stays
        return way

    def _dialled(self, event: Dial) -> None:
        if (way := self._way(event.upstream)) is not None:
            slot = way.hour.at(self._minute())
            if event.ok:
                slot.dials += 1
                slot.dialled_ms += event.ms
                way.latency = event.ms
            else:
                slot.failures += 1
        if not event.ok:
            self._fail(event.error or "unknown", event.target, event.upstream, event.detail)

    def _fetched(self, event: Fetch) -> None:
        self._requests += 1
        missing = event.error == MISSING
        self._missing += missing
        if event.cached:
            self._hits += 1
        elif event.origin:
            name = clean(event.origin, 120)
            if name not in self._sources and len(self._sources) >= _SOURCES:
                name = "other"
            source = self._sources.setdefault(name, _Source())
            source.requests += 1
            source.ms.append(event.ms)
            source.failures += event.error is not None and not missing
        if event.error is None:
            self._bytes += event.bytes
        elif not missing:
            self._fail(event.error, event.path, event.upstream or event.origin, event.detail)

    def _moved(self, event: Failover) -> None:
        self._failovers += 1
        key = (event.source, event.to, event.reason)
        count = self._moves.pop(key, {"count": 0})["count"] + 1
        self._moves[key] = {
            "ts": self._ts(),
            "from": clean(event.source, 120),
            "to": clean(event.to, 120),
            "reason": clean(event.reason, 80),
            "detail": clean(event.detail or ""),
            "target": clean(event.target),
            "count": count,
        }
        while len(self._moves) > _LATELY:
            self._moves.popitem(last=False)

    def _fail(self, finding: str, subject: str, via: str, detail: str | None) -> None:
        key = (finding, subject, via)
        before = self._failures.pop(key, None)
        if before is None:
            summary, fix = self._explain(finding, subject, via)
            before = {
                "first": self._ts(),
                "count": 0,
                "finding": clean(finding, 80),
                "summary": clean(summary),
                "subject": clean(subject),
                "via": clean(via, 120),
                "fix": [clean(line) for line in fix],
            }
        self._failures[key] = before | {
            "ts": self._ts(),
            "count": before["count"] + 1,
            "detail": clean(detail or ""),
        }
        while len(self._failures) > FAILURES:
            self._failures.popitem(last=False)

    # --- what goes out ------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """All of it, JSON-ready; the latest failure and failover first.  Times are RFC 3339, UTC."""
        minute = self._minute()
        ways = [way.snapshot(minute) for way in self._ways.values()]
        return {
            "version": __version__,
            "started": self._started,
            "now": self._ts(),
            "uptime": round(self._clock() - self._began, 1),
            "ways": ways,
            "streams": sum(way["streams"] for way in ways),
            "runs": self._runs,
            "modproxy": {
                "requests": self._requests,
                "hits": self._hits,
                "missing": self._missing,
                "hit_ratio": round(self._hits / self._requests, 4) if self._requests else None,
                "bytes": self._bytes,
                "sources": [
                    {
                        "name": name,
                        "requests": source.requests,
                        "failures": source.failures,
                        "ms_p50": round(statistics.median(source.ms), 1) if source.ms else None,
                    }
                    for name, source in sorted(self._sources.items(), key=lambda item: -item[1].requests)
                ],
                "store": self._store,
            },
            "failovers": {"count": self._failovers, "last": list(reversed(self._moves.values()))},
            "failures": list(reversed(self._failures.values())),
            "alerts": list(reversed(self._alerts)),
        }

    def _minute(self) -> int:
        return int((self._clock() - self._began) // 60)

    def _ts(self) -> str:
        return self._wall().astimezone(datetime.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
