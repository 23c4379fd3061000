"""A whole log -> what failed, at which stage, for which module and host, and why.

Rules:
- Matches with one cause (the same id for the same host, hop or module) are one finding; its evidence counts
  them.  The order, and so the root cause, is `catalogue.report`'s: what lies lowest.
- `stage` is go's (resolve, download, verify, vcs, build, link) where the log tells it, else the layer of the
  kind.
- What can follow from a failure that comes and goes ("no module provides package …" after a source that
  couldn't be asked) is no finding beside it: it is counted in `consequences`.
- A weak match counts only if nothing stronger stands near it in its lane, before or after.
- A request of `-x` (`# get …`) and a way out that `gotunnel` said is down are an error only if nothing else
  failed and the file didn't come from elsewhere later; else a warning: go went on.
- Bounded memory, whatever the log: so many lanes, groups, modules in a group and weak matches.  After
  thousands of matches one more of a known id is counted only, with the latest of that id.
- All text is scrubbed when it is taken; what goes into a command to paste is made of harmless characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import field, replace
from typing import Any

from gotunnel.address import one_line
from gotunnel.dataclass import dataclass
from gotunnel.findings.catalogue import Finding, finding, harmless, kind, report
from gotunnel.findings.loglines import Line, bare, scrub
from gotunnel.findings.particulars import aside, cause, clean, git_command, name_of, own, step, subject
from gotunnel.findings.reader import Blocks, Match, Reader, candidates, recognise_bare, whole
from gotunnel.findings.timeline import KEYS, Timeline

_LANES, _GROUPS, _NAMES, _WEAK = 64, 100, 20, 50
_MATCHES = 5000
_NEAR = 4096

_MORE = (*KEYS, b"exit status ", b'Get \\"http')

_FOLLOWS = (
    "no required module provides", "cannot find module providing", "no matching versions for",
    "invalid version: ",
)  # fmt: skip


@dataclass(slots=True)
class _Lane:
    reader: Reader = field(default_factory=Reader)
    context: dict[str, str] = field(default_factory=dict)
    context_end: int = 0
    strong: int = -_NEAR - 1


@dataclass(slots=True, eq=False)
class _Group:
    """Matches with one cause; `first` is told, the rest is counted."""

    first: Match
    step: str
    count: int = 0
    hard: int = 0  # of them no mere request of -x
    names: dict[str, None] = field(default_factory=dict)
    more: int = 0  # names that are not in `names`
    asked: dict[str, None] = field(default_factory=dict)  # URLs of -x that failed
    consequences: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Told:
    """`answer` is contract §7's object; `failed` whether a failure was recognised; `last` the last words
    that look like a complaint, for a log with none; `timeline` may be empty."""

    answer: dict[str, Any]
    timeline: Timeline
    last: str
    size: int

    @property
    def failed(self) -> bool:
        """True if a failure was recognised."""
        return self.answer["root_cause"] is not None


class Story:
    """Feed it a log, then `finish`."""

    def __init__(self) -> None:
        self._blocks = Blocks()
        self._lanes: dict[str, _Lane] = {}
        self._groups: dict[tuple[str, str], _Group] = {}
        self._latest: dict[str, _Group] = {}
        self._matches = 0
        self._weak: list[tuple[int, str, Match]] = []
        self._hosts: dict[str, dict[str, str]] = {}  # id -> a host that only a weak match named
        self._timeline = Timeline()
        self._offset = 0
        self._tail = b""

    def feed(self, data: bytes) -> None:
        """More of the log, cut anywhere."""
        if block := self._blocks.feed(data):
            self._take(block)

    def finish(self) -> Told:
        """The end of the log."""
        self._take(self._blocks.finish())
        for lane in self._lanes.values():
            self._add_all(lane.reader.last())
        for _, _, match in self._weak:
            self._add(match)
        findings, told = self._findings(), self._timeline
        if findings and told.requests:
            first = _first(findings)
            findings = [
                replace(f, evidence={**f.evidence, "timeline": told.as_json()}) if f is first else f
                for f in findings
            ]
        answer = report(findings)
        for found in answer["findings"]:
            # the layer made the order; what is told is go's own stage
            found["stage"] = found["evidence"].pop("step", "") or found["stage"]
        return Told(answer, told, _last_words(self._tail), self._offset)

    def _take(self, block: bytes) -> None:
        for start, end in candidates(block, _MORE):
            line = bare(whole(block, start, end).decode("utf-8", "replace"))
            self._line(line, self._offset + start, self._offset + end)
        self._offset += len(block)
        self._tail = (self._tail + block)[-_NEAR:]

    def _line(self, line: Line, start: int, end: int) -> None:
        lane = self._lane(line.lane)
        request = self._timeline.take(line.text)
        if request:
            return
        if line.text.endswith(":") and len(line.text) <= _NEAR and (git := git_command(line.text)):
            lane.context, lane.context_end = git, end
            return
        ours = line.text.startswith("gotunnel: ")
        match = own(line.text) if ours else recognise_bare(line.text)
        if match is None:
            return
        if ours or request is False:
            # no word of these may stand between a status and its body
            self._add(match, soft=True)
            return
        if start - lane.context_end <= _NEAR and line.text[:1] in ("\t", " "):
            match = replace(match, groups={**lane.context, **match.groups})
        if match.weak:
            host = aside(match.line)
            if host and host["host"] != "UNKNOWN":  # so ssh calls what is behind a ProxyJump
                self._hosts[match.id] = host
            if start - lane.strong > _NEAR and len(self._weak) < _WEAK:
                self._weak.append((end, line.lane, match))
            return
        lane.strong = end
        self._weak = [w for w in self._weak if w[1] != line.lane or start - w[0] > _NEAR]
        self._add_all(lane.reader.take(match, start, end))

    def _lane(self, name: str) -> _Lane:
        if name not in self._lanes and len(self._lanes) >= _LANES:
            oldest = next(iter(self._lanes))
            self._add_all(self._lanes.pop(oldest).reader.last())
        return self._lanes.setdefault(name, _Lane())

    def _add_all(self, matches: Iterable[Match]) -> None:
        for match in matches:
            self._add(match)

    def _add(self, match: Match, *, soft: bool = False) -> None:
        self._matches += 1
        if self._matches > _MATCHES and (latest := self._latest.get(match.id)) and not soft:
            latest.count += 1
            latest.hard += 1
            return
        match = clean(match)
        key = (match.id, cause(match))
        if key not in self._groups and len(self._groups) >= _GROUPS:
            key = (match.id, "")
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(match, step(match))
        elif soft < (not group.hard):
            group.first, group.step = match, step(match) or group.step  # a hard one tells more
        elif "path" in match.groups and "path" not in group.first.groups:
            group.first = replace(group.first, groups={**group.first.groups, "path": match.groups["path"]})
        self._latest[match.id] = group
        group.count += not soft
        group.hard += not soft
        name = name_of(match)
        if name and name not in group.names:
            if len(group.names) < _NAMES:
                group.names[name] = None
            else:
                group.more += 1
        if soft and len(group.asked) < _NAMES:
            group.asked[match.groups.get("url", "")] = None

    def _findings(self) -> list[Finding]:
        hard = [group for group in self._groups.values() if group.hard]
        causes = {group.first.id for group in hard}
        followers = [group for group in hard if _follows(group.first, causes)]
        found: list[Finding] = []
        rest = [group for group in hard if group not in followers]
        root = report(finding(group.first.id, severity="error") for group in rest)["root_cause"]
        for group in rest:
            if group.first.id == root:
                group.consequences = {follower.first.id: follower.count for follower in followers}
                break
        for group in self._groups.values():
            if group in followers:
                continue
            if "host" not in (told := group.first.groups):
                group.first = replace(group.first, groups=self._hosts.get(group.first.id, {}) | told)
            passed = not group.hard and (bool(hard) or all(self._timeline.mended(url) for url in group.asked))
            found.append(_finding(group, passed=passed))
        return found


def _follows(match: Match, causes: set[str]) -> bool:
    """May it be the consequence of one of `causes`?  A source's own 404 and our own words are not."""
    if match.exact or "status" in match.groups:
        return False
    if match.id == "module.not-found":
        return any(kind(id).another_way for id in causes) and any(w in match.line for w in _FOLLOWS)
    if match.id == "vcs.ssh-refused" and "host" not in match.groups:
        return any(id.startswith("ssh.") for id in causes)  # the jump host has said why
    return match.id == "ssh.auth-failed" and "ssh.key-unusable" in causes


def _finding(group: _Group, *, passed: bool) -> Finding:
    match = group.first
    known = {name: text for name, text in match.groups.items() if harmless(text)}
    shown = ("host", "port", "address", "server", "hop", "via", "status", "url", "repository", "module",
             "version", "path", "file", "words")  # fmt: skip
    if kind(match.id).stage in ("config", "hop") and (hop := known.get("hop") or known.get("proxy")):
        known["hop"] = hop
        known["host"], _, port = hop.rpartition(":") if ":" in hop else (hop, "", "")
        known["port"] = port
    elif "via" in known:
        known["hop"] = known["via"]
    evidence: dict[str, Any] = {"line": match.line, "count": max(group.count, 1), "step": group.step}
    evidence |= {name: match.groups[name] for name in shown if match.groups.get(name)}
    if group.names:
        evidence["files" if match.id == "build.failed" else "modules"] = list(group.names)
    if group.more:
        evidence["more"] = group.more
    if group.consequences:
        evidence["consequences"] = dict(group.consequences)
    if passed:
        evidence["passed"] = True
    return finding(
        match.id,
        subject(match),
        match.groups.get("via", ""),
        severity="warning" if passed else "error",
        evidence=evidence,
        host=known.get("host", ""),
        port=known.get("port", ""),
        hop=known.get("hop", ""),
        module=known.get("module", ""),
        version=known.get("version", ""),
        path=known.get("path", ""),
    )


def _first(findings: list[Finding]) -> Finding:
    """The one that `report` puts first."""
    ids = report(findings)["findings"]
    return next(f for f in findings if f.as_json() == ids[0])


def _last_words(tail: bytes) -> str:
    lines = [bare(raw.decode("utf-8", "replace")).text for raw in tail.split(b"\n")]
    told = [
        line
        for line in lines
        if re.search(r"(?i)\b(?:error|fatal|fail(?:ed|ure)?|panic|cannot)\b|^go: ", line)
    ]
    return one_line(scrub(told[-1]), 300) if told else ""
