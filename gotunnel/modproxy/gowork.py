"""Stand-ins: local directories in the place of modules, kept in go.work, edited as text.

Rules:
- A replace line of ours ends in the comment `// gotunnel replace`; no other line is ever changed, but for the
  go line of a go.work that we made.  What can't be said with these two is refused, never guessed.
- Only whole lines come and go: comments, order and line ends stay; add and drop again gives the same bytes.
- A go.work that we made says so in its first line, and goes with its last stand-in, unless somebody has
  written more into it.
- Files change at once or not at all (`write_whole`); two gotunnels take turns (`taking_turns`).

Sources: go.dev/ref/mod#workspaces; golang.org/x/mod/modfile (AutoQuote); cmd/go/internal/modload
(Replacement): a replace of go.work comes before all of go.mod, one of a version before one of every version.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gotunnel.address import one_line
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError, UsageError
from gotunnel.modproxy.modfile import Line, Version, parse_mod, parse_work, read_replace, statements
from gotunnel.modproxy.version import is_canonical

MARK = "// gotunnel replace"
_HEAD = "// Made by `gotunnel replace`, and removed with its last stand-in"
_HEADS = {True: f"{_HEAD}, go.work.sum too.", False: f"{_HEAD}."}  # by whether go.work.sum is ours, too
_BLOCKS = {"replace"}
_PATH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]*(?:/[A-Za-z0-9._~+-]+)*")
_LEAST_GO = "1.18"  # there were no workspaces before


@dataclass(frozen=True, slots=True)
class Standin:
    """One replace line: `path` is the directory as written, `line` counts from 1."""

    old: Version
    path: str
    line: int
    ours: bool

    def __str__(self) -> str:
        return f"{spelled(self.old)} => {self.path}"


def spelled(old: Version) -> str:
    """MODULE or MODULE@VERSION."""
    return f"{old.path}@{old.version}" if old.version else old.path


def read_old(text: str) -> Version:
    """MODULE or MODULE@VERSION.  Raises UsageError."""
    path, at, version = text.partition("@")
    if not _PATH.fullmatch(path) or any(part.strip(".") == "" for part in path.split("/")):
        raise UsageError(
            f"{one_line(text, 200)!r}: want a module path, such as example.com/mod or …/mod@v1.2.3"
        )
    if at and not is_canonical(version):
        raise UsageError(
            f"{one_line(text, 200)!r}: want a whole version after @, such as v1.2.3, or none at all"
        )
    return Version(path, version)


def standins(text: str, file: str = "go.work") -> tuple[Standin, ...]:
    """Every replace line whose right side is a directory, not only ours.  Raises ModFileError."""
    parse_work(text, file)
    found = []
    for line in _replaces(text, file):
        replace = read_replace(line.words)
        if replace.is_local:
            mine = line.comment.strip() == MARK
            found.append(Standin(replace.old, replace.new.path, line.number, mine))
    return tuple(found)


def _lines(text: str) -> list[str]:
    """With their ends; str.splitlines would cut at more than that."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _replaces(text: str, file: str) -> Iterator[Line]:
    return (line for verb, line in statements(file, text, _BLOCKS) if verb == "replace")


def new_work(go: str, *, owns_sums: bool) -> str:
    """A go.work of our own for the module beside it; `go` is the version that go.mod asks for."""
    return f"{_HEADS[owns_sums]}\n\ngo {at_least(go, _LEAST_GO)}\n\nuse .\n"


def is_made_by_us(text: str) -> bool:
    """Whether the first line says so."""
    return text.startswith(_HEAD)


def is_left_over(text: str) -> bool:
    """Whether nothing stands in it but what we wrote when we made it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return is_made_by_us(text) and len(lines) == 3 and lines[0] in _HEADS.values() and lines[2] == "use ."


def owns_sums(text: str) -> bool:
    """Whether go.work.sum came with this go.work."""
    return text.startswith(_HEADS[True])


def add(text: str, old: Version, path: str, file: str = "go.work") -> str:
    """`text` with the directory `path` standing in for `old`.

    Raises ConfigError where somebody else's line replaces the same already, ModFileError.
    """
    there = next((one for one in standins(text, file) if one.old == old), None)
    if there is not None and not there.ours:
        raise ConfigError(
            one_line(
                f"{file}:{there.line}: {spelled(old)} is replaced here already, by hand; drop that first"
            )
        )
    end = "\r\n" if "\r\n" in text else "\n"
    words = " ".join(filter(None, ("replace", old.path, old.version, "=>", quoted(path), MARK)))
    lines = _lines(text)
    if there is not None:
        lines[there.line - 1] = words + end
        return "".join(lines)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += end
    if lines and lines[-1].strip() and not lines[-1].strip().endswith(MARK):
        lines.append(end)
    return "".join([*lines, words + end])


def drop(text: str, old: Version, file: str = "go.work") -> str:
    """`text` without our stand-ins for `old`; without a version, all of that module.

    Raises UsageError where there is none of ours, ModFileError.
    """
    all_of_it = [
        one
        for one in standins(text, file)
        if one.old == old or (not old.version and one.old.path == old.path)
    ]
    mine = {one.line for one in all_of_it if one.ours}
    if not mine:
        if all_of_it:
            where = f"{file}:{all_of_it[0].line}"
            raise UsageError(f"{where}: {spelled(old)} was replaced by hand; remove it by hand, too")
        raise UsageError(f"{file}: nothing stands in for {spelled(old)}; see: gotunnel replace --list")
    lines = _lines(text)
    kept = [line for number, line in enumerate(lines, 1) if number not in mine]
    while kept and max(mine) == len(lines) and not kept[-1].strip():
        kept.pop()  # the gap before our lines
    return "".join(kept)


def raise_go(text: str, go: str) -> str:
    """A go.work that we made, with its go line raised to `go` where that is more; others as they are."""
    if not go or not is_made_by_us(text):
        return text
    return re.sub(r"(?m)^go (\S+)", lambda found: f"go {at_least(found[1], go)}", text, count=1)


def at_least(one: str, other: str) -> str:
    """The later of two versions of the language, such as 1.23 and 1.24rc1."""
    return max(one or "0", other or "0", key=_go_key)


def _go_key(go: str) -> tuple[int, int, int, int, int]:
    found = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?(?:(beta|rc)(\d+))?", go)
    if found is None:
        return (0, 0, 0, 0, 0)
    # go 1.21 is a language, which comes before 1.21rc1 and 1.21.0 (go.dev/doc/toolchain#version)
    kind = {"beta": 1, "rc": 2}.get(found[4] or "", 3 if found[3] else 0)
    return int(found[1]), int(found[2] or 0), kind, int(found[3] or 0), int(found[5] or 0)


def quoted(path: str) -> str:
    """A path as it stands in go.work: in quotes where go wants them.  Raises UsageError."""
    if not path.isprintable():
        raise UsageError(f"{one_line(path, 200)!r}: no path with control characters can stand in go.work")
    if path and not re.search(r"""[\s"'`()\[\]{},]|//|/\*""", path):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


# --- a go.mod that carries the stand-ins, and back ---------------------------------------------------

_CARRIED = "// gotunnel carries this replace while the command runs"
_INSTEAD = f"{_CARRIED} instead of: "


def carried(mod: str, work: tuple[Standin, ...], root: Path) -> str:
    """The go.mod `mod` with the stand-ins of ours in it; their paths are relative to `root`.

    Raises ModFileError.
    """
    mine = {one.old: quoted(os.path.normpath(root / one.path)) for one in work if one.ours}
    lines = [line.rstrip("\r\n") for line in _lines(mod)]
    taken = set()
    parse_mod(mod)
    for line in _replaces(mod, "go.mod"):
        old = read_replace(line.words).old
        path = mine.get(old) or mine.get(Version(old.path))
        if path is None:
            continue
        taken.add(old)
        text = lines[line.number - 1]
        was = text.strip()
        indent = text[: text.index(was[0])]
        head = f"{indent}replace " if was.startswith("replace") else indent
        words = " ".join(filter(None, (old.path, old.version, "=>", path)))
        lines[line.number - 1] = f"{head}{words} {_INSTEAD}{was.removeprefix('replace').strip()}"
    for old, path in mine.items():
        if old not in taken:
            words = " ".join(filter(None, ("replace", old.path, old.version, "=>", path, _CARRIED)))
            lines += ["", words]
    return "\n".join(lines) + "\n"


def without(mod: str) -> str:
    """What the go command made of `carried`, without what was carried."""
    kept: list[str] = []
    for line in (line.rstrip("\r\n") for line in _lines(mod)):
        before, mark, was = line.partition(_INSTEAD)
        if mark:
            stem = before.lstrip()
            indent = before[: len(before) - len(stem)]
            kept.append(f"{indent}{'replace ' if stem.startswith('replace ') else ''}{was}")
        elif _CARRIED not in line:
            kept.append(line)
        elif kept and not kept[-1]:
            kept.pop()
    return "\n".join(kept).rstrip("\n") + "\n"


def merged_sums(now: str, after: str) -> str:
    """A go.sum with the lines of both, in go's order.

    None is lost: with a stand-in, `go mod tidy` drops those of the module itself, which all others need.
    """
    have = set(after.split("\n"))
    missing = [line for line in now.split("\n") if line and line not in have]
    if not missing:
        return after
    return "".join(f"{line}\n" for line in sorted({*missing, *filter(None, have)}, key=_sum_key))


def _sum_key(line: str) -> tuple[object, ...]:
    from gotunnel.modproxy.version import is_valid, key

    path, version, *_ = [*line.split(" "), "", ""]
    number, slash, _ = version.partition("/")
    return path, key(number) if is_valid(number) else (-1,), number, bool(slash), line


def unpublished(mod: str, work: tuple[Standin, ...]) -> list[str]:
    """The stand-ins of ours that go.mod requires at a version which go made up, since it found none.

    Raises ModFileError.
    """
    mine = {one.old.path for one in work if one.ours}
    found = parse_mod(mod).require
    return [
        need.path for need in found if need.path in mine and need.version.startswith("v0.0.0-00010101000000")
    ]


# --- files -------------------------------------------------------------------------------------------


def write_whole(path: Path, data: bytes, *, mode: int | None = None) -> None:
    """Put a new file in the place of `path` at once; it keeps its mode, or gets `mode`.  Raises OSError.

    A link is followed: it stays, and the file that it leads to is replaced.  A pipe or a device is written
    to.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    path = Path(os.path.realpath(path))
    if mode is None:
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            mask = os.umask(0o077)
            os.umask(mask)
            mode = 0o666 & ~mask
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def taking_turns(directory: Path) -> Iterator[None]:
    """One gotunnel at a time edits go.work, go.mod and go.sum in `directory`.  Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
