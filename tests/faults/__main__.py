"""`python -m tests.faults [WORD…]`: plays the cases (whose name has a WORD), prints a Markdown table."""

from __future__ import annotations

import sys
import time

from tests.faults import bench, healthy
from tests.faults.matrix import CASES
from tests.faults.world import can_be, temporary


def main(words: list[str]) -> int:
    """0 when all was as it must be."""
    reasons = [reason for able, reason in can_be() if not able]
    if reasons:
        print("; ".join(reasons), file=sys.stderr)
        return 2
    chosen = [case for case in CASES if not words or any(word in case.name for word in words)]
    problems = 0
    print("| fault | what doctor says | what it prints to mend it | done so, go works |")
    print("|---|---|---|---|")
    with temporary() as world:
        for case in chosen:
            begun = time.monotonic()
            outcome = bench.play(world, case)
            problems += bool(outcome.problems)
            mark = "" if case.severity == "error" else " (warning)"
            works = {"command": "yes", "advice": "advice, not done"}.get(outcome.mended, "yes, by hand")
            if "gotunnel run" in (case.hand or "") and "gotunnel run" not in outcome.fix:
                works = "advice, not done; another way out or mirror works"
            works = works if not outcome.problems else "NO"
            fix = outcome.fix.replace("|", "\\|").replace(str(world.directory), "…")
            cells = (case.what, f"`{case.id}`{mark}", f"`{fix}`" if fix else "", works)
            print("| " + " | ".join(cells) + " |", flush=True)
            print(f"{case.name}: doctor {outcome.seconds:.1f} s, all {time.monotonic() - begun:.1f} s",
                  file=sys.stderr)  # fmt: skip
            for problem in outcome.problems:
                print(f"  {problem}", file=sys.stderr)
        if not words:
            for name, make in healthy.NETWORKS.items():
                found = healthy.false_alarms(world, make)
                problems += bool(found)
                print(
                    f"| healthy: {name.replace('|', chr(92) + '|')} | {found or 'no finding'} | | |",
                    flush=True,
                )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
