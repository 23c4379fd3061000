"""The demo's processes: each in a group of its own, all known to the guard before they begin.

Rules:
- A process is started by a shell that waits for a line; the line is sent when the guard knows the group.  So
  there is no moment at which a kill -9 of the demo would leave something behind.
- The guard does all cleaning up, also at a good end: there is one way out, which is used each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from gotunnel.demo import guard
from gotunnel.errors import GotunnelError

_GIVE_UP = guard.TERM + guard.KILL + 5.0  # seconds for the guard
_WAIT = 'read -r _ && exec "$@"'


class Crew:
    """An async context manager; `directory` is there from its beginning to its end."""

    def __init__(self, *, keep: bool = False) -> None:
        self._keep = keep
        self._guard: Process | None = None
        self._line = -1  # the guard's standard input
        self.directory = Path()

    async def __aenter__(self) -> Self:
        """Start the guard.  Raises GotunnelError where there is no room for the directory."""
        theirs, self._line = os.pipe()
        try:
            self._guard = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", guard.__file__, "gotunnel-demo-",
                stdin=theirs, stdout=PIPE, stderr=DEVNULL, start_new_session=True,
            )  # fmt: skip
            assert self._guard.stdout is not None
            path = os.fsdecode((await self._guard.stdout.readline()).rstrip(b"\n"))
            if not path:
                raise GotunnelError("demo: no temporary directory can be made; is TMPDIR writable?")
        except BaseException:
            os.close(self._line)
            raise
        finally:
            os.close(theirs)
        self.directory = Path(path)
        if self._keep:
            self._tell("keep")
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all, and wait until they are gone."""
        os.close(self._line)
        if self._guard is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GIVE_UP):
                    await self._guard.wait()

    async def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        watched: bool = False,
        output: int = PIPE,
        errors: int = PIPE,
    ) -> Process:
        """Start a command.  Its standard input is empty or, `watched`, open as long as the demo lives."""
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", _WAIT if watched else f"{_WAIT} </dev/null", "sh", *argv,
            env=dict(env), cwd=cwd, stdin=PIPE, stdout=output, stderr=errors, start_new_session=True,
        )  # fmt: skip
        self._tell(f"+{process.pid}")
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it may be dead already
            process.stdin.write(b"\n")
            await process.stdin.drain()
        return process

    async def wait(self, process: Process) -> int:
        """Its status, 128+N for signal N."""
        code = await process.wait()
        self._tell(f"-{process.pid}")
        return code if code >= 0 else 128 - code

    async def kill(self, process: Process) -> None:
        """kill -9, to the whole group; returns when it is dead."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await self.wait(process)

    def _tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a guard that was killed: what can be ended, we end
            os.write(self._line, f"{line}\n".encode())
