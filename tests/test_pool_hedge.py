"""When a second way is tried beside the first."""

from __future__ import annotations

import pytest

from gotunnel.pool.hedge import CEILING, FLOOR, DialTimes, delay


def times(*seconds: float) -> DialTimes:
    made = DialTimes()
    for second in seconds:
        made.add(second)
    return made


def test_few_samples_say_nothing_and_old_ones_are_forgotten() -> None:
    assert times(1, 1, 1, 1).p95() is None
    assert times(1, 1, 1, 1).median() is None
    assert times(*range(20)).p95() == 18
    assert times(1, 2, 3, 4, 100).median() == 3
    assert times(*[9.0] * 64, *[1.0] * 64).p95() == 1.0


@pytest.mark.parametrize(
    ("seen", "setting", "wanted"),
    [
        ([], "auto", CEILING),
        ([0.001] * 9, "auto", FLOOR),
        ([0.4] * 9, "auto", 0.6),
        ([5.0] * 9, "auto", CEILING),
        ([5.0] * 9, 0.05, 0.05),
        ([], 2, 2.0),
        ([0.1] * 9, "off", None),
        ([], None, None),
    ],
)
def test_delay(seen: list[float], setting: float | str | None, wanted: float | None) -> None:
    assert delay(times(*seen), setting) == pytest.approx(wanted)
