"""Does to the lab what the script says, in a thread of its own.

Rules:
- One deed after the other, by time: when the machine is late, all is late, and the order stays.
- What was hurt is mended at the end, whatever happens.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Protocol, Self

from tests.chaos.box import Control
from tests.chaos.lab import ChaosLab, Hop
from tests.chaos.script import Trouble
from tests.lab import netns
from tests.lab.faults import Fault
from tests.lab.origin import Origin

NOBODY = "10.77.9.2"  # an address where no sshd and no mirror is
Mend = Callable[[], object]
FAULTS = {
    "cut": Fault("cut"),
    "stall": Fault("stall"),
    "silent": Fault("silent"),
    "status": Fault("status", status=503),
    "page": Fault("page"),
    "flip": Fault("flip"),
    "close": Fault("close"),
    "drip": Fault("drip", rate=3000.0),
}


class Serve(Protocol):
    """The service of the subject."""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""

    def kill(self) -> None:
        """Kill -9 it."""

    def start(self) -> None:
        """Start it (again)."""

    def restart(self) -> None:
        """Stop it in good order and start it."""


class Actor:
    """Acts from `start` to `stop`, or in a `with`."""

    def __init__(
        self, lab: ChaosLab, script: Iterator[Trouble], serve: Serve | None = None, *, log: bool = False
    ) -> None:
        self._lab, self._script, self._serve, self._log = lab, script, serve, log
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._act, daemon=True)
        self._pending: list[tuple[float, int, Trouble, Mend]] = []  # by time
        self._numbers = itertools.count()
        self.done: list[Trouble] = []
        self.error: BaseException | None = None
        self.started = 0.0

    def __enter__(self) -> Self:
        self.started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()
        if self.error is not None and kind is None:
            raise self.error

    @property
    def kinds(self) -> Counter[str]:
        """What was done how often, as `kind victim's group`."""
        return Counter(f"{t.victim.rstrip('0123456789')} {t.kind}" for t in self.done)

    def _act(self) -> None:
        try:
            for trouble in self._script:
                while self._pending and self._pending[0][0] <= trouble.start and self._until_first():
                    heapq.heappop(self._pending)[3]()
                if not self._until(trouble.start):
                    break
                self.done.append(trouble)
                mend = self._hurt(trouble)
                heapq.heappush(self._pending, (trouble.end, next(self._numbers), trouble, mend))
        except BaseException as error:
            self.error = error
        finally:
            for _, _, _, mend in sorted(self._pending, key=lambda item: item[:2]):
                with contextlib.suppress(Exception):
                    mend()

    def _until_first(self) -> bool:
        return self._until(self._pending[0][0])

    def _until(self, when: float) -> bool:
        """Wait for a time of the script; False at the end."""
        return not self._end.wait(max(0.0, self.started + when - time.monotonic()))

    # --- the deeds ------------------------------------------------------------------------------------

    def _hurt(self, trouble: Trouble) -> Mend:
        """Do it; what undoes it."""
        group = trouble.victim.rstrip("0123456789")
        number = trouble.victim.removeprefix(group)
        match group:
            case "hop":
                return self._hurt_hop(self._lab.hops[int(number) - 1], trouble.kind)
            case "mirror":
                return self._hurt_mirror(self._lab.mirrors[int(number) - 1], trouble.kind)
            case "disk":
                return self._fill()
            case _:
                return self._hurt_serve(trouble.kind)

    def _hurt_hop(self, hop: Hop, kind: str) -> Mend:
        def both() -> None:
            hop.sshd.start()
            hop.box.start()

        match kind:
            case "kill":
                hop.box.kill()
                hop.sshd.kill()
                return both
            case "restart":
                hop.sshd.restart()
            case "freeze":
                hop.sshd.freeze()
                return hop.sshd.thaw
            case "drop":
                return netns.drop(hop.space, 22).remove
            case "refuse":
                return netns.reject(hop.space, 22).remove
            case "mute":  # accepts, and closes
                hop.sshd.kill()
                return hop.sshd.start
            case "slow":
                hop.box.set(Control(rate=15_000))
                return lambda: hop.box.set(Control())
            case "corrupt":
                hop.box.set(Control(flip=0.2))
                return lambda: hop.box.set(Control())
            case "rekey":  # new session keys every 64 KB; the host key stays
                usual = dict(hop.sshd.options)
                hop.sshd.set_options(**usual, RekeyLimit="64K")
                return lambda: hop.sshd.set_options(**usual)
            case "lie":
                self._lab.names.lie(hop.name, self._lie(hop.name))
                return lambda: self._lab.names.tell_truth(hop.name)
        return lambda: None

    def _hurt_mirror(self, mirror: Origin, kind: str) -> Mend:
        if kind == "kill":
            mirror.kill()
            return mirror.start
        if kind == "lie":
            self._lab.inner_names.lie(mirror.name, self._lie(mirror.name))
            return lambda: self._lab.inner_names.tell_truth(mirror.name)
        mirror.behave(FAULTS[kind])
        return mirror.behave

    def _lie(self, name: str) -> str:
        """No such name, somebody who isn't it, nobody: in turn."""
        others = (*self._lab.names.names.items(), *self._lab.inner_names.names.items())
        wrong = next(a for n, a in others if n != name and n[:4] == name[:4])
        return ("", wrong, NOBODY)[len(self.done) % 3]

    def _fill(self) -> Mend:
        filler = self._lab.disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        return filler.unlink

    def _hurt_serve(self, kind: str) -> Mend:
        assert self._serve is not None
        match kind:
            case "hup":
                self._serve.signal(signal.SIGHUP)
            case "restart":
                self._serve.restart()
            case "kill":
                self._serve.kill()
                return self._serve.start
        return lambda: None
