"""Processes that the lab owns, and `Service`, the base of every server in it.

Rules:
- A process runs in its own session, logs to a file, and is ended together with its descendants.
- Before a family is killed it is stopped, so that no member can start another meanwhile.
- All that is started or made is told to the guard, which ends it if we are killed before we could.
"""

from __future__ import annotations

import abc
import atexit
import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, Self, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/opt/homebrew/sbin")


class LabError(RuntimeError):
    """A part of the lab did not come up, or a command in it failed."""


class Place(Protocol):
    """Where a command runs: a `Namespace`; None stands for the machine itself."""

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs `argv` there."""


def tool(name: str) -> str | None:
    """The path of a program, looked for in the sbin directories too, which users' PATH often lacks."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(_SBIN))


def need_tool(name: str) -> str:
    """As `tool`; raises LabError where it is not installed."""
    path = tool(name)
    if path is None:
        raise LabError(f"{name} is not installed")
    return path


def wait_until(what: str, probe: Callable[[], T], timeout: float = 10.0) -> T:
    """The first true answer of `probe`; raises LabError naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout:g} s in vain: {what}")
        time.sleep(0.01)


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that was free on `address` a moment ago."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    host = address if address in ("0.0.0.0", "::", "::1") or address.startswith("127.") else "127.0.0.1"
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@functools.cache
def dead_port() -> int:
    """A TCP port of 127.0.0.1 that refuses everybody: nobody listens there, and nobody else gets it."""
    held = socket.socket()
    atexit.register(held.close)
    held.bind(("127.0.0.1", 0))
    return int(held.getsockname()[1])


# --- families of processes -------------------------------------------------------------------------


def _parents() -> dict[int, int]:
    """pid -> parent's pid of every process."""
    if os.path.isdir("/proc/self"):
        found: dict[int, int] = {}
        for name in os.listdir("/proc"):
            if name.isdigit() and (fields := _stat(int(name))):
                found[int(name)] = int(fields[1])
        return found
    listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    return {int(a): int(b) for a, b in (line.split() for line in listing.stdout.splitlines())}


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command's name (state, ppid, …), or None if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def started_at(pid: int) -> str:
    """What tells a process from a later one of the same pid ("" where that can't be known)."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def family(pid: int) -> list[int]:
    """`pid` and its descendants, parents first."""
    parents = _parents()
    members = [pid] if pid in parents else []
    for member in members:  # grows while it is walked
        members.extend(child for child, parent in parents.items() if parent == member)
    return members


def send(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to each, as far as they still live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_tree(pid: int) -> None:
    """Kill -9 a process that is ours and all its descendants."""
    stopped: list[int] = []
    while fresh := [member for member in family(pid) if member not in stopped]:
        send(fresh, signal.SIGSTOP)
        stopped += fresh
    send(stopped, signal.SIGKILL)


@functools.cache
def _guard() -> IO[str]:
    """The input of the guard, started once."""
    guard = subprocess.Popen(
        [sys.executable, "-m", "tests.lab.guard"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        cwd=ROOT, start_new_session=True, text=True,
    )  # fmt: skip
    assert guard.stdin is not None
    pipe = guard.stdin

    def finish() -> None:
        with contextlib.suppress(OSError):
            pipe.close()
        guard.wait(timeout=30)

    atexit.register(finish)
    return pipe


def tell_guard(*words: str) -> None:
    """Name a thing for the guard to clean up should we be killed: `pid N START`, `netns NAME`."""
    with contextlib.suppress(OSError):
        _guard().write(" ".join(words) + "\n")
        _guard().flush()


# --- one process ------------------------------------------------------------------------------------


def popen(argv: Sequence[str], *, place: Place | None = None, **options: Any) -> subprocess.Popen[str]:
    """subprocess.Popen with text pipes, in `place`; the guard knows of it, the caller ends it.

    `ip netns exec` replaces itself by the command, so the pid is the command's own.
    """
    options = {"text": True, "start_new_session": True} | options
    process: subprocess.Popen[str] = subprocess.Popen(place.wrap(argv) if place else list(argv), **options)
    tell_guard("pid", str(process.pid), started_at(process.pid))
    return process


def run(
    argv: Sequence[str],
    *,
    place: Place | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60.0,
    check: bool = True,
    stdin: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, its output captured as text.

    Raises LabError if it takes longer than `timeout` seconds (its whole family is killed then) or,
    with `check`, if its exit status is not 0.
    """
    with popen(
        argv, place=place, env=env, cwd=cwd,
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            kill_tree(process.pid)
            out, err = process.communicate()
            raise LabError(f"{' '.join(argv)}: not done after {timeout:g} s\n{out}{err}") from None
        except BaseException:
            kill_tree(process.pid)
            raise
    if check and process.returncode:
        raise LabError(f"{' '.join(argv)}: exit status {process.returncode}\n{out}{err}")
    return subprocess.CompletedProcess(list(argv), process.returncode, out, err)


class Process:
    """A process that runs until it is stopped; its output is appended to the file `log`."""

    def __init__(self, argv: Sequence[str], *, log: Path, place: Place | None = None, **options: Any) -> None:
        self.log = log
        with log.open("ab") as out:
            self._from = out.seek(0, os.SEEK_END)
            self._popen = popen(
                argv, place=place, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, **options
            )
        self.pid = self._popen.pid

    @property
    def running(self) -> bool:
        """False once it has ended."""
        return self._popen.poll() is None

    def output(self) -> str:
        """What it wrote since it was started."""
        with self.log.open("rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace")

    def wait_ready(self, what: str, probe: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until `probe` holds; raises LabError with the log if it ends or `timeout` passes first."""
        try:
            wait_until(what, lambda: probe() or not self.running, timeout)
        except LabError as error:
            raise LabError(f"{error}\n{self.output()}") from None
        if not self.running:
            raise LabError(f"{what}: it ended with status {self._popen.returncode}\n{self.output()}")

    def kill(self) -> None:
        """Kill -9 it and its descendants, and wait for it."""
        if self.running:
            kill_tree(self.pid)
        self._popen.wait(timeout=10)

    def stop(self) -> None:
        """SIGTERM; what is left after two seconds, and descendants, are killed."""
        members = {pid: started_at(pid) for pid in family(self.pid)} if self.running else {}
        send([self.pid] if members else [], signal.SIGTERM)
        try:
            self._popen.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.kill()
        for pid, start in members.items():
            if start == started_at(pid):
                kill_tree(pid)


# --- a server -----------------------------------------------------------------------------------------


class Service(abc.ABC):
    """A server on `address`:`port` (0: a free one), in `place` or on the machine itself.

    It listens on `listen` where that differs from the address that clients use.  `start` returns
    when it is ready.  Its files, with its `log`, lie in `directory`.  As a context manager it is
    started at entry, if it isn't yet, and stopped at exit.
    """

    ready_line: str | None = None  # a regular expression for the log; None: ready when the port listens

    def __init__(
        self,
        directory: Path,
        *,
        place: Place | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        listen: str | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.place = directory, place
        self.address, self.port = address, port
        self.listen = listen or address
        self.log_path = directory / "log"
        self._process: Process | None = None

    @abc.abstractmethod
    def _argv(self) -> list[str]:
        """The command line, for the address and port as they stand."""

    def _environment(self) -> Mapping[str, str] | None:
        return None

    @property
    def running(self) -> bool:
        """True while the server's own process lives."""
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        """The pid of the server's own process; raises LabError if it was never started."""
        if self._process is None:
            raise LabError(f"{type(self).__name__} was not started")
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it is ready; nothing to do if it runs.  Raises LabError."""
        if self.running:
            return self
        chosen, tries = self.port, 1 if self.port else 3
        for attempt in range(tries):
            self.port = chosen or free_port(self.listen)
            self._process = Process(
                self._argv(), log=self.log_path, place=self.place, cwd=ROOT, env=self._environment()
            )
            try:
                self._await_ready(self._process)
            except LabError:
                self._process.kill()
                if attempt + 1 == tries:  # a free port may be taken before it is ours
                    raise
            else:
                break
        return self

    def _await_ready(self, process: Process) -> None:
        what = f"{type(self).__name__} on {self.listen}:{self.port}"
        if self.ready_line is not None:
            ready = re.compile(self.ready_line, re.M)
            process.wait_ready(what, lambda: ready.search(process.output()) is not None)
        else:
            process.wait_ready(what, lambda: _listens(process.pid, self.place, self.listen, self.port))

    def log_text(self) -> str:
        """All that it has logged, over restarts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def stop(self) -> None:
        """End it and its connections in good order."""
        if self._process is not None:
            self.thaw()
            self._process.stop()

    def kill(self) -> None:
        """Kill -9 the listener and the processes of its connections."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        """Stop it and start it on the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP the whole family: the kernel still accepts and acknowledges, nothing is answered."""
        if self.running:
            send(family(self.pid), signal.SIGSTOP)

    def thaw(self) -> None:
        """Undo `freeze`."""
        if self.running:
            send(family(self.pid), signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class PythonService(Service):
    """A server written in Python: `python -m tests.lab.MODULE ADDRESS PORT ARG…`, says `ready`."""

    ready_line = r"^ready$"
    module = ""

    def _arguments(self) -> list[str]:
        return []

    def _argv(self) -> list[str]:
        where = [self.listen, str(self.port)]
        return [sys.executable, "-m", f"tests.lab.{self.module}", *where, *self._arguments()]


def listening_ports(pid: int) -> set[int]:
    """The TCP ports that anyone listens on in the network of process `pid` (Linux)."""
    ports = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def _listens(pid: int, place: Place | None, address: str, port: int) -> bool:
    """Whether a TCP socket listens on `port` in the network of process `pid`."""
    if sys.platform == "linux":
        # without root the files of an sshd are closed to us, but its network is ours
        return port in listening_ports(pid if place else os.getpid())
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False
