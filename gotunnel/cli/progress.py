"""One line on the terminal that says how far the module proxy is: `gotunnel: 84/363 files  12 MB  3.1 MB/s`.

Rules:
- Only on a terminal, not with --quiet, NO_COLOR or TERM=dumb; only once a run has taken a second.
- It is the last line, and is wiped before anybody else writes there: our own lines, and CMD's that come
  through us.  A CMD that writes to the terminal by itself gets no such line beside its own.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping

from gotunnel.address import redact
from gotunnel.observe.events import Event, Fetch

WIPE = b"\r\x1b[K"
_AFTER = 1.0  # seconds
_WINDOW = 3.0  # seconds over which the rate is taken


def wanted(environ: Mapping[str, str]) -> bool:
    """True where such a line can be shown and wiped."""
    stream = sys.stderr
    plain = "NO_COLOR" in environ or environ.get("TERM", "") in ("", "dumb")
    return stream is not None and stream.isatty() and not plain


class Line:
    """The last line of the terminal; from any thread."""

    def __init__(self, out: int = 2) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._shown = False

    def show(self, text: str) -> None:
        """Put `text` there, cut to the terminal's width."""
        try:
            width = os.get_terminal_size(self._out).columns
        except OSError:
            return
        data = WIPE + text[: max(10, width - 1)].encode()
        with self._lock:
            self._shown = True
            self._write(data)

    def wipe(self) -> bytes:
        """What others have to write first."""
        with self._lock:
            shown, self._shown = self._shown, False
        return WIPE if shown else b""

    def clear(self) -> None:
        """Take it away."""
        self._write(self.wipe())

    def _write(self, data: bytes) -> None:
        try:
            if data:
                os.write(self._out, data)
        except OSError:
            pass  # nobody sees it any more


class Progress:
    """What is known of the files so far; `clock` in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._names: set[str] = set()
        self._planned = 0
        self._bytes = 0
        self._recent: deque[tuple[float, int]] = deque()
        self._via = ""

    def planned(self, count: int) -> None:
        """So many files are wanted in all, as far as the prefetch knows."""
        self._planned = count

    def __call__(self, event: Event) -> None:
        """An event of the run."""
        if not isinstance(event, Fetch) or event.error is not None or event.path in self._names:
            return
        self._names.add(event.path)
        if not event.cached:
            self._bytes += event.bytes
            self._recent.append((self._clock(), event.bytes))
            self._via = event.upstream or self._via

    def text(self) -> str:
        """The line; "" while there is nothing to say."""
        now = self._clock()
        while self._recent and self._recent[0][0] < now - _WINDOW:
            self._recent.popleft()
        if not self._names or now - self._started < _AFTER or not self._recent:
            return ""
        rate = sum(size for _, size in self._recent) / _WINDOW
        done = len(self._names)
        parts = [f"{done}/{max(done, self._planned)} files", _size(self._bytes), f"{_size(rate)}/s"]
        if self._via:
            parts.append(f"by {redact(self._via)}")
        return "gotunnel: " + "  ".join(parts)


def _size(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
