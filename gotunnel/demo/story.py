"""What a person sees of the demo, on standard output.

Rules:
- On a terminal with colour: rich, with a line at the bottom that moves.  Elsewhere, and with NO_COLOR: plain
  lines, each complete when it is written, none of them ever overwritten.
- On a terminal lines are wrapped here, under their own beginning; elsewhere a line is a line.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TextIO

from gotunnel.address import one_line

if TYPE_CHECKING:
    from rich.live import Live

Tone = Literal["", "title", "command", "seen", "bad", "good"]
_STYLES: Mapping[Tone, str] = {
    "": "",
    "title": "bold",
    "command": "cyan",
    "seen": "dim",
    "bad": "bold red",
    "good": "green",
}
_INDENT = 3
_LABEL = 11
_WIDEST = 100


class Screen:
    """Plain lines."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._width = 0  # 0: as long as they are
        if out.isatty():
            self._width = min(shutil.get_terminal_size().columns, _WIDEST)

    def write(self, lead: str, text: str, tone: Tone) -> None:
        """`lead`, then `text`, wrapped to stand under its own beginning."""
        for line in self._wrapped(lead, text):
            self._line(line, len(lead), tone)

    def status(self, text: str, done: int = 0, total: int = 0) -> None:
        """What is going on now; replaces the last such."""

    def close(self) -> None:
        """No more lines."""

    def _wrapped(self, lead: str, text: str) -> list[str]:
        if not self._width or len(lead) + len(text) < self._width:
            return [f"{lead}{text}".rstrip()]
        return textwrap.wrap(
            text, self._width - 1, initial_indent=lead, subsequent_indent=" " * len(lead),
            break_on_hyphens=False, drop_whitespace=True,
        )  # fmt: skip

    def _line(self, line: str, lead: int, tone: Tone) -> None:
        print(line, file=self._out, flush=True)


class RichScreen(Screen):
    """Lines in colour, and one at the bottom that moves."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        from rich.console import Console

        self._console = Console(file=out, highlight=False)
        self._live: Live | None = None

    def status(self, text: str, done: int = 0, total: int = 0) -> None:
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table

        row = Table.grid(padding=(0, 1))
        bar = [ProgressBar(total, done, 32)] if total else []
        row.add_row(" " * (_INDENT - 1), Spinner("dots", style="cyan"), *bar, text)
        if self._live is None:
            self._live = Live(row, console=self._console, transient=True, refresh_per_second=12)
            self._live.start()
        else:
            self._live.update(row)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _line(self, line: str, lead: int, tone: Tone) -> None:
        from rich.text import Text

        words = Text()  # a style given here would be under all of it
        words.append(line[:lead], style="dim")
        words.append(line[lead:], style=_STYLES[tone])
        self._console.print(words, soft_wrap=True)


class Silent(Screen):
    """Nothing (--quiet)."""

    def write(self, lead: str, text: str, tone: Tone) -> None:
        """Nothing."""


def screen_for(out: TextIO, environ: Mapping[str, str], *, quiet: bool = False) -> Screen:
    """The screen that `out` can show."""
    if quiet:
        return Silent(out)
    fancy = out.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") not in (None, "", "dumb")
    return RichScreen(out) if fancy else Screen(out)


class Story:
    """The words; `close` it in any case, or the terminal keeps a hidden cursor."""

    def __init__(self, screen: Screen, *, verbose: bool = False) -> None:
        self._screen = screen
        self.verbose = verbose
        self._step = 0
        self._began = time.monotonic()

    def title(self, text: str) -> None:
        """The first line."""
        self._screen.write("", text, "title")

    def step(self, text: str) -> None:
        """The next act."""
        self._screen.close()
        self._step += 1
        self._screen.write("", "", "")
        self._screen.write("", f"{self._step}. {text}", "title")

    def fact(self, label: str, text: str) -> None:
        """A thing and what it is."""
        self._screen.write(" " * _INDENT + label.ljust(_LABEL), text, "")

    def command(self, *lines: str) -> None:
        """What a user would type, one or more lines of it."""
        self._screen.close()
        for number, line in enumerate(lines):
            lead = " " * _INDENT + ("$ " if number == 0 else "    ")
            self._screen.write(lead, line + (" \\" if number < len(lines) - 1 else ""), "command")

    def clock(self) -> None:
        """The moments to come count from now."""
        self._began = time.monotonic()

    def moment(self, text: str, tone: Tone = "") -> None:
        """Something that happened just now."""
        seconds = time.monotonic() - self._began
        self._screen.write(" " * _INDENT + f"{seconds:5.2f} s  ", one_line(text, 1000), tone)

    def seen(self, text: str) -> None:
        """A line of a program's own output."""
        self._screen.write(" " * (_INDENT + 2), one_line(text, 1000), "seen")

    def say(self, text: str, tone: Tone = "") -> None:
        """A line of ours."""
        self._screen.write(" " * _INDENT, text, tone)

    def now(self, text: str, done: int = 0, total: int = 0) -> None:
        """What is going on, on the line that moves."""
        self._screen.status(text, done, total)

    def close(self) -> None:
        """The line that moves goes away."""
        self._screen.close()


def standard_story(environ: Mapping[str, str] = os.environ, *, quiet: bool, verbose: bool) -> Story:
    """A story on standard output."""
    return Story(screen_for(sys.stdout, environ, quiet=quiet), verbose=verbose)
