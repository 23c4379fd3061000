"""Metrics as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from gotunnel.observe.events import Alert, Dial, Failover, Fetch, Resume
from gotunnel.observe.history import WayNow
from gotunnel.observe.metrics import Metrics
from tests.scripted import SECRETS, Script

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(metrics: Metrics) -> Samples:
    """Every sample by name and labels, through Prometheus' own parser."""
    kind, body = metrics.render()
    assert kind.startswith("text/plain; version=")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def at(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, tuple(sorted(labels.items()))))


def test_each_metric_counts_what_its_name_says() -> None:
    metrics = Metrics()
    metrics.look(
        [WayNow("tokyo", "up", links=2, open_streams=3, received=10, sent=5), WayNow("b", "down")], runs=4
    )
    metrics.look(
        [WayNow("tokyo", "up", links=2, open_streams=3, received=30, sent=5), WayNow("b", "half-open")]
    )
    metrics(Dial("tokyo", "t:1", 40.0, True))
    metrics(Dial("tokyo", "t:1", 4000.0, False, "tcp.timeout"))
    metrics(Failover("tokyo", "b", "t:1", "hop.stalled"))
    metrics(Fetch("m/@v/v1.0.0.zip", "s", "tokyo", 1000, 500.0, False))
    metrics(Fetch("m/@v/v1.0.0.zip", "s", "", 1000, 1.0, True))
    metrics(Fetch("m/@v/list", "s", "", 0, 1.0, False, "module.not-found"))
    metrics(Fetch("m/@latest", "s", "", 0, 1.0, False, "http.truncated"))
    metrics(Fetch("sumdb/sum.golang.org/lookup/m@v1", "s", "", 9, 1.0, False))
    metrics(Resume("m", "v1.0.0", 10, "tokyo", "b"))
    metrics(Alert("failure_rate", 50.0, 1.0, 4.0, "tokyo"))
    samples = read(metrics)
    expected = {
        ("gotunnel_upstream_up", "tokyo"): 1.0,
        ("gotunnel_upstream_up", "b"): 0.0,
        ("gotunnel_upstream_links", "tokyo"): 2.0,
        ("gotunnel_open_streams", "tokyo"): 3.0,
        ("gotunnel_failovers_total", "tokyo"): 1.0,
        ("gotunnel_dial_seconds_count", "tokyo"): 1.0,
        ("gotunnel_dial_seconds_sum", "tokyo"): 0.04,
    }
    assert {key: at(samples, key[0], upstream=key[1]) for key in expected} == expected
    assert at(samples, "gotunnel_dials_total", upstream="tokyo", result="ok") == 1
    assert at(samples, "gotunnel_dials_total", upstream="tokyo", result="failed") == 1
    assert at(samples, "gotunnel_relayed_bytes_total", upstream="tokyo", direction="received") == 30
    assert at(samples, "gotunnel_relayed_bytes_total", upstream="tokyo", direction="sent") == 5
    assert at(samples, "gotunnel_alerts_total", upstream="tokyo", signal="failure_rate") == 1
    assert at(samples, "gotunnel_runs") == 4
    assert at(samples, "gotunnel_modproxy_resumes_total") == 1
    requests = "gotunnel_modproxy_requests_total"
    assert at(samples, requests, kind="zip", result="ok", cached="false") == 1
    assert at(samples, requests, kind="zip", result="ok", cached="true") == 1
    assert at(samples, requests, kind="list", result="missing", cached="false") == 1
    assert at(samples, requests, kind="latest", result="failed", cached="false") == 1
    assert at(samples, requests, kind="sumdb", result="ok", cached="false") == 1
    assert at(samples, "gotunnel_modproxy_bytes_total", cached="false") == 1009
    assert at(samples, "gotunnel_modproxy_seconds_count", cached="true") == 1
    assert [name for name, _ in samples if name == "gotunnel_build_info"] == ["gotunnel_build_info"]


def test_cardinality_is_bounded_by_the_configuration() -> None:
    metrics = Metrics()
    metrics.look([WayNow("tokyo", "up")])
    before = len(read(metrics))
    for number in range(500):
        for name in ("tokyo", f"stranger-{number}"):
            metrics(Dial(name, f"host-{number}:443", 1.0, True))
            metrics(Dial(name, f"host-{number}:443", 1.0, False, f"finding-{number}"))
            metrics(Failover(name, f"to-{number}", f"host-{number}:443", "hop.stalled"))
            metrics(Alert(f"signal-{number}", 1.0, 1.0, 3.0, name))
        metrics(Fetch(f"m{number}/@v/v1.{number}.0.{number}", f"s{number}", "", 1, 1.0, False, f"e{number}"))
    grown = read(metrics)
    assert len(grown) - before < 80
    assert not any("stranger" in value or "host-" in value for _, labels in grown for _, value in labels)
    assert at(grown, "gotunnel_dials_total", upstream="other", result="ok") == 500
    metrics.look([WayNow("paris", "up")])  # a reload
    assert not any(("upstream", "tokyo") in labels for _, labels in read(metrics))


def test_names_follow_the_conventions_and_hold_no_secret() -> None:
    script = Script()
    script.hour()
    script.fail_over()
    text = script.metrics.render()[1].decode()
    assert [secret for secret in SECRETS if secret in text] == []
    for family in text_string_to_metric_families(text):
        assert family.documentation
        assert family.name.startswith(("gotunnel_", "process_"))
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)
