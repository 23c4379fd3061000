"""Killing everything below a process, whatever session or group it has moved to.

Rules:
- On Linux we are a child subreaper: what loses its parent becomes our child.  So killing our children,
  and those that become ours, until there are none reaches everything, double forks included.
- Elsewhere (macOS) the tree is read from ps(1); what has lost its parent before escapes.
- Imported by the keeper: nothing slow to import here.
"""

from __future__ import annotations

import os
import signal
import sys
import time

TYPE_CHECKING = False  # typing itself would cost a third of the keeper's start
if TYPE_CHECKING:
    from collections.abc import Callable

GRACE = 1.0  # seconds from SIGTERM to SIGKILL for what CMD left behind
GIVE_UP = 5.0  # seconds of SIGKILL before a process counts as one that can't be killed

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def _prctl(option: int, value: int) -> bool:
    """prctl(2); False where it doesn't exist (macOS, a Python without ctypes) or fails."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        import ctypes
    except ImportError:
        return False
    return int(ctypes.CDLL(None).prctl(option, value, 0, 0, 0)) == 0


def be_subreaper() -> bool:
    """Become the parent of every orphan among our descendants, on Linux; says whether it is so."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Be killed when the parent dies, on Linux; lost on execution of a setuid program."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stat(pid: int | str) -> list[str]:
    """State letter (T: stopped, Z: zombie) and parent's pid; empty when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].decode().split()[:2]
    except OSError:
        return []


def state(pid: int) -> str:
    """The state letter of ps(1); empty where it can't be known."""
    return (_stat(pid) or [""])[0]


def children() -> dict[int, str]:
    """Our direct children, from /proc, each with its state letter."""
    me, found = str(os.getpid()), {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        stat = _stat(name)
        if stat and stat[1] == me:
            found[int(name)] = stat[0]
    return found


def descendants() -> list[int]:
    """Where nobody adopts orphans: all that is still linked to us, as ps(1) tells."""
    import subprocess

    with subprocess.Popen(["ps", "-axo", "pid=,ppid="], stdout=subprocess.PIPE) as ps:
        listing, _ = ps.communicate()
    rows = [tuple(map(int, line.split())) for line in listing.splitlines()]
    below, size = {os.getpid()}, 0
    while size != len(below):
        size = len(below)
        below |= {pid for pid, parent in rows if parent in below and pid != ps.pid}
    return sorted(below - {os.getpid()})


def _reap() -> bool:
    """Collect the dead; False when we have no child any more."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def kill(pid: int, *signals: int) -> None:
    """Send `pid` each of `signals`; one that is gone, or not ours (setuid), is left alone."""
    for number in signals:
        try:
            os.kill(pid, number)
        except OSError:
            return


def sweep(adopts: bool, grace: float = GRACE, reap: Callable[[], bool] = _reap) -> list[int]:
    """Kill all that is below us: SIGTERM, after `grace` seconds SIGKILL; returns whom it couldn't kill.

    Only direct children are signalled where we adopt: those can't be mistaken for others, as their
    pids stay taken until we collect them, and theirs become ours.  Costs nothing when nothing is left.
    """
    start, told, pause = time.monotonic(), set(), 0.005
    while True:
        alive = reap()
        left = (list(children()) if alive else []) if adopts else descendants()
        elapsed = time.monotonic() - start
        if not left or elapsed > grace + GIVE_UP:
            return left
        for pid in left:
            if elapsed >= grace:
                kill(pid, signal.SIGKILL)
            elif pid not in told:
                told.add(pid)
                kill(pid, signal.SIGTERM, signal.SIGCONT)
        time.sleep(pause)
        pause = min(2 * pause, 0.05)
