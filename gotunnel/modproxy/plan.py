"""Which files of modules a command will ask for, in what order: from go.mod and go.sum, before it asks.

Rules:
- Pure, and linear in the size of what was read.
- `.mod` stands before `.info` before `.zip`; within a kind what go.mod requires itself comes first, then what
  it lists as indirect, then the rest of go.sum in its order.
- A go.sum may hold more than is needed: of a module that go.mod requires, the version there counts; of any
  other the highest that go.sum has a zip of.
- Left out is what a directory replaces, what is private (that go fetches past us), and what is there already.
  What a module replaces is wanted under the replacement's name.
- Without a go.sum `Walk` reads the graph as go does, pruned where go prunes it.
- A toolchain is wanted where go is sure to switch to it.

Sources: go.dev/ref/mod#graph-pruning, #go-sum-files; cmd/go/internal/modload/buildlist.go (readModGraph),
cmd/go/internal/toolchain/select.go (Select), internal/gover (Compare).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import field

from gotunnel.dataclass import dataclass
from gotunnel.modproxy.closure import TOOLCHAIN, Item, Kind
from gotunnel.modproxy.filter import matches
from gotunnel.modproxy.gocommand import Needs, minor
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.modfile import ModFile, Require, Version
from gotunnel.modproxy.version import is_valid, key

_GO_VERSION = re.compile(r"([0-9]+)\.([0-9]+)(?:\.([0-9]+)|([a-z]+)([0-9]+))?")


@dataclass(frozen=True, slots=True)
class Files:
    """What was read: the main modules (one, or those of a workspace) and all their sums.

    Directories in replaces are absolute, so that it doesn't matter whose they were.
    """

    mains: tuple[ModFile, ...] = ()
    sums: GoSum = field(default_factory=GoSum, repr=False)
    work: ModFile | None = None

    @property
    def pruned(self) -> bool:
        """Whether go.mod lists every module that a build takes packages from."""
        return self.work is None and all(minor(main.go) >= 17 for main in self.mains)


class Modules:
    """Under which name go asks for a required version, if it asks us at all."""

    def __init__(self, files: Files, private: str) -> None:
        self._private = private
        self._own = {main.module for main in files.mains}
        sources = (*files.mains, files.work) if files.work else files.mains
        # go.work's come last, and win
        self._replaces = {one.old: one.new for source in sources for one in source.replace}
        self._targets = set(self._replaces.values())
        self._excluded = {one for main in files.mains for one in main.exclude}
        self._is_private: dict[str, bool] = {}

    def replaced(self, wanted: Version) -> Version:
        """What stands for `wanted`: itself, another module, or a directory (without a version)."""
        return self._replaces.get(wanted) or self._replaces.get(Version(wanted.path)) or wanted

    def asked(self, wanted: Version) -> Version | None:
        """The version to ask for where `wanted` is required; None where go won't ask us."""
        real = self.replaced(wanted)
        if (
            not real.version
            or wanted.path in self._own
            or wanted in self._excluded
            or self._hidden(real.path)
        ):
            return None
        return real

    def may_ask(self, listed: Version) -> bool:
        """The same for what go.sum lists, replacements under their own names."""
        if listed in self._targets:
            return not self._hidden(listed.path)
        return self.asked(listed) == listed

    def _hidden(self, path: str) -> bool:
        if path not in self._is_private:
            self._is_private[path] = matches(self._private, path)
        return self._is_private[path]


def plan(
    files: Files,
    needs: Needs,
    *,
    private: str = "",
    have: Callable[[Item], bool] = lambda item: False,
) -> tuple[Item, ...]:
    """What the command will ask for, in the order to fetch it.

    `private` are GONOPROXY's effective globs; `have` tells what go needn't ask for, since it has it.
    """
    modules = Modules(files, private)
    mods: dict[Version, None] = {}
    sums: dict[Version, None] = {}
    for module, version in files.sums.sums:
        plain = version.removesuffix("/go.mod")
        (sums if plain == version else mods)[Version(module, plain)] = None
    known = {one.path for one in mods} | {one.path for one in sums}
    required = [
        (one, need)
        for need in _required(files)
        if (one := modules.asked(Version(need.path, need.version))) is not None
    ]
    first = [one for one, need in required if one in mods or one.path not in known]
    whole = needs.graph or not files.pruned
    graph = _unique(first, (one for one in mods if modules.may_ask(one)) if whole else ())
    if needs.zips == "none":
        infos = list(_highest(graph))
        return _items(graph, infos if needs.infos else (), (), have)
    highest = {one.path: one for one in _highest(sums)}
    zips: list[Version] = []
    for one, need in required:
        raised = one if files.pruned else highest.get(one.path, one)
        new = one.path not in known and not need.indirect
        if raised in sums or new or needs.zips == "required":
            zips.append(raised)
    if needs.zips == "all" or not files.pruned:
        ours = {one.path for one, _ in required}
        zips += [one for one in highest.values() if one.path not in ours and modules.may_ask(one)]
    zips = _unique(zips)
    return _items(graph, zips if needs.infos else (), zips, have)


def _items(
    mods: Iterable[Version], infos: Iterable[Version], zips: Iterable[Version], have: Callable[[Item], bool]
) -> tuple[Item, ...]:
    kinds: tuple[tuple[Kind, Iterable[Version]], ...] = (("mod", mods), ("info", infos), ("zip", zips))
    wanted = (Item(one.path, one.version, kind) for kind, versions in kinds for one in versions)
    return tuple(item for item in wanted if item.is_askable and not have(item))


def _unique(*lists: Iterable[Version]) -> list[Version]:
    return list(dict.fromkeys(one for each in lists for one in each))


def _required(files: Files) -> Iterator[Require]:
    """What the main modules require, the highest version of each module, direct ones first."""
    best: dict[str, Require] = {}
    for main in files.mains:
        for need in main.require:
            before = best.get(need.path)
            if before is None:
                best[need.path] = need
                continue
            higher = need if _higher(need.version, before.version) else before
            best[need.path] = Require(need.path, higher.version, need.indirect and before.indirect)
    yield from sorted(best.values(), key=lambda need: need.indirect)


def _higher(one: str, other: str) -> bool:
    return is_valid(one) and (not is_valid(other) or key(one) > key(other))


def _highest(versions: Iterable[Version]) -> Iterator[Version]:
    best: dict[str, Version] = {}
    for one in versions:
        if one.path not in best or _higher(one.version, best[one.path].version):
            best[one.path] = one
    return iter(best.values())


@dataclass(frozen=True, slots=True)
class Step:
    """A go.mod to be read next: `item` from a source, or the one in `directory`."""

    wanted: Version
    item: Item | None
    directory: str = ""


class Walk:
    """The module graph, read breadth first: `start`, then `add` for each go.mod that came.

    From a module whose go.mod prunes (go 1.17) nothing further is read when a main module that prunes
    requires it; its own requirements count all the same.
    """

    def __init__(self, files: Files, private: str = "") -> None:
        self._files = files
        self._modules = Modules(files, private)
        self._prunes: dict[Version, bool] = {}  # what was entered, and whether its go.mod may end the walk
        self._read: dict[Version, ModFile] = {}
        self._selected: dict[str, str] = {}

    def start(self) -> list[Step]:
        """The first round: what go.mod requires."""
        steps: list[Step] = []
        for main in self._files.mains:
            prunes = minor(main.go) >= 17
            for need in sorted(main.require, key=lambda need: need.indirect):
                steps += self._enter(Version(need.path, need.version), prunes)
        return steps

    def add(self, step: Step, mod: ModFile) -> list[Step]:
        """What is to be read further, since the go.mod of `step` is here."""
        if step.wanted in self._read:
            return []
        self._read[step.wanted] = mod
        return self._further(step.wanted)

    def _enter(self, wanted: Version, prunes: bool) -> list[Step]:
        """Count `wanted` in; its step where it is new, its requirements where now they matter too."""
        before = self._selected.get(wanted.path)
        if before is None or _higher(wanted.version, before):
            self._selected[wanted.path] = wanted.version
        entered = self._prunes.get(wanted)
        if entered is not None:
            if entered and not prunes:
                self._prunes[wanted] = False
                return self._further(wanted) if wanted in self._read else []
            return []
        self._prunes[wanted] = prunes
        real = self._modules.replaced(wanted)
        if not real.version:
            return [Step(wanted, None, real.path)]
        asked = self._modules.asked(wanted)
        if asked is None or not (item := Item(asked.path, asked.version, "mod")).is_askable:
            return []
        return [Step(wanted, item)]

    def _further(self, wanted: Version) -> list[Step]:
        steps: list[Step] = []
        waiting = [wanted]
        while waiting:
            one = waiting.pop()
            mod = self._read[one]
            goes_on = not self._prunes[one] or minor(mod.go) < 17
            for need in mod.require:
                required = Version(need.path, need.version)
                if not goes_on:
                    if _higher(required.version, self._selected.get(required.path, "")):
                        self._selected[required.path] = required.version
                elif required in self._read and self._prunes[required]:
                    self._prunes[required] = False  # read before, under a main module that prunes
                    waiting.append(required)
                else:
                    steps += self._enter(required, prunes=False)
        return steps

    def rest(self, needs: Needs, *, have: Callable[[Item], bool] = lambda item: False) -> tuple[Item, ...]:
        """Infos and zips that go is sure to need, at the versions that the graph has selected."""
        if needs.zips == "none":
            chosen = [Version(path, version) for path, version in self._selected.items()]
        else:
            required = (need for need in _required(self._files) if self._files.pruned or not need.indirect)
            chosen = [Version(need.path, self._selected.get(need.path, need.version)) for need in required]
        asked = _unique(real for one in chosen if (real := self._modules.asked(one)) is not None)
        return _items((), asked if needs.infos else (), asked if needs.zips != "none" else (), have)


def toolchain(files: Files, setting: str, local: str, platform: str) -> Item | None:
    """The toolchain that go is sure to fetch; None where it switches to none, or that isn't known.

    `setting` is GOTOOLCHAIN, `local` the version of the go at hand ("go1.26.8", "" where unknown), `platform`
    such as "linux-amd64".
    """
    decides = files.work or next(iter(files.mains), None)
    here = _go_key(local.removeprefix("go"))
    if decides is None or here is None or setting not in ("", "auto", "local+auto", f"{local}+auto"):
        return None
    best, name = here, ""
    if decides.toolchain == "default":
        return None
    named = _go_key(decides.toolchain.removeprefix("go").partition("-")[0])
    if named is not None and named > best:
        best, name = named, decides.toolchain
    asked = _go_key(decides.go)
    if asked is not None and asked > best:
        language_only = decides.go.count(".") == 1 and decides.go.rpartition(".")[2].isdigit()
        name = f"go{decides.go}" + (".0" if language_only and asked >= (1, 21) else "")
    if not name:
        return None
    item = Item(TOOLCHAIN, f"v0.0.1-{name}.{platform}", "zip")
    return item if item.is_askable else None


def _go_key(version: str) -> tuple[int | str, ...] | None:
    """1.21 < 1.21rc1 < 1.21.0, as go orders its own versions; None for what is no version."""
    found = _GO_VERSION.fullmatch(version)
    if found is None:
        return None
    language = (int(found[1]), int(found[2]))
    if found[3] is not None:
        return (*language, 2, "", int(found[3]))
    return (*language, 1, found[4], int(found[5])) if found[4] else language
