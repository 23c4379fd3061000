"""The container examples beside the units, as far as tests need to read them (no YAML parser is at hand)."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "systemd"
CONFIG = {"compose.yaml": "content: |", "kubernetes.yaml": "config.toml: |"}
"""The line after which an example's configuration file stands."""


def configuration(example: str) -> str:
    """The TOML in an example."""
    lines = (FOLDER / example).read_text().splitlines()
    at = next(number for number, line in enumerate(lines) if line.strip() == CONFIG[example])
    indent = len(lines[at]) - len(lines[at].lstrip())
    block = itertools.takewhile(lambda line: len(line) - len(line.lstrip()) > indent, lines[at + 1 :])
    return textwrap.dedent("\n".join(block)) + "\n"
