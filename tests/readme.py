"""The READMEs as tests read them: their command blocks, and which test runs each kind."""

from __future__ import annotations

import re
import shlex

from tests.lab.proc import ROOT

READMES = ("README.md", "README.zh-CN.md")


def text(name: str = "README.md") -> str:
    """The whole file."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str = "README.md") -> list[str]:
    """The command blocks."""
    return re.findall(r"^```sh\n(.*?)^```$", text(name), re.MULTILINE | re.DOTALL)


def lines(name: str = "README.md") -> list[str]:
    """Their lines, without comments."""
    return [line.partition("  #")[0].strip() for block in blocks(name) for line in block.splitlines()]


def ours(line: str) -> list[str]:
    """The words of a gotunnel command in `line`, without its first; [] where it has none."""
    if inner := re.search(r"\$\((gotunnel [^)]*)\)", line):
        line = inner[1]
    words = shlex.split(line)
    return words[1:] if words and words[0] == "gotunnel" else []


def suite() -> list[str]:
    """What .ci/run runs: the tests themselves."""
    return [block for block in blocks() if "pytest" in block]


def recipes() -> list[str]:
    """What test_readme_recipes runs in the lab."""
    return [block for block in blocks() if "gotunnel run" in block]


def service() -> list[str]:
    """What test_systemd runs in its box."""
    return [block for block in blocks() if "gotunnel service" in block]


def installs() -> list[str]:
    """What test_readme_installs runs in copies of the source, with PyPI."""
    return [block for block in blocks() if re.match(r"(python3|uv|uvx) ", block) and "pytest" not in block]
