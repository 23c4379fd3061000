"""Bytes of output as they come -> matches.

Rules:
- Lines may be cut anywhere; CR and LF both end one (progress bars); colours and what CI systems put before
  a line (`loglines`) are taken out.
- Bounded memory: of a line longer than 64 KiB its first and last 16 KiB are kept (go puts what happened at
  the end); one match is held back, nothing else is remembered.
- A line that begins with `gotunnel: ` is our own progress, not a failure.
- `server response:` and the lines of that body explain the status line before them: our exact words there,
  and a mirror's `fetch timed out` inside a 404, take its place.
- A weak match is dropped within 4 KiB after a match that isn't.
- The text in a Match is untrusted and unredacted: redact before showing it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from gotunnel.dataclass import dataclass
from gotunnel.findings.kinds import KINDS
from gotunnel.findings.loglines import bare
from gotunnel.findings.patterns import EXACT, KEYWORDS, PATTERNS

_LONGEST = 64 * 1024
_KEPT = 16 * 1024
_BODY = 2048  # go prints at most 8 lines of an error body
_NEAR = 4096

# CSI; OSC, DCS, APC… with their text (Buildkite puts its timestamps there); two characters
_ANSI = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")

# What any line of go may say beside the failure: of what URL, host and module it speaks.
_URL = re.compile(r"https?://[^\s\"'<>]+")
_HOST = re.compile(r"https?://(?:[^/\s]*@)?(\[[0-9A-Fa-f:.]+\]|[^/:\s\"']+)(?::(\d+))?")
_LOOKUP = re.compile(r"lookup (\S+?)(?: on (\S+))?: ")
_DIAL = re.compile(r"dial tcp (\[[^\]]+\]|[\d.]+):(\d+)")
_MODULE = re.compile(r"(?<![\w.~-])([A-Za-z0-9][\w.~-]*\.[A-Za-z]{2,}(?:/[\w.~+-]+)*)@(v\d[^\s:,;\"')]*)")
_CURL = re.compile(r"(?:Failed to connect to|resolve host(?:name)?:?) ([\w.:-]*\w)(?: port (\d+))?")


@dataclass(frozen=True, slots=True)
class Match:
    """A recognised failure.  `groups` has what the line tells of: host, port, server (the resolver), url,
    module, version, status, words; `exact` when the id is the listener's own."""

    id: str
    line: str
    groups: dict[str, str]
    exact: bool = False
    weak: bool = False


class Blocks:
    """Cuts a stream into blocks of whole lines, each ended by a newline, without colours."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> bytes:
        """The lines that are whole now; b"" if none is."""
        data = data.replace(b"\r", b"\n") if b"\r" in data else data
        whole, newline, rest = data.rpartition(b"\n")
        if not newline:
            self._keep(rest)
            return b""
        block = bytes(self._rest) + whole + newline
        self._rest = bytearray()
        self._keep(rest)
        return _ANSI.sub(b"", block) if b"\x1b" in block else block

    def finish(self) -> bytes:
        """What was left without a newline, as a line."""
        return self.feed(b"\n") if self._rest else b""

    def _keep(self, rest: bytes) -> None:
        self._rest += rest
        if len(self._rest) > _LONGEST:
            self._rest = self._rest[:_KEPT] + b" ... " + self._rest[-_KEPT:]


class Reader:
    """Feed it bytes, take matches; or give whole lines (a block of `Blocks`) to `scan`,
    or matches to `take`."""

    def __init__(self) -> None:
        self._blocks = Blocks()
        self._held: Match | None = None
        self._held_end = 0  # offset in the stream where the held match's line ended
        self._strong_end = -_NEAR - 1
        self._offset = 0

    def feed(self, data: bytes) -> list[Match]:
        """Matches of the lines that are complete now; the last one may be held back."""
        return list(self.scan(self._blocks.feed(data)))

    def finish(self) -> list[Match]:
        """The rest, at the end of the output."""
        matches = list(self.scan(self._blocks.finish()))
        return matches + self.last()

    def last(self) -> list[Match]:
        """The match that is held back, for users of `scan`."""
        held, self._held = self._held, None
        return [held] if held else []

    def scan(self, block: bytes) -> Iterator[Match]:
        """Matches of a block of whole lines."""
        for start, end in candidates(block):
            if match := recognise(whole(block, start, end)):
                yield from self.take(match, self._offset + start, self._offset + end)
        self._offset += len(block)

    def take(self, match: Match, start: int, end: int) -> Iterator[Match]:
        """A match of the line from `start` to `end` of the stream: those that can be told from it now."""
        if self._held and start - self._held_end <= _BODY and _explains(match, self._held):
            self._held = replace(
                self._held,
                id=match.id,
                line=match.line.strip() if match.exact else f"{self._held.line} · {match.line.strip()}",
                groups={**self._held.groups, **match.groups},
                exact=match.exact,
            )
            return
        if match.weak and start - self._strong_end <= _NEAR:
            return
        yield from self.last()
        self._held, self._held_end = match, end
        if not match.weak:
            self._strong_end = end


def candidates(block: bytes, more: tuple[bytes, ...] = ()) -> list[tuple[int, int]]:
    """Where the lines stand that hold a keyword, or one of `more`.

    One search for each keyword over the whole block is five times as fast as one regex of all of them, and
    nearly all blocks of a long log end here.
    """
    lines: set[tuple[int, int]] = set()
    for key in (*KEYWORDS, *more):
        at = block.find(key)
        while at >= 0:
            end = block.find(b"\n", at)
            end = len(block) if end < 0 else end
            lines.add((block.rfind(b"\n", 0, at) + 1, end))
            at = block.find(key, end)
    return sorted(lines)


def whole(block: bytes, start: int, end: int) -> bytes:
    """The line that stands there; of an endless one the beginning and the end."""
    raw = block[start:end]
    return raw if len(raw) <= _LONGEST else raw[:_KEPT] + b" ... " + raw[-_KEPT:]


def _explains(match: Match, held: Match) -> bool:
    """Is `match` in the body of the response whose status line is held?"""
    if "status" not in held.groups or held.exact:
        return False
    body = "server response:" in match.line or (match.line.startswith("\t") and "http" not in match.line)
    return body and (match.exact or match.id == "http.timeout")


def recognise(raw: bytes) -> Match | None:
    """The match of one line of any log, by the first row that fits; None if none does."""
    return recognise_bare(bare(raw.decode("utf-8", "replace")).text)


def recognise_bare(line: str) -> Match | None:
    """The same for a line without prefix."""
    if line.startswith("gotunnel: "):
        return None
    raw = line.encode()
    if own := EXACT.search(line):
        id = own["id"] if own["id"] in KINDS else "unknown"
        return Match(id, line, {**_particulars(line), "words": own["words"]}, exact=True)
    for row in PATTERNS:
        if not any(key in raw for key in row.keys):
            continue
        if found := row.regex.search(line):
            groups = {name: text for name, text in found.groupdict().items() if text}
            id = row.by.get(groups.get("status", ""), row.by.get("", row.id)) if row.by else row.id
            return Match(id, line, {**_particulars(line), **groups}, weak=row.weak)
    return None


def _particulars(line: str) -> dict[str, str]:
    """Host, port, URL, module and version, as far as the line names them.

    The host that failed is the one that was looked up or dialled, and only else the URL's.
    """
    found: dict[str, str] = {}
    if url := _URL.search(line):
        found["url"] = url[0].rstrip(":,;)")
        if host := _HOST.match(found["url"]):
            found["host"] = host[1]
            found["port"] = host[2] or ("443" if found["url"].startswith("https") else "80")
    if module := _MODULE.search(_URL.sub(" ", line)):
        found["module"], found["version"] = module[1], module[2]
    if lookup := _LOOKUP.search(line):
        found["host"] = lookup[1]
        if lookup[2]:
            found["server"] = lookup[2]
    elif curl := _CURL.search(line):
        found["host"] = curl[1]
        if curl[2]:
            found["port"] = curl[2]
    if dial := _DIAL.search(line):
        found["address"] = f"{dial[1]}:{dial[2]}"
    return found
