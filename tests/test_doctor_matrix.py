"""Doctor against every fault that it must tell apart, really made; and against networks that are well.

The cases are in tests/faults; `python -m tests.faults` prints them as the README's table.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gotunnel.findings.kinds import KINDS
from tests.conftest import need
from tests.faults import bench, healthy, table
from tests.faults.case import Case
from tests.faults.matrix import CASES
from tests.faults.world import World, can_be

# what the promise names (seconds); a busy machine gets twice as much
HEALTHY_ON_A_LONG_LINE, ALL_BLACK = 3.0, 15.0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The network of all cases."""
    need(*can_be())
    with World(tmp_path_factory.mktemp("faults")) as made:
        yield made


# one in three here; GOTUNNEL_SOAK, or `python -m tests.faults`, for all
SOME = CASES if os.environ.get("GOTUNNEL_SOAK") else CASES[::3]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in SOME])
def test_a_fault_is_named_and_its_fix_makes_go_work(world: World, case: Case) -> None:
    outcome = bench.play(world, case)
    assert not outcome.problems, "\n".join(outcome.problems)


@pytest.mark.parametrize("name", healthy.NETWORKS)
def test_no_false_alarm_where_all_is_well(world: World, name: str) -> None:
    assert healthy.false_alarms(world, healthy.NETWORKS[name]) == ""


def test_private_names_are_asked_of_no_public_resolver(world: World) -> None:
    for name in ("dns.not-found", "dns.not-found-private"):
        (case,) = (case for case in CASES if case.name == name)
        assert not bench.play(world, case).problems
    asked = world.asked_in_public()
    assert "proxy.golang.org" in asked
    assert not [name for name in asked if name.endswith(".corp.example")]


def test_a_healthy_examination_is_quick_on_a_line_of_100_ms(world: World) -> None:
    took, cause = healthy.seconds(world, slow=True)
    print(f"\nhealthy, 100 ms line: {took:.1f} s (promised: {HEALTHY_ON_A_LONG_LINE:.0f} s)")
    assert cause is None
    assert took < 2 * HEALTHY_ON_A_LONG_LINE


def test_an_examination_ends_where_nothing_answers(world: World) -> None:
    took, cause = healthy.seconds(world, black=True)
    print(f"\nall black-holed: {took:.1f} s (promised: {ALL_BLACK:.0f} s)")
    assert cause == "dns.timeout"
    assert took < 2 * ALL_BLACK


def test_the_readmes_tables_are_those_of_the_cases() -> None:
    """The Chinese one by its ids and how many faults each has."""
    root = Path(__file__).parent.parent
    english = (root / "README.md").read_text(encoding="utf-8")
    assert table.markdown(CASES) in english
    assert f"on {len(healthy.NETWORKS)} networks with nothing wrong" in english
    chinese = (root / "README.zh-CN.md").read_text(encoding="utf-8").partition("<details>")[2]
    found = re.findall(r"^\| `([a-z0-9-]+\.[a-z0-9-]+)` \| (.*) \| .* \|$", chinese, re.MULTILINE)
    counted = {id: what.count(";") + 1 for id, what in found}
    assert counted == Counter(case.id for case in CASES)


def test_the_cases_are_of_the_catalogue_and_have_names_of_their_own() -> None:
    assert {case.id for case in CASES} <= set(KINDS)
    assert len({case.name for case in CASES}) == len(CASES)
