"""Some seconds of a service's day (`tests/endurance.py`); GOTUNNEL_SOAK makes it the whole of the issue."""

from __future__ import annotations

import os
import sys

import pytest

from tests.conftest import need
from tests.endurance import CLIENTS, Figures, Report, live, temporary
from tests.lab import sshd

LONG = bool(os.environ.get("GOTUNNEL_SOAK"))
REQUESTS, DEATHS = (200_000, 500) if LONG else (6000, 12)
FIGURES = Figures(descriptors=15, tasks=8, threads=3, objects=70_000, memory=75.0)


@pytest.mark.timeout(3600 if LONG else 240)
async def test_a_day_leaves_nothing_behind() -> None:
    need(sshd.can_run_sshd(), (sys.platform == "linux", "figures come from /proc"))
    with temporary() as day:
        report = await live(day, requests=REQUESTS, count=DEATHS, seed=5)
        assert day.serve.running
    assert report.well, "\n".join(report.lines())
    assert report.deaths == DEATHS
    assert report.over >= REQUESTS
    assert set(report.requests) == {"connect", "absolute", "module", "rude"}


def test_what_counts_as_growth() -> None:
    report = Report(start=FIGURES, end=FIGURES, deaths=1)
    assert report.well
    for more in (
        Figures(descriptors=30, tasks=8, threads=3, objects=70_000, memory=75.0),
        Figures(descriptors=15, tasks=20, threads=3, objects=70_000, memory=75.0),
        Figures(descriptors=15, tasks=8, threads=3, objects=90_000, memory=75.0),
        Figures(descriptors=15, tasks=8, threads=3, objects=70_000, memory=130.0),
    ):
        report.end = more
        assert len(report.grew()) == 1
        assert not report.well
    report.end = FIGURES
    report.failed["connect: ConnectionResetError"] = CLIENTS + 1
    assert not report.well
    report.failed.clear()
    report.wrong.append("module: 1 bytes, not 2")
    assert not report.well
