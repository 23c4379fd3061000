"""The command line of the bench."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import sys
from pathlib import Path

from tests.bench import plot
from tests.bench.cases import CASES
from tests.bench.rivals import RIVALS, Rivals, default_directory
from tests.bench.table import Case, Result, run, table
from tests.bench.wan import WAN_CASES, Setting
from tests.bench.world import World
from tests.lab import sshd, wanlab
from tests.lab.proc import LabError


def main(argv: list[str] | None = None) -> int:
    """Run the cases named, or all; 1 if something didn't work (an aim that is missed is no failure)."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME",
        help=f"cases on loopback (default: all of them): {', '.join(CASES)}; "
        f"on a WAN line (root; minutes each): {', '.join(WAN_CASES)}",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 7; on a WAN line 1")
    parser.add_argument("--size", type=int, default=1024, metavar="MIB", help="of a transfer; default: 1024")
    parser.add_argument(
        "--in-place", action="store_true", help="measure the working tree as it is, without installing it"
    )
    parser.add_argument("--rtt", type=float, metavar="MS", help="of the WAN line; default: the case's own")
    parser.add_argument("--loss", type=float, metavar="PERCENT", help="each way")
    parser.add_argument("--rate", type=float, metavar="MBIT", help="in Mbit/s")
    parser.add_argument("--only", default="", metavar="TEXT", help="contenders whose name holds this alone")
    parser.add_argument("--timeout", type=float, default=600, metavar="S", help="of one measurement")
    parser.add_argument(
        "--rtts", metavar="MS,…", help="the WAN cases once for each of these round-trip times"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the case (one; needs matplotlib)")
    parser.add_argument(
        "--rivals", type=Path, default=default_directory(), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument(
        "--install", action="store_true",
        help=f"first install the rivals that aren't there: {', '.join(RIVALS)}",
    )  # fmt: skip
    args = parser.parse_args(argv)
    if unknown := [name for name in args.names if name not in {**CASES, **WAN_CASES}]:
        parser.error(f"no such case: {', '.join(unknown)}; cases: {', '.join([*CASES, *WAN_CASES])}")
    if (args.rounds is not None and args.rounds < 1) or args.size < 1:
        parser.error("--rounds and --size: want 1 or more")
    for able, reason in (
        sshd.can_run_sshd(),
        wanlab.able() if set(args.names) & set(WAN_CASES) else (True, ""),
    ):
        if not able:
            parser.error(reason)
    try:
        rtts = [float(word) for word in args.rtts.split(",")] if args.rtts else [args.rtt]
    except ValueError:
        parser.error("--rtts: want numbers with commas between")
    if args.plot:
        if len(args.names) != 1:
            parser.error("--plot draws one case: name it")
        able, reason = plot.able()
        if not able:
            parser.error(reason)
    rivals = Rivals(args.rivals)
    if args.install:
        for failure in rivals.install(list(RIVALS)):
            print(f"bench: {failure}", file=sys.stderr)
    shows = sys.stderr.isatty()

    def progress(text: str) -> None:
        if shows:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    results: list[tuple[float | None, Result]] = []
    try:
        with World(in_place=args.in_place, rivals=rivals) as world:
            for name, rtt in (
                (n, r) for n in args.names or CASES for r in (rtts if n in WAN_CASES else [None])
            ):
                progress(name)
                with contextlib.ExitStack() as stack:
                    if name in WAN_CASES:
                        setting = Setting(rtt, args.loss, args.rate, args.timeout)
                        case, rounds = WAN_CASES[name](stack, world.gotunnel, setting), args.rounds or 1
                    else:
                        case, rounds = CASES[name](world, args.size << 20), args.rounds or 7
                    result = run(narrowed(case, args.only), rounds, progress)
                progress("")
                results.append((rtt if args.rtts else None, result))
                if not args.json:
                    print(table(result), end="\n\n", flush=True)
        if args.plot:
            plot.draw(args.plot, results)
    except LabError as error:
        progress("")
        print(f"bench: {error}", file=sys.stderr)
        return 1
    where = f"{datetime.date.today()}, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    if not args.json:
        print(where)
    if args.json:
        machine = {"cpu": _cpu(), "cores": os.cpu_count(), "python": platform.python_version(),
                   "ssh": ".".join(map(str, sshd.version())), "kernel": platform.release(),
                   "date": datetime.date.today().isoformat(), "load": os.getloadavg()[0]}  # fmt: skip
        print(
            json.dumps({"machine": machine, "results": [result.as_json() for _, result in results]}, indent=1)
        )
    return 0


def narrowed(case: Case, text: str) -> Case:
    """The case with the contenders whose name holds `text` (all where none does), and the aims left."""
    kept = [contender for contender in case.contenders if text in contender.name] or list(case.contenders)
    names = {contender.name for contender in kept} | {""}
    aims = [aim for aim in case.aims if {aim.contender, aim.against} <= names]
    return dataclasses.replace(case, contenders=kept, aims=aims)


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo") as info:
            return next((line.split(":")[1].strip() for line in info if line.startswith("model name")), "")
    except OSError:
        return platform.processor()


if __name__ == "__main__":
    raise SystemExit(main())
