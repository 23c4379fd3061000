"""What is wrong on this machine itself: programs, versions, disk, caches, go.mod, go.sum.

Rules:
- `check` is pure: it reads the facts only.
- git counts as missing only where something is fetched by it.
- A go.sum that lacks lines is an error only where go wouldn't add them itself, and a vendor directory needs
  none.
- A go that is older than go.mod asks is an error only where GOTOOLCHAIN forbids to fetch a newer one; else a
  toolchain is one more thing to look for (`needs`).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator

from gotunnel.doctor.checks_config import sources_of
from gotunnel.doctor.facts import Facts
from gotunnel.doctor.fixes import set_command
from gotunnel.findings.catalogue import Finding, finding

FULL = 16 << 20  # bytes free under which hardly a module can be unpacked
_NEARLY_FULL = 200 << 20  # a toolchain takes about so much
_SHOWN = 5  # modules named in one finding
_UNWRITABLE = re.compile(r"build cache .*?: (?:mkdir|open) (\S+): (permission denied|read-only file system)")

GoVersion = tuple[int, int, int, int, int]


def check(facts: Facts) -> list[Finding]:
    """Every finding that the machine itself gives."""
    return [
        *_go(facts),
        *_git(facts),
        *_modfiles(facts),
        *_go_version(facts),
        *_spaces(facts),
        *_sum_mismatch(facts),
        *_sum_missing(facts),
    ]


def version_key(text: str) -> GoVersion:
    """What to sort go versions by: "1.21rc2" < "1.21.0", "go1.22" as 1.22 with no patch is the language.

    Source: go/version.Compare, internal/gover.
    """
    found = re.match(r"(?:go)?(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:(alpha|beta|rc)(\d+))?", text)
    if not found:
        return (0, 0, 0, 0, 0)
    major, minor, patch = (int(part or 0) for part in found.group(1, 2, 3))
    if found[4]:
        return (major, minor, patch, ("alpha", "beta", "rc").index(found[4]) + 1, int(found[5]))
    # from 1.21 on the bare 1.N is the language version, before every release of it
    bare = found[3] is None and (major, minor) >= (1, 21)
    return (major, minor, patch, 0 if bare else 9, 0)


def wanted_go(facts: Facts) -> str:
    """The highest go version that the main modules and go.work ask for, "" for none."""
    asked = [mod.go for mod in (*facts.mains, *filter(None, [facts.work])) if mod.go]
    return max(asked, key=version_key, default="")


def switch_to(facts: Facts) -> str:
    """The toolchain ("go1.30.0") that go would fetch here, "" where the one at hand does."""
    setting = facts.value("GOTOOLCHAIN")
    here = facts.goversion
    named = re.match(r"go\d[.0-9a-z]*(?:-[\w.]+)?", setting)
    floor = named[0] if named else ""
    if floor and "+" not in setting:
        return floor if floor != here else ""
    if not here or not setting.endswith("auto"):
        return ""
    toolchains = [mod.toolchain for mod in (*facts.mains, *filter(None, [facts.work]))]
    asked = [floor, f"go{wanted_go(facts)}" if wanted_go(facts) else "", *toolchains]
    best = max((name for name in asked if name not in ("", "default")), key=version_key, default="")
    return released(best) if version_key(best) > version_key(here) else ""


def released(toolchain: str) -> str:
    """go1.30 names a language; the toolchain that go fetches for it is go1.30.0."""
    found = re.fullmatch(r"go1\.(\d+)", toolchain)
    return f"{toolchain}.0" if found and int(found[1]) >= 21 else toolchain


def _go(facts: Facts) -> Iterator[Finding]:
    if not facts.go:
        yield finding("go.missing", "go")
    elif not facts.goversion and facts.go_error and not facts.mod_errors:
        named = next((n for n in ("GO111MODULE", "GOFLAGS", "GOENV") if n in facts.go_error), "")
        if named != "GO111MODULE":  # the settings' check says it
            evidence = {"said": facts.go_error}
            if "GOCACHE" in facts.go_error or "GOMODCACHE" in facts.go_error or "HOME" in facts.go_error:
                yield finding("cache.permission", "GOCACHE", evidence=evidence, path="$HOME",
                              summary="go finds no place for its caches: HOME and GOCACHE aren't set",
                              fix=("export HOME=/PATH/TO/HOME", "export GOCACHE=/PATH/TO/CACHE"))  # fmt: skip
            elif unwritable := _UNWRITABLE.search(facts.go_error):
                path, why = unwritable.groups()
                yield finding("cache.permission", path, evidence=evidence, path=path,
                              summary=f"go's build cache can't be written: {why}",
                              fix=(f"ls -ld {os.path.dirname(path)}",
                                   "export GOCACHE=/PATH/TO/CACHE"))  # fmt: skip
            else:
                yield finding(
                    "unknown",
                    "go env",
                    summary="go refuses to say its settings",
                    evidence=evidence,
                    fix=("go env",),
                )


def _git(facts: Facts) -> Iterator[Finding]:
    if facts.git:
        return
    sources = sources_of(facts)
    direct = sources is not None and not sources.entries and sources.ending == "direct"
    users = [f"{module}@{version}" for module, version in facts.requirements() if facts.is_private(module)]
    if users or direct:
        yield finding("vcs.missing", users[0] if users else "git", evidence={"modules": users[:_SHOWN]})


def _modfiles(facts: Facts) -> Iterator[Finding]:
    for file, words in facts.mod_errors:
        tidy = (
            ("go mod tidy",)
            if file.endswith(".sum")
            else ("correct the line that is named", "go mod edit -json")
        )
        yield finding("modfile.invalid", file, summary=words, evidence={"file": file}, fix=tidy)


def _go_version(facts: Facts) -> Iterator[Finding]:
    wanted, here = wanted_go(facts), facts.goversion
    if not wanted or not here or version_key(wanted) <= version_key(here):
        return
    setting = facts.value("GOTOOLCHAIN")
    named = re.match(r"go\d[.0-9a-z]*", setting)
    if setting.endswith("auto") or (named and version_key(named[0]) >= version_key(wanted)):
        return
    yield finding(
        "go.too-old",
        facts.gomod or facts.gowork,
        evidence={"go.mod": wanted, "go": here, "GOTOOLCHAIN": setting},
        fix=(set_command(facts, "GOTOOLCHAIN", "auto"), f"https://go.dev/dl/   # go {wanted} or later"),
    )


def _spaces(facts: Facts) -> Iterator[Finding]:
    told = set()
    for space in facts.spaces:
        if space.problem and (space.name, "p") not in told:
            told.add((space.name, "p"))
            yield finding(
                "cache.permission",
                space.path,
                summary=f"{space.name} can't be written: {space.problem}",
                evidence={"variable": space.name, "path": space.path},
                fix=_writable(facts, space.name, space.path),
                path=space.path,
            )
        if space.free is not None and space.free < _NEARLY_FULL and (space.name, "f") not in told:
            told.add((space.name, "f"))
            full = space.free < FULL
            yield finding(
                "disk.full",
                space.path,
                severity="error" if full else "warning",
                summary="" if full else f"the disk of {space.name} is nearly full",
                evidence={"variable": space.name, "free_bytes": space.free},
                path=space.path,
            )


def _writable(facts: Facts, name: str, path: str) -> tuple[str, ...]:
    look = f"ls -ld {shlex.quote(path)}"
    if name == "TMPDIR":
        return (look, "export TMPDIR=/PATH/TO/A/DIRECTORY")
    home = {"GOMODCACHE": "$HOME/go/pkg/mod", "GOCACHE": "$HOME/.cache/go-build"}[name]
    return (
        f'sudo chown -R "$(id -u):$(id -g)" {shlex.quote(facts.value(name) or path)}',
        look,
        f"export {name}={home}",
    )


def _sum_mismatch(facts: Facts) -> Iterator[Finding]:
    for wrong in facts.contradictions[:_SHOWN]:
        yield finding(
            "sum.mismatch",
            f"{wrong.module}@{wrong.version}",
            stage="verify",
            summary="the module cache holds another content than go.sum vouches for",
            evidence={"file": wrong.file, "go.sum": wrong.wanted, "cache": wrong.found},
            fix=("go clean -modcache", f"go mod download {wrong.module}@{wrong.version}"),
            module=wrong.module,
            version=wrong.version,
        )


def _sum_missing(facts: Facts) -> Iterator[Finding]:
    adds = re.search(r"(?:^|\s)--?mod=mod(?:\s|$)", facts.value("GOFLAGS"))
    if (
        not facts.mains
        or facts.vendored
        or adds
        or any(file.endswith(".sum") for file, _ in facts.mod_errors)
    ):
        return
    direct = {require.path for mod in facts.mains for require in mod.require if not require.indirect}
    lacking = [
        (module, version)
        for module, version in facts.requirements()
        if not facts.sums.get_mod(module, version) and not facts.sums.get(module, version)
    ]
    if not lacking:
        return
    first = next((item for item in lacking if item[0] in direct), lacking[0])
    yield finding(
        "sum.missing",
        f"{first[0]}@{first[1]}",
        # packages of an indirect requirement may never be asked for; without a go.sum nobody has begun yet
        severity="error" if first[0] in direct and len(facts.sums) else "warning",
        evidence={"modules": [f"{m}@{v}" for m, v in lacking[:_SHOWN]], "count": len(lacking)},
        module=first[0],
        version=first[1],
    )
