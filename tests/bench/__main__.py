"""The command line of the bench."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys

from tests.bench.cases import CASES
from tests.bench.table import run, table
from tests.bench.world import World
from tests.lab import sshd
from tests.lab.proc import LabError


def main(argv: list[str] | None = None) -> int:
    """Run the cases named, or all; 1 if something didn't work (an aim that is missed is no failure)."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"cases: {', '.join(CASES)}; default: all")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default: 7")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of a transfer; default: 1024")
    parser.add_argument(
        "--in-place", action="store_true", help="measure the working tree as it is, without installing it"
    )
    args = parser.parse_args(argv)
    if unknown := [name for name in args.names if name not in CASES]:
        parser.error(f"no such case: {', '.join(unknown)}; cases: {', '.join(CASES)}")
    if args.rounds < 1 or args.size < 1:
        parser.error("--rounds and --size: want 1 or more")
    able, reason = sshd.can_run_sshd()
    if not able:
        parser.error(reason)
    shows = sys.stderr.isatty()

    def progress(text: str) -> None:
        if shows:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    results = []
    try:
        with World(in_place=args.in_place) as world:
            for name in args.names or CASES:
                progress(name)
                result = run(CASES[name](world, args.size << 20), args.rounds, progress)
                progress("")
                results.append(result)
                if not args.json:
                    print(table(result), end="\n\n", flush=True)
    except LabError as error:
        progress("")
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if args.json:
        machine = {"cpu": _cpu(), "cores": os.cpu_count(), "python": platform.python_version(),
                   "ssh": ".".join(map(str, sshd.version())), "kernel": platform.release()}  # fmt: skip
        print(json.dumps({"machine": machine, "results": [result.as_json() for result in results]}, indent=1))
    return 0


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


if __name__ == "__main__":
    raise SystemExit(main())
