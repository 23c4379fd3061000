"""What the module proxy is asked by, and what it answers with.

Rules:
- A temporary file lives as long as somebody holds the `Got` it came with; what is still coming ends with it,
  and has one taker.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator
from dataclasses import field
from pathlib import Path
from typing import Protocol

from gotunnel.dataclass import dataclass
from gotunnel.modproxy.pipe import Pipe
from gotunnel.modproxy.receive import Arrived, Verifies
from gotunnel.storage.store import Stored

Body = bytes | Path | AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Answer:
    """What go gets.  `size` in bytes; `keep` holds a temporary file that `body` names: drop it last."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: Body
    size: int | None
    cached: bool
    keep: object = None


class AnswersSums(Protocol):
    """What is needed of a SumDB."""

    async def answer(self, rest: str) -> bytes:
        """What go asks below /sumdb/NAME/.  Raises ModuleError."""


@dataclass(frozen=True, slots=True)
class Project:
    """One run's context: `private` are its effective globs (GOPRIVATE, GONOPROXY)."""

    id: str
    verifier: Verifies
    private: str = ""
    sumdb_name: str = ""
    sumdb: AnswersSums | None = None


@dataclass(eq=False)
class Got:
    """A file at hand: in the store, in memory (`data`), in a temporary file (`loose`) that goes with it, or
    one that is `coming` and can be kept nowhere.

    `project` is who had it fetched, and so verified.
    """

    stored: Stored
    project: str = ""
    data: bytes | None = None
    loose: Path | None = None
    source: str = ""
    upstream: str = ""
    stale: bool = False
    coming: Arrived | None = None
    _keeper: object = field(default=None, repr=False)
    _taken: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.loose is not None:
            self._keeper = weakref.finalize(self, self.loose.unlink, missing_ok=True)
        if self.coming is not None and self.coming.fetched.pipe is not None:
            loop = asyncio.get_running_loop()
            self._keeper = end = weakref.finalize(self, _give_up, loop, self.coming.fetched.pipe)
            end.atexit = False

    def take(self) -> bool:
        """True for the first who asks: what is coming is theirs."""
        taken, self._taken = self._taken, True
        return not taken


def _give_up(loop: asyncio.AbstractEventLoop, pipe: Pipe) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has closed, and all transfers with it
        loop.call_soon_threadsafe(pipe.give_up)
