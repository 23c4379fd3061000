"""Ranges and validators as an HTTP server decides them: RFC 9110, sections 8.8, 13.1.5 and 14 (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """What to send of a file: the bytes [start, end), as 206 if `partial`."""

    start: int
    end: int
    partial: bool


def decide(size: int, asked: str | None, if_range: str | None, etag: str, modified: str) -> Part | None:
    """The part to send of `size` bytes; None where the range can't be satisfied (416).

    `asked` and `if_range` are the request's fields, `etag` ("" for none) and `modified` the file's.  A weak
    tag never matches; several ranges, and what isn't understood, mean the whole file.
    """
    whole = Part(0, size, False)
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", (asked or "").strip())
    if not found or found.groups() == ("", ""):
        return whole
    if if_range is not None:
        same = if_range == etag and not etag.startswith("W/") if '"' in if_range else if_range == modified
        if not same:
            return whole
    first, last = found.groups()
    if not first:
        return Part(max(size - int(last), 0), size, True) if int(last) and size else None
    start, end = int(first), min(int(last) + 1, size) if last else size
    if last and int(last) < start:
        return whole
    return Part(start, end, True) if start < size else None
