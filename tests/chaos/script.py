"""What goes wrong and when (pure): an endless list of troubles that follows from a seed.

Rules:
- A trouble has one victim; from its start to `REST` seconds after its end the victim counts as unsound.
- At least one jump host and one mirror are sound at any moment, and no victim has two troubles at once.
- Starts never decrease.  Times are seconds from the beginning.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

REST = 0.5  # what a server needs until it is well again
HOP_KINDS = ("kill", "restart", "freeze", "drop", "refuse", "mute", "slow", "corrupt", "rekey", "lie")
MIRROR_KINDS = ("kill", "cut", "stall", "silent", "status", "page", "flip", "close", "drip", "lie")
SERVE_KINDS = ("hup", "kill", "restart")
DISK_KINDS = ("full",)
AT_ONCE = ("restart", "hup")  # no sooner done than over


@dataclass(frozen=True, slots=True)
class Trouble:
    """`kind` befalls `victim` (hop1, mirror2, serve, disk) from `start` to `end`."""

    start: float
    end: float
    victim: str
    kind: str

    def __str__(self) -> str:
        return f"{self.start:.1f}-{self.end:.1f} s: {self.kind} {self.victim}"


@dataclass(frozen=True, slots=True)
class World:
    """Who is there to be struck, and how often: `gap` is the mean time between two troubles in seconds."""

    hops: int = 3
    mirrors: int = 2
    serve: bool = False
    gap: float = 1.0

    def group(self, name: str) -> list[str]:
        """The victims of a group: hop, mirror, serve or disk."""
        count = {"hop": self.hops, "mirror": self.mirrors}.get(name)
        return [name] if count is None else [f"{name}{number}" for number in range(1, count + 1)]


def troubles(seed: int, world: World) -> Iterator[Trouble]:
    """The list; the same for the same arguments.  Raises ValueError where nobody would be left."""
    if world.hops < 2 or world.mirrors < 2:
        raise ValueError("want two jump hosts and two mirrors: one has to be sound")
    chance, now = random.Random(seed), 0.0
    groups = {"hop": HOP_KINDS, "mirror": MIRROR_KINDS, "disk": DISK_KINDS}
    weights = {"hop": 12, "mirror": 5, "disk": 1, "serve": 2}
    if world.serve:
        groups["serve"] = SERVE_KINDS
    names = list(groups)
    until: dict[str, float] = {}
    while True:
        now += chance.expovariate(1 / world.gap)
        name = chance.choices(names, [weights[name] for name in names])[0]
        members = world.group(name)
        victim, kind = chance.choice(members), chance.choice(groups[name])
        longest = 2.0 if victim == "serve" else 12.0  # what systemd needs to start it again
        lasts = 0.0 if kind in AT_ONCE else min(chance.lognormvariate(0.7, 0.8), longest)
        unsound = sum(until.get(member, 0.0) > now for member in members)
        if until.get(victim, 0.0) > now or (len(members) > 1 and unsound + 1 >= len(members)):
            continue
        until[victim] = now + lasts + REST
        yield Trouble(now, now + lasts, victim, kind)


def sound(found: Iterable[Trouble], group: list[str], when: float) -> list[str]:
    """The members of a group whom nothing ails at a moment."""
    ill = {trouble.victim for trouble in found if trouble.start <= when < trouble.end + REST}
    return [member for member in group if member not in ill]
