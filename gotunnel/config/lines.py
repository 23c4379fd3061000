"""The line of each key of a TOML text, which tomllib doesn't tell.

Rules:
- The text has already been read by tomllib, so it is TOML; what this scan doesn't understand (an
  escape in a quoted key) has no line of its own and takes its parent's.
- A path is the way to a value: ("pool", "probe", "url"), ("upstream", 0, "via").
- Inline tables and arrays count as one value: what is inside has the line of its key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

Path = tuple[str | int, ...]

_PART = r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'"""
_DOTTED = rf"(?:{_PART})(?:[ \t]*\.[ \t]*(?:{_PART}))*"
_PARTS = re.compile(_PART)
_GAP = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_HEADER = re.compile(rf"(\[\[?)[ \t]*({_DOTTED})[ \t]*\]\]?")
_ASSIGN = re.compile(rf"({_DOTTED})[ \t]*=")
_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|(?P<open>[\[{])|(?P<close>[\]}])|(?P<end>\n)"
    r"|[^\"'#\[\]{}\n]+|.",
    re.DOTALL,
)


def key_lines(text: str) -> dict[Path, int]:
    """The line (from 1) of every table header and key, by path."""
    found: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    at, line = 0, 1
    while True:
        gap = _GAP.match(text, at)
        assert gap is not None  # it matches nothing at all, too
        line += text.count("\n", at, gap.end())
        at = gap.end()
        if header := _HEADER.match(text, at):
            table = _resolve(_split(header[2]), counts, last=header[1] == "[")
            if header[1] == "[[":
                index = counts.get(table, 0)
                counts[table] = index + 1
                found.setdefault(table, line)
                table = (*table, index)
            found.setdefault(table, line)
            end = header.end()
        elif assign := _ASSIGN.match(text, at):
            parts = _split(assign[1])
            for length in range(1, len(parts) + 1):
                found.setdefault(table + parts[:length], line)
            end = _skip_value(text, assign.end())
        else:
            return found
        line += text.count("\n", at, end)
        at = end


def line_of(lines: Mapping[Path, int], path: Path) -> int:
    """The line of `path`, or of the nearest thing around it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _split(dotted: str) -> Path:
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in _PARTS.findall(dotted))


def _resolve(parts: Path, counts: Mapping[Path, int], *, last: bool) -> Path:
    """A header's path with the index of each `[[list]]` on the way; the last part too if `last`."""
    path: Path = ()
    for number, part in enumerate(parts, 1):
        path = (*path, part)
        if path in counts and (last or number < len(parts)):
            path = (*path, counts[path] - 1)
    return path


def _skip_value(text: str, at: int) -> int:
    depth = 0
    while token := _TOKEN.match(text, at):
        if token["end"] and depth == 0:
            return at
        depth += bool(token["open"]) - bool(token["close"])
        at = token.end()
    return at
