"""`gotunnel probe` tells whether loss is what limits a way out: an sshd with cubic behind a WAN line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from gotunnel.cli.probe import table
from gotunnel.probe import BBR, Goal, Report, Result
from tests.conftest import need
from tests.lab import wanlab
from tests.lab.corpus import Corpus
from tests.lab.proc import ROOT
from tests.lab.wan import Line

# on the sound line the body's end is near when slow start has filled the queue: losses, but in one burst
LINES = {"loses": Line(delay=25, loss=1, rate=100), "sound": Line(delay=25, rate=20)}


@pytest.mark.parametrize("line", LINES)
def test_loss_is_told_from_a_full_queue(line: str, tmp_path: Path) -> None:
    need(wanlab.able())
    with wanlab.WanLab(
        tmp_path, [LINES[line]], lambda d: Corpus(d, count=1, levels=1, filler=4_000_000)
    ) as lab:
        zip_path = lab.corpus.zip_path(lab.corpus.modules[0]).relative_to(lab.corpus.directory)
        argv = [
            sys.executable,
            "-m",
            "gotunnel",
            "probe",
            "--json",
            *lab.ways(),
            f"{lab.origin.url}/{zip_path}",
        ]
        env = lab.environment() | {"PYTHONPATH": str(ROOT)}
        (way,) = json.loads(lab.client.run(argv, env=env).stdout)["urls"][0]["ways"]
        assert (way["status"], way["finding"]) == (200, None), way
        if line == "loses":
            assert (way["loss_bound"], way["fix"]) == (True, list(BBR)), way
        else:
            assert (way["loss_bound"], way["fix"]) == (False, []), way
            assert way["rate_bps"] > 500_000


def shown(**changes: Any) -> list[str]:
    """The lines below the way's row."""
    result = Result("ssh://dev@tokyo", "far", ok=True, status=200, bytes=10**6, rate=90_000.0, **changes)
    return list(table(Report(Goal.parse("https://x.net/"), [result])))[3:-1]


def test_the_operator_of_the_first_hop_is_told_what_to_do() -> None:
    lines = shown(loss_bound=True, sender="ssh://dev@tokyo")
    assert [line.strip() for line in lines[-2:]] == list(BBR)
    assert "the operator of ssh://dev@tokyo ran:" in " ".join(line.strip() for line in lines)
    assert max(map(len, lines)) <= 80
    assert "packets get lost" in shown(loss_bound=True)[0]  # direct: nobody to tell
    assert not set(BBR) & {line.strip() for line in shown(loss_bound=True)}
    assert shown() == []
