"""The bench runs, on sizes that prove nothing about speed; the sums it does are right."""

from __future__ import annotations

import json

import pytest

from tests.bench.__main__ import main
from tests.bench.table import Aim, Case, Contender, run, table
from tests.conftest import need
from tests.lab import proc, sshd


def test_ratios_and_aims() -> None:
    values = {"ours": iter([9.0, 1.0, 30.0, 2.0]), "theirs": iter([9.0, 4.0, 4.0, 40.0])}
    order: list[str] = []

    def measure(name: str) -> float:
        order.append(name)
        return next(values[name])

    case = Case(
        "x", "a case", "ms",
        [Contender("ours", lambda: measure("ours")), Contender("theirs", lambda: measure("theirs"))],
        [Aim("ours", 0.5, "theirs"), Aim("ours", 1.5)],
    )  # fmt: skip
    result = run(case, 3)
    # the first round warms and is not counted; who begins takes turns
    assert result.samples == {"ours": [1.0, 30.0, 2.0], "theirs": [4.0, 4.0, 40.0]}
    assert order[2::2] == ["ours", "theirs", "ours"]
    assert [result.reached(aim) for aim in case.aims] == [(0.5, True), (2.0, False)]
    text = table(result)
    assert "ours at most 0.5 x theirs: 0.50, reached" in text
    assert "ours at most 1.5 ms: 2.00, NOT reached" in text


def test_every_case_gives_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """A transfer that loses or adds a byte, or a greeting that is not whole, is an error of the bench."""
    need(sshd.can_run_sshd(), (proc.tool("curl") is not None, "not installed: curl"))
    assert main(["--in-place", "--rounds", "1", "--size", "2", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [r["case"] for r in results] == [
        "help", "run-overhead", "connect", "channel", "bulk", "bulk-up", "bulk-chain",
    ]  # fmt: skip
    medians = [c["median"] for result in results for c in result["contenders"].values()]
    assert len(medians) >= 18
    assert all(median > 0 for median in medians)


def test_an_unknown_case_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bulk", "blk"])
    assert "no such case: blk; cases: help," in capsys.readouterr().err
