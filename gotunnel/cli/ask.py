"""Questions to the person at the terminal.

Rules:
- Asked on the controlling terminal (/dev/tty), whatever standard input is, as ssh does; and only where
  standard error is a terminal, too: else nobody reads along.
- `gotunnel: PROMPT`; a secret is typed without echo.  What was typed ahead is thrown away.
- The terminal gets its settings back however the question ends: answered, cancelled, or the process killed by
  a signal that can be caught.
- Ctrl-C and Ctrl-\\ are no answer (None), and are then passed on to the whole group, as the terminal would
  have done.  Ctrl-D is no answer.  Ctrl-Z does nothing: a stopped gotunnel would leave the terminal mute.
- A process in the background of its terminal asks nothing: None.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import sys
import termios
import threading
from collections.abc import Iterator
from typing import Any

from gotunnel.address import one_line, redact
from gotunnel.tasks import in_thread

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_LFLAG, _CC = 3, 6  # of termios.tcgetattr


class Terminal:
    """Asks on the terminal at `path`."""

    def __init__(self, path: str = "/dev/tty") -> None:
        self._path = path

    async def __call__(self, prompt: str, *, echo: bool = False) -> str | None:
        """The line that was typed, without its end; None for no answer."""
        try:
            question = _Question(self._path, echo)
        except (OSError, termios.error):
            return None
        with question, _restored_by_signals(question):
            answer = await in_thread("ask", question.read) if question.begin(prompt) else None
        if question.signal is not None:
            os.killpg(os.getpgrp(), question.signal)
        return answer


def terminal() -> Terminal | None:
    """Somebody to ask, if there is."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return None
    return Terminal()


class _Question:
    """One question: the terminal is ours from `begin` to `close`."""

    def __init__(self, path: str, echo: bool) -> None:
        """Raises OSError, termios.error where there is no terminal, or another process has it."""
        self.signal: int | None = None  # that the person's key stands for
        self._echo = echo
        self._tty = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        self._lock = threading.Lock()
        self._closed = self._reading = False
        self._gap = False  # the cursor stands behind our prompt
        self._ended, self._end = os.pipe()
        try:
            if os.tcgetpgrp(self._tty) != os.getpgrp():
                raise OSError("in the background")  # reading would stop us
            self._before = termios.tcgetattr(self._tty)
            self._keys = _keys(self._before)
        except BaseException:
            self._let_go()
            raise

    def begin(self, prompt: str) -> bool:
        """Show the prompt; False where the terminal doesn't do as we want: a secret might be seen."""
        *lines, last = prompt.split("\n")
        words = [f"gotunnel: {one_line(redact(line), 500)}\n" for line in lines]
        space = " " if last.endswith(" ") else ""
        self._gap = True
        try:
            self._set(termios.TCSAFLUSH, _while_asking(self._before, self._echo))
            self._say("".join([*words, f"gotunnel: {one_line(redact(last), 500)}{space}"]))
        except (OSError, termios.error):
            return False
        return True

    def __enter__(self) -> _Question:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self) -> str | None:
        """Blocks until a line was typed, or the question was closed."""
        with self._lock:
            if self._closed:
                return None
            self._reading = True
        try:
            return self._answer(self._line())
        except OSError:  # the terminal has gone
            return None
        finally:
            with self._lock:
                self._reading = False
                if self._closed:
                    self._let_go()

    def close(self) -> None:
        """Give the terminal back, from whichever thread; a `read` that still blocks ends."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            with contextlib.suppress(OSError, termios.error):
                self._set(termios.TCSANOW, self._before)
                if self._gap:
                    self._say("\n")
            os.write(self._end, b".")
            if not self._reading:
                self._let_go()

    def _line(self) -> bytes:
        """With its end; b"" for none."""
        line = b""
        while not line.endswith((b"\n", *self._keys)):
            ready, _, _ = select.select([self._tty, self._ended], [], [])
            if self._ended in ready:
                return b""
            piece = os.read(self._tty, 4096)
            if not piece and not line:
                return b""
            line += piece
        return line

    def _answer(self, line: bytes) -> str | None:
        self.signal = self._keys.get(line[-1:])
        if not line.endswith(b"\n"):
            return None
        self._gap = not self._echo
        return line[:-1].decode("utf-8", "replace")

    def _say(self, text: str) -> None:
        os.write(self._tty, text.encode("utf-8", "replace"))

    def _set(self, when: int, settings: list[Any]) -> None:
        # CMD may have taken the terminal meanwhile: that must not stop us
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
        try:
            termios.tcsetattr(self._tty, when, settings)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _let_go(self) -> None:
        for descriptor in (self._tty, self._ended, self._end):
            os.close(descriptor)


def _keys(settings: list[Any]) -> dict[bytes, int]:
    """The keys that end a question, and the signals that they stand for."""
    keys = {settings[_CC][termios.VINTR]: signal.SIGINT, settings[_CC][termios.VQUIT]: signal.SIGQUIT}
    return {key: number for key, number in keys.items() if key != b"\0"}


def _while_asking(settings: list[Any], echo: bool) -> list[Any]:
    """Lines as always, but keys don't send signals: some end the line instead."""
    changed: list[Any] = [*settings[:_CC], list(settings[_CC])]
    changed[_LFLAG] |= termios.ICANON | termios.ECHO
    changed[_LFLAG] &= ~(termios.ISIG | (0 if echo else termios.ECHO | termios.ECHONL))
    changed[_CC][termios.VEOL] = settings[_CC][termios.VINTR]
    changed[_CC][termios.VEOL2] = settings[_CC][termios.VQUIT]
    return changed


@contextlib.contextmanager
def _restored_by_signals(question: _Question) -> Iterator[None]:
    """A signal that would kill us does so after the terminal was given back."""
    loop = asyncio.get_running_loop()

    def end(number: int) -> None:
        question.close()
        loop.remove_signal_handler(number)
        os.kill(os.getpid(), number)

    mine = []
    if threading.current_thread() is threading.main_thread():
        mine = [number for number in _ENDING if signal.getsignal(number) == signal.SIG_DFL]
    for number in mine:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    finally:
        for number in mine:
            loop.remove_signal_handler(number)
