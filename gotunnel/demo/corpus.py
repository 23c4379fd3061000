"""Modules made on the spot, in three levels, and a program that needs them all.

Rules:
- The program needs no more of the standard library than fmt: its cold build is quick.
- Zips carry incompressible filler, so that a transfer has a middle.
- The go.sum is complete, with real h1 sums: go checks every file, and asks no checksum database.
- The project's go.mod names the first level only, so that `go mod tidy` has something to do.
"""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path

from gotunnel.dataclass import dataclass
from gotunnel.modproxy.dirhash import escape, h1_of_go_mod, h1_of_zip

VERSION = "v1.0.0"
_GO = "go 1.17\n"  # with it go.mod lists what is needed indirectly, too
_PREFIX = "demo.example"
_LEVELS = (
    ("amber", "basalt", "copper", "garnet", "marble", "quartz"),
    ("agate", "beryl", "flint", "granite", "jasper", "onyx", "slate", "Zircon"),  # escaped: !zircon
    ("calcite", "chalk", "galena", "gneiss", "gypsum", "jade", "mica", "opal", "pumice", "topaz"),
)


@dataclass(frozen=True, slots=True)
class Module:
    """One module: its path, its package's name, the modules it requires and imports."""

    path: str
    package: str
    needs: tuple[Module, ...]


@dataclass(frozen=True, slots=True)
class Corpus:
    """`files` are the bodies by URL path; `first` the modules that the program imports itself."""

    modules: tuple[Module, ...]
    first: tuple[Module, ...]
    files: Mapping[str, bytes] = field(repr=False)
    go_sum: str = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes of all zips."""
        return sum(len(body) for path, body in self.files.items() if path.endswith(".zip"))

    @property
    def says(self) -> str:
        """What the program prints."""
        return f"hello from {len(self.modules)} modules"

    def write_project(self, directory: Path) -> None:
        """The main module, into a new directory."""
        directory.mkdir()
        requires = "".join(f"\t{module.path} {VERSION}\n" for module in self.first)
        (directory / "go.mod").write_text(f"module {_PREFIX}/hello\n\n{_GO}\nrequire (\n{requires})\n")
        (directory / "go.sum").write_text(self.go_sum)
        imports, visits = _uses(self.first)
        (directory / "main.go").write_text(
            f'package main\n\nimport (\n\t"fmt"\n\n{imports})\n\nfunc main() {{\n'
            f"\tseen := map[string]bool{{}}\n{visits}"
            f'\tfmt.Printf("hello from %d modules\\n", len(seen))\n}}\n'
        )


def make_corpus() -> Corpus:
    """All modules; some 400 KB."""
    levels: list[list[Module]] = []
    below: list[Module] = []
    for names in reversed(_LEVELS):
        here = []
        for place, name in enumerate(names):
            # dealt out so that each module below is needed by someone, and some by two
            share = [*below[place :: len(names)], *below[place + 1 : place + 2]]
            here.append(Module(f"{_PREFIX}/{name}", name.lower(), tuple(dict.fromkeys(share))))
        levels.append(here)
        below = here
    modules = tuple(module for level in levels for module in level)
    files: dict[str, bytes] = {}
    sums = []
    for module in modules:
        go_mod, archive = _go_mod(module), _zip(module)
        base = f"/{escape(module.path)}/@v"
        files[f"{base}/list"] = f"{VERSION}\n".encode()
        files[f"{base}/{VERSION}.info"] = json.dumps(
            {"Version": VERSION, "Time": "2024-01-02T03:04:05Z"}
        ).encode()
        files[f"{base}/{VERSION}.mod"] = go_mod
        files[f"{base}/{VERSION}.zip"] = archive
        sums.append(f"{module.path} {VERSION} {h1_of_zip(io.BytesIO(archive))}\n")
        sums.append(f"{module.path} {VERSION}/go.mod {h1_of_go_mod(go_mod)}\n")
    return Corpus(modules, tuple(below), files, "".join(sorted(sums)))


def _go_mod(module: Module) -> bytes:
    requires = "".join(f"require {need.path} {VERSION}\n" for need in module.needs)
    return f"module {module.path}\n\n{_GO}\n{requires}".encode()


def _zip(module: Module) -> bytes:
    imports, visits = _uses(module.needs)
    source = (
        f"package {module.package}\n\nimport (\n{imports})\n\n"
        f"// Visit notes this module and all that it needs.\n"
        f"func Visit(seen map[string]bool) {{\n"
        f'\tseen["{module.path}"] = true\n{visits}}}\n'
    )
    dice = random.Random(module.path)  # noqa: S311 - filler, not cryptography
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in (
            ("go.mod", _go_mod(module)),
            (f"{module.package}.go", source.encode()),
            ("filler.bin", dice.randbytes(dice.randrange(8_000, 26_000))),
        ):
            archive.writestr(zipfile.ZipInfo(f"{module.path}@{VERSION}/{name}"), data)
    return stream.getvalue()


def _uses(modules: Sequence[Module]) -> tuple[str, str]:
    """The import lines and the statements that call each of `modules`."""
    imports = "".join(f'\t"{module.path}"\n' for module in modules)
    return imports, "".join(f"\t{module.package}.Visit(seen)\n" for module in modules)
