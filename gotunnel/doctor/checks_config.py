"""What is wrong with the settings of go, git and the shell, as far as that can be told without the network.

Rules:
- `check` is pure.  A setting that go lives with is a warning at most; an error is one that makes it fail.
- Whether a source, a proxy or a private module can be reached is judged later, in `weigh`.
- Settings that have no id of their own speak under the nearest one, and say so in their summary: GOVCS is
  `vcs.denied`, GOINSECURE `goprivate.too-wide`, GONOPROXY and GONOSUMDB that leave a private module out
  `goprivate.missing`.
- A fix changes the value where it came from.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator

from gotunnel.address import redact
from gotunnel.doctor.facts import Facts
from gotunnel.doctor.fixes import set_command, unset_command
from gotunnel.findings.catalogue import Finding, finding
from gotunnel.modproxy.filter import matches
from gotunnel.modproxy.gowork import spelled
from gotunnel.modproxy.sources import SourceList, parse_list
from gotunnel.modproxy.sumdb import parse_gosumdb

DEFAULT_GOPROXY = "https://proxy.golang.org,direct"
DEFAULT_GOSUMDB = "sum.golang.org"
# one module of each large public host: a pattern that covers such a one covers too much
PUBLIC_SAMPLES = (
    "golang.org/x/text", "github.com/stretchr/testify", "google.golang.org/grpc", "gopkg.in/yaml.v3",
    "gitlab.com/gitlab-org/labkit", "bitbucket.org/creachadair/shell", "k8s.io/api", "go.uber.org/zap",
)  # fmt: skip
_TOOLCHAIN = re.compile(r"(?:local|auto|path)|(?:go\d[.0-9a-z]*(?:-[\w.]+)?|local)(?:\+(?:auto|path))?")
_GOVCS_KINDS = {"public", "private"}


def check(facts: Facts) -> list[Finding]:
    """Every finding that the settings give."""
    return [
        *_go111module(facts),
        *_goproxy(facts),
        *_gosumdb(facts),
        *_left_out(facts),
        *_too_wide(facts),
        *_govcs(facts),
        *_proxy_variables(facts),
        *_replaces(facts),
        *_toolchain(facts),
    ]


def sources_of(facts: Facts) -> SourceList | None:
    """The GOPROXY list, None where go can't read it."""
    try:
        return parse_list(facts.value("GOPROXY"))
    except ValueError:
        return None


def _go111module(facts: Facts) -> Iterator[Finding]:
    value = facts.value("GO111MODULE")
    if value not in ("", "on", "auto"):
        words = "" if value == "off" else f"GO111MODULE={value} is a value that go doesn't know"
        yield finding(
            "go111module.off",
            "GO111MODULE",
            summary=words,
            evidence=_where(facts, "GO111MODULE"),
            fix=(unset_command(facts, "GO111MODULE", "on"),),
        )


def _goproxy(facts: Facts) -> Iterator[Finding]:
    value = facts.value("GOPROXY")
    commands = (
        unset_command(facts, "GOPROXY", DEFAULT_GOPROXY),
        set_command(facts, "GOPROXY", DEFAULT_GOPROXY),
    )
    fix = tuple(dict.fromkeys(commands))
    evidence = _where(facts, "GOPROXY")
    sources = sources_of(facts)
    if sources is None:
        try:
            parse_list(value)
        except ValueError as error:
            evidence["problem"] = str(error)
        yield finding("goproxy.malformed", "GOPROXY", evidence=evidence, fix=fix)
        return
    if not sources.entries and sources.ending == "off":
        # a vendor directory is what somebody who writes `off` may have meant
        yield finding(
            "goproxy.off",
            "GOPROXY",
            severity="warning" if facts.vendored else None,
            evidence=evidence,
            fix=fix,
        )
    for source, _ in sources.entries:
        scheme, _, rest = source.url.partition("://")
        if scheme == "http" and "@" in rest.partition("/")[0]:
            yield finding(
                "goproxy.malformed",
                "GOPROXY",
                summary="go sends no user name or password over http: a source with them needs https",
                evidence=evidence,
                fix=(set_command(facts, "GOPROXY", redact(value).replace("http://", "https://")),),
            )
        elif scheme == "file" and not os.path.isdir(source.url.removeprefix("file://")):
            yield finding("goproxy.unreachable", source.label, evidence=evidence, fix=fix)


def _gosumdb(facts: Facts) -> Iterator[Finding]:
    value = facts.value("GOSUMDB")
    fix = (unset_command(facts, "GOSUMDB", DEFAULT_GOSUMDB),)
    evidence = _where(facts, "GOSUMDB")
    try:
        setting = parse_gosumdb(value)
    except ValueError as error:
        evidence["problem"] = str(error)
        yield finding("gosumdb.off", "GOSUMDB", severity="error", evidence=evidence, fix=fix,
                      summary="GOSUMDB can't be read, so that go refuses every new module")  # fmt: skip
        return
    if setting is None:
        yield finding("gosumdb.off", "GOSUMDB", evidence=evidence, fix=fix)
    elif facts.origin("GONOSUMDB") != "default" and _public_covered(facts.value("GONOSUMDB")):
        yield finding(
            "gosumdb.off",
            "GONOSUMDB",
            summary="GONOSUMDB takes public modules from the checksum database: hashes can't be checked",
            evidence=_where(facts, "GONOSUMDB"),
            fix=(unset_command(facts, "GONOSUMDB"),),
        )


def _left_out(facts: Facts) -> Iterator[Finding]:
    """GONOPROXY or GONOSUMDB set on their own, so that GOPRIVATE no longer counts for some module."""
    private = facts.value("GOPRIVATE")
    for name, globs in (("GONOPROXY", facts.no_proxy_globs), ("GONOSUMDB", facts.no_sumdb_globs)):
        if facts.origin(name) == "default" or not private:
            continue
        for module, version in facts.requirements():
            known = facts.sums.get(module, version) and facts.sums.get_mod(module, version)
            if not matches(private, module) or matches(globs, module) or (name == "GONOSUMDB" and known):
                continue
            asked = "a public source" if name == "GONOPROXY" else "the checksum database"
            sources = sources_of(facts)
            # a source that doesn't know it lets go on; one that fails is seen by the look at it
            goes_on = name == "GONOPROXY" and sources is not None and sources.ending == "direct"
            yield finding(
                "goprivate.missing",
                f"{module}@{version}",
                severity="warning" if goes_on else None,
                summary=f"{name} beats GOPRIVATE and leaves {module} out: {asked} is asked for it",
                evidence={**_where(facts, name), "GOPRIVATE": private},
                fix=(unset_command(facts, name),),
            )
            break


def _too_wide(facts: Facts) -> Iterator[Finding]:
    for name in ("GOPRIVATE", "GONOPROXY", "GOINSECURE"):
        # go prints GOPRIVATE's value where GONOPROXY isn't set
        if facts.origin(name) == "default" or not facts.value(name):
            continue
        covered = _public_covered(facts.value(name))
        if not covered:
            continue
        own = _own_hosts(facts)
        fix = (set_command(facts, name, own),) if own else (unset_command(facts, name),)
        insecure = f"{name} matches public modules too: they may be fetched without a certificate's check"
        yield finding(
            "goprivate.too-wide",
            name,
            summary=insecure if name == "GOINSECURE" else f"{name} matches public modules too",
            evidence={**_where(facts, name), "matches": covered},
            fix=fix,
        )


def _own_hosts(facts: Facts) -> str:
    """A narrower list: what of the project isn't on a host of the samples."""
    public = {sample.partition("/")[0] for sample in PUBLIC_SAMPLES}
    hosts = (module.partition("/")[0] for module, _ in facts.requirements())
    return ",".join(dict.fromkeys(f"{host}/*" for host in hosts if host not in public))


def _public_covered(globs: str) -> list[str]:
    return [sample for sample in PUBLIC_SAMPLES if matches(globs, sample)]


def _govcs(facts: Facts) -> Iterator[Finding]:
    """GOVCS that forbids git for a module which go would fetch by git."""
    value = facts.value("GOVCS")
    if not value:
        return
    sources = sources_of(facts)
    only_direct = sources is not None and not sources.entries and sources.ending == "direct"
    for module, version in facts.requirements():
        private = matches(facts.value("GOPRIVATE"), module)
        if not (facts.is_private(module) or only_direct) or _allows_git(value, module, private=private):
            continue
        yield finding(
            "vcs.denied",
            f"{module}@{version}",
            summary="GOVCS forbids git for a module that go fetches by git",
            evidence=_where(facts, "GOVCS"),
            fix=(unset_command(facts, "GOVCS", "public:git|hg,private:all"),),
        )
        return


def _allows_git(govcs: str, module: str, *, private: bool) -> bool:
    """`go help vcs`: the first pattern that matches decides; git is allowed where none does."""
    for entry in govcs.split(","):
        pattern, _, allowed = entry.strip().partition(":")
        kind = pattern in _GOVCS_KINDS and private == (pattern == "private")
        if kind or (pattern not in _GOVCS_KINDS and matches(pattern, module)):
            return any(word.strip() in ("git", "all") for word in allowed.split("|"))
    return True


def _proxy_variables(facts: Facts) -> Iterator[Finding]:
    for upper in ("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"):
        one, other = facts.proxies.get(upper, ""), facts.proxies.get(upper.lower(), "")
        if one and other and one != other:
            yield finding(
                "proxy-env.conflict",
                upper,
                summary=f"{upper} and {upper.lower()} differ: go takes the first, git and curl the second",
                evidence={upper: redact(one), upper.lower(): redact(other)},
                fix=(
                    f'export {upper.lower()}="${upper}"   # or the other way round',
                    f"unset {upper.lower()}",
                ),
            )
    everything = facts.proxies.get("ALL_PROXY") or facts.proxies.get("all_proxy")
    if everything and not facts.proxy_variable(tls=True)[0]:
        yield finding(
            "proxy-env.conflict",
            "ALL_PROXY",
            severity="info",
            summary="go ignores ALL_PROXY, which git and curl go by",
            fix=('export HTTPS_PROXY="$ALL_PROXY"',),
        )
    _, https = facts.proxy_variable(tls=True)
    for name, value in facts.git_proxies:
        if name == "http.proxy" and value != https:
            yield finding(
                "proxy-env.conflict",
                f"git config {name}",
                severity="info" if not https else "warning",
                summary="git goes by its own http.proxy, not by that of the environment",
                evidence={name: redact(value), "HTTPS_PROXY": redact(https)},
                fix=(f"git config --global --unset {name}",),
            )


def _replaces(facts: Facts) -> Iterator[Finding]:
    places = [(os.path.dirname(facts.gowork), facts.work)] if facts.work else []
    places += facts.members or ([(os.path.dirname(facts.gomod), facts.mod)] if facts.mod else [])
    for folder, mod in places:
        in_work = mod is facts.work
        file = facts.gowork if in_work else os.path.join(folder, "go.mod")
        for replace in mod.replace if mod else ():
            if not replace.is_local:
                continue
            ours = in_work and replace.old in facts.standins
            path = os.path.normpath(os.path.join(folder, replace.new.path))
            missing = not os.path.isfile(os.path.join(path, "go.mod"))
            top = facts.repository or folder
            if not missing and not ours and (path == top or path.startswith(top.rstrip("/") + "/")):
                continue  # it comes with the repository
            named = spelled(replace.old)
            by = "a stand-in of gotunnel replace" if ours else f"a directory in {os.path.basename(file)}"
            why = "where no go.mod is (any more)" if missing else "that only this machine has"
            yield finding(
                "replace.local",
                named,
                severity="error" if missing else "warning",
                summary=f"{named} is replaced by {by}, {why}",
                evidence={"file": file, "path": path, "exists": os.path.isdir(path)},
                fix=_unreplace(facts, named, file, "PATH" if missing else shlex.quote(path), ours=ours),
            )


def _unreplace(facts: Facts, named: str, file: str, path: str, *, ours: bool) -> tuple[str, ...]:
    """What ends a replacement, and what keeps it where others don't get it."""
    standin = f"gotunnel replace {shlex.quote(named)}={path}"
    if ours:
        again = f"{standin}   # where it is now" if path == "PATH" else ""
        return tuple(filter(None, (f"gotunnel replace --drop {shlex.quote(named)}", again)))
    edit = "go work edit" if file == facts.gowork else "go mod edit"
    drop = f"{edit} {shlex.quote(f'-dropreplace={named}')}"
    if file not in (facts.gowork, facts.gomod):
        drop += f" {shlex.quote(file)}"
    return drop, f"{standin}   # once that is done: a stand-in that stays out of go.mod"


def _toolchain(facts: Facts) -> Iterator[Finding]:
    value = facts.value("GOTOOLCHAIN")
    if not _TOOLCHAIN.fullmatch(value):
        yield finding(
            "gotoolchain.unavailable",
            "GOTOOLCHAIN",
            summary=f"GOTOOLCHAIN={value} is no toolchain",
            evidence=_where(facts, "GOTOOLCHAIN"),
            fix=(unset_command(facts, "GOTOOLCHAIN", "auto"), set_command(facts, "GOTOOLCHAIN", "local")),
        )


def _where(facts: Facts, name: str) -> dict[str, object]:
    """The value of a variable and where it comes from, for evidence."""
    origin = facts.origin(name)
    words = {"env": "the environment", "file": facts.goenv_file, "default": "go's default"}[origin]
    return {name: redact(facts.value(name)), "set_by": words}
