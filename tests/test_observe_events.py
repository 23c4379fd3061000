"""Events as the lines that a script reads."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import pytest

from gotunnel.observe.events import (
    Alert,
    Attempt,
    BreakerChange,
    Dial,
    EventLog,
    Exit,
    Failover,
    Fetch,
    Ready,
    Resume,
    as_line,
    from_record,
)

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, datetime.UTC)


def test_each_event_has_the_contract_s_fields() -> None:
    def record(event: object) -> dict[str, object]:
        return dict(json.loads(as_line(event, "r1", NOW)))  # type: ignore[arg-type]

    head = {"ts": "2026-01-02T03:04:05.678Z", "run": "r1"}
    assert record(Ready("127.0.0.1:1", None, ("ssh://a",))) == head | {
        "event": "ready", "proxy": "127.0.0.1:1", "modproxy": None, "upstreams": ["ssh://a"]
    }  # fmt: skip
    assert record(Dial("a", "h:443", 12.345, False, "tcp.refused", "no")) == head | {
        "event": "dial", "upstream": "a", "target": "h:443", "ms": 12.3, "ok": False,
        "error": "tcp.refused", "detail": "no",
    }  # fmt: skip
    assert record(Dial("a", "h:443", 1, True)) == head | {
        "event": "dial", "upstream": "a", "target": "h:443", "ms": 1, "ok": True, "error": None
    }  # fmt: skip
    assert record(Failover("a", "b", "h:443", "hop.stalled")) == head | {
        "event": "failover", "from": "a", "to": "b", "target": "h:443", "reason": "hop.stalled"
    }  # fmt: skip
    assert record(BreakerChange("a", "closed"))["state"] == "closed"
    assert record(Attempt(1, "go", 1, "dns.not-found"))["finding"] == "dns.not-found"
    assert record(Attempt(1, "go", 0)) == head | {
        "event": "attempt", "number": 1, "argv0": "go", "exit": 0, "finding": None
    }  # fmt: skip
    assert record(Exit(0, 2, 10.0)) == head | {"event": "exit", "status": 0, "attempts": 2, "ms": 10.0}


def test_a_line_becomes_the_event_that_it_was() -> None:
    for event in (
        Ready("p", None, ("a",)), Dial("a", "t", 1.0, True), Failover("a", "b", "t", "hop.stalled"),
        BreakerChange("a", "open", "tcp.refused", "no"), Attempt(1, "go", 0), Exit(0, 1, 1.0),
        Resume("m", "v1.0.0", 5, "a", "b"), Fetch("p", "s", "a", 1, 1.0, cached=True),
        Alert("failure_rate", 2.0, 1.0, 3.0, "a"),
    ):  # fmt: skip
        read = from_record(json.loads(as_line(event, "r", NOW)))
        assert type(read) is type(event)
        assert read == event
    assert from_record({"event": "of tomorrow"}) is None


def test_secrets_are_masked_in_every_field_and_a_line_is_one_line() -> None:
    line = as_line(Ready("p", None, ("http://u:hush@h:1", "b\nc")), "r", NOW)
    assert "hush" not in line
    assert "\n" not in line
    assert "hush" not in as_line(Dial("a", "t", 1, False, "unknown", "http://u:hush@h"), "r", NOW)


def test_a_log_appends_and_ends_with_its_run(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_text("before\n")
    log = EventLog(str(path), "r")
    log(Attempt(1, "go\udcff", 0))  # an argv that is no UTF-8
    log.close()
    log(Exit(0, 1, 1.0))
    before, line = path.read_text().splitlines()
    assert before == "before"
    assert json.loads(line)["argv0"].startswith("go")


def test_a_full_disk_ends_the_log_and_nothing_else() -> None:
    told: list[str] = []
    log = EventLog("/dev/full", "r", told.append)
    for _ in range(3):
        log(Exit(0, 1, 1.0))
    log.close()
    assert told == ["No space left on device"]


def test_a_file_that_cannot_be_opened_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        EventLog(str(tmp_path), "r")


def test_standard_error_may_be_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = EventLog("-", "r")
    log(Exit(0, 1, 1.0))
    assert json.loads(capsys.readouterr().err)["event"] == "exit"
    monkeypatch.setattr("sys.stderr", None)
    log = EventLog("-", "r")
    log(Exit(0, 1, 1.0))
    log.close()
