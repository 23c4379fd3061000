"""The process that ends what the demo started and removes its directory: `python -I -S guard.py PREFIX`.

Rules:
- It makes the directory, private to the user, and says its path in one line on standard output.
- Standard input, lines from the demo: `+PGID` a process group lives, `-PGID` it has ended, `keep` keep the
  directory.  Its end means that the demo is over, killed or not: only now anything is done.
- No signal of the terminal reaches it: it has a session of its own.
- Nothing is imported but the standard library's quick part.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time

TERM, KILL = 3.0, 2.0  # seconds that a group gets after each
LONGEST = 70  # bytes of the directory's path: a Unix socket's has at most 103 on macOS


def main() -> None:
    """Make, tell, wait, end, remove."""
    directory = _make(sys.argv[1])
    with contextlib.suppress(OSError):  # the demo may have been killed meanwhile
        os.write(1, os.fsencode(directory) + b"\n")
    os.close(1)
    groups: set[int] = set()
    keep = False
    for line in sys.stdin.buffer:
        if line == b"keep\n":
            keep = True
        elif line.startswith(b"+") and line.endswith(b"\n"):
            groups.add(int(line[1:]))
        elif line.startswith(b"-") and line.endswith(b"\n"):
            groups.discard(int(line[1:]))
    end(groups)
    if not keep:
        remove(directory)


def _make(prefix: str) -> str:
    directory = tempfile.mkdtemp(prefix=prefix)
    if len(os.fsencode(directory)) > LONGEST:
        os.rmdir(directory)
        directory = tempfile.mkdtemp(prefix=prefix, dir="/tmp")
    return os.path.realpath(directory)


def end(groups: set[int]) -> None:
    """SIGTERM to each group, SIGKILL to those that are still there after a while."""
    for number, seconds in ((signal.SIGTERM, TERM), (signal.SIGKILL, KILL)):
        for group in groups:
            _signal(group, number)
        until = time.monotonic() + seconds
        while groups and time.monotonic() < until:
            groups = {group for group in groups if _signal(group, 0)}
            time.sleep(0.02)


def _signal(group: int, number: int) -> bool:
    """False if nobody is left in the group."""
    try:
        os.killpg(group, number)
    except OSError:
        return False
    return True


def remove(directory: str) -> None:
    """All of it; what is still being written to is tried again."""
    for _ in range(20):
        shutil.rmtree(directory, ignore_errors=True)
        if not os.path.lexists(directory):
            return
        for place, names, _files in os.walk(directory):  # go makes module directories read-only
            for name in [".", *names]:
                try:
                    os.chmod(os.path.join(place, name), 0o700, follow_symlinks=False)
                except (OSError, NotImplementedError):
                    continue
        time.sleep(0.1)


if __name__ == "__main__":
    main()
