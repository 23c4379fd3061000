"""What go would ask of the network, as it is set up here; or what a SUBJECT names.

Rules:
- Each need is a real question that costs little: the `.mod` of the first module that go.mod requires where
  go.sum can judge the answer, else its `.info`, else a known list; `supported` of the checksum database; refs
  of a repository.
- Only what go would ask itself is asked: private modules of their own hosts, all others of the sources.
- At most MOST of a kind: a project with a hundred private modules has them on a few hosts.
- A source's userinfo stays in `url` (needed to ask) and is masked wherever it is shown.

Sources: cmd/go/internal/vcs/vcs.go (the static hosts), go help goproxy, git-config(1) url.<base>.insteadOf.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from gotunnel.address import HostPort, one_line, redact
from gotunnel.doctor.checks_config import sources_of
from gotunnel.doctor.checks_local import switch_to
from gotunnel.doctor.facts import Facts
from gotunnel.doctor.model import Need, NeedKind
from gotunnel.errors import UsageError
from gotunnel.modproxy.dirhash import escape
from gotunnel.modproxy.filter import matches
from gotunnel.modproxy.sumdb import SumDBSetting, parse_gosumdb
from gotunnel.modproxy.version import is_canonical

MOST = 8
KNOWN_QUESTION = "/golang.org/x/text/@v/list"
_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418}
# go knows where their repositories are; every other host is asked with ?go-get=1
_STATIC = {"github.com": 3, "bitbucket.org": 3, "git.sr.ht": 3, "hub.jazz.net": 4}
_VCS_SUFFIX = re.compile(r"(?P<root>(?P<host>[^/]+)/[^@]*?\.(?:git|hg|svn|fossil|bzr))(?:/|$)")
_SCP = re.compile(r"(?:(?P<user>[^@/:\s]+)@)?(?P<host>[^@/:\s]+):(?P<path>(?!//).*)")
_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*(?:\.[A-Za-z0-9-]+)+/[A-Za-z0-9._~/-]+")


def needs(facts: Facts, subjects: Sequence[str] = ()) -> list[Need]:
    """Everything to look at, each once.  Raises UsageError for a SUBJECT that is none."""
    if subjects:
        found = [need for subject in subjects for need in _of_subject(facts, subject)]
    else:
        found = [*_sources(facts), *_sumdb(facts), *_toolchain(facts), *_repositories(facts)]
    return list(dict.fromkeys(found))


def need_of(url: str, kind: NeedKind, why: str, *, private: bool = False) -> Need:
    """The Need of an http, https, ssh or git URL.  Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{redact(url)}: want http, https, ssh or git")
    # a zone or a bracket in the wrong place is refused here
    target = HostPort.parse(parts.netloc.rpartition("@")[2], _PORTS[parts.scheme])
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    tls = parts.scheme == "https"
    return Need(kind, url, target.host, target.port, tls, why, private=private, path=path)


def module_question(facts: Facts, module: str, version: str) -> tuple[str, str]:
    """The path below a source that asks for it, and the sum that is known of the answer, "" for none.

    Raises ValueError for what is no module path.
    """
    if not version or version == "latest":
        return f"/{escape(module)}/@v/list", ""
    h1 = facts.sums.get_mod(module, version) or ""
    return f"/{escape(module)}/@v/{escape(version)}.{'mod' if h1 else 'info'}", h1


def module_needs(facts: Facts, module: tuple[str, str]) -> list[Need]:
    """What asks each source in its turn for (module, version)."""
    path, version = module
    try:
        return list(
            _sources(facts, module_question(facts, path, version), f"module {path}@{version or 'list'}")
        )
    except ValueError:
        return []


def _first_question(facts: Facts) -> tuple[str, str]:
    for module, version in facts.requirements():
        if not facts.is_private(module) and is_canonical(version):
            try:
                return module_question(facts, module, version)
            except ValueError:
                continue
    return KNOWN_QUESTION, ""


def _sources(facts: Facts, question: tuple[str, str] | None = None, why: str = "") -> Iterator[Need]:
    sources = sources_of(facts)
    path, h1 = question or _first_question(facts)
    for source, _ in sources.entries if sources else ():
        if not source.url.startswith("file:"):
            try:
                need = need_of(source.url + path, "source", why or f"GOPROXY source {source.label}")
                yield replace(need, h1=h1)
            except ValueError:
                continue  # go can't ask it either; the settings' check says so


def sumdb_itself(facts: Facts) -> Need | None:
    """The checksum database's own host: asked where no source speaks for it."""
    setting = _sumdb_setting(facts)
    if setting is None:
        return None
    try:
        return need_of(f"{setting.base}/latest", "sumdb", f"checksum database {setting.name}")
    except ValueError:
        return None


def _sumdb(facts: Facts) -> Iterator[Need]:
    """As go asks: by the sources, unless GOSUMDB has a URL of its own."""
    setting, sources = _sumdb_setting(facts), sources_of(facts)
    if setting is None or sources is None or (not sources.entries and sources.ending == "off"):
        return
    asked = [source for source, _ in sources.entries if not source.url.startswith("file:")]
    if not asked or setting.url:
        if (itself := sumdb_itself(facts)) is not None:
            yield itself
        return
    for source in asked:
        why = f"checksum database {setting.name} by {source.label}"
        with contextlib.suppress(ValueError):
            yield need_of(f"{source.url}/sumdb/{setting.name}/supported", "sumdb", why)


def _sumdb_setting(facts: Facts) -> SumDBSetting | None:
    try:
        return parse_gosumdb(facts.value("GOSUMDB"))
    except ValueError:
        return None


def _toolchain(facts: Facts) -> Iterator[Need]:
    wanted, sources = switch_to(facts), sources_of(facts)
    if wanted and facts.platform and sources:
        for source, _ in sources.entries[:1]:
            path = f"/golang.org/toolchain/@v/v0.0.1-{wanted}.{facts.platform}.zip"
            if not source.url.startswith("file:"):
                yield need_of(source.url + path, "toolchain", f"toolchain {wanted}")


def _repositories(facts: Facts) -> Iterator[Need]:
    """The hosts of modules that go fetches itself; of public ones only where nothing else is listed."""
    sources = sources_of(facts)
    direct = sources is not None and not sources.entries and sources.ending == "direct"
    seen: set[tuple[str, str, int]] = set()
    for module, _ in facts.requirements():
        if not (direct or facts.is_private(module)):
            continue
        for need in repository_needs(facts, module):
            if (place := (need.kind, need.host, need.port)) not in seen and len(seen) < MOST:
                seen.add(place)
                yield need


def repository_needs(facts: Facts, module: str) -> list[Need]:
    """What go asks to fetch `module` from its own host."""
    host = module.partition("/")[0]
    private = facts.is_private(module) or matches(facts.value("GOPRIVATE"), module)
    kind = "private module" if private else "module"
    suffixed = _VCS_SUFFIX.match(module)
    if host in _STATIC:
        root = "/".join(module.split("/")[: _STATIC[host]])
    elif suffixed:
        root = suffixed["root"]
    else:
        url = f"https://{module}?go-get=1"
        meta = _try(url, "meta", f"import path of {kind} {module}", private)
        # where git is told to write this host another way, that way is needed as well
        git = git_need(facts, f"https://{module}", f"{kind} {module}", private=private)
        return [need for need in (meta, git if git and git.kind != "vcs-https" else None) if need]
    need = git_need(facts, f"https://{root}", f"{kind} {module}", private=private)
    return [need] if need else []


def git_need(facts: Facts, url: str, why: str, *, private: bool) -> Need | None:
    """What git asks for the repository at `url`, after its insteadOf; None where that can't be told."""
    base, prefix = max(
        ((base, prefix) for base, prefix in facts.instead_of if prefix and url.startswith(prefix)),
        key=lambda pair: len(pair[1]),
        default=("", ""),
    )
    url = base + url.removeprefix(prefix) if prefix else url
    if "://" not in url and (scp := _SCP.fullmatch(url)):
        url = f"ssh://{scp['user'] or 'git'}@{scp['host']}/{scp['path'].lstrip('/')}"
    scheme = url.partition("://")[0].removeprefix("git+")
    if scheme == "ssh":
        need = _try(url.removeprefix("git+"), "vcs-ssh", why, private)
        # a name without a dot is likely an alias of the SSH configuration
        return None if need and facts.ssh_config and "." not in need.host else need
    if scheme == "git":
        return _try(url, "vcs-git", why, private)
    return _try(f"{url}/info/refs?service=git-upload-pack", "vcs-https", why, private)


def _try(url: str, kind: NeedKind, why: str, private: bool) -> Need | None:
    try:
        return need_of(url, kind, why, private=private)
    except ValueError:
        return None


def _of_subject(facts: Facts, subject: str) -> list[Need]:
    shown = one_line(redact(subject), 200)
    try:
        if "://" in subject:
            return [_url(subject)]
        path, _, version = subject.partition("@")
        if _MODULE.fullmatch(path):
            return _module(facts, path, version)
        if "/" in subject or "@" in subject:
            raise ValueError("want a URL, HOST[:PORT] or MODULE[@VERSION]")
        target = HostPort.parse(subject, 443)
    except ValueError as error:
        raise UsageError(f"doctor {shown}: {error}") from None
    return [_host(target)]


def _url(url: str) -> Need:
    if not url.isascii() or any(ord(c) <= 32 or ord(c) == 127 for c in url):
        raise ValueError("write it without spaces, and other than ASCII as %XX or xn--")
    kinds: dict[str, NeedKind] = {"ssh": "vcs-ssh", "git": "vcs-git"}
    return need_of(url, kinds.get(urlsplit(url).scheme, "url"), "asked for")


def _host(target: HostPort) -> Need:
    if target.port == 22:
        return need_of(f"ssh://git@{target}/", "vcs-ssh", "asked for")
    if target.port == 9418:
        return need_of(f"git://{target}/", "vcs-git", "asked for")
    tls = target.port not in (80, 8080, 3128)
    shown = f"[{target.host}]" if ":" in target.host else target.host
    place = shown if target.port == (443 if tls else 80) else str(target)
    return need_of(f"{'https' if tls else 'http'}://{place}/", "url", "asked for")


def _module(facts: Facts, path: str, version: str) -> list[Need]:
    if facts.is_private(path):
        return [replace(need, private=True) for need in repository_needs(facts, path)]
    named = f"module {path}@{version}" if version else f"module {path}"
    found = list(_sources(facts, module_question(facts, path, version), named))
    if not found:
        found = repository_needs(facts, path)
    return [*found, *_sumdb(facts)]
