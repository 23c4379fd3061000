"""`python -m tests.faults [WORD…]`: plays the cases (whose name has a WORD), prints the README's table.

What each took, and what went wrong, goes to standard error; without a WORD the healthy networks come last.
"""

from __future__ import annotations

import sys
import time

from tests.faults import bench, healthy, table
from tests.faults.matrix import CASES
from tests.faults.world import can_be, temporary


def main(words: list[str]) -> int:
    """0 when all was as it must be."""
    reasons = [reason for able, reason in can_be() if not able]
    if reasons:
        print("; ".join(reasons), file=sys.stderr)
        return 2
    chosen = [case for case in CASES if not words or any(word in case.name for word in words)]
    failed = set()
    with temporary() as world:
        for case in chosen:
            begun = time.monotonic()
            outcome = bench.play(world, case)
            took = f"doctor {outcome.seconds:.1f} s, all {time.monotonic() - begun:.1f} s"
            fix = outcome.fix.replace(str(world.directory), "…")
            print(f"{case.name}: {took}: {fix} [{case.mended}]", file=sys.stderr)
            for problem in outcome.problems:
                failed.add(case.name)
                print(f"  {problem}", file=sys.stderr)
        alarms = [] if words else [healthy.false_alarms(world, make) for make in healthy.NETWORKS.values()]
    print(table.markdown(chosen, failed), end="")
    for name, alarm in zip(healthy.NETWORKS, alarms, strict=False):
        print(f"healthy: {name}: {alarm or 'no finding'}", file=sys.stderr)
    return 1 if failed or any(alarms) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
