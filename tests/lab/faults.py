"""Faults: what the origin can be told to do wrong, and the bodies that come of it.

Rules:
- A `Fault` is plain data, so that it can stand in the origin's control file.
- The first fault that matches a path and is not used up is the one that is done; there are no two at once.
- `count` bounds how often a fault is done in all, `each` how often for one path; 0 is no bound.
- A place in a body is a byte offset of what is sent now (of the range, where one was asked for); -1: a
  random one.
"""

from __future__ import annotations

import dataclasses
import random
import re
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

KINDS = {
    "cut": "send the body up to `at`, then close (`how`: rst or close)",
    "stall": "send the body up to `at`, wait `seconds` (0: until the client has gone), then the rest",
    "flip": "send the body with one byte at `at` changed",
    "double": "send the body twice, under one Content-Length that says so",
    "length": "claim `by` bytes more (or fewer) than are sent, then close",
    "slow": "wait `seconds` before the first byte",
    "silent": "never answer",
    "close": "close without an answer (`how`: rst or close)",
    "endless": "a body without an end, chunked",
    "status": "answer `status`, with Retry-After: `seconds` where that is not 0",
    "redirect": "answer 302 (or `status`) to `to`, in which {path} is the path asked for",
    "page": "answer 200 with the html page of a login",
    "heads": "answer 200 with `by` bytes of header fields",
    "drip": "send the body at `rate` bytes a second",
}
PAGE = b"<!DOCTYPE html><html><head><title>Log in</title></head><body>Guests: log in here.</body></html>\n"
PIECE = 1 << 18  # bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """One fault for the paths that match the regular expression; KINDS says what it does with its fields."""

    kind: str
    match: str = "."
    count: int = 0
    each: int = 0
    at: int = -1
    how: str = "rst"
    seconds: float = 0.0
    status: int = 0
    by: int = 0
    rate: float = 0.0
    to: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no such fault: {self.kind}; there are {', '.join(KINDS)}")
        re.compile(self.match)

    def place(self, length: int, chance: random.Random) -> int:
        """Where in a body of `length` bytes it strikes: short of its end."""
        last = max(length - 1, 0)
        return chance.randint(0, last) if self.at < 0 else min(self.at, last)


class Chooser:
    """Which fault a request gets; counts them.  Safe for threads."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self._faults = faults
        self._done: Counter[tuple[int, str]] = Counter()
        self._lock = threading.Lock()

    def choose(self, path: str) -> Fault | None:
        """The fault to do for a request of `path`, counted as done."""
        with self._lock:
            for number, fault in enumerate(self._faults):
                if not re.search(fault.match, path):
                    continue
                if fault.count and self._done[number, ""] >= fault.count:
                    continue
                if fault.each and self._done[number, path] >= fault.each:
                    continue
                self._done[number, ""] += 1
                self._done[number, path] += 1
                return fault
        return None


def pieces(file: Path, start: int, end: int, flip: int = -1) -> Iterator[bytes]:
    """The bytes [start, end) of a file, at most PIECE at a time; that `flip` bytes after start is changed."""
    with file.open("rb") as body:
        body.seek(start)
        at = 0
        while start + at < end and (data := body.read(min(PIECE, end - start - at))):
            if at <= flip < at + len(data):
                changed = bytearray(data)
                changed[flip - at] ^= 0xFF
                data = bytes(changed)
            yield data
            at += len(data)
