"""The container examples beside the units, as far as tests need to read them (no YAML parser is at hand)."""

from __future__ import annotations

import itertools
import shlex
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


def image() -> dict[str, list[str]]:
    """The Containerfile's last stage: the words of each instruction, those of one name joined."""
    text = (FOLDER / "Containerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in lines.rpartition("\nFROM ")[2].splitlines()[1:]:
        name, _, rest = line.strip().partition(" ")
        found.setdefault(name, []).append(rest.strip())
    return found


def variables() -> dict[str, str]:
    """The environment that the image sets, PATH left out."""
    pairs = (word.partition("=") for line in image()["ENV"] for word in shlex.split(line))
    return {name: value for name, _, value in pairs if name != "PATH"}
