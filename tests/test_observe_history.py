"""The last hour: what it keeps, for how long, and how much."""

from __future__ import annotations

import datetime
import json

from gotunnel.observe.events import Alert, BreakerChange, Dial, Failover, Fetch
from gotunnel.observe.history import FAILURES, History, WayNow
from tests.scripted import SECRETS, Script

TARGET = "proxy.golang.org:443"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> datetime.datetime:
        return datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(
            seconds=self.now - 1000
        )


def made() -> tuple[History, Clock]:
    clock = Clock()
    return History(lambda *_: ("words", ("a fix",)), clock=clock, wall=clock.wall), clock


def test_an_hour_of_latency_bytes_and_failures_by_minute() -> None:
    history, clock = made()
    history.look([WayNow("tokyo", "up", received=100, sent=10)])
    history(Dial("tokyo", TARGET, 10.0, True))
    history(Dial("tokyo", TARGET, 30.0, True))
    clock.now += 60
    history(Dial("tokyo", TARGET, 5000.0, False, "tcp.timeout"))
    history.look([WayNow("tokyo", "down", received=1100, sent=10)])
    clock.now += 60
    (way,) = history.snapshot()["ways"]
    hour = way["hour"]
    assert [len(row) for row in hour.values()] == [60, 60, 60]
    assert hour["latency"][-4:] == [None, 20.0, None, None]  # the mean; nothing where nothing was measured
    assert hour["bytes"][-4:] == [0, 110, 1000, 0]
    assert hour["failures"][-4:] == [0, 0, 1, 0]
    assert (way["bytes_in"], way["bytes_out"], way["latency_ms"]) == (1100, 10, 30.0)
    clock.now += 57 * 60
    assert history.snapshot()["ways"][0]["hour"]["bytes"][:2] == [110, 1000]
    clock.now += 60 * 60
    assert history.snapshot()["ways"][0]["hour"] == {
        "latency": [None] * 60, "bytes": [0] * 60, "failures": [0] * 60
    }  # fmt: skip


def test_a_latency_that_was_only_looked_at_counts_once() -> None:
    history, clock = made()
    for latency in (12.0, 12.0, 15.0):
        history.look([WayNow("a", "up", latency_ms=latency)])
        clock.now += 60
    assert history.snapshot()["ways"][0]["hour"]["latency"][-4:] == [12.0, None, 15.0, None]


def test_rates_are_of_the_last_seconds_and_a_counter_may_start_anew() -> None:
    history, clock = made()
    for received in (0, 1000, 2000, 3000):
        history.look([WayNow("a", "up", received=received)])
        clock.now += 1
    assert history.snapshot()["ways"][0]["rate_in"] == 1000
    history.look([WayNow("a", "up", received=500)])  # a reload
    assert history.snapshot()["ways"][0]["bytes_in"] == 3500
    for _ in range(7):
        clock.now += 1
        history.look([WayNow("a", "up", received=500)])
    assert history.snapshot()["ways"][0]["rate_in"] == 0


def test_a_way_that_is_configured_no_more_is_gone_and_the_order_is_the_configuration_s() -> None:
    history, _ = made()
    history(Dial("early", TARGET, 1.0, True))
    assert history.snapshot()["ways"][0]["state"] == "unknown"
    history.look([WayNow("b", "up"), WayNow("a", "up")])
    history(Dial("early", TARGET, 1.0, True))
    history.look([WayNow("b", "up"), WayNow("a", "up", open_streams=3)])
    snapshot = history.snapshot()
    assert [way["name"] for way in snapshot["ways"]] == ["b", "a"]
    assert snapshot["streams"] == 3


def test_failures_are_grouped_the_latest_first_and_explained_once() -> None:
    asked = []

    def explain(finding: str, subject: str, via: str) -> tuple[str, tuple[str, ...]]:
        asked.append(finding)
        return f"about {finding}", ("mend it",)

    clock = Clock()
    history = History(explain, clock=clock, wall=clock.wall)
    history(Dial("a", TARGET, 1.0, False, "tcp.timeout", "first"))
    history(BreakerChange("a", "open", "tcp.timeout", "first"))  # the same thing
    history(Dial("a", "other:1", 1.0, False, "tcp.refused", "no"))
    clock.now += 5
    history(Dial("a", TARGET, 1.0, False, "tcp.timeout", "again"))
    history(BreakerChange("a", "closed"))
    history(BreakerChange("b", "open", "hop.stalled", "between two dials"))
    failures = history.snapshot()["failures"]
    assert [(f["finding"], f["count"]) for f in failures] == [
        ("hop.stalled", 1), ("tcp.timeout", 2), ("tcp.refused", 1)
    ]  # fmt: skip
    assert failures[1] == {
        "ts": "2026-01-01T00:00:05Z", "first": "2026-01-01T00:00:00Z", "finding": "tcp.timeout",
        "summary": "about tcp.timeout", "subject": TARGET, "via": "a", "fix": ["mend it"], "count": 2,
        "detail": "again",
    }  # fmt: skip
    assert asked == ["tcp.timeout", "tcp.refused", "hop.stalled"]


def test_the_module_proxy_hits_sources_and_what_is_not_there() -> None:
    history, _ = made()
    assert history.snapshot()["modproxy"]["hit_ratio"] is None
    for ms in (10.0, 20.0, 90.0):
        history(Fetch("m/@v/v1.0.0.mod", "goproxy.cn", "a", 50, ms, False))
    history(Fetch("m/@v/v1.0.0.mod", "goproxy.cn", "", 50, 0.1, True))
    history(Fetch("m/x/@v/list", "goproxy.cn", "a", 0, 20.0, False, "module.not-found", "404"))
    history(Fetch("m/@v/v1.0.0.zip", "sum.golang.org", "a", 0, 20.0, False, "http.truncated", "cut"))
    snapshot = history.snapshot()
    assert snapshot["modproxy"] == {
        "requests": 6, "hits": 1, "missing": 1, "hit_ratio": 0.1667, "bytes": 200,
        "sources": [
            {"name": "goproxy.cn", "requests": 4, "failures": 0, "ms_p50": 20.0},
            {"name": "sum.golang.org", "requests": 1, "failures": 1, "ms_p50": 20.0},
        ],
        "store": None,
    }  # fmt: skip
    assert [f["finding"] for f in snapshot["failures"]] == ["http.truncated"]


def test_failovers_and_alerts() -> None:
    history, clock = made()
    for _ in range(3):
        history(Failover("a", "b", TARGET, "hop.stalled", "no answer"))
    history(Alert("failure_rate", 41.666, 1.0, 5.17, "a"))
    snapshot = history.snapshot()
    assert snapshot["failovers"]["count"] == 3
    assert [(m["from"], m["to"], m["count"]) for m in snapshot["failovers"]["last"]] == [("a", "b", 3)]
    assert snapshot["alerts"][0]["value"] == 41.67
    clock.now += 4000
    assert history.snapshot()["uptime"] == 4000


def test_memory_is_bounded_whatever_comes() -> None:
    history, clock = made()
    for number in range(3000):
        history(Dial(f"way-{number}", f"t{number}:1", 1.0, False, "tcp.refused", "x" * 5000))
        history(Fetch(f"m{number}/@v/list", f"source-{number}", "a", 1, 1.0, False))
        history(Failover(f"a{number}", "b", TARGET, "hop.stalled"))
        clock.now += 7
    snapshot = history.snapshot()
    assert len(snapshot["failures"]) == FAILURES
    assert len(snapshot["ways"]) == 200
    assert len(snapshot["modproxy"]["sources"]) == 25
    assert sum(source["requests"] for source in snapshot["modproxy"]["sources"]) == 3000
    assert len(snapshot["failovers"]["last"]) == 20
    assert max(len(failure["detail"]) for failure in snapshot["failures"]) == 300


def test_no_secret_and_no_control_character_gets_out() -> None:
    script = Script()
    script.hour()
    script.fail_over()
    text = json.dumps(script.history.snapshot(), allow_nan=False)
    assert [secret for secret in SECRETS if secret in text] == []
    assert "\\u001b" not in text
    assert "u:***@h:1" in text  # it was there to be masked
