"""The bench runs, on sizes that prove nothing about speed; the sums it does are right."""

from __future__ import annotations

import json

import pytest

from tests.bench import wan
from tests.bench.__main__ import main, narrowed
from tests.bench.table import Aim, Case, Contender, run, table
from tests.conftest import need
from tests.lab import proc, sshd, wanlab


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


def test_a_cold_case_has_no_round_to_warm_up_and_a_bound() -> None:
    values = {"ours": 3.0, "theirs": 30.0}
    contenders = [Contender(name, lambda name=name: values[name]) for name in values]  # type: ignore[misc]
    aims = [Aim("ours", 0.5, "theirs"), Aim("ours", 5)]
    case = Case("x", "a case", "s", contenders, aims, warm=False, bound=1.5)
    result = run(case, 1)
    assert result.samples == {"ours": [3.0], "theirs": [30.0]}
    lines = [line.split() for line in table(result).splitlines()]
    assert lines[2] == ["ours", "3.00", "3.00", "3.00", "1.00", "2.00", "s"]
    assert lines[4] == ["bound", "1.50"]
    alone = narrowed(case, "ours")
    assert [contender.name for contender in alone.contenders] == ["ours"]
    assert alone.aims == [Aim("ours", 5)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", wan.WAN_CASES)
def test_wan_cases_give_numbers(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every contender brings every module whole: a wrong byte is an error of the bench."""
    need(wanlab.able())
    monkeypatch.setattr(wan, "MODULES", 6)
    monkeypatch.setattr(wan, "LEVELS", 2)
    monkeypatch.setattr(wan, "ZIP", 100_000)
    monkeypatch.setattr(wan, "LARGE", 300_000)
    assert main([name, "--in-place", "--rtt", "10", "--loss", "0", "--rate", "100", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert {wan.SSH, wan.HTTP} < set(result["contenders"])
    assert all(told["median"] > 0 for told in result["contenders"].values())


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
