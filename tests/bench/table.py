"""Samples become medians, ratios and verdicts; then a table or JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the job; `measure` gives a value in the case's unit."""

    name: str
    measure: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Aim:
    """What `contender` should reach: at most (or, where more is better, at least) `bound`.

    `against` names the contender that its median is divided by; "" means the bound is in the case's unit.
    """

    contender: str
    bound: float
    against: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """Contenders for one job.  `unit` is ms or s (less is better) or MB/s (more is better).

    With `warm` a round that isn't counted comes first.  `bound`, in the case's unit, is what nobody can beat
    (0: not known); each contender is shown as so many times it.
    """

    name: str
    title: str
    unit: str
    contenders: Sequence[Contender]
    aims: Sequence[Aim] = ()
    warm: bool = True
    bound: float = 0.0

    @property
    def more_is_better(self) -> bool:
        """True for rates."""
        return self.unit.endswith("/s")


@dataclass(slots=True)
class Result:
    """The samples of a case, by contender, in the order measured."""

    case: Case
    samples: dict[str, list[float]] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """The middle sample of a contender."""
        return statistics.median(self.samples[name])

    def reached(self, aim: Aim) -> tuple[float, bool]:
        """What an aim came to, and whether that is enough."""
        value = self.median(aim.contender) / (self.median(aim.against) if aim.against else 1.0)
        return value, value >= aim.bound if self.case.more_is_better else value <= aim.bound

    def as_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "case": self.case.name,
            "title": self.case.title,
            "unit": self.case.unit,
            "bound": self.case.bound or None,
            "contenders": {
                name: {"median": self.median(name), "min": min(values), "max": max(values), "samples": values}
                for name, values in self.samples.items()
            },
            "aims": [
                {"contender": aim.contender, "against": aim.against or None, "bound": aim.bound,
                 "value": self.reached(aim)[0], "reached": self.reached(aim)[1]}
                for aim in self.case.aims
            ],
        }  # fmt: skip


def run(case: Case, rounds: int, progress: Callable[[str], None] = lambda text: None) -> Result:
    """Measure a case: one unmeasured round to warm everything where that is wanted, then `rounds` of them."""
    result = Result(case, {contender.name: [] for contender in case.contenders})
    for number in range(-1 if case.warm else 0, rounds):
        start = number % len(case.contenders)
        for contender in [*case.contenders[start:], *case.contenders[:start]]:
            progress(f"{case.name} {number + 1}/{rounds} {contender.name}")
            value = contender.measure()
            if number >= 0:
                result.samples[contender.name].append(value)
    return result


def table(result: Result) -> str:
    """The result for a person: each contender with its ratio to the first and to the bound, then the aims."""
    case = result.case
    first = case.contenders[0].name
    width = max(len(name) for name in result.samples)
    head = f"  {'':{width}}  {'median':>9}  {'min':>8}  {'max':>8}  ratio"
    lines = [f"{case.name}: {case.title}", head + "  x bound" * bool(case.bound)]
    for name, values in result.samples.items():
        ratio = result.median(name) / result.median(first)
        bound = f"  {result.median(name) / case.bound:7.2f}" if case.bound else ""
        lines.append(
            f"  {name:{width}}  {_number(result.median(name)):>9}  {_number(min(values)):>8}  "
            f"{_number(max(values)):>8}  {ratio:5.2f}{bound}  {case.unit}"
        )
    if case.bound:
        lines.append(f"  {'bound':{width}}  {_number(case.bound):>9}")
    for aim in case.aims:
        value, enough = result.reached(aim)
        bound = f"{'at least' if case.more_is_better else 'at most'} {aim.bound:g}"
        what = f"x {aim.against}" if aim.against else case.unit
        verdict = "reached" if enough else "NOT reached"
        lines.append(f"  aim: {aim.contender} {bound} {what}: {_number(value)}, {verdict}")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
