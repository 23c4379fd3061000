"""gotunnel's side of signals: each is noted here, and passed on to CMD through its keeper.

Rules:
- Installed once for the whole run, in the main thread, inside the event loop; what was there before is
  put back at the end.
- We never act on a signal ourselves while CMD runs: CMD decides, and its keeper stops us when CMD
  stops.  Whether CMD got it from the kernel already is the keeper's to know (`keeper.py`).
- Between two runs of CMD, SIGINT, SIGTERM, SIGHUP and SIGQUIT end the run: `interrupted`, `wait()`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gotunnel.child import keeper

_ENDING = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})


class Signals:
    """The signals of one run; a context manager, to be entered in the main thread's event loop."""

    def __init__(self) -> None:
        self.forward: Callable[[int], None] | None = None  # set by `Child` while CMD runs
        self.ignored: frozenset[int] = frozenset()  # what was ignored when we came: CMD ignores it too
        self.interrupted: int | None = None  # the first one that ends a run, unless it was ignored
        self._before: dict[int, object] = {}
        self._interruption = asyncio.Event()

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        numbers = (*keeper.FORWARDED, *keeper.TERMINAL)
        self._before = {int(number): signal.getsignal(number) for number in numbers}
        self.ignored = frozenset(n for n, handler in self._before.items() if handler == signal.SIG_IGN)
        for number in keeper.FORWARDED:
            loop.add_signal_handler(number, self._arrived, int(number))
        # CMD may have taken the terminal (bash does): a line of ours must not stop the tunnel; and the
        # kernel stops the whole group when CMD reads in the background, though it is the keeper's to say when
        for number in keeper.TERMINAL:
            signal.signal(number, signal.SIG_IGN)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        for number in keeper.FORWARDED:
            loop.remove_signal_handler(number)
        for changed, handler in self._before.items():
            signal.signal(changed, handler)  # type: ignore[arg-type]

    async def wait(self) -> int:
        """Until `interrupted`; returns it."""
        await self._interruption.wait()
        assert self.interrupted is not None
        return self.interrupted

    def _arrived(self, number: int) -> None:
        if self.interrupted is None and number in _ENDING and number not in self.ignored:
            self.interrupted = number
            self._interruption.set()
        if self.forward is not None:
            self.forward(number)
        elif number == signal.SIGTSTP:
            os.kill(os.getpid(), signal.SIGSTOP)
