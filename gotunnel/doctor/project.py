"""The project and the directories that go writes to: go.mod, go.work, go.sum, caches.

Rules:
- What can't be read or parsed is kept as a fact (`errors`), never raised.
- `env` is the go environment by plain values; with no GOVERSION in it no go command was asked.
- Nothing is written, not to test whether it could be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path

from gotunnel.address import one_line
from gotunnel.dataclass import dataclass
from gotunnel.modproxy.dirhash import escape, h1_of_go_mod
from gotunnel.modproxy.gosum import GoSum, read_go_sums
from gotunnel.modproxy.gowork import standins
from gotunnel.modproxy.modfile import ModFile, ModFileError, Version, is_directory, parse_mod, parse_work

_MOST_SUMS = 2000  # lines of go.sum that are held against the cache


@dataclass(frozen=True, slots=True)
class Space:
    """A directory that go writes to.  `free` bytes, None: not known; `problem`: why it can't be written."""

    name: str  # "GOMODCACHE", "GOCACHE", "TMPDIR"
    path: str
    free: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A file of the module cache that isn't what go.sum says."""

    module: str
    version: str
    file: str
    wanted: str
    found: str


@dataclass(slots=True)
class Project:
    gomod: str = ""
    mod: ModFile | None = None
    gowork: str = ""
    work: ModFile | None = None
    standins: frozenset[Version] = frozenset()  # what `gotunnel replace` wrote into go.work
    members: list[tuple[str, ModFile]] = field(default_factory=list)
    errors: list[tuple[str, str]] = field(default_factory=list)
    vendored: bool = False
    repository: str = ""  # the top of the git work tree
    sums: GoSum = field(default_factory=GoSum)


def read_project(env: Mapping[str, str], cwd: str) -> Project:
    found = Project(gomod=_file(env, "GOMOD", cwd, "go.mod"), gowork=_file(env, "GOWORK", cwd, "go.work"))
    found.repository = _top(cwd)
    found.mod = _parsed(found, found.gomod)
    found.work = _parsed(found, found.gowork, work=True)
    found.standins = _standins(found.gowork) if found.work else frozenset()
    for use in found.work.use if found.work else ():
        path = os.path.normpath(os.path.join(os.path.dirname(found.gowork), use, "go.mod"))
        if path == found.gomod and found.mod:
            found.members.append((os.path.dirname(path), found.mod))
        elif path != found.gomod and (mod := _parsed(found, path)):
            found.members.append((os.path.dirname(path), mod))
    root = os.path.dirname(found.gowork or found.gomod)
    found.vendored = bool(root) and os.path.isfile(os.path.join(root, "vendor", "modules.txt"))
    if root:
        modfile = re.search(r"(?:^|\s)--?modfile=(\S+)", env.get("GOFLAGS", ""))
        try:
            found.sums = read_go_sums(
                Path(cwd), gowork=found.gowork or "off", modfile=modfile[1] if modfile else ""
            )
        except (OSError, ValueError) as error:
            found.errors.append((os.path.join(root, "go.sum"), one_line(str(error))))
    return found


def _file(env: Mapping[str, str], name: str, cwd: str, file: str) -> str:
    if env.get(name):
        return "" if env[name] in (os.devnull, "off") else env[name]
    if env.get("GOVERSION"):
        return ""  # go was asked, and says that there is none
    here = Path(cwd)
    return next((str(up / file) for up in (here, *here.parents) if (up / file).is_file()), "")


def _parsed(found: Project, path: str, *, work: bool = False) -> ModFile | None:
    if not path:
        return None
    try:
        data = Path(path).read_bytes()
        return parse_work(data, path) if work else parse_mod(data, path)
    except ModFileError as error:
        found.errors.append((path, one_line(str(error))))
    except OSError as error:
        found.errors.append((path, f"{path}: {error.strerror}"))
    return None


def _standins(gowork: str) -> frozenset[Version]:
    try:
        text = Path(gowork).read_bytes().decode("utf-8", "replace")
        return frozenset(one.old for one in standins(text, gowork) if one.ours)
    except (OSError, ModFileError):
        return frozenset()


def _top(cwd: str) -> str:
    here = Path(cwd)
    return next((str(up) for up in (here, *here.parents) if (up / ".git").exists()), "")


def contradictions(sums: GoSum, gomodcache: str) -> tuple[Contradiction, ...]:
    """What the cache has and go.sum denies: the sums that go wrote beside its zips, and go.mods."""
    found = []
    root = Path(gomodcache, "cache", "download") if gomodcache else None
    for (module, version), wanted in list(sums.sums.items())[:_MOST_SUMS] if root else ():
        of_mod = version.endswith("/go.mod")
        plain = version.removesuffix("/go.mod")
        try:
            stem = Path(str(root), escape(module), "@v", escape(plain))
            file = Path(f"{stem}.mod" if of_mod else f"{stem}.ziphash")
            data = file.read_bytes()
        except (OSError, ValueError):
            continue
        seen = h1_of_go_mod(data) if of_mod else data.decode("ascii", "replace").strip()
        if seen and seen != wanted:
            found.append(Contradiction(module, plain, str(file), wanted, seen))
    return tuple(found)


def cached(project: Project, gomodcache: str) -> frozenset[tuple[str, str]]:
    """The required (module, version) whose zip go has already."""
    found = set()
    mods = [mod for _, mod in project.members] or ([project.mod] if project.mod else [])
    versions = {(r.path, r.version) for mod in mods for r in mod.require}
    versions |= {(r.new.path, r.new.version) for mod in mods for r in mod.replace if not r.is_local}
    for module, version in versions if gomodcache else ():
        try:
            file = Path(gomodcache, "cache", "download", escape(module), "@v", f"{escape(version)}.zip")
        except ValueError:
            continue
        if file.is_file():
            found.add((module, version))
    return frozenset(found)


def spaces(env: Mapping[str, str], environ: Mapping[str, str], project: Project) -> tuple[Space, ...]:
    """The directories that go writes to, with the one below the module cache that each host's files go to."""
    cache = env.get("GOMODCACHE", "")
    places = [("GOMODCACHE", cache), ("GOCACHE", env.get("GOCACHE", ""))]
    places.append(("TMPDIR", env.get("GOTMPDIR", "") or environ.get("TMPDIR") or "/tmp"))  # noqa: S108
    if cache:
        mods = [mod for _, mod in project.members] or ([project.mod] if project.mod else [])
        hosts = {r.path.partition("/")[0] for mod in mods for r in mod.require if not is_directory(r.path)}
        below = [os.path.join(cache, "cache", "download", part) for part in ("", *sorted(hosts)[:16])]
        below.append(os.path.join(cache, "cache", "lock"))
        places += [("GOMODCACHE", path.rstrip("/")) for path in below if os.path.lexists(path)]
    return tuple(space_of(name, path) for name, path in places if path not in ("", "off"))


def space_of(name: str, path: str) -> Space:
    """How things stand with the directory (or file) `path`, or with the nearest one above it that exists."""
    place = Path(path)
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    problem = ""
    free: int | None = None
    try:
        about = os.statvfs(place)
        free = about.f_bavail * about.f_frsize if about.f_blocks else None  # /proc has no blocks at all
        if about.f_flag & os.ST_RDONLY:
            problem = f"{place} is on a read-only file system"
        elif about.f_files and not about.f_favail:
            free = 0  # no inode left
        if not problem and str(place) != path and not place.is_dir():
            problem = f"{place} is not a directory"
        if not problem and not os.access(place, os.W_OK | (os.X_OK if place.is_dir() else 0)):
            problem = f"{place} can't be written by this user"
    except OSError as error:
        problem = f"{place}: {error.strerror}"
    return Space(name, path, free, problem)
