"""What a project needs to be built with no network: which files of which modules.

Rules:
- go.sum tells it without running go: each `V/go.mod` line is a `.mod` that go may read.
- Zips: from go 1.17 on go.mod names every module that a build may take a package from.  Before that, and
  in a workspace, it is the highest version of each module that go.sum has a zip of.
- What a directory replaces is named (`local`), since nobody else has it; what a module replaces is wanted
  under the replacement's name.
- A zip goes with its `.mod` and its `.info`: `go mod download` asks for all three.
- A toolchain is a zip alone, and only where it is asked for.

Sources: go.dev/ref/mod#graph-pruning, #go-sum-files; cmd/go/internal/modload/modfile.go (ExplicitIndirect).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from gotunnel.dataclass import dataclass
from gotunnel.modproxy import target
from gotunnel.modproxy.dirhash import escape
from gotunnel.modproxy.gocommand import minor
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.modfile import ModFile, Replace
from gotunnel.modproxy.version import is_valid, key

Kind = Literal["mod", "info", "zip"]
TOOLCHAIN = "golang.org/toolchain"


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """One file of one version of a module; path and version unescaped."""

    module: str
    version: str
    kind: Kind

    @property
    def name(self) -> str:
        """As go asks for it, and as it lies in a store: `github.com/!burnt!sushi/toml/@v/v1.0.0.zip`."""
        return f"{escape(self.module)}/@v/{escape(self.version)}.{self.kind}"

    def __str__(self) -> str:
        return f"{self.module}@{self.version} ({self.kind})"

    @classmethod
    def parse(cls, name: str) -> Item | None:
        """The file that `name` names; None for anything else and for a name out of shape."""
        try:
            found = target.parse(name)
        except ValueError:
            return None
        if found.kind not in ("mod", "info", "zip") or found.name != name:
            return None
        return cls(found.module, found.version, found.kind)

    @property
    def is_askable(self) -> bool:
        """False for what go couldn't ask a source for, such as a module without a host name in its path."""
        try:
            return target.of(self.module, self.version, self.kind).immutable
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Closure:
    """`items` in the order of a bundle; `local` are modules that a directory replaces, as in go.mod."""

    items: tuple[Item, ...]
    local: tuple[str, ...] = ()


def closure(
    mains: Sequence[ModFile],
    go_sum: GoSum,
    *,
    replaces: Sequence[Replace] = (),
    workspace: bool = False,
) -> Closure:
    """What the main modules need, by their go.sum; `replaces` are those of a go.work."""
    table = {(r.old.path, r.old.version): r for main in mains for r in main.replace}
    table |= {(r.old.path, r.old.version): r for r in replaces}
    own = {main.module for main in mains}
    mods: set[tuple[str, str]] = set()
    sums: set[tuple[str, str]] = set()
    for module, version in go_sum.sums:
        plain = version.removesuffix("/go.mod")
        (sums if plain == version else mods).add((module, plain))
    local: set[str] = set()
    zips: set[tuple[str, str]] = set()
    for main in mains:
        for need in main.require:
            replaced = table.get((need.path, need.version)) or table.get((need.path, ""))
            if replaced is not None and replaced.is_local:
                local.add(f"{need.path} => {replaced.new.path}")
            elif replaced is not None:
                zips.add((replaced.new.path, replaced.new.version))
            elif need.path not in own:
                zips.add((need.path, need.version))
    if workspace or any(minor(main.go) < 17 for main in mains):
        # the graph decides: what is required may be raised by somebody else's need
        zips = (zips & sums) | _highest(sums)
    items = {Item(module, version, "mod") for module, version in mods | zips}
    items |= {Item(module, version, "info") for module, version in zips}
    items |= {Item(module, version, "zip") for module, version in zips}
    kept = sorted((item for item in items if item.is_askable), key=_place)
    return Closure(tuple(kept), tuple(sorted(local)))


def _place(item: Item) -> tuple[str, str, int]:
    """What can be verified stands before the `.info` that goes with it."""
    return item.module, item.version, ("mod", "zip", "info").index(item.kind)


def toolchain(mains: Sequence[ModFile], platform: str) -> Item | None:
    """The toolchain that go.mod asks for, on `platform` (`linux-amd64`); None where it names none.

    Source: go.dev/doc/toolchain; cmd/go/internal/gover (a go line `1.21` means the release go1.21.0 there).
    """
    wanted = [main.toolchain for main in mains if main.toolchain not in ("", "default")]
    for main in mains:
        if minor(main.go) >= 21:
            wanted.append(f"go{main.go}" if main.go.count(".") > 1 else f"go{main.go}.0")
    if not wanted:
        return None
    best = max(wanted, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    return Item(TOOLCHAIN, f"v0.0.1-{best}.{platform}", "zip")


def _highest(sums: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    best: dict[str, str] = {}
    for module, version in sums:
        if is_valid(version) and (module not in best or key(version) > key(best[module])):
            best[module] = version
    return set(best.items())
