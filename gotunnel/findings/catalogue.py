"""A finding: one thing that is wrong here and now; and the report that doctor and explain print.

Rules:
- `as_json` gives exactly contract §7's keys; all text is redacted on the way out.
- A fix is there to be pasted: what a go.mod, a log or a server named stands in it as a plain word, or not at
  all (`harmless`); a path that isn't plain is quoted.
- The report's first finding is the root cause: the worst severity first, then the lowest layer, since
  what is wrong below makes what is above fail (a wrong GOPROXY before its name, a name before its port,
  a compiler's complaint last); equals keep the order in which they were found.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, get_args

from gotunnel.address import redact
from gotunnel.dataclass import dataclass
from gotunnel.findings.kinds import KINDS, Kind, Severity, Stage

__all__ = [
    "KINDS",
    "Finding",
    "Kind",
    "Severity",
    "Stage",
    "finding",
    "harmless",
    "kind",
    "mendable",
    "report",
]

_HARMLESS = re.compile(r"(?!-)[\w.~+/@:\[\]-]+")
_SEVERITIES: tuple[Severity, ...] = get_args(Severity)
_LAYERS: tuple[Stage, ...] = (
    "local", "config", "name", "connect", "hop", "tls", "http", "vcs", "resolve", "download", "verify",
    "build", "link",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` is what it concerns (URL, host:port, module@version, file); `via` the way out, "" if none."""

    id: str
    severity: Severity
    stage: Stage
    subject: str
    via: str
    summary: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    fix: tuple[str, ...] = ()
    retryable: bool = False

    def as_json(self) -> dict[str, Any]:
        """Exactly the keys of contract §7, JSON-ready, secrets masked."""
        return {
            "id": self.id,
            "severity": self.severity,
            "stage": self.stage,
            "subject": redact(self.subject),
            "via": redact(self.via),
            "summary": redact(self.summary),
            "evidence": _masked(dict(self.evidence)),
            "fix": [redact(line) for line in self.fix],
            "retryable": self.retryable,
        }


class _Known(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return key.upper()


def kind(id: str) -> Kind:
    """The row of `id`; an id that isn't in the table is `unknown`."""
    return KINDS.get(id, KINDS["unknown"])


def mendable(id: str) -> bool:
    """May the same request succeed another way or a little later?"""
    return kind(id).another_way


def harmless(text: str) -> bool:
    """Can it stand in a command as it is, and be nothing but a word?"""
    return bool(_HARMLESS.fullmatch(text))


def finding(
    id: str,
    subject: str = "",
    via: str = "",
    *,
    summary: str = "",
    severity: Severity | None = None,
    stage: Stage | None = None,
    evidence: Mapping[str, Any] | None = None,
    fix: tuple[str, ...] | None = None,
    **known: str,
) -> Finding:
    """A Finding of `id` from its row; `known` fills the placeholders of the fixes (host="…", port="…")."""
    row = kind(id)
    values = _Known({name: value for name, value in known.items() if harmless(value)})
    if "path" not in values and known.get("path"):
        values["path"] = shlex.quote(known["path"])
    return Finding(
        id=row.id,
        severity=severity or row.severity,
        stage=stage or row.stage,
        subject=subject,
        via=via,
        summary=summary or row.summary,
        evidence=dict(evidence or {}),
        fix=tuple(line.format_map(values) for line in row.fix) if fix is None else fix,
        retryable=row.another_way,
    )


def report(findings: Iterable[Finding]) -> dict[str, Any]:
    """The object of contract §7: `ok` without any error, `root_cause` the first error's id."""
    ordered = sorted(findings, key=lambda f: (_SEVERITIES.index(f.severity), _LAYERS.index(f.stage)))
    errors = [f.id for f in ordered if f.severity == "error"]
    return {
        "ok": not errors,
        "root_cause": errors[0] if errors else None,
        "findings": [f.as_json() for f in ordered],
    }


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {str(k): _masked(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_masked(v) for v in value]
    return value if isinstance(value, int | float | bool) or value is None else redact(str(value))
