"""Half a minute of chaos (`tests/chaos`), twenty with GOTUNNEL_SOAK; and the script's own rules."""

from __future__ import annotations

import itertools
import os

import pytest

from tests.chaos import lab as chaos_lab
from tests.chaos.__main__ import drive
from tests.chaos.report import sums
from tests.chaos.runs import Outcome, Pauses
from tests.chaos.script import HOP_KINDS, MIRROR_KINDS, REST, World, sound, troubles
from tests.chaos.subject import SUBJECTS
from tests.conftest import need

LONG = bool(os.environ.get("GOTUNNEL_SOAK"))
SECONDS = 600.0 if LONG else 15.0


@pytest.mark.parametrize("world", [World(), World(hops=2, gap=0.3), World(serve=True, gap=0.5)])
@pytest.mark.parametrize("seed", range(5))
def test_one_way_out_and_one_mirror_are_sound_at_any_moment(world: World, seed: int) -> None:
    found = list(itertools.islice(troubles(seed, world), 400))
    assert found == list(itertools.islice(troubles(seed, world), 400))
    moments = [t for trouble in found for t in (trouble.start, trouble.end, trouble.end + REST - 1e-9)]
    for group in ("hop", "mirror"):
        members = world.group(group)
        assert all(sound(found, members, moment) for moment in moments)
        # and it isn't always all of them
        assert any(len(sound(found, members, moment)) == 1 for moment in moments)
    starts = [trouble.start for trouble in found]
    assert starts == sorted(starts)
    kinds = {(trouble.victim.rstrip("123"), trouble.kind) for trouble in found}
    assert {("hop", kind) for kind in HOP_KINDS} | {("mirror", kind) for kind in MIRROR_KINDS} <= kinds
    assert any(victim == "serve" for victim, _ in kinds) is world.serve


def test_nobody_is_struck_twice_at_once() -> None:
    last: dict[str, float] = {}
    for trouble in itertools.islice(troubles(1, World(serve=True, gap=0.2)), 1000):
        assert trouble.start >= last.get(trouble.victim, 0.0)
        last[trouble.victim] = trouble.end


def test_a_world_without_an_alternate_is_refused() -> None:
    with pytest.raises(ValueError, match="two jump hosts"):
        next(troubles(1, World(hops=1)))


def test_a_pause_lies_between_two_bytes() -> None:
    pauses = Pauses(0.0, 100)
    for now, count in ((5.0, 100), (6.0, 150), (7.0, 150), (9.0, 151), (9.5, 152), (60.0, 152)):
        pauses.sample(now, count)
    assert (pauses.longest, pauses.ended) == (3.0, 9.0)


def test_what_counts_as_a_success() -> None:
    well = Outcome("tidy", attempts=1)
    assert sums("run", [well, Outcome("tidy", attempts=2)]).well
    assert sums("run", [well, Outcome("tidy", attempts=2)]).first == 1
    for bad in (Outcome("tidy", status=1, attempts=1), Outcome("tidy", attempts=1, damage=["m1: .mod"])):
        assert not sums("run", [well, bad]).well
    assert not sums("run", []).well


@pytest.mark.timeout(1500 if LONG else 240)
@pytest.mark.parametrize("subject", ["run", "serve"])
def test_runs_survive(subject: str) -> None:
    need(chaos_lab.able())
    with chaos_lab.temporary() as lab:
        found, outcomes = drive(lab, SUBJECTS[subject], seed=11, seconds=SECONDS, quiet=True, timeout=120)
        assert lab.asked() > len(outcomes) * len(lab.corpus.modules)  # they did fetch, each of them
    failed = [
        o.line(n) + "\n" + "\n".join([*o.causes, o.stderr]) for n, o in enumerate(outcomes, 1) if not o.well
    ]
    assert found.well, "\n".join(failed)
    assert found.troubles
