"""The sums of many runs, as lines, as JSON and as a row of the table (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tests.chaos.runs import Outcome

HEAD = (
    "| subject | runs | without a repeat | in all | median | longest run | longest pause | MB verified |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- |"
)


@dataclass(frozen=True, slots=True)
class Sums:
    """Of a subject; times in seconds, memory in megabytes; descriptors and memory at start, most, end."""

    subject: str
    runs: int
    first: int
    successes: int
    median: float
    longest: float
    pause: float
    verified: int
    damaged: int
    descriptors: tuple[int, ...] = ()
    memory: tuple[float, ...] = ()
    lives: int = 0
    troubles: dict[str, int] | None = None

    @property
    def well(self) -> bool:
        """Whether every run succeeded, and there was one."""
        return 0 < self.runs == self.successes

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        found = [
            f"{self.subject}: {self.runs} runs, {self.first} successes without a repeat of the command, "
            f"{self.successes} successes in all; median {self.median:.1f} s, longest {self.longest:.1f} s, "
            f"longest pause {self.pause:.1f} s (loopback of the client); "
            f"{self.verified / 1e6:.0f} MB verified, {self.damaged} file(s) missing or wrong"
        ]
        if self.descriptors:
            fds = " / ".join(str(count) for count in self.descriptors)
            memory = " / ".join(f"{size:.0f}" for size in self.memory)
            found.append(
                f"{self.subject} at start / most / end: {fds} descriptors, {memory} MB; {self.lives} lives"
            )
        if self.troubles:
            told = ", ".join(f"{kind} {count}" for kind, count in sorted(self.troubles.items()))
            found.append(f"{sum(self.troubles.values())} troubles: {told}")
        return found

    def row(self) -> str:
        """For the table."""
        return (
            f"| {self.subject} | {self.runs} | {self.first} | {self.successes} | {self.median:.1f} s "
            f"| {self.longest:.1f} s | {self.pause:.1f} s | {self.verified / 1e6:.0f} |"
        )


def sums(
    subject: str,
    outcomes: Sequence[Outcome],
    figures: Sequence[tuple[int, float]] = (),
    kinds: Counter[str] | None = None,
    lives: int = 0,
) -> Sums:
    """Add up; `figures` are (descriptors, megabytes) in the order of time."""
    seconds = sorted(outcome.seconds for outcome in outcomes)
    files, memory = [f for f, _ in figures], [m for _, m in figures]
    return Sums(
        subject=subject,
        runs=len(outcomes),
        first=sum(outcome.well and outcome.attempts == 1 for outcome in outcomes),
        successes=sum(outcome.well for outcome in outcomes),
        median=seconds[len(seconds) // 2] if seconds else 0.0,
        longest=max(seconds, default=0.0),
        pause=max((outcome.pause for outcome in outcomes), default=0.0),
        verified=sum(outcome.verified for outcome in outcomes),
        damaged=sum(len(outcome.damage) for outcome in outcomes),
        descriptors=(files[0], max(files), files[-1]) if files else (),
        memory=(memory[0], max(memory), memory[-1]) if memory else (),
        lives=lives,
        troubles=dict(kinds) if kinds else None,
    )
