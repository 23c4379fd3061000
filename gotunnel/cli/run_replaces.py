"""Under `run`: `go mod tidy` and `go get` see the stand-ins of `gotunnel replace`, which go has them ignore.

Rules:
- They work on a copy of go.mod and go.sum that carries the stand-ins (`-modfile`); what they made of it is
  merged back without them, and only when CMD succeeded.  A run that is interrupted has changed nothing.
- go.mod is put in place at once.  Where somebody changed it meanwhile it is left alone, and the result is
  kept beside it as go.mod.gotunnel.
- go.sum gets the lines of both, now and after: none is lost.
- They run with GOWORK=off: go takes no -modfile beside a go.work, of which they see nothing anyway.
- A user's own -modfile, in CMD or in GOFLAGS, is theirs: nothing is done.
- Nothing is read for any other command.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError, GotunnelError

if TYPE_CHECKING:
    from gotunnel.modproxy.gocommand import Place
    from gotunnel.modproxy.gowork import Standin

_VERBS = ("mod tidy", "get")


class MergeError(GotunnelError):
    """go.mod was changed by somebody else while CMD worked on a copy of it."""


@dataclass(slots=True)
class Replaced:
    """`argv` is what to run instead of CMD, `env` what its environment gets besides.

    `done` tells CMD's status; without it nothing is merged.
    """

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    succeeded: bool = False

    def done(self, status: int) -> None:
        """CMD has ended."""
        self.succeeded = status == 0


def concerns(argv: Sequence[str]) -> bool:
    """Whether `with_replaces` may have anything to do, by a glance at the words."""
    return "tidy" in argv or "get" in argv


@contextlib.asynccontextmanager
async def with_replaces(
    argv: Sequence[str], directory: Path, environ: Mapping[str, str]
) -> AsyncIterator[Replaced]:
    """CMD as it is to be run in `directory`; merged at the end, once it was told that CMD succeeded.

    Raises ConfigError, ModFileError, MergeError.
    """
    found = _look(argv, directory, environ) if concerns(argv) else None
    if found is None:
        yield Replaced(list(argv))
        return
    place, standins = found
    try:
        copy = _Copy(place, standins)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place.go_mod}: {getattr(error, 'strerror', None) or error}") from error
    try:
        replaced = Replaced(with_modfile(argv, copy.mod), {"GOWORK": "off"})
        yield replaced
        if replaced.succeeded:
            try:
                copy.merge()
            except (OSError, UnicodeDecodeError) as error:
                words = getattr(error, "strerror", None) or error
                raise ConfigError(f"{place.go_mod}: {words}; what go wrote is lost, run it again") from error
    finally:
        copy.close()


def _look(
    argv: Sequence[str], directory: Path, environ: Mapping[str, str]
) -> tuple[Place, tuple[Standin, ...]] | None:
    """Where CMD works, and the stand-ins of ours that are in force there; None where there are none."""
    from gotunnel.modproxy.gocommand import child_directory, read_command
    from gotunnel.modproxy.gowork import MARK, standins

    if read_command(argv).verb not in _VERBS:
        return None
    place = child_directory(argv, directory, environ)
    if place.go_mod is None or place.go_work is None:
        return None
    try:
        text = place.go_work.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None  # go will say it better
    if MARK not in text:
        return None
    from gotunnel.goenv import read

    # `go env -w` may have set GOFLAGS and GOWORK, too
    flags = read(environ, cwd=str(place.directory)).goflags
    if read_command(argv, flags).modfile:
        return None
    mine = tuple(one for one in standins(text, str(place.go_work)) if one.ours)
    return (place, mine) if mine else None


def with_modfile(argv: Sequence[str], modfile: Path) -> list[str]:
    """CMD with `-modfile`, before its own flags, but behind a -C, which go wants first."""
    words = list(argv)
    at = _behind_directory(words, 1)
    at = _behind_directory(words, at + (2 if words[at] == "mod" else 1))
    return [*words[:at], f"-modfile={modfile}", *words[at:]]


def _behind_directory(words: Sequence[str], at: int) -> int:
    """`at`, or the place after a -C that stands there."""
    if words[at : at + 1] in (["-C"], ["--C"]):
        return at + 2
    return at + 1 if at < len(words) and words[at].startswith(("-C=", "--C=")) else at


class _Copy:
    """go.mod and go.sum of `place` in a directory of their own, with the stand-ins in force."""

    def __init__(self, place: Place, standins: tuple[Standin, ...]) -> None:
        from gotunnel.modproxy.gowork import carried

        assert place.go_mod is not None
        assert place.go_work is not None
        self._place, self._standins = place, standins
        self._go_mod = place.go_mod
        self._go_sum = place.go_mod.with_name("go.sum")
        self._base = _text(self._go_mod)
        text = carried(self._base, standins, place.go_work.parent)
        self._folder = Path(tempfile.mkdtemp(prefix="gotunnel-"))
        self.mod = self._folder / "go.mod"
        try:
            self.mod.write_text(text, encoding="utf-8", newline="")
            if self._go_sum.exists():
                shutil.copyfile(self._go_sum, self.mod.with_name("go.sum"))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def merge(self) -> None:
        """Put in place what CMD made.  Raises MergeError, OSError."""
        from gotunnel.cli.console import tell
        from gotunnel.modproxy import gowork
        from gotunnel.modproxy.modfile import parse_mod

        result = gowork.without(_text(self.mod))
        sums = self.mod.with_name("go.sum")
        with gowork.taking_turns(self._go_mod.parent):
            now = _text(self._go_mod)
            changed = result.splitlines() != self._base.splitlines()
            if changed and now != self._base and now.splitlines() != result.splitlines():
                kept = self._go_mod.with_name("go.mod.gotunnel")
                gowork.write_whole(kept, result.encode())
                raise MergeError(
                    f"{self._go_mod} was changed by somebody else meanwhile and is left as it is; the result "
                    f"is kept in {kept.name}: run the command again, or compare the two"
                )
            if sums.exists():
                before = _text(self._go_sum) if self._go_sum.exists() else ""
                after = gowork.merged_sums(before, _text(sums))
                if after != before:
                    gowork.write_whole(self._go_sum, after.encode())
            if changed:
                gowork.write_whole(self._go_mod, result.encode())
        self._follow(parse_mod(result, str(self._go_mod)).go)
        known = gowork.unpublished(self._base, self._standins)
        for path in gowork.unpublished(result, self._standins):
            if path in known:
                continue
            tell(
                f"go.mod now requires {path} at a version that go made up, for none was found: "
                f"publish the module, drop the stand-in and run go get {path} before you share go.mod"
            )

    def _follow(self, go: str) -> None:
        """go refuses a go.work that asks for less than go.mod: ours is raised."""
        from gotunnel.modproxy import gowork

        work = self._place.go_work
        assert work is not None
        with gowork.taking_turns(work.parent):
            text = _text(work)
            raised = gowork.raise_go(text, go)
            if raised != text:
                gowork.write_whole(work, raised.encode())


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8")
