"""The command line of the chaos: see the package's docstring."""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tests.chaos
from tests.chaos import lab as chaos_lab
from tests.chaos.actor import Actor
from tests.chaos.lab import ChaosLab
from tests.chaos.report import HEAD, Sums, sums
from tests.chaos.runs import Outcome, one_run
from tests.chaos.script import World, troubles
from tests.chaos.subject import SUBJECTS, ServeSubject, Subject

TIMEOUT = 180.0  # seconds for a run


def drive(
    lab: ChaosLab,
    kind: type[Subject],
    *,
    seed: int,
    seconds: float,
    runs: int = 0,
    gap: float = 1.0,
    timeout: float = TIMEOUT,
    keep: Path | None = None,
    quiet: bool = False,
) -> tuple[Sums, list[Outcome]]:
    """Runs of one subject under the script of a seed, for `seconds` or until there were `runs` (0: any)."""
    subject = kind(lab, lab.directory / f"{kind.name}.log")
    serve = subject if isinstance(subject, ServeSubject) else None
    outcomes: list[Outcome] = []
    figures: list[tuple[int, float]] = []
    pids: set[int] = set()
    chance = random.Random(seed)
    world = World(hops=len(lab.hops), mirrors=len(lab.mirrors), serve=serve is not None, gap=gap)
    subject.start()
    try:
        if serve is not None and (seen := subject.figures()):
            figures.append(seen)
        with Actor(lab, troubles(seed, world), serve) as actor:
            deadline = time.monotonic() + seconds

            def clock() -> float:
                return time.monotonic() - actor.started

            for number in itertools.count(1):
                if time.monotonic() >= deadline or (runs and number > runs) or actor.error:
                    break
                outcome = one_run(lab, subject, chance, clock, timeout)
                outcomes.append(outcome)
                if subject.process is not None:
                    pids.add(subject.process.pid)
                    if serve is not None and (seen := subject.figures()):
                        figures.append(seen)
                if not quiet:
                    tell(number, outcome, actor, keep)
    finally:
        subject.stop()
        if keep is not None and subject.log.exists():
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(subject.log, keep)
    return sums(kind.name, outcomes, figures, actor.kinds, len(pids)), outcomes


def tell(number: int, outcome: Outcome, actor: Actor, keep: Path | None) -> None:
    """Say how a run went; of one that wasn't smooth, what befell whom meanwhile."""
    print(outcome.line(number), flush=True)
    if outcome.well and outcome.attempts == 1 and outcome.pause < 15:
        return
    until = outcome.begun + outcome.seconds
    ills = [t for t in list(actor.done) if t.start < until and t.end > outcome.begun - 5]
    print(*(f"    {text}" for text in (*ills, *outcome.causes, *outcome.damage[:3])), sep="\n", flush=True)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / f"run{number}.stderr").write_text(outcome.stderr)
        (keep / f"run{number}.events").write_text("".join(json.dumps(event) + "\n" for event in outcome.log))
        (keep / f"run{number}.troubles").write_text("".join(f"{trouble}\n" for trouble in ills))


def main(argv: Sequence[str] | None = None) -> int:
    """0 if every run of gotunnel succeeded (with --rival: of the rival)."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=(tests.chaos.__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="for each subject; default: %(default)s")
    parser.add_argument("--runs", type=int, default=0, help="stop after so many (0: when the time is over)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--gap", type=float, default=1.0, help="mean seconds between two troubles")
    parser.add_argument("--serve", action="store_true", help="the runs use a `gotunnel serve`, struck too")
    parser.add_argument("--rival", choices=[name for name in SUBJECTS if name not in ("run", "serve")])
    parser.add_argument("--table", action="store_true", help="all that are installed, one after the other")
    parser.add_argument("--hops", type=int, default=3, choices=(2, 3))
    parser.add_argument("--modules", type=int, default=40)
    parser.add_argument("--timeout", type=float, default=TIMEOUT, metavar="S", help="for a run")
    parser.add_argument("--json", action="store_true", help="the sums as one JSON object a line")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="logs of runs that weren't smooth")
    args = parser.parse_args(argv)
    able, reason = chaos_lab.able()
    if not able:
        parser.error(reason)
    names = list(SUBJECTS) if args.table else [args.rival or ("serve" if args.serve else "run")]
    absent = {name: SUBJECTS[name].available()[1] for name in names if not SUBJECTS[name].available()[0]}
    if absent and not args.table:
        parser.error("; ".join(absent.values()))
    found = []
    with chaos_lab.temporary(hops=args.hops, modules=args.modules) as lab:
        for name in names:
            if name in absent:
                continue
            found.append(drive(
                lab, SUBJECTS[name], seed=args.seed, seconds=args.minutes * 60, runs=args.runs, gap=args.gap,
                timeout=args.timeout, keep=args.keep and args.keep / name, quiet=args.json,
            )[0])  # fmt: skip
            print(json.dumps(found[-1].as_dict()) if args.json else "\n".join(found[-1].lines()), flush=True)
    if args.table:
        print(HEAD, *(each.row() for each in found), *absent.values(), sep="\n")
    ours = [each for each in found if args.rival or each.subject in ("run", "serve")]
    return 0 if ours and all(each.well for each in ours) else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the lab is to be cleared away
    raise SystemExit(main())
