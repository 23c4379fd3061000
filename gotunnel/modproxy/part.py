"""What of a file may be joined, and how long one waits for it.  No I/O.

Rules (RFC 9110 §13.1.5, §14.4, §15.3.7):
- A range is asked for with If-Range and the strong ETag of the first answer; a 206 is taken only if it says
  exactly what was asked for, of the same total, tag and place.
"""

from __future__ import annotations

import re

from gotunnel.dataclass import dataclass
from gotunnel.modproxy.client import Exchange
from gotunnel.modproxy.failed import Failed

_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds: `stall` without a byte in a body, `first_byte` until an answer's head is there."""

    stall: float
    first_byte: float

    @property
    def going_on(self) -> float:
        """For the head of an answer that goes on with a file which the source has already begun to give."""
        return min(self.first_byte, 2 * self.stall)


@dataclass(slots=True)
class Part:
    """What is known of the file from the first good answer on; under `etag` ranges of it may be joined."""

    etag: str
    place: str
    total: int | None
    ranges: bool  # the server says, or has shown, that it gives ranges

    def header(self, start: int, end: int | None = None) -> tuple[tuple[str, str], ...]:
        """Ask for [start, end)."""
        last = "" if end is None else str(end - 1)
        return (("Range", f"bytes={start}-{last}"), ("If-Range", self.etag))

    def check(self, exchange: Exchange, start: int, end: int | None = None) -> None:
        """Is this 206 exactly what was asked, of the same file?  Raises Failed (odd)."""
        head = exchange.head
        found = _RANGE.fullmatch(head.header("content-range").strip())
        wrong = ""
        if found is None:
            wrong = "no usable Content-Range"
        else:
            first, last, total = (int(text) for text in found.groups())
            size = last - first + 1
            if first != start or (end is not None and last != end - 1) or last >= total or size <= 0:
                wrong = "another range than was asked for"
            elif end is None and last != total - 1:
                wrong = "less than was asked for"
            elif self.total not in (None, total):
                wrong = "another total size"
            elif head.length is not None and head.length != size:
                wrong = "a Content-Length that contradicts its Content-Range"
        if head.header("etag").strip() not in ("", self.etag):
            wrong = "another ETag"
        elif exchange.url.place != self.place:
            wrong = "from another place"
        if wrong:
            exchange.drop()
            words = f"{exchange.connection}: the answer to a range is {wrong}"
            raise Failed("http.truncated", words, again=True, upstream=exchange.via, odd=True)
