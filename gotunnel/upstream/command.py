"""A ProxyCommand (ssh_config(5)) as a dialer: the command's standard input and output are the stream.

Rules:
- The command gets one end of a socket pair, so that the stream is an ordinary socket and the command sees
  EOF when we are gone, however we went.
- It runs in a session of its own (Ctrl-C is not for it), keeps our standard error, and is ended with its
  stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess

from gotunnel.address import HostPort, one_line
from gotunnel.errors import Blame, DialError
from gotunnel.upstream.dialer import Stream


class CommandDialer:
    """Starts `command` with /bin/sh for each stream; the target is in the command itself."""

    def __init__(self, command: str, *, label: str) -> None:
        self._command = command
        self._label = label
        self._running: set[subprocess.Popen[bytes]] = set()

    @property
    def label(self) -> str:
        return self._label

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """End the commands that still run."""
        for process in list(self._running):
            self._end(process)

    async def dial(self, target: HostPort) -> Stream:
        ours, theirs = socket.socketpair()
        try:
            process = subprocess.Popen(  # noqa: ASYNC220 - returns as soon as the shell is there
                ["/bin/sh", "-c", f"exec {self._command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise DialError(
                "hop.closed",
                f"{self._label}: ProxyCommand {one_line(self._command, 100)!r}: {error.strerror}",
                blame=Blame.HOP,
                hop=self._label,
            ) from error
        finally:
            theirs.close()
        self._running.add(process)
        ours.setblocking(False)
        stream = Stream(on_closed=lambda: self._end(process))
        await asyncio.get_running_loop().create_connection(lambda: stream, sock=ours)
        return stream

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        self._running.discard(process)
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
