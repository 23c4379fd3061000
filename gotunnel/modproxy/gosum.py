"""go.sum: what a project vouches for.

Rules:
- Of several sums of one file the first that starts `h1:` decides, as in go.
- The sum that old go commands wrote for a go.mod they hadn't read vouches for nothing, and is left out.
- In a workspace go.work.sum and every member's go.sum count together.

Source: cmd/go/internal/modfetch/fetch.go (readGoSum, checkModSum, initGoSum), modload/init.go.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from pathlib import Path

from gotunnel.dataclass import dataclass

_EMPTY_GO_MOD = "h1:G7mAYYxgmS0lVkHyy2hEOLQCFB0DlQFTMLWggykrydY="
_LIMIT = 64 << 20  # bytes; the largest go.sum known has less than 1 MB


@dataclass(frozen=True, slots=True)
class GoSum:
    """The h1 sums of a project, by (module, version) for zips and (module, "VERSION/go.mod") for go.mod."""

    sums: Mapping[tuple[str, str], str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, name: str = "go.sum") -> GoSum:
        """Read a go.sum.  Raises ValueError, `NAME:LINE: …`, for a line that isn't three words."""
        return cls(dict(_lines(text, name)))

    def get(self, module: str, version: str) -> str | None:
        """The sum of the zip, if it is known."""
        return self.sums.get((module, version))

    def get_mod(self, module: str, version: str) -> str | None:
        """The sum of the go.mod, if it is known."""
        return self.sums.get((module, f"{version}/go.mod"))

    def as_text(self) -> str:
        """As the lines of a go.sum."""
        return "".join(f"{path} {version} {h1}\n" for (path, version), h1 in self.sums.items())

    def __len__(self) -> int:
        return len(self.sums)


def _lines(text: str, name: str) -> Iterator[tuple[tuple[str, str], str]]:
    seen = set()
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3:
            raise ValueError(f"{name}:{number}: want MODULE VERSION SUM, found {len(words)} words")
        module, version, h1 = words
        # kinds of sum that are not known yet are no error, and decide nothing
        if h1.startswith("h1:") and h1 != _EMPTY_GO_MOD and (module, version) not in seen:
            seen.add((module, version))
            yield (module, version), h1


def merge(parts: Iterable[GoSum]) -> GoSum:
    """All of them together; the first that knows a file decides."""
    sums: dict[tuple[str, str], str] = {}
    for part in parts:
        sums = {**part.sums, **sums}
    return GoSum(sums)


def read_go_sums(directory: Path, *, gowork: str | None = None, modfile: str = "") -> GoSum:
    """What vouches for modules where a go command is run in `directory`; files that aren't there: nothing.

    go.mod and go.work are looked for upwards, as go does; `gowork` is the value of `go env GOWORK` where it
    is known ("off" or "": no workspace), `modfile` that of the flag `-modfile`.  Raises ValueError for a
    malformed file, OSError for one that can't be read.
    """
    directory = directory.absolute()
    if gowork is None:
        gowork = os.environ.get("GOWORK") or str(_upwards(directory, "go.work") or "")
    if gowork not in ("", "off"):
        work = directory / gowork
        members = [(work.parent / use) / "go.sum" for use in _uses(_read(work))]
        return merge(_read_sum(path) for path in (work.with_name(work.name + ".sum"), *members))
    if modfile:
        path = directory / modfile
        return _read_sum(path.with_suffix(".sum") if path.suffix == ".mod" else Path(f"{path}.sum"))
    module = _upwards(directory, "go.mod")
    return _read_sum(module.with_name("go.sum")) if module else GoSum()


def _read_sum(path: Path) -> GoSum:
    return GoSum.parse(_read(path), str(path))


def _read(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # a named pipe would be waited for
            raise ValueError(f"{path}: is no regular file")
        with path.open("rb") as file:
            data = file.read(_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    if len(data) > _LIMIT:
        raise ValueError(f"{path}: larger than {_LIMIT >> 20} MB")
    return data.decode("utf-8", "replace")


def _upwards(directory: Path, name: str) -> Path | None:
    return next((place / name for place in (directory, *directory.parents) if (place / name).is_file()), None)


def _uses(text: str) -> Iterator[str]:
    """The directories that a go.work names."""
    inside = False
    for line in text.splitlines():
        words = re.findall(r'"[^"]*"|`[^`]*`|[()]|[^\s()"`]+', line.partition("//")[0])
        if inside and words:
            if words[0] == ")":
                inside = False
            else:
                yield words[0].strip('"`')
        elif words[:2] == ["use", "("]:
            inside = True
        elif words[:1] == ["use"] and len(words) > 1:
            yield words[1].strip('"`')
