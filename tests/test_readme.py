"""README.md and README.zh-CN.md: in step with each other, and every command in them is one.

test_readme_recipes and test_readme_installs run the blocks, test_systemd the service's.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gotunnel.cli.main import COMMANDS, build_parser
from gotunnel.cli.options import split_command
from gotunnel.findings.kinds import KINDS
from tests import readme
from tests.lab.proc import ROOT
from tests.readme import READMES, blocks, lines, ours

COMMAND_LINES = sorted({line for name in READMES for line in lines(name) if ours(line)})


def test_both_have_the_same_headings_and_blocks() -> None:
    english, chinese = (readme.text(name) for name in READMES)
    shape = [[len(h) for h in re.findall(r"^(#+) ", text, re.MULTILINE)] for text in (english, chinese)]
    assert shape[0] == shape[1]
    assert blocks("README.md") == blocks("README.zh-CN.md")
    for name in COMMANDS:
        assert (f"gotunnel {name}" in english) == (f"gotunnel {name}" in chinese), name


def test_every_block_is_run_by_a_test() -> None:
    run = [*readme.suite(), *readme.recipes(), *readme.service(), *readme.installs()]
    assert sorted(run) == sorted(blocks())


def troubles(name: str) -> dict[str, list[str]]:
    """The table of troubles: id -> its cells."""
    (table,) = re.findall(r"^\| id \|.*\n\|[-|]+\n((?:\|.*\n)+)", readme.text(name), re.MULTILINE)
    rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table.splitlines()]
    return {cells[0].strip("`"): cells[1:] for cells in rows}


def code(cells: list[str]) -> list[str]:
    """What stands in backticks there."""
    return sorted(re.findall(r"`([^`]+)`", " ".join(cells)))


def test_the_troubles_are_the_catalogue_s() -> None:
    english, chinese = (troubles(name) for name in READMES)
    assert list(english) == list(chinese)
    assert len(english) > 10
    assert {id: cells[0] for id, cells in english.items()} == {id: KINDS[id].summary for id in english}
    assert [code(cells) for cells in english.values()] == [code(cells) for cells in chinese.values()]


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_is_one(line: str) -> None:
    words = ours(line)
    parser = build_parser(words[0])
    if words[0] == "run":
        options, command = split_command(parser, "run", words[1:])
        assert command
        words = ["run", *options]
    assert parser.parse_args(words).command == words[0]


@pytest.mark.parametrize("line", [line for line in COMMAND_LINES if ours(line)[0] == "run"])
def test_every_run_starts_its_command(line: str, tmp_path: Path) -> None:
    """With a go that needs no network: the ways out of the README lead nowhere here."""
    go = tmp_path / "go"
    go.write_text('#!/bin/sh\n[ "$1" = env ] && exit 1\necho "go $*"\n')
    go.chmod(0o755)
    key = tmp_path / ".ssh"
    key.mkdir()
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": os.getcwd()}
    ran = subprocess.run(
        [sys.executable, "-m", "gotunnel", *ours(line)],
        cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == line.partition(" -- ")[2] + "\n"


def test_the_test_command_is_what_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert 'grep -m1 -E "^python3 -m venv .*pytest" README.md' in script
    assert any(re.match(r"python3 -m venv .*pytest", line) for line in lines("README.md"))
