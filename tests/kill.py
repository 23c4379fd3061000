"""A download goes on whatever dies under it: `python -m tests.kill --runs 100 --kind jump --seed 1`.

A real `gotunnel run -- go mod download` fetches 20 zips of 5 MB over two jump hosts, each 100 ms away; and

    jump     the jump host in use dies again and again at random moments, and comes back after a while
    cut      the mirror cuts the first answers for each file at a random place
    stall    the mirror stops in the middle of the first answer for each file, and says nothing more

(root, Linux, a C compiler).

Rules:
- The jump host in use is the one whose line carried more bytes just before.  It dies by kill -9 of the sshd
  and its sessions, or (--drop, a share of the deaths) by a filter that swallows every packet.
- One jump host is sound at every moment: nobody dies until the other is back.
- A run succeeds if go did, by the first `attempt`, and each zip, .mod, .info and unpacked file is right.
- The last line counts the successes; the exit status is 0 only if all runs succeeded.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab import netns, proc, wanlab
from tests.lab.corpus import Corpus
from tests.lab.faults import Fault
from tests.lab.proc import ROOT
from tests.lab.wan import Line
from tests.lab.wanlab import Hop, WanLab

KINDS = ("jump", "cut", "stall")
QUIET = 4096  # bytes: a sample with fewer brought nothing but keepalives
SAMPLE = 0.05  # seconds


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is like; sizes in bytes, `rate` of a line in Mbit/s, `rtt` in ms, `times` for each file."""

    kind: str = "jump"
    zips: int = 20
    size: int = 5_000_000
    rtt: float = 100.0
    rate: float = 50.0
    kills: int = 10
    drop: float = 0.2
    times: int = 2
    etag: str = "strong"
    timeout: float = 300.0

    def faults(self) -> list[Fault]:
        """What the mirror does."""
        match self.kind:
            case "cut":
                return [Fault("cut", each=self.times, how="close")]
            case "stall":
                return [Fault("stall", r"\.(zip|mod)$", each=1)]
            case _:
                return []


@dataclass(slots=True)
class Outcome:
    """One run; `pause` is the longest time in which the lines brought nothing, in seconds."""

    status: int = 0
    seconds: float = 0.0
    attempts: int = 0
    kills: list[str] = field(default_factory=list)
    pause: float = 0.0
    carried: int = 0
    verified: int = 0
    damage: list[str] = field(default_factory=list)
    events: Counter[str] = field(default_factory=Counter)
    causes: list[str] = field(default_factory=list)
    stderr: str = ""

    @property
    def well(self) -> bool:
        """True for a success."""
        return self.status == 0 and self.attempts == 1 and not self.damage

    def line(self, number: int) -> str:
        """For a person."""
        told = ", ".join(
            f"{self.events[name]} {name}" for name in ("resume", "failover") if self.events[name]
        )
        return (
            f"run {number}: {'ok' if self.well else 'FAILED'} in {self.seconds:.1f} s, status {self.status}, "
            f"{self.attempts} attempt(s), {len(self.kills)} death(s), longest pause {self.pause:.1f} s, "
            f"{self.carried / 1e6:.0f} MB carried, {self.verified / 1e6:.0f} MB verified"
            + (f" ({told})" if told else "")
        )


class Meter:
    """Watches the lines while the run lasts: which hop is in use, how long nothing came."""

    def __init__(self, lab: WanLab) -> None:
        self._lab = lab
        self._start = self._last = lab.carried()
        self._silent_since = time.monotonic()
        self._busy = dict.fromkeys(self._last, 0.0)
        self.pause = 0.0

    def sample(self) -> None:
        """Look once."""
        now, counts = time.monotonic(), self._lab.carried()
        fresh = {number: count - self._last[number] for number, count in counts.items()}
        self._last = counts
        for number, count in fresh.items():  # what counts is the last quarter of a second or so
            self._busy[number] = 0.8 * self._busy[number] + count
        if sum(fresh.values()) > QUIET:
            self._silent_since = now
        self.pause = max(self.pause, now - self._silent_since)

    @property
    def carried(self) -> int:
        """Bytes over all lines."""
        return sum(self._last.values()) - sum(self._start.values())

    def in_use(self) -> int | None:
        """The number of the hop that carries most; None while none carries anything worth the name."""
        number = max(self._busy, key=lambda n: self._busy[n])
        return number if self._busy[number] > QUIET * 4 else None


class Killer:
    """Decides when who dies, and does it; `step` is called with each sample of the meter."""

    def __init__(self, lab: WanLab, plan: Plan, chance: random.Random) -> None:
        self._lab, self._plan, self._chance = lab, plan, chance
        self._left = plan.kills if plan.kind == "jump" else 0
        self._filter: netns.Filter | None = None
        self._dead: Hop | None = None
        self._started = time.monotonic()
        self._due = self._started + chance.uniform(0.2, 3.0)
        self.deaths: list[str] = []

    def step(self, meter: Meter) -> None:
        """Kill or raise, if it is time."""
        if time.monotonic() < self._due:
            return
        if self._dead is not None:
            self.revive()
            self._due = time.monotonic() + self._chance.uniform(0.2, 2.5)
        elif self._left and (number := meter.in_use()) is not None:
            self._left -= 1
            self._kill(next(hop for hop in self._lab.hops if hop.number == number))

    def _kill(self, hop: Hop) -> None:
        self._dead = hop
        how = "drop" if self._chance.random() < self._plan.drop else "kill"
        self.deaths.append(f"{time.monotonic() - self._started:.1f} s: {how} jump{hop.number}")
        if how == "drop":
            self._filter = netns.drop(hop.space, hop.sshd.port)
            self._due = time.monotonic() + self._chance.uniform(3, 10)
        else:
            hop.sshd.kill()
            self._due = time.monotonic() + self._chance.uniform(0.1, 2)

    def revive(self) -> None:
        """Bring back whoever is dead."""
        if self._filter is not None:
            self._filter.remove()
        if self._dead is not None:
            self._dead.sshd.start()
        self._filter = self._dead = None


def one_run(lab: WanLab, plan: Plan, seed: int) -> Outcome:
    """A download from nothing under `plan`."""
    chance = random.Random(seed)
    lab.reset()
    lab.origin.behave(*plan.faults(), etag=plan.etag, seed=seed)
    env, project, outcome = lab.environment(), lab.project(), Outcome()
    events = lab.directory / "events.jsonl"
    events.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "gotunnel", "run", "--events", str(events), *lab.ways(),
            "--", "go", "mod", "download"]  # fmt: skip
    started = time.monotonic()
    process = lab.client.popen(
        argv, env=env | {"PYTHONPATH": str(ROOT)}, cwd=project,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    with reading(process) as told:
        meter, killer = Meter(lab), Killer(lab, plan, chance)
        try:
            while process.poll() is None and time.monotonic() - started < plan.timeout:
                meter.sample()
                killer.step(meter)
                time.sleep(SAMPLE)
        finally:
            if process.poll() is None:
                proc.kill_tree(process.pid)
            outcome.status = process.wait()
            killer.revive()
    outcome.seconds = time.monotonic() - started
    outcome.stderr = "".join(told)
    outcome.kills, outcome.pause, outcome.carried = killer.deaths, meter.pause, meter.carried
    read_events(events, outcome)
    cache = Path(env["GOMODCACHE"])
    outcome.damage = lab.corpus.damage(cache)
    outcome.verified = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    lab.forget(env)
    return outcome


@contextlib.contextmanager
def reading(process: subprocess.Popen[str]) -> Iterator[list[str]]:
    """What a process writes to its standard error, read so that it never has to wait."""
    lines: list[str] = []
    assert process.stderr is not None
    stream = process.stderr
    thread = threading.Thread(target=lambda: lines.extend(stream), daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        thread.join(timeout=10)
        if not thread.is_alive():
            stream.close()


def read_events(path: Path, outcome: Outcome) -> None:
    """Count a run's events."""
    text = path.read_text() if path.exists() else ""
    told: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
    outcome.events = Counter(event["event"] for event in told)
    outcome.attempts = outcome.events["attempt"]
    failed = [event for event in told if event["event"] == "attempt" and event["exit"]]
    outcome.causes = [f"{event['ts']}: {event.get('finding')}: {event.get('detail', '')}" for event in failed]


@contextlib.contextmanager
def lab_for(plan: Plan) -> Iterator[WanLab]:
    """Two jump hosts and the corpus of a plan."""
    line: Line = wanlab.CheapLine(delay=plan.rtt / 2, rate=plan.rate)
    with wanlab.temporary(
        [line, line], lambda d: Corpus(d, count=plan.zips, levels=2, filler=plan.size)
    ) as lab:
        yield lab


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 0 if every run succeeded."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kill", description=(__doc__ or "").partition("\n")[0]
    )
    plan = Plan()
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--kind", choices=KINDS, default=plan.kind)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; each has the next")
    parser.add_argument("--kills", type=int, default=plan.kills, help="in each run; default: %(default)s")
    parser.add_argument("--drop", type=float, default=plan.drop, help="share of deaths without a word")
    parser.add_argument("--zips", type=int, default=plan.zips)
    parser.add_argument("--size", type=int, default=plan.size, metavar="BYTES")
    parser.add_argument("--rtt", type=float, default=plan.rtt, metavar="MS")
    parser.add_argument("--rate", type=float, default=plan.rate, metavar="MBIT", help="of each line")
    parser.add_argument(
        "--times", type=int, default=plan.times, help="cuts of each file; default: %(default)s"
    )
    parser.add_argument("--etag", choices=("strong", "weak", "none"), default=plan.etag)
    parser.add_argument("--timeout", type=float, default=plan.timeout, metavar="S", help="of a run")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="copy events and logs of failed runs there")
    args = parser.parse_args(argv)
    fit, reason = wanlab.able()
    if not fit:
        parser.error(reason)
    plan = Plan(**{name: value for name, value in vars(args).items() if name not in ("runs", "seed", "keep")})
    outcomes = []
    with lab_for(plan) as lab:
        for number in range(args.runs):
            outcome = one_run(lab, plan, args.seed + number)
            outcomes.append(outcome)
            print(outcome.line(args.seed + number), flush=True)
            if not outcome.well:
                print(
                    *("  " + text for text in (*outcome.kills, *outcome.causes, *outcome.damage[:5])),
                    sep="\n",
                )
                keep(lab, args.keep, args.seed + number, outcome)
    return report(outcomes)


def keep(lab: WanLab, directory: Path | None, number: int, outcome: Outcome) -> None:
    """Copy what tells why a run failed: gotunnel's events and standard error, the origin's log."""
    if directory is None:
        return
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"run{number}.stderr").write_text(outcome.stderr)
    (directory / f"run{number}.origin.jsonl").write_text("\n".join(map(json.dumps, lab.origin.requests())))
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(lab.directory / "events.jsonl", directory / f"run{number}.events.jsonl")


def report(outcomes: Sequence[Outcome]) -> int:
    """Print the sums; the exit status."""
    repeats = sum(max(outcome.attempts - 1, 0) for outcome in outcomes)
    successes = sum(outcome.well for outcome in outcomes)
    print(
        f"{successes} of {len(outcomes)} runs succeeded; {repeats} repeat(s) of the command, "
        f"{sum(len(o.kills) for o in outcomes)} death(s), "
        f"{sum(o.events['resume'] for o in outcomes)} resume(s), "
        f"longest pause {max((o.pause for o in outcomes), default=0):.1f} s, "
        f"{sum(o.verified for o in outcomes) / 1e6:.0f} MB verified, "
        f"{sum(len(o.damage) for o in outcomes)} file(s) missing or wrong"
    )
    return 0 if outcomes and successes == len(outcomes) else 1


if __name__ == "__main__":
    raise SystemExit(main())
