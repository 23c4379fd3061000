"""The guard: outlives a lab that was killed, and ends what it had started.

Rules:
- It reads the names of things from its standard input (`proc.tell_guard`), and acts when that ends,
  which the kernel brings about however the lab's process dies.
- A pid counts only together with its start time: a later process of the same pid is not ours.
- What the lab itself has cleaned up is gone by then, and there is nothing to do.
"""

from __future__ import annotations

import signal
import sys

from tests.lab import netns, proc


def main() -> None:
    """Read until the end, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    processes: list[tuple[int, str]] = []
    namespaces: list[str] = []
    for line in sys.stdin:
        match line.split():
            case ["pid", pid, start]:
                processes.append((int(pid), start))
            case ["netns", name]:
                namespaces.append(name)
    for pid, start in processes:
        if proc.started_at(pid) == start:
            proc.kill_tree(pid)
    for name in namespaces:
        netns.delete(name)


if __name__ == "__main__":
    main()
