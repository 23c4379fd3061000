"""`go mod download` of the first argument, then, timed, of the others at once; tells {"seconds": N}."""

from __future__ import annotations

import json
import subprocess
import sys
import time


def main() -> int:
    """Run it; 1 with go's own words where it fails."""
    first, *rest = sys.argv[1:]
    taken = 0.0
    for modules in ([first], rest):
        started = time.perf_counter()
        done = subprocess.run(
            ["go", "mod", "download", *modules], capture_output=True, text=True, check=False
        )
        taken = time.perf_counter() - started
        if done.returncode:
            sys.stderr.write(done.stderr)
            return 1
    print(json.dumps({"seconds": round(taken, 3)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
