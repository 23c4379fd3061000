"""`gotunnel replace MODULE[@VERSION]=PATH`, `--drop MODULE`, `--list`: local stand-ins, kept in go.work.

Rules:
- go.mod is never touched.  Without a go.work one is made beside go.mod, and removed with the last stand-in.
- PATH is taken from where the command runs, and written from where go.work stands (an absolute one stays so).
- `--list` prints to standard output, one line each: `MODULE[@VERSION] => PATH`, with a comment after those
  that somebody else wrote, and those whose directory has gone.
- All or nothing: with several stand-ins on one command line, one that is wrong changes nothing.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gotunnel.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from gotunnel.modproxy.gowork import Standin
    from gotunnel.modproxy.modfile import Version

USAGE = "gotunnel replace MODULE[@VERSION]=PATH… | --drop MODULE | --list"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `replace`."""
    parser.add_argument(
        "replaces",
        nargs="*",
        metavar="MODULE[@VERSION]=PATH",
        help="the directory PATH stands in for the module",
    )
    parser.add_argument(
        "--drop", action="append", default=[], metavar="MODULE[@VERSION]", help="end a stand-in; repeatable"
    )
    parser.add_argument("--list", action="store_true", help="the stand-ins that are in force here")


def main(args: argparse.Namespace) -> int:
    """Edit or list; returns the exit status.  Raises UsageError, ConfigError, ModFileError."""
    if args.list and (args.replaces or args.drop):
        raise UsageError(f"--list stands alone: {USAGE}")
    if not (args.list or args.replaces or args.drop):
        raise UsageError(f"what shall be replaced? {USAGE}")
    from gotunnel.modproxy.gowork import read_old

    wanted = []
    for text in args.replaces:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise UsageError(f"{text!r}: want MODULE[@VERSION]=PATH")
        wanted.append((read_old(name), path))
    dropped = [read_old(text) for text in args.drop]
    work, go_mod = find(Path.cwd(), os.environ)
    try:
        if args.list:
            return _list(work)
        return _edit(work, go_mod, wanted, dropped, quiet=args.quiet)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{work}: {getattr(error, 'strerror', None) or error}") from error


def find(directory: Path, environ: Mapping[str, str]) -> tuple[Path, Path | None]:
    """(go.work in force in `directory`, or the place for one; go.mod).  Raises UsageError, ConfigError."""
    setting = environ.get("GOWORK", "")
    if setting == "off":
        raise ConfigError("GOWORK=off: go would not look at go.work; unset GOWORK first")

    def upwards(name: str) -> Path | None:
        return next((up / name for up in (directory, *directory.parents) if (up / name).is_file()), None)

    go_mod = upwards("go.mod")
    if setting not in ("", "auto"):
        return directory / setting, go_mod
    work = upwards("go.work")
    if work is not None:
        return work, go_mod
    if go_mod is None:
        raise UsageError(f"{directory}: neither a go.mod nor a go.work here or above")
    return go_mod.with_name("go.work"), go_mod


def _list(work: Path) -> int:
    from gotunnel.modproxy.gowork import standins

    if work.is_file():
        for one in standins(_read(work), str(work)):
            print(_shown(one, work.parent))
    return 0


def _shown(one: Standin, root: Path) -> str:
    notes = [] if one.ours else ["written by hand"]
    if not (root / one.path / "go.mod").is_file():
        notes.append("no go.mod there: go fails until it is back, or dropped")
    return f"{one}  // {'; '.join(notes)}" if notes else str(one)


def _read(path: Path) -> str:
    # no translation of line ends: they are to stay
    return path.read_bytes().decode("utf-8")


def _edit(
    work: Path,
    go_mod: Path | None,
    wanted: list[tuple[Version, str]],
    dropped: list[Version],
    *,
    quiet: bool,
) -> int:
    from gotunnel.modproxy import gowork
    from gotunnel.modproxy.modfile import parse_mod

    go = ""
    written = []
    for old, path in wanted:
        directory = Path(os.path.abspath(Path(path).expanduser()))
        theirs = directory / "go.mod"
        if not theirs.is_file():
            raise UsageError(f"{path}: want a directory with a go.mod; none is there")
        module = parse_mod(theirs.read_bytes(), str(theirs), lax=True)
        go = gowork.at_least(go, module.go)
        written.append((old, _as_written(path, directory, work.parent), module.module))
    sums = work.with_name(f"{work.name}.sum")
    told = []
    with gowork.taking_turns(work.parent):
        made = not work.exists()
        if made and not wanted:
            raise UsageError(f"{work}: no go.work, so nothing is replaced")
        if made:
            asked = parse_mod(go_mod.read_bytes(), str(go_mod)).go if go_mod is not None else ""
            text = gowork.new_work(asked, owns_sums=not sums.exists())
            told.append(f"{work} made; it goes with the last stand-in. Keep it out of the repository")
        else:
            text = _read(work)
        before = text
        for old in dropped:
            text = gowork.drop(text, old, str(work))
            told.append(f"{gowork.spelled(old)}: nothing stands in for it any more")
        for old, path, module_path in written:
            text = gowork.add(text, old, path, str(work))
            other = f" (its go.mod says: module {module_path})" if module_path != old.path else ""
            told.append(f"{gowork.spelled(old)} => {path}{other}")
        text = gowork.raise_go(text, go)
        if gowork.is_left_over(text):
            work.unlink()
            if gowork.owns_sums(text):
                sums.unlink(missing_ok=True)
            told.append(f"{work} removed")
        elif made or text != before:
            gowork.write_whole(work, text.encode())
    _tell(told, quiet=quiet)
    if made and (work.parent / "vendor").is_dir():
        _tell(["vendor/ holds the real module: with go.work, run go work vendor or go build -mod=mod"])
    return 0


def _as_written(path: str, directory: Path, root: Path) -> str:
    """How the directory stands in go.work: as go wants it, rooted or starting with a dot."""
    if os.path.isabs(os.path.expanduser(path)):
        return str(directory)
    relative = os.path.relpath(directory, root)
    return relative if relative.split("/")[0] in (".", "..") else f"./{relative}"


def _tell(lines: list[str], *, quiet: bool = False) -> None:
    from gotunnel.cli.console import tell

    if not quiet:
        for line in lines:
            tell(line)
