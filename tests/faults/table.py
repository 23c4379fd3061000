"""The README's table of the faults: a row for each root cause, and how it was mended.

Rules:
- All in it but the results is known from the cases, so that a test can hold the README to them at no cost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from tests.faults.case import Case

HEAD = ("root cause that doctor names", "faults really made", "what it prints, done: `go` works")


def markdown(cases: Sequence[Case], failed: Collection[str] = ()) -> str:
    """The table of `cases`; `failed` are the names of those that went wrong."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (HEAD, ("---",) * 3, *_rows(cases, failed)))


def _rows(cases: Iterable[Case], failed: Collection[str]) -> Iterator[tuple[str, str, str]]:
    by_id: dict[str, list[Case]] = {}
    for case in cases:
        by_id.setdefault(case.id, []).append(case)
    for id, group in by_id.items():
        what = "; ".join(case.what + " (a warning)" * (case.severity != "error") for case in group)
        ways = ["**NO**" if case.name in failed else case.mended for case in group]
        counted = [f"{way} ({ways.count(way)})" for way in dict.fromkeys(ways)]
        done = ways[0] if len(counted) == 1 else ", ".join(counted)
        yield f"`{id}`", what.replace("|", "\\|").replace("*", "\\*"), done
