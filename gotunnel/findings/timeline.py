"""What `go -x` says of its requests: by host, by module, the slowest, the failing, the unanswered.

Rules:
- `# get URL` is a request, `# get URL: 200 OK (0.123s)` its answer, where the time is to the headers only;
  `0.123s # cd DIR; git fetch …` a git command, counted for the host of its repository.
- go asks for several things at once: times added up are not the time that passed.
- 404 and 410 are answers (go tries every prefix of a path); no answer, and any other 4xx and 5xx, fail.
- Bounded: so many hosts, modules and open requests, then everything else is one row `(others)`.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from dataclasses import field
from typing import Any

from gotunnel.dataclass import dataclass
from gotunnel.findings.loglines import Asked, asked, scrub

KEYS = (b"# get http", b"s # cd ", b"# git3 ", b"; git ls-remote", b"; git fetch", b"; git clone")
"""One of them is in every line that `Timeline.take` knows."""

_HOSTS, _MODULES, _OPEN, _SHOWN = 200, 2000, 2000, 10
OTHERS = "(others)"

_GET = re.compile(r"# get (?P<url>https?://\S+?)(?:: (?P<answer>.*?)(?: \((?P<time>\d+\.\d+)s\))?)?$")
_GIT = re.compile(
    r"(?:(?P<time>\d+\.\d+)s # )?cd (?P<folder>\S+); (?P<words>git (?P<verb>ls-remote|fetch|clone)\b.*)$"
)
_REPOSITORY = re.compile(r"mkdir -p (?P<folder>\S+) # git3 (?P<url>\S+)$")
_REMOTE = re.compile(r"(?:[a-z+]+://(?:[^/@\s]*@)?|[\w.-]+@)(?P<host>\[[^\]]+\]|[^/:\s]+)")


@dataclass(slots=True)
class Row:
    """Sums of one host or module; `seconds` are of the answers that told their time."""

    name: str
    requests: int = 0
    failed: int = 0
    seconds: float = 0.0
    slowest: float = 0.0


@dataclass(frozen=True, slots=True, order=True)
class Request:
    """One request that was slow or failed; `said` is its status or what go said."""

    seconds: float
    what: str
    said: str


@dataclass(slots=True)
class Timeline:
    """Take lines; read the rows."""

    requests: int = 0
    failed: int = 0
    hosts: dict[str, Row] = field(default_factory=dict)
    modules: dict[str, Row] = field(default_factory=dict)
    failing: list[Request] = field(default_factory=list)
    _slowest: list[Request] = field(default_factory=list)
    _open: dict[str, None] = field(default_factory=dict)
    _repositories: dict[str, str] = field(default_factory=dict)
    _missed: dict[tuple[str, str, str], None] = field(default_factory=dict)
    _got: dict[tuple[str, str, str], None] = field(default_factory=dict)

    def take(self, text: str) -> bool | None:
        """A line without prefix: None if it is none of those told of above, False if it says why a request
        failed, else True."""
        if "# " not in text and "; git " not in text:
            return None
        if got := _GET.match(text):
            if got["answer"] is None:
                self._begin(got["url"])
            else:
                return self._answer(got["url"], got["answer"], got["time"])
            return True
        if git := _GIT.match(text):
            self._git(git)
            return True
        if made := _REPOSITORY.match(text):
            if len(self._repositories) < _OPEN:
                self._repositories[made["folder"]] = made["url"]
            return True
        return None

    def mended(self, url: str) -> bool:
        """Was what `url` asks for, and failed, got later from somewhere?"""
        want = asked(url)
        return want is not None and bool(want.step) and _key(want) not in self._missed

    def slowest(self) -> list[Request]:
        """The slowest requests, the worst first."""
        return sorted(self._slowest, reverse=True)

    def unanswered(self) -> list[str]:
        """What was asked for and is not answered in this log (it was cut off, or a server is silent)."""
        return [scrub(what) for what in self._open]

    def rows(self, of: dict[str, Row], most: int) -> list[Row]:
        """The `most` rows that took longest or failed most; what is left is added up as the last one."""
        ordered = sorted(
            of.values(), key=lambda row: (row.name == OTHERS, -row.failed, -row.seconds, row.name)
        )
        shown, rest = ordered[:most], ordered[most:]
        if rest:
            other = Row(OTHERS)
            for row in rest:
                _add(other, row.requests, row.failed, row.seconds, row.slowest)
            shown.append(other)
        return shown

    def as_json(self) -> dict[str, Any]:
        """The evidence of contract §7: seconds, most telling first."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "hosts": [_told(row) for row in self.rows(self.hosts, 5)],
            "modules": [_told(row) for row in self.rows(self.modules, 5)],
            "slowest": [[round(r.seconds, 3), r.what] for r in self.slowest()[:5]],
            "failing": [[r.what, r.said] for r in self.failing],
            "unanswered": self.unanswered()[:_SHOWN],
        }

    def _begin(self, what: str) -> None:
        if len(self._open) < _OPEN:
            self._open[what] = None

    def _answer(self, url: str, answer: str, time: str | None) -> bool:
        self._open.pop(url, None)
        want = asked(url)
        if want is None:
            return False
        status = int(answer[:3]) if answer[:3].isdecimal() else 0
        bad = status == 0 or (status >= 400 and status not in (404, 410))
        if want.step:
            key = _key(want)
            if bad and key not in self._got and len(self._missed) < _OPEN:
                self._missed[key] = None
            elif status == 200:
                self._missed.pop(key, None)
                if len(self._got) < _OPEN:  # for logs whose lines are out of order
                    self._got[key] = None
        module = f"{want.module}@{want.version}" if want.version else want.module
        self._count(want.host, module, float(time or 0), url, answer if bad else "")
        return status > 0

    def _git(self, git: re.Match[str]) -> None:
        words = git["words"]
        if git["time"] is None:
            self._begin(words)
            return
        self._open.pop(words, None)
        remote = _REMOTE.search(words) or _REMOTE.search(self._repositories.get(git["folder"], ""))
        self._count(remote["host"] if remote else "git", "", float(git["time"]), words, "")

    def _count(self, host: str, module: str, seconds: float, what: str, failure: str) -> None:
        failed = int(bool(failure))
        self.requests += 1
        self.failed += failed
        for row in (_row(self.hosts, host, _HOSTS), _row(self.modules, module, _MODULES) if module else None):
            if row is not None:
                _add(row, 1, failed, seconds, seconds)
        if len(self._slowest) < _SHOWN or seconds > self._slowest[0].seconds:
            request = Request(seconds, scrub(what), "")
            if len(self._slowest) < _SHOWN:
                heapq.heappush(self._slowest, request)
            else:
                heapq.heapreplace(self._slowest, request)
        if failed and len(self.failing) < _SHOWN:
            said = re.sub(r'^(?:Get|Head|read) "[^"]*": ', "", failure)
            self.failing.append(Request(seconds, scrub(what), scrub(said)))


def lines(timeline: Timeline, width: int = 80) -> Iterator[str]:
    """The timeline as a table, not wider than `width`."""
    count = timeline.requests
    yield f"requests: {count}, failed: {timeline.failed} (times are until the headers; many run at once)"
    head = f"{'count':>7}{'failed':>8}{'total':>10}{'slowest':>10}"
    for title, rows in (("host", timeline.hosts), ("module", timeline.modules)):
        if rows:
            room = width - len(head) - 2
            yield f"  {title.ljust(room)}{head}"
            for row in timeline.rows(rows, 8):
                cells = f"{row.requests:>7}{row.failed or '-':>8}{row.seconds:>8.2f} s{row.slowest:>8.2f} s"
                yield f"  {_cut(row.name, room - 1).ljust(room)}{cells}"
    if slow := [request for request in timeline.slowest() if request.seconds > 0][:5]:
        yield "  slowest"
        yield from (f"{r.seconds:>8.2f} s  {_cut(r.what, width - 12)}" for r in slow)
    if timeline.failing:
        yield "  failing"
        for request in timeline.failing[:5]:
            yield f"    {_cut(request.what, width - 4)}"
            yield f"      {_cut(request.said, width - 6)}"
    if silent := timeline.unanswered():
        yield f"  without an answer in this log: {len(silent)}"
        yield from (f"    {_cut(what, width - 4)}" for what in silent[:5])


def _cut(text: str, width: int) -> str:
    """The end tells more than the beginning, in a URL as in an error."""
    return text if len(text) <= width else "…" + text[-(width - 1) :]


def _key(want: Asked) -> tuple[str, str, str]:
    return (want.module, want.version, want.step)


def _row(rows: dict[str, Row], name: str, most: int) -> Row:
    if name not in rows and len(rows) >= most:
        name = OTHERS
    return rows.setdefault(name, Row(name))


def _add(row: Row, requests: int, failed: int, seconds: float, slowest: float) -> None:
    row.requests += requests
    row.failed += failed
    row.seconds += seconds
    row.slowest = max(row.slowest, slowest)


def _told(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "requests": row.requests,
        "failed": row.failed,
        "seconds": round(row.seconds, 3),
        "slowest": round(row.slowest, 3),
    }
