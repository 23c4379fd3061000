"""Code of the test's own process inside a network namespace, so that what it does there can be measured."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from tests.lab.netns import Namespace

T = TypeVar("T")
_CLONE_NEWNET = 0x40000000


def _enter(space: Namespace) -> None:
    """Move this thread, and those that it starts, into `space`."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/run/netns", space.name).open("rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Inside:
    """A thread with an event loop in a namespace."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def start(self, job: Coroutine[Any, Any, T]) -> Future[T]:
        """Start `job` there."""
        return asyncio.run_coroutine_threadsafe(job, self._loop)

    def run(self, job: Coroutine[Any, Any, T], timeout: float = 60.0) -> T:
        """Run `job` there to its end."""
        return self.start(job).result(timeout)

    def call(self, function: Callable[[], T]) -> T:
        """Call `function` in that loop."""

        async def job() -> T:
            return function()

        return self.run(job())


@contextlib.contextmanager
def inside(space: Namespace) -> Iterator[Inside]:
    """Such a thread; what still runs in it at the exit is cancelled."""
    ready: Future[asyncio.AbstractEventLoop] = Future()
    over: Future[asyncio.Event] = Future()

    async def main() -> None:
        done = asyncio.Event()
        over.set_result(done)
        ready.set_result(asyncio.get_running_loop())
        await done.wait()

    def work() -> None:
        try:
            _enter(space)
        except OSError as error:
            ready.set_exception(error)
            return
        asyncio.run(main())

    thread = threading.Thread(target=work, name=f"inside {space.name}")
    thread.start()
    loop = ready.result(10)
    try:
        yield Inside(loop)
    finally:
        loop.call_soon_threadsafe(over.result(10).set)
        thread.join(30)
