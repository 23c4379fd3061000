"""Lines of programs, versions and systems that can't be run here; the rest is in data/outputs."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from gotunnel.findings.kinds import KINDS
from gotunnel.findings.patterns import PATTERNS
from gotunnel.findings.reader import recognise

OUTPUTS = Path(__file__).parent / "data" / "outputs"
LINES = [
    tuple(line.split(" | ", 1))
    for line in (OUTPUTS / "lines.list").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize(("id", "line"), LINES)
def test_a_line_and_what_it_means(id: str, line: str) -> None:
    match = recognise(line.encode())
    assert (match.id if match else "-") == id


def test_the_table_speaks_only_of_the_catalogue() -> None:
    assert {id for row in PATTERNS for id in (row.id, *row.by.values())} <= set(KINDS)


def test_every_line_that_a_row_fits_has_one_of_its_keys() -> None:
    """Else the prefilter would drop what the row is for."""
    lines = [line for file in OUTPUTS.glob("*.txt") for line in file.read_text().splitlines()]
    lines += [line for _, line in LINES]
    assert len(lines) > 300
    for row in PATTERNS:
        for line in lines:
            if row.regex.search(line):
                assert any(key in line.encode() for key in row.keys), (row.regex.pattern, line)


def test_no_row_takes_long_over_a_hostile_line() -> None:
    """Each row reads 20 kB made of pieces of all keys: only a quadratic regex is felt."""
    pieces = "".join(key.decode() + " : " for row in PATTERNS for key in row.keys)
    line = (pieces * (20_000 // len(pieces) + 1))[:20_000]
    started = time.process_time()
    for row in PATTERNS:
        re.search(row.regex, line)
    assert time.process_time() - started < 20
