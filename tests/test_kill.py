"""A few runs of the kill tests (`tests/kill.py`); GOTUNNEL_SOAK makes it many, at the sizes of the issue."""

from __future__ import annotations

import dataclasses
import os

import pytest

from tests.conftest import need
from tests.kill import KINDS, Outcome, Plan, lab_for, one_run, report
from tests.lab import wanlab

LONG = bool(os.environ.get("GOTUNNEL_SOAK"))
RUNS = 10 if LONG else 1
PLAN = Plan() if LONG else Plan(zips=8, size=1_000_000, rate=20, kills=3, timeout=60)


@pytest.mark.timeout(3600 if LONG else 300)
@pytest.mark.parametrize("kind", KINDS)
def test_a_download_survives(kind: str) -> None:
    """go sees a pause at most: one attempt, and every byte right."""
    need(wanlab.able())
    plan = dataclasses.replace(PLAN, kind=kind)
    with lab_for(plan) as lab:
        for seed in range(RUNS):
            outcome = one_run(lab, plan, seed)
            assert outcome.well, outcome.line(seed) + "\n" + outcome.stderr
            faults = {record["fault"] for record in lab.origin.requests()} - {""}
            assert faults == ({kind} if kind != "jump" else set())
            assert bool(outcome.kills) is (kind == "jump")


def test_what_counts_as_a_success(capsys: pytest.CaptureFixture[str]) -> None:
    well = Outcome(status=0, attempts=1)
    assert report([well, well]) == 0
    for bad in (
        Outcome(status=1, attempts=1),
        Outcome(status=0, attempts=2),
        Outcome(status=0, attempts=1, damage=["m000: the zip has another h1"]),
    ):
        assert report([well, bad]) == 1
    assert report([]) == 1
    assert "1 of 2 runs succeeded; 1 repeat(s)" in capsys.readouterr().out
