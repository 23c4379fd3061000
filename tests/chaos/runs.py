"""One run: go, with what it left in its module cache, its pauses, and how often it was started."""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.lab import ChaosLab, read_events
from tests.chaos.subject import Subject
from tests.lab import proc

COMMANDS = (("download", 6), ("tidy", 2), ("build", 2))  # with their weights
ARGV = {
    "download": ["go", "mod", "download"],
    "tidy": ["go", "mod", "tidy"],
    "build": ["go", "build", "-o", "app", "."],
}
REPEATS = 3
SAMPLE = 0.05  # seconds


@dataclass(slots=True)
class Outcome:
    """One run; times in seconds, `verified` in bytes, `begun` in the script's time."""

    command: str
    begun: float = 0.0
    seconds: float = 0.0
    status: int = 0
    attempts: int = 0
    pause: float = 0.0
    pause_at: float = 0.0
    verified: int = 0
    damage: list[str] = field(default_factory=list)
    causes: list[str] = field(default_factory=list)
    stderr: str = ""
    log: list[dict[str, object]] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """True for a success, with or without a repeat of the command."""
        return self.status == 0 and not self.damage

    def line(self, number: int) -> str:
        """For a person."""
        return (
            f"run {number} at {self.begun:.1f} s: {self.command} {'ok' if self.well else 'FAILED'} in "
            f"{self.seconds:.1f} s, status {self.status}, {self.attempts} attempt(s), longest pause "
            f"{self.pause:.1f} s, {self.verified / 1e6:.1f} MB verified"
        )


class Pauses:
    """The longest time in which a counter stood still, between its first and its last change."""

    def __init__(self, now: float, count: int) -> None:
        self._count, self._changed, self._any = count, now, False
        self.longest = self.ended = 0.0

    def sample(self, now: float, count: int) -> None:
        """Look once."""
        if count == self._count:
            return
        if self._any and now - self._changed > self.longest:
            self.longest, self.ended = now - self._changed, now
        self._count, self._changed, self._any = count, now, True


def one_run(
    lab: ChaosLab, subject: Subject, chance: random.Random, clock: Callable[[], float], timeout: float
) -> Outcome:
    """A go command from an empty module cache and an empty store; `clock` gives the script's time."""
    command = chance.choices([name for name, _ in COMMANDS], [weight for _, weight in COMMANDS])[0]
    outcome, project = Outcome(command, begun=clock()), lab.project()
    lab.empty_store()
    home = lab.directory / "homes"
    env = lab.environment(home)
    cache = Path(env["GOMODCACHE"])
    events, errors = home / "events.jsonl", home / "stderr.txt"
    events.unlink(missing_ok=True)
    argv = subject.command(ARGV[command], events)
    deadline, started = time.monotonic() + timeout, time.monotonic()
    pauses = Pauses(started, lab.child_bytes())
    with errors.open("wb") as err:
        for number in itertools.count(1):
            process = lab.client.popen(
                argv, env=subject.environment(env), cwd=project,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err,
            )  # fmt: skip
            try:
                while process.poll() is None and time.monotonic() < deadline:
                    pauses.sample(time.monotonic(), lab.child_bytes())
                    time.sleep(SAMPLE)
            finally:
                late = process.poll() is None
                if late:
                    proc.kill_tree(process.pid)
                outcome.status = process.wait()
            outcome.attempts = number
            if subject.repeats_itself or not outcome.status or late or number > REPEATS:
                break
            time.sleep(0.5 * 2**number)  # as gotunnel does
    outcome.seconds = time.monotonic() - started
    outcome.pause, outcome.pause_at = pauses.longest, max(pauses.ended - started, 0.0)
    outcome.stderr = errors.read_text(errors="replace")
    if subject.repeats_itself:
        _read(events, outcome)
    needs_info = command == "download"  # neither of the others asks for it
    outcome.damage = lab.corpus.damage(cache, info=needs_info)
    outcome.verified = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    shutil.rmtree(env["HOME"], ignore_errors=True)
    shutil.rmtree(project, ignore_errors=True)
    return outcome


def _read(events: Path, outcome: Outcome) -> None:
    """What gotunnel told."""
    outcome.log = read_events(events)
    attempts = [event for event in outcome.log if event["event"] == "attempt"]
    outcome.attempts = len(attempts)
    outcome.causes = [f"{e.get('finding')}: {e.get('detail', '')}" for e in attempts if e["exit"]]
