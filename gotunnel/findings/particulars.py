"""What a match tells beside its id: module, host, hop, file, stage; cleaned for keeping and showing.

Rules:
- Everything here is of one line (and of the git command that it is the answer to); nothing is remembered.
- After `clean` a match holds nothing secret and nothing without end.
- The subject is the module where the module is at fault, the host or hop where the way is, else the file.
"""

from __future__ import annotations

import re
from dataclasses import replace

from gotunnel.address import one_line
from gotunnel.findings.catalogue import kind
from gotunnel.findings.kinds import KINDS
from gotunnel.findings.loglines import asked, scrub
from gotunnel.findings.reader import Match

_GIT = re.compile(
    r"\s*(?:(?:go: )?(?P<module>[^\s:@]+\.[^\s:@]+)(?:@(?P<at>v[^\s:]+))?: )?(?:.*? at revision "
    r"(?P<version>[^\s:]+): )?(?:.*: )?git (?:-c \S+ )*[a-z-]+ .*exit status \d+:$"
)
_REMOTE = re.compile(r"(?:https?|ssh|git)://[^\s'\"]+|[\w.-]+@[\w.-]+:[\w./~-]+")
_OURS = re.compile(r"gotunnel: (?P<before>.*?)\b(?P<id>[a-z0-9]+\.[a-z0-9-]+): (?P<words>.*)")
_WAY = re.compile(r"(?:^|: )(?P<way>[\w.-]+): (?P<id>[a-z0-9]+\.[a-z0-9-]+): | \(by (?P<by>[^()]+)\)$")
_FILE = re.compile(r"^(?:vet: )?(?P<file>[^\s:]+\.go:\d+:\d+): ")
_PATH = re.compile(
    r"\b(?:mkdir|open|create|rename|unlinkat|write|chmod|[sS]tat|link|remove) (?P<path>/[^\s:]+)"
)
_LINK = re.compile(r"/link: |undefined reference to|duplicate symbol|relocation target|\bld: |ld returned")
_DIALLED = re.compile(r"(?:proxyconnect tcp: dial tcp|socks connect tcp) (?P<hop>[\w.\[\]:-]+?:\d+)")
# Who is spoken of in a line without URL; git:// is port 9418.
_PEERS = (
    re.compile(r"^\s*(?:\S+@)?(?P<host>[\w.-]+): Permission denied \("),
    re.compile(r"Unable to negotiate with (?P<host>\S+) port (?P<port>\d+): "),
    re.compile(r"^\s*(?P<host>[\w.-]+)\[\d+: [^\]]+\]: errno="),
)
_ASIDE = re.compile(r"Host key for (?P<host>\S+) has changed| by (?P<address>\S+) port (?P<port>\d+)$")
_REACHED = re.compile(r"no way out reached (?P<host>\S+):(?P<port>\d+): ")
_MODULE = re.compile(
    r"^\s*(?:go: )?(?P<a>[\w~-]+(?:\.[\w~-]+)+/[\w.~/+-]+): |"
    r"(?:package|module) (?P<b>[\w~-]+(?:\.[\w~-]+)+/[\w.~/+-]+)"
)
_SETTING = re.compile(r"\b(?:go\.mod|go\.work|go\.sum|vendor/modules\.txt)\b")
_SUBMODULE = re.compile(r"/go\.mod$")

# What these are about where the line names nothing else.
_ABOUT = {
    "goproxy.off": "GOPROXY", "goproxy.malformed": "GOPROXY", "gosumdb.off": "GOSUMDB",
    "go111module.off": "GO111MODULE", "gotoolchain.unavailable": "GOTOOLCHAIN", "vcs.missing": "git",
}  # fmt: skip
# Layers whose failures are of a host, whatever was asked of it; and those of a hop.
_OF_HOST = frozenset({"name", "connect", "tls", "http", "vcs"})
_OF_MODULE = frozenset({"resolve", "download", "verify"})


def own(text: str) -> Match | None:
    """What gotunnel said of a way out: `gotunnel: way out tokyo is down: tcp.refused: words`."""
    ours = _OURS.match(text)
    if ours is None or ours["id"] not in KINDS:
        return None
    way = re.search(r"way out (\S+) is down|since (\S+): $", ours["before"])
    via = next((part for part in way.groups() if part), "") if way else ""
    return Match(ours["id"], text, {"words": ours["words"], "via": via}, exact=True)


def git_command(text: str) -> dict[str, str]:
    """Module, version and repository of `MODULE: git … exit status 128:`, whose answer follows; else {}."""
    git = _GIT.match(text)
    if git is None:
        return {}
    known = {"module": git["module"] or "", "version": git["version"] or git["at"] or "", "step": "vcs"}
    if remote := _REMOTE.search(text):
        known["repository"] = remote[0]
    return {name: value for name, value in known.items() if value}


def aside(text: str) -> dict[str, str]:
    """The host that a weak line names where the strong one doesn't (OpenSSH); else {}."""
    found = _ASIDE.search(text)
    if found is None:
        return {}
    return {"host": scrub(found["host"] or found["address"]), "port": found["port"] or "22"}


def clean(match: Match) -> Match:
    """Nothing secret, nothing without end, and all that the line tells of."""
    line = match.line
    groups = {name: scrub(text) for name, text in match.groups.items()}
    if hop := _DIALLED.search(line):
        groups["hop"] = hop["hop"].partition("->")[0]
    elif "proxyconnect" in line:
        groups.pop("port", None)  # the host is the proxy's, the port that of the URL
    if path := _PATH.search(line):
        groups.setdefault("path", scrub(path["path"]))
    if file := _FILE.match(line) or _SETTING.search(line):
        groups["file"] = scrub(file["file"] if "file" in file.groupdict() else file[0])
    for peer in (pattern.search(line) for pattern in _PEERS):
        if peer and "host" not in groups:
            groups |= peer.groupdict()
    if "version" in groups:
        groups["version"] = _SUBMODULE.sub("", groups["version"])
    if (want := asked(groups.get("url", ""))) and want.module:
        groups.setdefault("module", want.module)
        if want.version and groups["module"] == want.module:
            groups.setdefault("version", want.version)
    if "module" not in groups and (module := _MODULE.search(line)):
        groups["module"] = module["a"] or module["b"]
    if match.exact:
        _of_ours(groups)
    if "host" not in groups and "ssh" not in match.id and (remote := asked(groups.get("repository", ""))):
        groups["host"], groups["port"] = remote.host, remote.port
    return replace(match, line=one_line(scrub(line), 1000).strip("@ "), groups=groups)


def _of_ours(groups: dict[str, str]) -> None:
    """What the listener's and the module proxy's own words tell; their own address is no host that failed."""
    words = groups.get("words", "")
    if "via" not in groups and (way := _WAY.search(words)):
        groups["via"] = way["way"] or way["by"]
    if reached := _REACHED.search(words):
        groups["host"], groups["port"] = reached["host"].strip("[]"), reached["port"]
    elif groups.get("host", "") in ("127.0.0.1", "localhost", "[::1]", "::1"):
        del groups["host"]
        groups.pop("port", None)


def step(match: Match) -> str:
    """Go's stage, as far as the line tells it."""
    if match.id == "build.failed":
        return "link" if _LINK.search(match.line) else "build"
    if "verifying " in match.line or "checksum" in match.line:
        return "verify"
    if "step" in match.groups:
        return match.groups["step"]
    if (want := asked(match.groups.get("url", ""))) and want.step:
        return want.step
    if match.line.lstrip().startswith(("fatal: ", "ssh: ", "remote: ", "error: RPC")):
        return "vcs"
    return "download" if re.search(r"golang\.org/toolchain|zip file too large", match.line) else ""


def cause(match: Match) -> str:
    """What matches of one id must share to have one cause."""
    groups, layer = match.groups, kind(match.id).stage
    if match.exact:
        return f"{groups.get('via', '')} {groups.get('host', '') if layer in _OF_HOST else ''}"
    if layer in ("hop", "config"):
        return groups.get("hop") or groups.get("proxy", "")
    if layer in _OF_HOST:
        return groups.get("host", "")
    return groups.get("module", "") if layer in _OF_MODULE else ""


def name_of(match: Match) -> str:
    groups = match.groups
    if match.id == "build.failed":
        return groups.get("file", "")
    module, version = groups.get("module", ""), groups.get("version", "")
    return f"{module}@{version}" if module and version else module


def subject(match: Match) -> str:
    groups, layer = match.groups, kind(match.id).stage
    host = groups.get("host", "")
    place = f"{host}:{groups['port']}" if host and "port" in groups else host
    if layer in ("hop", "config") and (hop := groups.get("hop") or groups.get("proxy")):
        place = hop
    module, file = name_of(match), groups.get("file") or groups.get("path", "")
    wanted = (file, module, place) if layer in ("local", "build") else (place, module, file)
    if layer in _OF_MODULE or match.id in ("import.no-meta", "vcs.denied", "replace.local"):
        wanted = (module, place, file)
    if match.id in _ABOUT:
        wanted = (_ABOUT[match.id], "", "")
    return next((text for text in wanted if text), groups.get("via", ""))
