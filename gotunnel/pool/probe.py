"""Active health checks: one small HTTP exchange through the data path of each way out.

Rules:
- A TCP connect proves nothing: an sshd may accept channels and carry no byte.  So a probe is a request, and
  any byte that the target answers is health, whatever its status or certificate says.
- Probed is who needs it: a way out whose breaker is open and has rested, and one that has carried nothing for
  a whole interval.  One that works for the user right now needs no probe: one whose streams bring bytes, for
  that its dials succeed proves nothing either.
- Every way out down at once may be the doing of the one who was asked: then the next of `targets` is.
- A probe's verdict goes where a dial's goes: `Pool.report`.  One that only took too long is no verdict while
  other streams bring bytes the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from gotunnel.address import HostPort
from gotunnel.dataclass import dataclass
from gotunnel.errors import Blame, DialError, StreamLost
from gotunnel.pool.breaker import State
from gotunnel.pool.pool import Pool, Upstream
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import Stream

TICK = 1.0  # seconds between two looks at who needs a probe


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Where a probe goes."""

    address: HostPort
    tls: bool
    path: str

    @classmethod
    def parse(cls, url: str) -> ProbeTarget:
        """From an http or https URL.  Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r}: want an http or https URL")
        try:
            parts.hostname.encode("idna")
        except UnicodeError:
            raise ValueError(f"{url!r}: {parts.hostname!r} is no host name") from None
        tls = parts.scheme == "https"
        where = parts.netloc.rpartition("@")[2]
        return cls(HostPort.parse(where, 443 if tls else 80), tls, parts.path or "/")


class Prober:
    """Probes the ways out of a pool; `every` and `timeout` in seconds."""

    def __init__(
        self,
        pool: Pool,
        targets: Sequence[ProbeTarget],
        *,
        every: float,
        timeout: float,
        at_once: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`targets`: the first is asked, the others in its place.

        `at_once`: who was never tried is not left unknown for the first `every` seconds.
        """
        self._pool = pool
        self._targets = deque(targets)
        self._every = every
        self._timeout = timeout
        self._clock = clock
        self._asked: dict[str, float] = {"": -math.inf} if at_once else {}

    async def run(self) -> None:
        """For ever; one that takes long doesn't hold up the others' probes."""
        tasks, running = Tasks("probe"), set[str]()
        try:
            while True:
                await asyncio.sleep(min(TICK, self._every))
                for upstream in self.due():
                    if upstream.name not in running:
                        running.add(upstream.name)
                        probing = tasks.spawn(upstream.name, self.once(upstream))
                        probing.add_done_callback(functools.partial(_forget, running, upstream.name))
        finally:
            await tasks.close()

    def due(self) -> list[Upstream]:
        """Who needs a probe now."""
        now = self._clock()
        due = []
        for upstream in self._pool.upstreams:
            upstream.look(now)
            last = max(self._asked.get(upstream.name, self._started(now)), upstream.carried_at)
            resting = upstream.breaker.state is not State.CLOSED
            if upstream.breaker.usable(now) and (resting or now - last >= self._every):
                due.append(upstream)
        return due

    def _started(self, now: float) -> float:
        return self._asked.setdefault("", now)

    async def once(self, upstream: Upstream) -> bool:
        """Probe one way out; True if it carried something."""
        target = self._targets[0]
        worked = await self._ask(upstream, target)
        if not worked and self._pool.all_down and target is self._targets[0]:
            self._targets.rotate(-1)
        return worked

    async def _ask(self, upstream: Upstream, target: ProbeTarget) -> bool:
        started = self._asked[upstream.name] = self._clock()
        upstream.look(started)
        try:
            stream = await self._pool.try_one(upstream, target.address)
        except DialError:
            return False  # the pool has heard of it
        try:
            async with asyncio.timeout(self._timeout):
                await _any_answer(stream, target)
        except (TimeoutError, StreamLost) as error:
            upstream.look(self._clock())
            if isinstance(error, TimeoutError) and upstream.carried_at > started:
                upstream.breaker.no_verdict()  # others' bytes came meanwhile: slow on a bad line, not dead
                return False
            words = "carries nothing" if isinstance(error, TimeoutError) else str(error)
            finding = "hop.stalled" if isinstance(error, TimeoutError) else "hop.closed"
            detail = f"{upstream.name}: a probe of {target.address}: {words}"
            self._pool.report(upstream, DialError(finding, detail, blame=Blame.HOP, hop=upstream.name))
            return False
        except BaseException:
            upstream.breaker.no_verdict()
            raise
        finally:
            stream.abort()
        self._pool.settle(upstream)
        return True


def _forget(running: set[str], name: str, task: asyncio.Task[bool]) -> None:
    running.discard(name)


async def _any_answer(stream: Stream, target: ProbeTarget) -> None:
    """Until the target has said anything at all."""
    if target.tls:
        stream.write(client_hello(target.address.host))
    else:
        stream.write(
            f"HEAD {target.path} HTTP/1.1\r\nHost: {target.address}\r\nConnection: close\r\n\r\n".encode()
        )
    if not await stream.read(1):
        raise StreamLost("closed without an answer")


def client_hello(host: str) -> bytes:
    """A real one, by the ssl module: the first flight of a handshake that goes no further."""
    import ssl

    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    session = context.wrap_bio(incoming, outgoing, server_hostname=host)
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()
