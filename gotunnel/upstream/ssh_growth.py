"""How many links to one jump host?  Pure: what was counted and times in, numbers out.

Rules:
- `connections=N` is the user's word.  Else AUTO, up to LOSSY where loss is the limit: one TCP connection at a
  loss rate p carries about 1.2 segments per round trip over the root of p, whatever the line could (Mathis et
  al., 1997), and each one more carries as much again.  Where a person logs in there is one.
- Loss shows in what the kernel counts for the sockets: data that arrived out of order, since what was lost is
  missing before it, and what we had to send again.  A single burst is a queue that overflowed, or a path that
  changed: loss is seen again and again.
- A queue that is full loses too, and there more links bring nothing: beyond the first step up each one must
  have brought more in all.
- sshd drops connections that haven't logged in yet from the tenth on (MaxStartups 10:30:100): few handshakes
  at once, more as they succeed, half of them after one that failed, and a rest after several.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from gotunnel.dataclass import dataclass

AUTO, MORE, LOSSY = 8, 16, 32  # links: as streams ask; where loss is seen; where they also brought more
STREAMS_PER_LINK = 4  # all have so many: one more link is worth its handshake
LOSSY_STREAMS = 2  # the same, where loss is the limit
GROW_PAUSE = 30.0  # seconds without growing after a server didn't want more links
FIRST_AT_ONCE, MOST_AT_ONCE = 7, 8  # handshakes
_FAILURES = 3  # in a row, then it rests
_WINDOW = 15.0  # seconds that are looked at for loss
_SEGMENTS = 200  # fewer say nothing
_CLEAN = 4 * _SEGMENTS  # so many without: none
_LOOKS = 3  # … with trouble in so many looks
_SHARE = 0.005  # of the segments; a connection whose limit is a loss rate p has a share of about root p
_REMEMBERED = 120.0  # seconds that loss is believed in after it was last seen
_STEADY = 2.0  # seconds over which a rate is taken
_GAIN = 1.25  # times the rate of half as many links: they bring something
_FRESH = 60.0  # seconds that a rate is remembered


@dataclass(frozen=True, slots=True)
class Traffic:
    """TCP segments with data, of one connection or several, as the kernel counts them."""

    arrived: int = 0
    disordered: int = 0  # of those arrived
    sent: int = 0
    resent: int = 0  # of those sent

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.arrived + other.arrived,
            self.disordered + other.disordered,
            self.sent + other.sent,
            self.resent + other.resent,
        )

    def __sub__(self, other: Traffic) -> Traffic:
        return self + Traffic(-other.arrived, -other.disordered, -other.sent, -other.resent)

    @property
    def segments(self) -> int:
        """Of both directions."""
        return self.arrived + self.sent

    @property
    def troubled(self) -> int:
        """How many tell of a loss."""
        return self.disordered + self.resent


@dataclass(frozen=True, slots=True)
class Load:
    """What one link carries: streams in all, and those of them that want to be apart."""

    streams: int
    apart: int


class Growth:
    """One jump host's; times are seconds of one monotonic clock."""

    def __init__(self, asked: int = 0) -> None:
        self._asked = asked
        self._looks: deque[tuple[float, int, Traffic]] = deque()  # time, links, what came since the last
        self._lossy_until = 0.0
        self._clean = False  # enough was seen to say that there is no loss
        self._rates: dict[int, tuple[float, float]] = {}  # by step: best rate, when
        self._at_once = FIRST_AT_ONCE
        self._failures = 0
        self._not_before = 0.0

    # --- what is seen ----------------------------------------------------------------------------

    def one_only(self) -> None:
        """A person had to log in."""
        self._asked = 1

    def looked(self, now: float, links: int, since: Traffic) -> None:
        """Call about twice a second while streams are open, with what all links carried since."""
        self._looks.append((now, links, since))
        while self._looks[0][0] < now - _WINDOW:
            self._looks.popleft()
        whole = sum((traffic for _, _, traffic in self._looks), Traffic())
        often = sum(traffic.troubled > 0 for _, _, traffic in self._looks) >= _LOOKS
        if often and whole.segments >= _SEGMENTS and whole.troubled >= _SHARE * whole.segments:
            self._lossy_until = now + _REMEMBERED
        self._clean = whole.segments >= _CLEAN and not self.lossy(now)
        self._measure(now)

    def told_of_loss(self, now: float) -> None:
        """A hop on the way sees loss, which its streams can't show."""
        self._lossy_until = now + _REMEMBERED

    def _measure(self, now: float) -> None:
        """The best rate, in segments a second, of the last seconds if the number of links was steady."""
        recent = [look for look in self._looks if look[0] >= now - _STEADY]
        steps = {_step(links) for _, links, _ in recent}
        if len(steps) != 1 or now - recent[0][0] < 0.7 * _STEADY:
            return
        rate = sum(traffic.segments for _, _, traffic in recent[1:]) / (now - recent[0][0])
        step = steps.pop()
        best, when = self._rates.get(step, (0.0, 0.0))
        if rate >= best or now - when > _FRESH:
            self._rates[step] = (rate, now)

    def admitted(self) -> None:
        """A handshake succeeded."""
        self._failures = 0
        self._at_once = min(MOST_AT_ONCE, self._at_once + 1)

    def turned_away(self, now: float, *, final: bool = False) -> None:
        """One more link was not to be had; `final` where asking again would be no use."""
        self._failures += 1
        self._at_once = max(1, self._at_once // 2)
        if final or self._failures >= _FAILURES:
            self._not_before = now + GROW_PAUSE

    # --- what follows ----------------------------------------------------------------------------

    def lossy(self, now: float) -> bool:
        """Is loss what limits a connection?"""
        return now < self._lossy_until

    def limit(self, now: float) -> int:
        """The most links that may be open."""
        if self._asked:
            return self._asked
        if not self.lossy(now):
            return AUTO
        return LOSSY if self._gain(now) else MORE

    def _gain(self, now: float) -> bool | None:
        """Did the first step up bring more?  None where that wasn't seen of late."""
        (few, _), (many, when) = (self._rates.get(step, (0.0, 0.0)) for step in (0, 1))
        return many >= _GAIN * few if few and many and now - when <= _FRESH else None

    def wanted(self, now: float, loads: Sequence[Load], apart: int) -> int:
        """How many links there ought to be, where streams want to be spread over `apart`."""
        full = LOSSY_STREAMS if self.lossy(now) else STREAMS_PER_LINK
        busy = all(load.streams >= full for load in loads)
        return min(self.limit(now), max(len(loads) + busy, apart))

    def to_open(self, now: float, loads: Sequence[Load], opening: int, apart: int) -> int:
        """How many handshakes to start now, while `opening` are under way."""
        if now < self._not_before:
            return 0
        room = (self._at_once if apart > 1 else 1) - opening
        return max(0, min(room, self.wanted(now, loads, apart) - len(loads) - opening))

    def to_come(self, now: float, loads: Sequence[Load], opening: int, apart: int) -> int:
        """How many links more there may be soon: for so many streams waiting is worth it.

        Those count as well for which it takes a look at what the others carry.
        """
        if now < self._not_before:
            return opening
        open_question = self._gain(now) is None if self.lossy(now) else not self._clean
        limit = LOSSY if open_question and not self._asked else self.limit(now)
        return max(opening, min(limit, apart) - len(loads))


def _step(links: int) -> int:
    """0: at most AUTO; 1: nearly MORE; 2: nearly LOSSY; below 0: between two."""
    if links <= AUTO:
        return 0
    if links <= MORE:
        return 1 if links >= 0.8 * MORE else -1
    return 2 if links >= 0.8 * LOSSY else -2


def place(loads: Sequence[Load], *, apart: bool) -> int:
    """The index of the link that a stream goes to, of at least one."""
    if apart:
        return min(range(len(loads)), key=lambda index: (loads[index].apart, loads[index].streams))
    return min(range(len(loads)), key=lambda index: loads[index].streams)
