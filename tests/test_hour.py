"""A while on a bad line, and no false death; GOTUNNEL_SOAK for longer, `python -m tests.hour` for an hour."""

from __future__ import annotations

import os
from pathlib import Path

from tests import hour
from tests.conftest import need

SECONDS = 300.0 if os.environ.get("GOTUNNEL_SOAK") else 20.0


def test_no_stream_dies_on_a_line_that_loses(tmp_path: Path) -> None:
    need(hour.able())
    report = hour.soak(SECONDS, tmp_path)
    assert report.deaths == [], report.stderr
    assert report.counts["silent: answers"] >= 1
    assert report.counts["idle: last word answered"] == 1
    assert report.counts["trickle: bytes"] >= 2
    assert report.counts["bulk: bodies"] >= 1
