"""`gotunnel explain [--json] [FILE|-]`: what failed in a log of go, git or CI, why, and what mends it.

Rules:
- The log streams through: memory doesn't grow with it.  UTF-16 (a redirection of PowerShell's) is read too.
- `--json` prints contract §7's object; the timeline of an `-x` log is in the evidence of its first finding.
- The text is at most 80 columns wide, but for commands to paste, which stay whole; colour only on a terminal
  without NO_COLOR.
- Status 0 if a failure was recognised, 1 if none was; a FILE that can't be read is 2.
"""

from __future__ import annotations

import argparse
import codecs
import os
import sys
import textwrap
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from gotunnel.errors import UsageError

if TYPE_CHECKING:
    from gotunnel.findings.story import Told

USAGE = "gotunnel explain [--json] [FILE|-]"
_PIECE = 1 << 18
_WIDTH = 80
_LABEL = 11
_LAYERS_OF_NETWORK = ("name", "connect", "hop", "tls", "http")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `explain`."""
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("file", metavar="FILE", nargs="?", default="-", help="the log; - is standard input")


def main(args: argparse.Namespace) -> int:
    """Read, explain, print; returns the exit status.  Raises UsageError."""
    from gotunnel.findings.story import Story

    story = Story()
    for piece in _pieces(args.file):
        story.feed(piece)
    told = story.finish()
    if args.json:
        import json

        print(json.dumps(told.answer, indent=2))
    else:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        print("\n".join(lines(told, colour=colour)))
    return 0 if told.failed else 1


def _pieces(name: str) -> Iterator[bytes]:
    try:
        if name == "-":
            if sys.stdin is None or sys.stdin.isatty():
                raise UsageError(f"explain wants a log: {USAGE}, or: go build -x 2>&1 | gotunnel explain")
            yield from _utf8(sys.stdin.buffer)
        else:
            with open(name, "rb") as file:
                yield from _utf8(file)
    except OSError as error:
        raise UsageError(f"explain: {name}: {error.strerror or error}") from None


def _utf8(file: IO[bytes]) -> Iterator[bytes]:
    read = getattr(file, "read1", file.read)
    first: bytes = read(_PIECE)
    if first[:2] not in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        while first:
            yield first
            first = read(_PIECE)
        return
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    while first:
        yield decoder.decode(first).encode("utf-8", "replace")
        first = read(_PIECE)


def lines(told: Told, *, colour: bool = False) -> Iterator[str]:
    """The text."""
    findings = told.answer["findings"]
    if not findings:
        yield from _wrap(f"no failure that gotunnel knows in these {told.size} bytes.")
        if told.last:
            yield from _wrap(f"The last words that look like one: {told.last}")
        yield from _wrap("Made with -x (go build -x, go mod tidy -x) a log tells more.")
    for number, found in enumerate(findings):
        if number:
            yield ""
        yield from _finding(found, colour=colour)
    if told.timeline.requests:
        from gotunnel.findings import timeline

        yield ""
        yield from timeline.lines(told.timeline, _WIDTH)


def _finding(found: dict[str, Any], *, colour: bool) -> Iterator[str]:
    evidence = found["evidence"]
    passed = " (go went on)" if evidence.get("passed") else ""
    yield from _head(found["id"], found["summary"] + passed, colour=colour)
    yield from _row("stage", _stage(found))
    names = evidence.get("modules") or evidence.get("files") or []
    if names:
        more = len(names) - 3 + evidence.get("more", 0)
        yield from _row("file" if "files" in evidence else "module",
                        ", ".join(names[:3]) + (f" and {more} more" if more > 0 else ""))  # fmt: skip
    place = found["subject"] if found["subject"] not in names else evidence.get("host", "")
    if place and place != found["via"]:
        label = "host" if evidence.get("host") and evidence["host"] in place else "where"
        yield from _row(label, place + _aside(evidence, place))
    yield from _row("way out", found["via"])
    yield from _row("log", textwrap.shorten(evidence["line"], 4 * (_WIDTH - _LABEL), placeholder=" …"))
    if evidence["count"] > 1:
        yield from _row("seen", f"{evidence['count']} times")
    if after := evidence.get("consequences"):
        yield from _row("led to", ", ".join(f"{id} ({count})" for id, count in after.items()))
    if found["id"] == "build.failed":
        yield from _row("network", "is not at fault")
    for label, line in zip(["what to do"] + [""] * len(found["fix"]), found["fix"], strict=False):
        yield f"{label.ljust(_LABEL)}{line}"


def _stage(found: dict[str, Any]) -> str:
    from gotunnel.findings.catalogue import kind

    layer, stage = kind(found["id"]).stage, found["stage"]
    return stage if stage == layer or layer not in _LAYERS_OF_NETWORK else f"{stage} (it failed at: {layer})"


def _aside(evidence: dict[str, Any], place: str) -> str:
    parts = []
    if (address := evidence.get("address")) and address != place:
        parts.append(address)
    if server := evidence.get("server"):
        parts.append(f"asked of {server}")
    return f" ({', '.join(parts)})" if parts else ""


def _head(id: str, summary: str, *, colour: bool) -> Iterator[str]:
    first, *rest = textwrap.wrap(f"{id}: {summary}", _WIDTH, subsequent_indent="  ")
    yield f"\x1b[1;31m{id}\x1b[0m{first[len(id) :]}" if colour else first
    yield from rest


def _row(label: str, text: str) -> Iterator[str]:
    if text:
        yield from textwrap.wrap(
            text, _WIDTH, initial_indent=label.ljust(_LABEL), subsequent_indent=" " * _LABEL,
            break_on_hyphens=False,
        )  # fmt: skip


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_on_hyphens=False)
