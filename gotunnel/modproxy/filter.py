"""Which modules may come through: rules of a configuration, and globs as GOPRIVATE has them.

Rules:
- A glob covers the path elements it names and everything below them: `example.com/bad` covers
  `example.com/bad/x`, `*.corp.example` covers every module of such a host.
- The first rule that covers module and version decides; what none covers is allowed.
- A rule with `versions` says nothing of a question that names no version (`list`), but such versions are
  left out of the list.

Source: golang.org/x/mod/module.MatchPrefixPatterns, path.Match.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

from gotunnel.dataclass import dataclass
from gotunnel.modproxy.version import is_canonical, key

_BOUND = re.compile(r"(?P<sign>>=|<=|>|<|=)?(?P<version>v\S+)")


def matches(globs: str, module: str) -> bool:
    """Whether one of the comma-separated `globs` covers `module`, as go reads GOPRIVATE."""
    return any(_covers(glob, module) for glob in globs.split(","))


def _covers(glob: str, module: str) -> bool:
    glob = glob.removesuffix("/")
    if not glob:
        return False
    count = glob.count("/") + 1
    elements = module.split("/")
    if len(elements) < count:
        return False
    pattern = _regex(glob)
    return pattern is not None and pattern.fullmatch("/".join(elements[:count])) is not None


@functools.lru_cache(maxsize=512)
def _regex(glob: str) -> re.Pattern[str] | None:
    """`path.Match` as a regular expression; None where the glob is malformed, which matches nothing."""
    out, at = "", 0
    while at < len(glob):
        char = glob[at]
        at += 1
        if char == "*":
            out += "[^/]*"
        elif char == "?":
            out += "[^/]"
        elif char == "[":
            found = re.compile(r"\^?(?:(?:\\.|[^\\\]-])(?:-(?:\\.|[^\\\]-]))?)+(?=\])").match(glob, at)
            if found is None:
                return None
            out += f"[{found[0].replace('[', chr(92) + '[')}]"
            at = found.end() + 1
        elif char == "\\":
            if at == len(glob):
                return None
            out += re.escape(glob[at])
            at += 1
        else:
            out += re.escape(char)
    try:
        return re.compile(out)
    except re.error:
        return None


@dataclass(frozen=True, slots=True)
class Rule:
    """`module` a glob; `allow` or not; `versions` such as `v1.2.3` or `>=v1.2.0 <v1.3.0`, "" for all."""

    module: str
    allow: bool
    versions: str = ""

    @classmethod
    def parse(cls, record: Mapping[str, str]) -> Rule:
        """One table of [[go.filter]].  Raises ValueError with one line."""
        module, action, versions = (record.get(k, "") for k in ("module", "action", "versions"))
        if unknown := set(record) - {"module", "action", "versions"}:
            raise ValueError(f"go.filter: {min(unknown)!r} is no key; want module, action, versions")
        if not module or any(_regex(part) is None for part in module.split(",")):
            raise ValueError(f"go.filter: module = {module!r} is no pattern, such as example.com/bad/*")
        if action not in ("allow", "deny"):
            raise ValueError(f"go.filter: action = {action!r}; want allow or deny")
        for bound in versions.split():
            found = _BOUND.fullmatch(bound)
            if found is None or not is_canonical(found["version"]):
                raise ValueError(f"go.filter: versions = {versions!r}; want v1.2.3 or >=v1.2.0 <v1.3.0")
        return cls(module, action == "allow", versions)

    def covers(self, module: str, version: str) -> bool:
        """Whether it speaks of this module at this version ("" where none is named)."""
        if not matches(self.module, module):
            return False
        if not self.versions:
            return True
        return is_canonical(version) and all(_within(bound, version) for bound in self.versions.split())


def _within(bound: str, version: str) -> bool:
    found = _BOUND.fullmatch(bound)
    if found is None:
        return False
    mine, other = key(version), key(found["version"])
    return {
        ">=": mine >= other, "<=": mine <= other, ">": mine > other, "<": mine < other,
    }.get(found["sign"] or "=", mine == other)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Filter:
    """The rules, first match first."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, records: Iterable[Mapping[str, str]]) -> Filter:
        """The tables of [[go.filter]].  Raises ValueError with one line."""
        return cls(tuple(Rule.parse(record) for record in records))

    def __bool__(self) -> bool:
        return bool(self.rules)

    def denies(self, module: str, version: str = "") -> str:
        """Why it may not come through, in words; "" where it may."""
        for rule in self.rules:
            if rule.covers(module, version):
                if rule.allow:
                    return ""
                what = f" {rule.versions}" if rule.versions else ""
                return f"the filter denies {rule.module}{what}"
        return ""

    def leads_to_allowed(self, module: str) -> bool:
        """Whether an allowed glob lies below `module`: go asks for it on its way to a module there."""
        own = module.split("/")
        for rule in self.rules:
            for glob in rule.module.split(",") if rule.allow else ():
                elements = glob.removesuffix("/").split("/")
                if len(elements) > len(own) and _covers("/".join(elements[: len(own)]), module):
                    return True
        return False

    def without_denied(self, module: str, listed: bytes) -> bytes:
        """The answer to `list` without the versions that are denied."""
        if not any(rule.versions for rule in self.rules):
            return listed
        lines = listed.splitlines(keepends=True)
        return b"".join(line for line in lines if not self._line_denied(module, line))

    def _line_denied(self, module: str, line: bytes) -> bool:
        words = line.split()
        return bool(words) and bool(self.denies(module, words[0].decode("utf-8", "replace")))
