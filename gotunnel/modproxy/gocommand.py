"""What a command line will make go do: in which directory, with which go.mod, and which files it needs.

Rules:
- Pure but for looks at the file system, which are handed in.
- Only what a command surely asks for counts as its need.  A command that needs modules of its own choice
  (`go install tool@latest`, `go version`) has none.
- What isn't go itself (make, a shell) may run go or may not: such a command is `armed`; nothing is fetched
  for it before a go that it runs has asked for a file of the project.
- The last of several flags counts, and the command line beats GOFLAGS, as in go.

Sources: cmd/go/main.go (-C), internal/base/goflags.go, internal/modload/init.go (setDefaultBuildMod,
modRoots, FindGoWork), `go help build`; which files are asked for was seen in runs (GO-FACTS).
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Literal

from gotunnel.dataclass import dataclass
from gotunnel.modproxy.modfile import ModFileError, parse_mod

_GO = re.compile(r"(?:go|gotip|go1\.[0-9][0-9a-z.]*)(?:\.exe)?")
# flags whose value may be the next word; all others are switches
_VALUED = frozenset(
    (
        *("C", "p", "asmflags", "buildmode", "compiler", "gccgoflags", "gcflags", "installsuffix", "ldflags"),
        *("mod", "modfile", "overlay", "pgo", "pkgdir", "tags", "toolexec", "o", "exec", "run", "skip", "f"),
        *("bench", "benchtime", "count", "covermode", "coverpkg", "coverprofile", "cpu", "fuzz", "fuzztime"),
        *("fuzzminimizetime", "parallel", "shuffle", "timeout", "trace", "vet", "vettool", "go", "compat"),
        *("cpuprofile", "memprofile", "memprofilerate", "blockprofile", "blockprofilerate", "mutexprofile"),
        *("mutexprofilefraction", "outputdir", "reuse"),
    )
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What go's environment says.

    `env` has the effective GOFLAGS, GOWORK, GO111MODULE and GOTOOLCHAIN (where unset: absent); `private` are
    GONOPROXY's effective globs; `modcache` is GOMODCACHE ("": what it has is fetched all the same);
    `local_go` ("go1.26.8") and `platform` ("linux-amd64") are of the go at hand, "" where unknown.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    private: str = ""
    modcache: str = ""
    local_go: str = ""
    platform: str = ""


@dataclass(frozen=True, slots=True)
class Needs:
    """Which kinds of files a command asks for.

    `zips`: "imported" are those that go.mod requires and go.sum has a zip of, "required" all that go.mod
    requires, "all" those of every module that go.sum has a zip of.  Without `graph` it reads no `.mod` but
    those of what go.mod requires, where that prunes the graph.
    """

    infos: bool
    zips: Literal["none", "imported", "required", "all"]
    graph: bool = True


_BUILD = Needs(infos=True, zips="imported", graph=False)
_UNKNOWN = Needs(infos=True, zips="imported")
DOWNLOAD = Needs(infos=True, zips="required")
_TIDY = Needs(infos=False, zips="all")
_GRAPH = Needs(infos=False, zips="none")
_NEEDS: Mapping[str, Needs] = {
    **dict.fromkeys(("build", "test", "run", "vet", "list", "install", "generate", "fix"), _BUILD),
    **dict.fromkeys(("mod vendor", "work vendor"), _UNKNOWN),
    "mod download": DOWNLOAD,
    "get": Needs(infos=True, zips="all"),
    "mod tidy": _TIDY,
    "mod why": _TIDY,
    "mod graph": _GRAPH,
    "mod verify": _GRAPH,
    "list -m": Needs(infos=True, zips="none"),
}
# these look at a vendor directory instead of at modules, where one is in use
_VENDORABLE = frozenset(("build", "test", "run", "vet", "list", "list -m", "install", "generate", "fix"))


@dataclass(frozen=True, slots=True)
class GoCommand:
    """One command line, read.

    `needs` is None where nothing is to be fetched ahead.  `verb` is "build", "mod tidy", …, and "" for what
    isn't go; `mod` and `modfile` are the values of these flags.
    """

    verb: str
    needs: Needs | None
    armed: bool = False
    directory: str = ""
    mod: str = ""
    modfile: str = ""


def read_command(argv: Sequence[str], goflags: str = "") -> GoCommand:
    """Read CMD; `goflags` is the effective GOFLAGS."""
    if not argv or not _GO.fullmatch(os.path.basename(argv[0])):
        flags, _ = _flags(_split(goflags))
        return GoCommand("", _UNKNOWN, armed=True, mod=flags.get("mod", ""), modfile=flags.get("modfile", ""))
    words = list(argv[1:])
    before, words = _flags(words)  # `go -C DIR build`
    verb, words = (words[0], words[1:]) if words else ("", [])
    if verb in ("mod", "work", "tool") and words:
        inner, words = _flags(words) if verb != "tool" else ({}, words)
        before |= inner
        verb, words = (f"{verb} {words[0]}", words[1:]) if words else (verb, [])
    # go builds the tool where go.mod names one, and else needs nothing
    armed = verb.startswith("tool ")
    own, arguments = ({}, words) if armed else _flags(words)
    flags = {**_flags(_split(goflags))[0], **before, **own}
    if verb == "list" and _is_on(flags.get("m")):
        verb = "list -m"
    needs = _BUILD if armed else _NEEDS.get(verb)
    return GoCommand(
        verb,
        None if _names_its_own(verb, arguments) else needs,
        armed=armed,
        directory={**before, **own}.get("C", ""),
        mod=flags.get("mod", ""),
        modfile=flags.get("modfile", ""),
    )


def _names_its_own(verb: str, arguments: Sequence[str]) -> bool:
    """True where the command names the modules that it wants, and go.mod is not asked."""
    if verb in ("install", "run"):
        return bool(arguments) and "@" in arguments[0]
    if verb == "mod download":
        return any(word != "all" for word in arguments)
    return verb == "list -m" and "all" not in arguments


def _is_on(value: str | None) -> bool:
    return value is not None and value.lower() not in ("false", "0", "f")


def _split(goflags: str) -> list[str]:
    try:
        return shlex.split(goflags)
    except ValueError:
        return goflags.split()


def _flags(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The flags that stand first, and what comes after them."""
    found: dict[str, str] = {}
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "-":
        word = words[at]
        at += 1
        if word == "--":
            break
        name, equals, value = word.lstrip("-").partition("=")
        if not equals and name in _VALUED and at < len(words):
            value = words[at]
            at += 1
        found[name] = value
    return found, list(words[at:])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command finds its modules; what is None isn't there, or isn't used.

    `directory` is where it runs, after -C; `root` is where go.mod proper stands, or go.work.  With `go_work`
    the workspace decides, and `go_mod` only tells where the directory belongs.  `vendored`: packages come
    from a vendor directory.
    """

    directory: Path
    go_mod: Path | None = None
    go_sum: Path | None = None
    go_work: Path | None = None
    root: Path | None = None
    vendored: bool = False

    @property
    def has_modules(self) -> bool:
        """Whether there is a main module at all."""
        return self.go_mod is not None or self.go_work is not None


def child_directory(
    argv: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    *,
    is_file: Callable[[Path], bool] = Path.is_file,
    is_dir: Callable[[Path], bool] = Path.is_dir,
    read: Callable[[Path], bytes] = Path.read_bytes,
) -> Place:
    """Where the command `argv`, started in `cwd`, finds its modules.

    `env` has the effective GOFLAGS, GOWORK and GO111MODULE: those of `go env`, where a user has written them
    there.  `cwd` is absolute.
    """
    command = read_command(argv, env.get("GOFLAGS", ""))
    directory = Path(os.path.normpath(cwd / command.directory))
    if env.get("GO111MODULE", "") == "off":
        return Place(directory)

    def upwards(name: str) -> Path | None:
        return next((up / name for up in (directory, *directory.parents) if is_file(up / name)), None)

    go_mod, go_work = upwards("go.mod"), _go_work(env.get("GOWORK", ""), directory, upwards, is_file)
    root = go_work or go_mod
    if root is None:
        return Place(directory)
    vendored = command.mod == "vendor"
    if not command.mod and is_dir(root.parent / "vendor"):
        vendored = _vendors(root, read, since=22 if go_work else 14)
    vendored = vendored and (
        not command.verb or command.verb.startswith("tool ") or command.verb in _VENDORABLE
    )
    place = Place(directory, go_mod, None, go_work, root.parent, vendored)
    if go_mod is None:
        return place
    if command.modfile and not go_work:
        go_mod = Path(os.path.normpath(directory / command.modfile))
    go_sum = go_mod.with_name(go_mod.name.removesuffix(".mod") + ".sum")
    return replace(place, go_mod=go_mod, go_sum=go_sum)


def _go_work(
    setting: str, directory: Path, upwards: Callable[[str], Path | None], is_file: Callable[[Path], bool]
) -> Path | None:
    if setting == "off":
        return None
    if setting in ("", "auto"):
        return upwards("go.work")
    path = Path(os.path.normpath(directory / setting))
    return path if is_file(path) else None


def _vendors(root: Path, read: Callable[[Path], bytes], *, since: int) -> bool:
    """Whether go takes the vendor directory beside `root` unasked: from `go 1.SINCE` on."""
    try:
        # the rest of the file may hold what only go.work allows
        go = parse_mod(read(root), lax=True).go
    except (OSError, ModFileError):
        return False
    return minor(go) >= since


def minor(go: str) -> int:
    """17 of 1.17.3; a go.mod without a go line is read as go 1.16."""
    found = re.match(r"1\.([0-9]+)", go)
    return int(found[1]) if found else (16 if not go else 99)
