"""Findings and their report, as doctor and explain print them."""

from __future__ import annotations

import json

from gotunnel.findings.catalogue import finding, report

KEYS = ["id", "severity", "stage", "subject", "via", "summary", "evidence", "fix", "retryable"]


def test_a_finding_has_the_contracts_keys() -> None:
    found = finding("tcp.refused", "proxy.golang.org:443", "ssh://tokyo", host="proxy.golang.org", port="443")
    shown = found.as_json()
    assert list(shown) == KEYS
    assert shown["stage"] == "connect"
    assert shown["retryable"] is True
    assert "gotunnel probe https://proxy.golang.org" in shown["fix"]


def test_what_is_not_known_stands_in_capitals() -> None:
    assert "go env -w GOPRIVATE=MODULE" in finding("goprivate.missing").fix
    assert "go env -w GOPRIVATE=MODULE" in finding("goprivate.missing", module="").fix


def test_an_id_from_elsewhere_is_unknown() -> None:
    assert finding("weather.bad").id == "unknown"


def test_no_secret_leaves() -> None:
    found = finding(
        "proxy.denied",
        "http://u:pass1@proxy:3128",
        "http://u:pass2@proxy:3128",
        evidence={"tried": ["http://u:pass3@proxy:3128"], "deep": {"url": "http://u:pass4@h/"}, "n": 3},
        fix=("export HTTPS_PROXY=http://u:pass5@proxy:3128",),
    )
    text = json.dumps(found.as_json())
    assert "pass" not in text
    assert found.as_json()["evidence"]["n"] == 3


def test_the_lowest_layer_is_the_root_cause() -> None:
    told = report(
        [
            finding("goproxy.no-fallback"),
            finding("build.failed"),
            finding("http.truncated"),
            finding("dns.timeout"),
        ]
    )
    assert told["root_cause"] == "dns.timeout"
    assert told["ok"] is False
    ids = [f["id"] for f in told["findings"]]
    assert ids == ["dns.timeout", "http.truncated", "build.failed", "goproxy.no-fallback"]


def test_equals_keep_their_order() -> None:
    told = report([finding("tcp.timeout", "a"), finding("tcp.refused", "b")])
    assert [f["subject"] for f in told["findings"]] == ["a", "b"]


def test_a_warning_alone_is_healthy() -> None:
    assert report([finding("goprivate.too-wide")])["ok"] is True
    assert report([]) == {"ok": True, "root_cause": None, "findings": []}
