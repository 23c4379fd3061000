"""A line of a CI log -> the line that the program printed, and whose it is; and what must not be shown.

Rules:
- Known prefixes: timestamps (GitHub, GitLab with its stream number, Jenkins, TeamCity, syslog and journal),
  GitHub's `##[…]` and `::…::`, `gh run view --log`, docker build (`#12 3.456 `) and compose (`app-1  | `),
  `[job] `, quoting, JSON lines of docker and of `go build -json`.  Several may stand one after another.
- Just the prefix goes: a tab after it is go's own and stays.
- A lane is whose line it is, where the prefix tells: lines of several jobs may be interleaved.
- `scrub` masks userinfo, authorization, netrc, tokens and our module proxy's secret path.  Every text of a
  log goes through it before it is kept; it is linear in a text that `shorten` made short.
"""

from __future__ import annotations

import re

from gotunnel.address import redact
from gotunnel.dataclass import dataclass

_LONGEST = 2000
_DEPTH = 4  # prefixes one after another

_PREFIX = re.compile(
    r"""(?:\ufeff
    |(?P<gh>[^\t\n]{1,100}\t[^\t\n]{1,100}\t)(?=\ufeff?\d{4}-\d\d-\d\dT)
    |\[?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|\ ?[+-]\d\d:?\d\d)?\]?[ ](?P<gitlab>\d\d[OE][ +])?
    |\[?\d\d:\d\d:\d\d(?:[.,]\d+)?\]?(?:[A-Z]?:)?[ \t]{1,2}
    |[A-Z][a-z]{2}[ ]{1,2}\d{1,2}[ ]\d\d:\d\d:\d\d[ ](?P<unit>\S{1,80}[ ][^\s:]{1,80}:)[ ]
    |(?P<docker>\#\d{1,4})[ ](?:\d{1,6}\.\d{1,3}[ ])?
    |\d{1,6}\.\d{2,3}[ ](?=\S|\t)
    |\#\#\[[a-z]{1,20}\]
    |::(?:error|warning|notice|debug|group)(?:[ ][^:\n]{0,300})?::
    |Error:[ ](?=go:[ ]|\S{1,300}\.go:\d)
    |(?P<compose>[\w.-]{1,80})[ ]{1,40}\|[ ]
    |\[(?P<job>[\w./:\# -]{1,80})\][ ]
    |>[ ])""",
    re.VERBOSE,
)
_JSON = re.compile(r'\{.{0,2000}?"(?:Output|log|message|msg|Error)": ?("(?:[^"\\]|\\.)*")')
_SECRET_PATH = re.compile(r"(https?://[^/\s]+/)[A-Za-z0-9_-]{32}(?=[/\s\"':]|$)")
_SECRETS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(https?://)[^\s/\"']*@"), r"\1***@"),
    (_SECRET_PATH, r"\1***"),
    (re.compile(r"(?i)\b((?:proxy-)?authorization|(?:private|job|deploy|x-[\w-]{1,30})-token|(?:set-)?cookie)"
                r"(\W{1,4})(?:(?:basic|bearer|token|digest|negotiate)\s+)?[^\s\"']+.*"), r"\1\2***"),
    (re.compile(r"(?i)\b(basic|bearer)\s+(?=\S{0,200}[\d=])[\w+/=.~-]{8,}"), r"\1 ***"),
    (re.compile(r"(?i)\b((?:machine|login|account)\s+\S+.*?\bpassword\s+)\S+"), r"\1***"),
    (re.compile(r"(?i)\b(password\s+)\S+(?=\s+(?:machine|login|account)\b|\s*$)"), r"\1***"),
    (re.compile(r"(?i)\b([\w-]{0,40}(?:token|secret|passwd|password|api_?key|signature|credential)[\w-]{0,40}"
                r"(?:=|:\s?))[^\s&\"',;]+"), r"\1***"),
    (re.compile(r"\b(?:gh[opsur]_\w{16,}|github_pat_\w{20,}|glpat-[\w-]{12,}|xox[abpr]-[\w-]{10,}|"
                r"AKIA[0-9A-Z]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"), "***"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """`text` as the program printed it; `lane` whose it is, "" where nothing tells."""

    text: str
    lane: str = ""


def bare(text: str) -> Line:
    """`text`, one line of any log, without what CI systems put before it."""
    lane = ""
    for _ in range(_DEPTH):
        found = _PREFIX.match(text)
        if found is None:
            break
        if found.lastgroup:
            lane += found[found.lastgroup].strip()
        text = text[found.end() :]
    if text.startswith("{"):
        text = _from_json(text)
    return Line(text, lane)


def _from_json(text: str) -> str:
    found = _JSON.match(text)
    if found is None:
        return text
    import json

    try:
        return str(json.loads(found[1])).rstrip("\n")
    except ValueError:
        return text


def shorten(text: str, longest: int = _LONGEST) -> str:
    """At most `longest` characters: the beginning, and more of the end, where go says what happened."""
    if len(text) <= longest:
        return text
    head, tail = text[: longest // 3], text[-(longest - longest // 3 - 5) :]
    # a word that is cut may be a secret that can no more be told
    return f"{head.rpartition(' ')[0]} ... {tail.partition(' ')[2]}"


def scrub(text: str) -> str:
    """`text`, shortened, without secrets."""
    text = shorten(text)
    for pattern, masked in _SECRETS:
        text = pattern.sub(masked, text)
    return redact(text)


_ASKED = re.compile(
    r"https?://(?:[^/\s]*@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:\s\"'?@]+)(?::(?P<port>\d+))?(?P<path>/[^\s\"']*)?"
)
_FILE = re.compile(r"/(?P<module>[^@\s]+)/@(?:v/(?P<file>[^/\s?]+)|latest)$")
_LOOKUP = re.compile(r"/(?:lookup|supported|tile|latest)(?:/(?P<module>[^@\s]+)@(?P<version>[^\s?]+))?")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a URL asks for.  `step`: "resolve", "download", "verify" or "" if the URL isn't one of go's."""

    host: str
    port: str
    module: str
    version: str
    step: str


def asked(url: str) -> Asked | None:
    """What go wants by `url` (go help goproxy, and the checksum database); None if it is no http(s) URL."""
    found = _ASKED.match(url)
    if found is None:
        return None
    host, path = found["host"].strip("[]"), found["path"] or "/"
    port = found["port"] or ("443" if url.startswith("https") else "80")
    if "?go-get=1" in path:
        return Asked(host, port, (host + path.partition("?")[0]).rstrip("/"), "", "resolve")
    if file := _FILE.search(path):
        name = file["file"] or ""
        stem, dot, kind = name.rpartition(".")
        version = stem if dot and kind in ("info", "mod", "zip") else ""
        return Asked(
            host, port, _module(file["module"]), _plain(version), "download" if kind == "zip" else "resolve"
        )
    if ("/sumdb/" in path or path.startswith(("/lookup/", "/tile/", "/latest"))) and (
        note := _LOOKUP.search(path)
    ):
        return Asked(host, port, _module(note["module"] or ""), _plain(note["version"] or ""), "verify")
    return Asked(host, port, "", "", "")


def _module(path: str) -> str:
    """The module in a path that may begin with the source's own: its first element has a dot."""
    parts = path.split("/")
    start = next((n for n, part in enumerate(parts) if "." in part), 0)
    return _plain("/".join(parts[start:]))


def _plain(escaped: str) -> str:
    return re.sub(r"(?:!|%21)([a-z])", lambda m: m[1].upper(), escaped)
