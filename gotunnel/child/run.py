"""One run of CMD, as gotunnel sees it.

Rules:
- `async with Child(…) as child:` starts CMD and, however the block is left, leaves nothing behind.
- CMD's standard input and output are ours, untouched; its standard error is ours too, or, with
  `on_stderr`, a pipe that is passed on byte for byte.  Other open descriptors (`<(…)`, a make
  jobserver) are inherited.
- Everything that happens to CMD is told by its keeper; we only ask (protocol: `keeper.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import marshal
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from gotunnel.address import one_line
from gotunnel.child import keeper, sweep
from gotunnel.child.signals import Signals
from gotunnel.child.tee import Tee
from gotunnel.dataclass import dataclass
from gotunnel.errors import CommandError
from gotunnel.openfiles import limit_before

RUN_ID = "GOTUNNEL_RUN_ID"  # contract §5: in CMD's environment, different for each run
_BOOT = "import os,sys;e=os.environ;sys.path.append(e['ROOT']);__import__(e['MODULE'],fromlist='.').main()"
_HELD = 2.0  # seconds that a blocked standard error may hold us once CMD was killed


@dataclass(frozen=True, slots=True)
class ChildResult:
    """How CMD ended: `status` as a shell says it (128+N for signal N); `note` is a line for a person."""

    status: int
    signal: int | None = None
    note: str | None = None


def result_of(wait_status: int, note: str | None = None) -> ChildResult:
    """From the status that wait(2) gives."""
    code = os.waitstatus_to_exitcode(wait_status)
    return ChildResult(code, note=note) if code >= 0 else ChildResult(128 - code, -code, note)


def start_error(argv0: str, stage: str, number: int, path: str) -> CommandError:
    """The keeper's `failed` line as an error: 127 when CMD isn't found, 126 when it can't be run."""
    name, why = one_line(argv0) or "''", os.strerror(number)
    if stage == "cwd":
        return CommandError(f"{one_line(path)}: can't start {name} in this directory: {why}", 126)
    found = os.path.lexists(path)
    if number in (errno.ENOENT, errno.ENOTDIR) and not found:
        if "/" in argv0:
            return CommandError(f"{name}: no such file", 127)
        return CommandError(f"{name}: command not found; is it installed, and its directory in PATH?", 127)
    if number == errno.ENOENT:
        why = "the interpreter or loader that it names is missing, or it is a dangling link"
    elif number == errno.ENOEXEC:
        why = "neither a program for this machine nor a script whose first line starts with #!"
    elif number == errno.EACCES and os.path.isdir(path):
        why = "it is a directory"
    elif number == errno.EACCES:
        why = "permission denied; chmod +x makes a file executable"
    return CommandError(f"{one_line(path) or name}: can't be run: {why}", 126)


class Child:
    """CMD and all that it starts; an async context manager."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        signals: Signals,
        cwd: str | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
        wipe: Callable[[], bytes] = bytes,
        grace: float = 10.0,
    ) -> None:
        """`env` is CMD's whole environment, and its PATH is searched for argv[0].

        `on_stderr` gets what CMD writes to standard error, `wipe` gives what is written there first (it
        takes a line of ours away).  `grace`: seconds that CMD has to end after
        a SIGTERM, by us or by a signal to us, before everything is killed.
        """
        self._argv, self._env, self._cwd = list(argv), dict(env), cwd
        self._signals, self._on_stderr, self._wipe, self._grace = signals, on_stderr, wipe, grace
        self._loop = asyncio.get_running_loop()
        self._control: int | None = None
        self._reports = asyncio.StreamReader()
        self._transport: asyncio.BaseTransport | None = None
        self._keeper: subprocess.Popen[bytes] | None = None
        self._tee: Tee | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._closing = False
        self._ended: int | None = None  # wait status, by the keeper's report
        self._left: list[str] = []  # "PID NAME" of what could not be killed
        self._note: str | None = None
        self._result: ChildResult | None = None
        self.pid: int | None = None  # CMD's

    async def __aenter__(self) -> Self:
        """Start CMD.  Raises CommandError (126, 127)."""
        try:
            await self._start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def wait(self) -> ChildResult:
        """Until CMD has ended, by itself or not, and nothing that it started is left."""
        if self._result is None:
            self._result = await self._listen()
        return self._result

    def terminate(self) -> None:
        """SIGTERM to CMD; after the grace all is killed."""
        self._send(keeper.SEND, signal.SIGTERM)
        self._kill_after(self._grace)

    async def _start(self) -> None:
        control, self._control = os.pipe()
        reports, report = os.pipe()
        try:
            protocol = asyncio.StreamReaderProtocol(self._reports)
            source = os.fdopen(reports, "rb", buffering=0)
            self._transport, _ = await self._loop.connect_read_pipe(lambda: protocol, source)
            if self._on_stderr is not None:
                self._tee = Tee(self._on_stderr, wipe=self._wipe)
            sweep.be_subreaper()  # for `_rescue`
            mask = self._spawn(control, report)
        finally:
            os.close(control)
            os.close(report)
            if self._tee is not None:
                self._tee.start()
        self._signals.forward = self._forward
        self._configure(mask)
        line = os.fsdecode(await self._reports.readline())
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "started":
            self.pid = int(rest)
        elif word == "failed":
            stage, number, path = rest.split(" ", 2)
            raise start_error(self._argv[0], stage, int(number), path)
        else:
            why = rest or "it ended at once"
            raise CommandError(
                f"{self._argv[0]}: can't be run: the helper process that starts it: {why}", 126
            )

    def _spawn(self, control: int, report: int) -> list[int]:
        """Start the keeper with all signals blocked, until it is ready for them; returns our mask."""
        # a venv's own python would have "gotunnel" in its path, and reads a configuration file first
        python = os.path.realpath(sys.executable)
        root = os.path.dirname(os.path.dirname(os.path.dirname(keeper.__file__)))
        argv = [python, "-I", "-S", "-c", _BOOT, str(control), str(report)]
        mask = signal.pthread_sigmask(signal.SIG_SETMASK, signal.valid_signals())
        try:
            for end in (control, report):
                os.set_inheritable(end, True)
            self._keeper = subprocess.Popen(
                argv,
                env={"ROOT": root, "MODULE": keeper.__name__},
                stderr=None if self._tee is None else self._tee.write_end,
                close_fds=False,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return [int(number) for number in mask]

    def _configure(self, mask: list[int]) -> None:
        assert self._control is not None
        settings: keeper.Settings = {
            "argv": [os.fsencode(word) for word in self._argv],
            "env": {os.fsencode(name): os.fsencode(value) for name, value in self._env.items()},
            "cwd": os.fsencode(self._cwd or ""),
            "gotunnel": os.getpid(),
            "ignore": [int(number) for number in self._signals.ignored],
            "mask": mask,
            "files": limit_before() or 0,
        }
        data = marshal.dumps(dict(settings))
        data = len(data).to_bytes(4, "big") + data
        try:
            while data:
                data = data[os.write(self._control, data) :]
        except BrokenPipeError:
            pass  # the keeper is dead, as the missing report will say
        os.set_blocking(self._control, False)

    def _forward(self, number: int) -> None:
        self._send(keeper.GOT, number)
        if number == signal.SIGTERM and number not in self._signals.ignored:
            self._kill_after(self._grace)

    def _send(self, kind: int, number: int) -> None:
        if self._control is None:
            return
        try:
            os.write(self._control, bytes((kind, number)) + time.monotonic_ns().to_bytes(8, "big"))
        except OSError:
            return  # the keeper is dead, or stopped with thousands of signals before it

    def _kill_after(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = self._loop.call_later(seconds, self._send, keeper.KILL, 0)

    async def _listen(self) -> ChildResult:
        """Read reports until keeper and spare are gone."""
        while line := os.fsdecode(await self._reports.readline()).rstrip("\n"):
            word, _, rest = line.partition(" ")
            if word == "ended":
                self._ended = int(rest)
            elif word == "left":
                self._left.append(rest)
            elif word == "crashed":
                self._note = f"the helper process beside {self._argv[0]} failed: {one_line(rest)}"
        if self._ended is None:
            await self._rescue()
            self._ended = signal.SIGKILL
            self._note = self._note or f"{self._argv[0]} was killed, for its helper process was"
        if self._left:
            self._note = f"could not be killed and still runs: {', '.join(self._left)}"
        await self._settle()
        return result_of(self._ended, self._note)

    async def _rescue(self) -> None:
        """Keeper and spare were both killed: what carries this run's id is now ours to kill (Linux)."""
        run = self._env.get(RUN_ID)
        if run is None or not sys.platform.startswith("linux"):
            return
        mark = b"\0" + os.fsencode(f"{RUN_ID}={run}") + b"\0"
        until = time.monotonic() + sweep.GIVE_UP
        while time.monotonic() < until:
            living = {pid: _environment(pid) for pid, state in sweep.children().items() if state != "Z"}
            ours = [pid for pid, environment in living.items() if mark in environment]
            if not ours and b"\0" not in living.values():
                return
            for pid in ours:
                sweep.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.02)
            for pid in ours:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)  # noqa: ASYNC222 - doesn't block

    async def _settle(self) -> None:
        """Keeper and spare are gone: hand on the last of standard error, give everything back."""
        if self._tee is not None:
            while not await self._tee.finish(_HELD) and not self._closing and not self._signals.interrupted:
                pass
            self._tee = None
        self._signals.forward = None
        if self._deadline is not None:
            self._deadline.cancel()
        if self._keeper is not None:
            self._keeper.wait()
        if self._transport is not None:
            self._transport.close()
        if self._control is not None:
            os.close(self._control)
            self._control = None

    async def _close(self) -> None:
        """Kill what still runs."""
        self._closing = True
        self._send(keeper.KILL, 0)
        await self.wait()


def _environment(pid: int) -> bytes:
    """What `pid` was started with, each NAME=VALUE between NULs; empty where we may not know.

    One NUL alone: it is dying, and its children are about to become ours.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            return b"\0" + environ.read()
    except ProcessLookupError:
        return b"\0"
    except OSError:
        return b""
