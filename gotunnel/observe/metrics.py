"""Metrics for Prometheus, in that field's conventions (https://prometheus.io/docs/practices/naming/).

Rules:
- A registry of our own: nothing that a library counts appears by itself.
- Bounded cardinality: `upstream` is a name that `look` gave (the configured ones), else "other"; never a
  target, a module or an error's text.  The series of a way out that is configured no more end.
- Seconds and bytes, counters end in _total.
- Imported only by who serves metrics: prometheus_client takes a while.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics import MetricWrapperBase, disable_created_metrics

from gotunnel import __version__
from gotunnel.address import one_line, redact
from gotunnel.observe.events import Alert, BreakerChange, Dial, Event, Failover, Fetch, Resume
from gotunnel.observe.history import MISSING, WAYS, Growth, WayNow

OTHER = "other"
_DIAL = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
_FETCH = (0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0)  # seconds
_SIGNALS = ("request_rate", "failure_rate")
_KINDS = {"info": "info", "mod": "mod", "zip": "zip", "list": "list", "@latest": "latest"}


class Metrics:
    """An Emit that counts; `look` is called as History's is, `render` by whoever is asked."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = mine = CollectorRegistry()
        ProcessCollector(registry=mine)
        info = Info("gotunnel_build", "Version of gotunnel and of the Python it runs on.", registry=mine)
        info.info({"version": __version__, "python": platform.python_version()})
        way = ["upstream"]
        self._dials = Counter("gotunnel_dials", "Tries to reach a target.", [*way, "result"], registry=mine)
        self._dial_seconds = Histogram(
            "gotunnel_dial_seconds", "Time to reach a target.", way, buckets=_DIAL, registry=mine
        )
        self._failovers = Counter(
            "gotunnel_failovers", "Times that traffic left a way out for another.", way, registry=mine
        )
        self._opened = Counter(
            "gotunnel_breaker_opened", "Times that a way out was given up.", way, registry=mine
        )
        self._up = Gauge("gotunnel_upstream_up", "1 while the way out works, else 0.", way, registry=mine)
        self._links = Gauge("gotunnel_upstream_links", "Connections to the first hop.", way, registry=mine)
        self._streams = Gauge("gotunnel_open_streams", "Streams open now.", way, registry=mine)
        self._relayed = Counter(
            "gotunnel_relayed_bytes", "Bytes carried by a way out.", [*way, "direction"], registry=mine
        )
        self._runs = Gauge("gotunnel_runs", "Runs that use the service now.", registry=mine)
        self._requests = Counter(
            "gotunnel_modproxy_requests",
            "Files that were asked of the module proxy.",
            ["kind", "result", "cached"],
            registry=mine,
        )
        self._bytes = Counter("gotunnel_modproxy_bytes", "Bytes of module files.", ["cached"], registry=mine)
        self._seconds = Histogram(
            "gotunnel_modproxy_seconds", "Time to answer for a module file.", ["cached"], buckets=_FETCH,
            registry=mine,
        )  # fmt: skip
        self._resumes = Counter("gotunnel_modproxy_resumes", "Bodies that went on elsewhere.", registry=mine)
        self._alerts = Counter("gotunnel_alerts", "Alerts raised.", [*way, "signal"], registry=mine)
        self._growth: dict[str, tuple[Growth, Growth]] = {}  # by configured name
        self._label: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        match event:
            case Dial():
                name = self._named(event.upstream)
                self._dials.labels(name, "ok" if event.ok else "failed").inc()
                if event.ok:
                    self._dial_seconds.labels(name).observe(event.ms / 1000)
            case Failover():
                self._failovers.labels(self._named(event.source)).inc()
            case BreakerChange():
                if event.state == "open":
                    self._opened.labels(self._named(event.upstream)).inc()
            case Fetch():
                self._fetched(event)
            case Resume():
                self._resumes.inc()
            case Alert():
                signal = event.signal if event.signal in _SIGNALS else OTHER
                self._alerts.labels(self._named(event.upstream), signal).inc()

    def look(self, ways: Sequence[WayNow], *, runs: int | None = None) -> None:
        """Each second: the ways out as they are; these are the names that may stand in a label."""
        ways = ways[:WAYS]
        for gone in self._growth.keys() - {way.name for way in ways}:
            self._forget(gone)
        for way in ways:
            came, went = self._growth.setdefault(way.name, (Growth(), Growth()))
            name = self._label.setdefault(way.name, one_line(redact(way.name), 120))
            self._up.labels(name).set(way.state == "up")
            self._links.labels(name).set(way.links)
            self._streams.labels(name).set(way.open_streams)
            self._relayed.labels(name, "received").inc(came.of(way.received))
            self._relayed.labels(name, "sent").inc(went.of(way.sent))
        if runs is not None:
            self._runs.set(runs)

    def render(self) -> tuple[str, bytes]:
        """(content type, text)."""
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def _named(self, upstream: str) -> str:
        return self._label.get(upstream, OTHER)

    def _forget(self, upstream: str) -> None:
        del self._growth[upstream]
        label = self._label.pop(upstream)
        metrics: tuple[tuple[MetricWrapperBase, tuple[str, ...]], ...] = (
            (self._dials, ("ok", "failed")),
            (self._relayed, ("received", "sent")),
            (self._alerts, (*_SIGNALS, OTHER)),
            *((each, ()) for each in (self._dial_seconds, self._failovers, self._opened)),
            *((each, ()) for each in (self._up, self._links, self._streams)),
        )
        for metric, seconds in metrics:
            rows: list[tuple[str, ...]] = [(label, second) for second in seconds]
            for values in rows or [(label,)]:
                with contextlib.suppress(KeyError):  # never counted
                    metric.remove(*values)

    def _fetched(self, event: Fetch) -> None:
        result = "ok" if event.error is None else "missing" if event.error == MISSING else "failed"
        cached = "true" if event.cached else "false"
        self._requests.labels(_kind(event.path), result, cached).inc()
        self._seconds.labels(cached).observe(event.ms / 1000)
        if event.error is None:
            self._bytes.labels(cached).inc(event.bytes)


def _kind(path: str) -> str:
    """What kind of file `path` of the module proxy names: one of eight words."""
    if path.startswith("sumdb/"):
        return "sumdb"
    last = path.rpartition("/")[2]
    return _KINDS.get(last) or _KINDS.get(last.rpartition(".")[2], OTHER)
