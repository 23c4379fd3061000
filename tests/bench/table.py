"""Samples become medians, ratios and verdicts; then a table or JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


class Sample(float):
    """A value with others that were measured in the same go, each in the unit that its name ends with."""

    def __new__(cls, value: float, also: Mapping[str, float]) -> Sample:
        """`also` in the order of the table's columns."""
        made = super().__new__(cls, value)
        made.also = dict(also)
        return made

    also: dict[str, float]


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the job; `measure` gives a value in the case's unit (a `Sample`, where there is more)."""

    name: str
    measure: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Aim:
    """What `contender` should reach: at most (or, where more is better, at least) `bound`.

    `against` names the contender that its median is divided by; "" means the bound is in the case's unit.
    With `of` it is about that one of the other values, of which less is always better.
    """

    contender: str
    bound: float
    against: str = ""
    of: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """Contenders for one job.  `unit` is ms, s or KB (less is better) or something a second (more is better).

    With `warm` a round that isn't counted comes first.  `bound`, in the case's unit, is what nobody can beat
    (0: not known); each contender is shown as so many times it.  `notes` are lines below the table.
    """

    name: str
    title: str
    unit: str
    contenders: Sequence[Contender]
    aims: Sequence[Aim] = ()
    warm: bool = True
    bound: float = 0.0
    notes: Sequence[str] = ()

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

    def also(self, name: str) -> dict[str, float]:
        """The middle of each of the other values of a contender."""
        others = [sample.also for sample in self.samples[name] if isinstance(sample, Sample)]
        return {key: statistics.median(one[key] for one in others) for key in (others[0] if others else {})}

    def reached(self, aim: Aim) -> tuple[float, bool]:
        """What an aim came to, and whether that is enough."""

        def value_of(name: str) -> float:
            return self.also(name)[aim.of] if aim.of else self.median(name)

        value = value_of(aim.contender) / (value_of(aim.against) or 1e-9 if aim.against else 1.0)
        more = self.case.more_is_better and not aim.of
        return value, value >= aim.bound if more else value <= aim.bound

    def as_json(self) -> dict[str, Any]:
        """The result as plain data."""
        return {
            "case": self.case.name,
            "title": self.case.title,
            "unit": self.case.unit,
            "bound": self.case.bound or None,
            "contenders": {
                name: {"median": self.median(name), "min": min(values), "max": max(values), "samples": values,
                       "also": self.also(name)}
                for name, values in self.samples.items()
            },
            "aims": [
                {"contender": aim.contender, "against": aim.against or None, "of": aim.of or None,
                 "bound": aim.bound, "value": self.reached(aim)[0], "reached": self.reached(aim)[1]}
                for aim in self.case.aims
            ],
            "notes": list(self.case.notes),
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
            + "".join(f"  {key} {_number(value)}" for key, value in result.also(name).items())
        )
    if case.bound:
        lines.append(f"  {'bound':{width}}  {_number(case.bound):>9}")
    for aim in case.aims:
        value, enough = result.reached(aim)
        bound = f"{'at least' if case.more_is_better and not aim.of else 'at most'} {aim.bound:g}"
        what = " ".join(filter(None, (f"x {aim.against}" if aim.against else "", aim.of)))
        what = what or case.unit
        verdict = "reached" if enough else "NOT reached"
        lines.append(f"  aim: {aim.contender} {bound} {what}: {_number(value)}, {verdict}")
    return "\n".join([*lines, *(f"  {note}" for note in case.notes)])


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"
