"""A large body in ranges over several connections and all ways out at once; `stripes` decides who takes what.

Rules:
- The first answer streams on from the front while others take ranges from behind, under its strong ETag.
- A few connections for each way out to begin with; twice as many once the total rate rises no more by itself,
  and again as long as that raised it, MOST in all.  Each has a place of its own at the gate, and gives it up
  when somebody waits there.
- A source that refuses further connections gets no more than it took.
- A connection that fails gives its piece back; its way out is taken again after FORGIVEN, or where no other
  is left.  A way out by which nothing comes gets one more connection: when another dies it is there.
- Whatever is odd about a range (another ETag, total or place) ends it all: nothing of it can be joined.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter

from gotunnel.dataclass import dataclass
from gotunnel.errors import DialError
from gotunnel.modproxy.client import LINKS, Connections, Exchange, Gate, Url
from gotunnel.modproxy.exchange import Sink
from gotunnel.modproxy.failed import AGAIN, Failed, Patience
from gotunnel.modproxy.part import Part, Timing
from gotunnel.modproxy.spool import Spool
from gotunnel.modproxy.stripes import LEAST, Board, worth
from gotunnel.observe.events import Emit, Resume
from gotunnel.tasks import Backoff, Tasks
from gotunnel.upstream.dialer import APART

FEW = 4  # connections for each way out at the start
MOST = 32
PERIOD = 0.5  # seconds between two looks at the total rate
LARGE = 16 * 1024 * 1024  # bytes from which on it begins with four times as many
RISE = 1.25  # of the rate, over the best before: a connection still gets faster, or adding some was worth it
FORGIVEN = 3.0  # seconds after its last failure
THIN = 128 * 1024  # bytes a second of one connection: loss, or a long line's slow start; more are worth a try
FIRST = (128 * 1024, 2 * 1024 * 1024)  # bytes of a connection's first piece; of a large body
SECONDS = 1.0  # of a connection's rate that a piece is worth
ROUNDS = 10  # … or of as many round trips, since in one nothing comes
GROWS = 4  # times the rate so far


@dataclass(slots=True)
class Worker:
    """One connection's worth of work."""

    number: int
    way: str
    exchange: Exchange | None = None
    since: float = 0.0  # when its piece was asked for
    got: int = 0  # bytes of its piece
    rate: float = 0.0  # bytes a second of the last piece, 0: unknown
    latency: float = 0.0  # seconds from asking to the head


class Striped:
    """`run` fetches what `exchange` has begun; `board.prefix` tells how far it came if that failed."""

    def __init__(
        self,
        connections: Connections,
        gate: Gate,
        spool: Spool,
        timing: Timing,
        emit: Emit,
        subject: tuple[str, str],
        part: Part,
        url: Url,
        start: int,
        failed: frozenset[str] = frozenset(),
    ) -> None:
        assert part.total is not None
        self._connections, self._gate, self._spool = connections, gate, spool
        self._timing, self._emit, self._subject = timing, emit, subject
        self._part, self._url = part, url
        self.board = Board(start, part.total)
        self.failed = dict.fromkeys(failed, self._now() + FORGIVEN)  # ways out, until when
        self.resumed = 0
        self.via = ""  # who brought the last bytes
        self._workers: dict[int, Worker] = {}
        self._numbers = itertools.count(1)
        self._tasks = Tasks("stripes")
        self._changed = asyncio.Event()
        self._fatal: Failed | None = None
        self._last_failure: Failed | None = None
        self._patience = Patience(self._now())
        self._backoff = Backoff(0.1, 2.0)
        self._rest_until = 0.0  # no connection is added before, since every way out has failed
        self._want = 0
        self._spread = 0  # over so many connections to jump hosts; for more one waits until loss is seen
        self._large = False
        self._growing = True
        self._added = False  # connections, at the last look
        self._rate = 0.0  # at the last look
        self._best = 0.0
        self._settling = False

    async def run(self, exchange: Exchange) -> None:
        """Until every byte is there.  Raises Failed."""
        loop = asyncio.get_running_loop()
        leader = Worker(0, exchange.via, exchange, since=loop.time())
        self._workers[0] = leader
        self.board.lead(0)
        self._large = self.board.left >= LARGE
        few = 4 * FEW if self._large else FEW
        self._want = min(few * len(self._ways()), 1 + self.board.left // (2 * LEAST), MOST)
        self._spread = min(self._want, LINKS * len(self._ways()))
        self._tasks.spawn("lead", self._lead(leader))
        looked, before = loop.time(), self.board.left
        try:
            while self.board.left:
                if self._fatal is not None:
                    raise self._fatal
                if not self._workers and self._last_failure is not None:
                    failure, self._last_failure = self._last_failure, None
                    down = self._connections.down(self._url, failure.upstream)
                    if not self._patience.goes_on(loop.time(), failure, down=down, worked=True):
                        raise failure
                    await asyncio.sleep(self._rest_until - loop.time())
                self._staff()
                self._changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.01, looked + PERIOD - loop.time())):
                        await self._changed.wait()
                if loop.time() - looked >= PERIOD:
                    self._look((before - self.board.left) / (loop.time() - looked))
                    looked, before = loop.time(), self.board.left
        finally:
            await self._tasks.close()

    # --- how many ----------------------------------------------------------------------------

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _ways(self) -> list[str]:
        """The ways out to use: those that haven't failed of late, else all."""
        for way in [way for way, until in self.failed.items() if until <= self._now()]:
            del self.failed[way]
        ways = self._connections.ways.ways(self._url.target)
        return [way for way in ways if way not in self.failed] or list(ways) or [""]

    def _look(self, rate: float) -> None:
        """More connections where those there are bring no more by themselves, as long as more bring more."""
        smooth, self._rate = (rate + self._rate) / 2, rate
        if self._settling:  # what was added last has hardly begun
            self._settling = False
            return
        rose = smooth > self._best * RISE
        self._best = max(self._best, smooth)
        thin = not self._added and rate < THIN * self._want
        if self._growing and (rose is self._added or thin):
            self._want, self._added, self._settling = min(MOST, 2 * self._want), True, True
            self._spread = self._want
        elif self._added:
            self._growing = self._added = False  # the last ones were not worth it

    def _staff(self) -> None:
        """Start workers up to the number wanted, as far as the gate has places."""
        if self._workers and self._now() < self._rest_until:
            return
        ways = self._ways()
        most = min(self._want, 1 + self.board.left // LEAST)
        if self.failed.keys() >= set(ways):
            most = 1  # it tries for all: many dials would only lengthen the way's rest
        elif self.board.left > LEAST and set(ways) - {worker.way for worker in self._workers.values()}:
            most = max(most, len(self._workers) + 1)
        while len(self._workers) < most:
            borrowed = (
                self._gate.borrow() if self._workers else None
            )  # the transfer's own place has room for one
            if borrowed is False:
                return
            load = Counter(worker.way for worker in self._workers.values())
            worker = Worker(next(self._numbers), min(ways, key=lambda way: load[way]))
            self._workers[worker.number] = worker
            self._tasks.spawn(f"range {worker.number}", self._work(worker, borrowed is True))

    # --- the work ----------------------------------------------------------------------------

    async def _lead(self, worker: Worker) -> None:
        assert worker.exchange is not None
        try:
            await worker.exchange.body(self._sink(worker), self._timing.stall)
            if self.board.holds(0):  # it ended before its end
                raise Failed(
                    "http.truncated", f"{worker.exchange.connection}: too short", again=True, odd=True
                )
        except Failed as error:
            if self.board.holds(0):
                self._failed(worker, error)
        finally:
            self._leave(worker)

    async def _work(self, worker: Worker, borrowed: bool) -> None:
        APART.set(-(-self._spread // len(self._ways())))  # seen by this task only
        try:
            while self.board.left and not (borrowed and self._gate.crowded):
                size = self._size(worker)
                piece = self.board.take(worker.number, size, lambda h, left: self._slow(worker, h, left))
                if piece is None:
                    await asyncio.sleep(0.05)
                    continue
                try:
                    await self._range(worker, piece.reached, piece.end)
                except Failed as error:
                    if self.board.holds(worker.number):
                        self._failed(worker, error)
                        return
                    # else another was faster, and we were told to stop
        finally:
            self._leave(worker)
            if borrowed:
                self._gate.give_back()

    def _size(self, worker: Worker) -> int:
        """Of its next piece: a connection that is young gets faster than it was."""
        left = self.board.left
        if not worker.rate:
            return worth(FIRST[self._large], left, self._want)
        rate = worker.rate * (GROWS if self._large else 1)
        return worth(int(rate * max(SECONDS, ROUNDS * worker.latency)), left, self._want)

    async def _range(self, worker: Worker, start: int, end: int) -> None:
        """Fetch [start, end).  Raises Failed."""
        clock = asyncio.get_running_loop().time
        worker.since, worker.got = clock(), 0
        exchange = await self._connections.get(
            self._url,
            self._part.header(start, end),
            first_byte=self._timing.going_on,
            stall=self._timing.stall,
            only=worker.way,
        )
        try:
            worker.latency = clock() - worker.since
            if not self.board.holds(worker.number):
                return
            worker.way = exchange.via  # where any was taken
            status = exchange.head.status
            if status != 206:
                words = f"{exchange.connection}: answered {status} to a range"
                raise Failed(
                    "http.server-error", words, again=True, upstream=exchange.via,
                    odd=status not in AGAIN, answered=status,
                )  # fmt: skip
            self._part.check(exchange, start, end)
            worker.exchange = exchange
            await exchange.body(self._sink(worker), self._timing.stall)
            if self.board.holds(worker.number):
                raise Failed("http.truncated", f"{exchange.connection}: too short", again=True, odd=True)
            worker.rate = worker.got / max(clock() - worker.since, 1e-3)
        finally:
            worker.exchange = None
            exchange.drop()

    def _sink(self, worker: Worker) -> Sink:
        def sink(data: bytes) -> bool:
            worker.got += len(data)
            step = self.board.advance(worker.number, len(data))
            if step.size:
                self._patience.progress(self._now(), step.size)
                self._backoff.reset()
                self.failed.pop(worker.way, None)
                self._spool.write(data if step.size == len(data) else data[: step.size], step.place)
                self.via = worker.way
            for number in step.losers:
                loser = self._workers.get(number)
                if loser is not None and loser.exchange is not None:
                    loser.exchange.drop()
            if not self.board.left:
                self._changed.set()
            return step.done

        return sink

    def _slow(self, asking: Worker, holder: int, left: int) -> bool:
        """Would `asking` bring what `holder` lacks in clearly less time?"""
        other = self._workers.get(holder)
        if other is None:
            return False
        taken = self._now() - other.since
        mine = asking.latency + left / (asking.rate or LEAST)
        theirs = left * taken / other.got if other.got else max(taken, 1.0)
        # a connection that is cut off, or two that bring the same, cost some round trips, and a full line's
        # bytes: no use for a piece that comes no later than all the rest does
        rest = self.board.left / self._rate if self._rate else 0.0
        soon = max(1.5 * mine, rest) + 0.05 + 2 * asking.latency
        return taken > max(0.2, 3 * asking.latency) and theirs > soon

    # --- ends --------------------------------------------------------------------------------

    def _failed(self, worker: Worker, error: Failed) -> None:
        self.board.give_back(worker.number)
        if error.odd or error.http_status == 500:  # inconsistent, or our own disk
            self._fatal = self._fatal or error
            return
        self._last_failure = error
        beside = any(w.way == worker.way and w.got for w in self._workers.values() if w is not worker)
        if error.answered or (beside and not worker.got):
            self._growing, self._want = False, max(1, len(self._workers) - 1)
        if worker.way and (
            not beside or isinstance(error.__cause__, DialError)
        ):  # one connection's end is no verdict on a way that carries others
            self.failed[worker.way] = self._now() + FORGIVEN
            if error.stalled:
                self._connections.ways.stalled(self._url.target, worker.way)
                self._connections.drop_kept(self._url.target, worker.way)
        if self.failed.keys() >= set(self._connections.ways.ways(self._url.target)):
            self._rest_until = self._now() + self._backoff.delay()
        if worker.got:
            to = next((way for way in self._ways() if way != worker.way), worker.way)
            self._emit(Resume(*self._subject, self.board.prefix, worker.way, to, error.finding))
            self.resumed += 1

    def _leave(self, worker: Worker) -> None:
        self.board.give_back(worker.number)
        self._workers.pop(worker.number, None)
        self._changed.set()
