"""A synthetic GOPROXY tree: modules that need each other in levels, and a project that needs them all.

Rules:
- Module i of N is PREFIX/mI (every tenth with a capital, so that paths have to be escaped), at v1.0.0.
- Each level is needed by the one above it; the project imports the first level.
- Zips hold incompressible filler, so that their size is what was asked for.
- Sums are computed as go does: h1 over the sorted files of a zip, and over go.mod alone.
- The project needs no more of the standard library than fmt: its build is quick.
- A mirror's zips have the same content in another order and compression: other bytes, the same h1.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

VERSION = "v1.0.0"
_GO = "go 1.21\n"
_TIME = "2024-01-02T03:04:05Z"


@dataclass(frozen=True, slots=True)
class Module:
    """One module of the corpus; `needs` are the modules it requires and imports."""

    path: str
    package: str
    needs: tuple[Module, ...]
    filler: int

    def go_mod(self) -> str:
        """Its go.mod."""
        lines = "".join(f"require {need.path} {VERSION}\n" for need in self.needs)
        return f"module {self.path}\n\n{_GO}\n{lines}"

    def files(self) -> dict[str, bytes]:
        """The files of its zip, by their names in the module."""
        imports = "".join(f'\t"{need.path}"\n' for need in self.needs)
        calls = "".join(f"\t{need.package}.Visit(seen)\n" for need in self.needs)
        source = (
            f"package {self.package}\n\nimport (\n{imports})\n\n"
            f"// Visit notes this module and all that it needs.\n"
            f"func Visit(seen map[string]bool) {{\n"
            f'\tif seen["{self.path}"] {{\n\t\treturn\n\t}}\n\tseen["{self.path}"] = true\n{calls}}}\n'
        )
        files = {"go.mod": self.go_mod().encode(), f"{self.package}.go": source.encode()}
        if self.filler:
            files["filler.bin"] = random.Random(self.path).randbytes(self.filler)
        return files


def escape(path: str) -> str:
    """A module path or version as it stands in a GOPROXY URL: `A` is `!a`."""
    return re.sub("[A-Z]", lambda m: "!" + m[0].lower(), path)


def h1(files: Mapping[str, bytes]) -> str:
    """The h1 sum of files by name (golang.org/x/mod/sumdb/dirhash)."""
    lines = (f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files))
    return "h1:" + base64.b64encode(hashlib.sha256("".join(lines).encode()).digest()).decode()


def realistic_sizes(count: int = 120, *, seed: int = 4) -> list[int]:
    """Filler sizes in bytes as real modules have them: median 60 KB, three of 1 to 2 MB; 12 MB for 120."""
    chance = random.Random(seed)
    large = [1_000_000, 1_300_000, 1_900_000][: count // 40]
    usual = [int(60_000 * chance.lognormvariate(0, 0.5)) for _ in range(count - len(large))]
    sizes = [*large, *usual]
    chance.shuffle(sizes)
    return sizes


class Corpus:
    """The tree at `directory`: `count` modules in `levels`, each needing `fan` of the level below.

    `filler` is the size in bytes of each zip's filler; several sizes are dealt out in turn.
    """

    def __init__(
        self,
        directory: Path,
        *,
        count: int = 24,
        levels: int = 3,
        fan: int = 2,
        filler: int | Sequence[int] = 2000,
        prefix: str = "mods.lab.example",
    ) -> None:
        if not 1 <= levels <= count:
            raise ValueError("want 1 <= levels <= count")
        self.directory = directory
        sizes = [filler] if isinstance(filler, int) else list(filler)
        self.modules: list[Module] = []  # the deepest level first
        below: list[Module] = []
        for level in reversed(range(levels)):
            numbers = range(level * count // levels, (level + 1) * count // levels)
            here = []
            for place, number in enumerate(numbers):
                # dealt out so that each module of the level below is needed by someone
                share = below[place :: len(numbers)]
                more = [below[(place + step) % len(below)] for step in range(fan)] if below else []
                needs = tuple(dict.fromkeys([*share, *more]))
                letter = "M" if number % 10 == 5 else "m"
                here.append(
                    Module(
                        f"{prefix}/{letter}{number:03}", f"m{number:03}", needs, sizes[number % len(sizes)]
                    )
                )
            self.modules += here
            below = here
        self.first = below
        self._sums: list[str] = []
        for module in self.modules:
            self._write(module)

    def _write(self, module: Module) -> None:
        place = self.directory / escape(module.path)
        versions = place / "@v"
        versions.mkdir(parents=True, exist_ok=True)
        info = json.dumps({"Version": VERSION, "Time": _TIME})
        (versions / "list").write_text(f"{VERSION}\n")
        (versions / f"{VERSION}.info").write_text(info)
        (place / "@latest").write_text(info)
        (versions / f"{VERSION}.mod").write_text(module.go_mod())
        files = {f"{module.path}@{VERSION}/{name}": data for name, data in module.files().items()}
        with zipfile.ZipFile(versions / f"{VERSION}.zip", "w", zipfile.ZIP_STORED) as archive:
            for name, data in files.items():
                archive.writestr(zipfile.ZipInfo(name), data)
        self._sums.append(f"{module.path} {VERSION} {h1(files)}\n")
        self._sums.append(f"{module.path} {VERSION}/go.mod {h1({'go.mod': module.go_mod().encode()})}\n")

    def go_sum(self) -> str:
        """A complete go.sum of the project."""
        return "".join(sorted(self._sums))

    def zip_path(self, module: Module) -> Path:
        """The file of a module's zip."""
        return self.directory / escape(module.path) / "@v" / f"{VERSION}.zip"

    def mirror(self, directory: Path) -> Path:
        """Write the tree of a mirror, whose zips differ in their bytes; gives `directory`."""
        shutil.copytree(self.directory, directory, copy_function=os.link)
        for module in self.modules:
            path = directory / self.zip_path(module).relative_to(self.directory)
            path.unlink()
            with (
                zipfile.ZipFile(self.zip_path(module)) as ours,
                zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as theirs,
            ):
                for info in reversed(ours.infolist()):
                    theirs.writestr(zipfile.ZipInfo(info.filename), ours.read(info), zipfile.ZIP_DEFLATED)
        return directory

    def damage(self, cache: Path, *, info: bool = True) -> list[str]:
        """What is missing or wrong in a GOMODCACHE that should hold all modules, one line each.

        Each zip by its h1, each .mod by its bytes, each .info (without `info` there need be none) by its
        fields, and each unpacked directory by the h1 of its files.
        """
        found: list[str] = []
        for module in self.modules:
            versions = Path(escape(module.path), "@v")
            known = {f"{module.path}@{VERSION}/{name}": data for name, data in module.files().items()}
            wanted = h1(known)
            try:
                with zipfile.ZipFile(cache / "cache" / "download" / versions / f"{VERSION}.zip") as archive:
                    got = {name: archive.read(name) for name in archive.namelist()}
                if h1(got) != wanted:
                    found.append(f"{module.path}: the zip has another h1")
                if (cache / "cache/download" / versions / f"{VERSION}.mod").read_text() != module.go_mod():
                    found.append(f"{module.path}: .mod differs")
                if info:  # go writes it anew
                    told = json.loads((cache / "cache/download" / versions / f"{VERSION}.info").read_text())
                else:
                    told = {"Version": VERSION, "Time": _TIME}
                if (told["Version"], told["Time"]) != (VERSION, _TIME):
                    found.append(f"{module.path}: .info differs")
                root = cache / f"{escape(module.path)}@{VERSION}"
                files = (path for path in root.rglob("*") if path.is_file())
                got = {f"{module.path}@{VERSION}/{f.relative_to(root)}": f.read_bytes() for f in files}
                if h1(got) != wanted:
                    found.append(f"{module.path}: unpacked files differ")
            except (OSError, zipfile.BadZipFile) as error:
                found.append(f"{module.path}: {error}")
        return found

    def write_project(self, directory: Path, *, requires: bool = True, sums: bool = True) -> Path:
        """Write a main module that imports the first level; gives its directory.

        Without `requires` go.mod names no module, so that tidy has to find versions; without `sums`
        there is no go.sum.  Built and run it prints how many modules it visited: all of them.
        """
        directory.mkdir(parents=True, exist_ok=True)
        imports = "".join(f'\t"{module.path}"\n' for module in self.first)
        visits = "".join(f"\t{module.package}.Visit(seen)\n" for module in self.first)
        (directory / "main.go").write_text(
            f'package main\n\nimport (\n\t"fmt"\n\n{imports})\n\n'
            f"func main() {{\n\tseen := map[string]bool{{}}\n{visits}"
            f'\tfmt.Println(len(seen), "modules")\n}}\n'
        )
        direct = "".join(f"\t{m.path} {VERSION}\n" for m in sorted(self.first, key=lambda m: m.path))
        others = sorted((m for m in self.modules if m not in self.first), key=lambda m: m.path)
        indirect = "".join(f"\t{m.path} {VERSION} // indirect\n" for m in others)
        text = f"module project.lab.example/app\n\n{_GO}"
        if requires:
            text += f"\nrequire (\n{direct})\n" + (f"\nrequire (\n{indirect})\n" if indirect else "")
        (directory / "go.mod").write_text(text)
        if sums:
            (directory / "go.sum").write_text(self.go_sum())
        return directory
