"""An SSH jump host: a few connections (links), kept, with many channels each.

Rules:
- Connecting is single-flight: who needs a link while the first is opened waits for the same handshake, and
  hears the same error.  A handshake is never cancelled by a waiter that gives up: sshd penalises abandoned
  ones (sshd_config(5) PerSourcePenalties).
- A refused key, an unknown or changed host key is final for some time (`retry_after`): asked again sooner,
  the same error is given without touching the network.
- Nobody is asked in the background (`ssh_prompts`).  Where a password or a second factor was typed there is
  one link, and when it is lost the way out is: no other login is even tried.
- One link at rest.  One more, in the background, when each has its share of streams; several at once for
  streams that want to be apart (`APART`), since one TCP connection's window is shared by all its streams.
  `ssh_growth` says how many.  Those that idle are closed.
- A stream that wants to be apart waits a while for a link that is being opened, rather than share another's
  window for its whole life; where none comes it shares.
- A link through another jump host gets a link of its own there as well.
- One link's end is the hop's end only if no other is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable

from gotunnel.address import HostPort, one_line
from gotunnel.errors import Blame, DialError
from gotunnel.tasks import Tasks
from gotunnel.upstream.asking import NOBODY, Asking
from gotunnel.upstream.dialer import APART, Dialer, Stream
from gotunnel.upstream.ssh_growth import Growth, Load, Traffic, place
from gotunnel.upstream.ssh_link import CHANNEL_TIMEOUT, SshLink, was_cancelled
from gotunnel.upstream.ssh_login import HANDSHAKE_TIMEOUT, REFUSED_WAIT, log_in
from gotunnel.upstream.ssh_plan import SshPlan
from gotunnel.upstream.ssh_prompts import Prompts

IDLE_LINK = 60.0  # seconds without a stream after which a second link is closed
APART_WAIT = 8.0  # seconds at most that a stream waits for a link of its own; a pool gives a dial 11
_LOOK, _LOOK_IDLE = 0.5, 5.0  # seconds between two looks at the links

_log = logging.getLogger("gotunnel.ssh")


class SshDialer:
    """Dials through one jump host, which is itself reached by `before`.

    `asking` is who may be asked; `on_lost` is called when the last link breaks.
    """

    def __init__(
        self,
        before: Dialer,
        plan: SshPlan,
        *,
        label: str,
        asking: Asking = NOBODY,
        on_lost: Callable[[DialError], None] | None = None,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        channel_timeout: float = CHANNEL_TIMEOUT,
    ) -> None:
        self._before = before
        self._plan = plan
        self._label = label
        self._prompts = Prompts(plan, asking)
        self._typed = False  # a person typed what is not kept
        self._on_lost = on_lost
        self._handshake_timeout = handshake_timeout
        self._channel_timeout = channel_timeout
        self._links: list[SshLink] = []
        self._growth = Growth(plan.connections)
        self._opening: asyncio.Task[SshLink] | None = None  # while there is no link
        self._more: set[asyncio.Task[SshLink]] = set()  # others beside those there are
        self._waiters: deque[asyncio.Future[None]] = deque()  # streams that wait for a link of their own
        self._apart = 1  # how many links they want
        self._looking: asyncio.Task[None] | None = None
        self._refused: tuple[float, DialError] | None = None
        self._tasks = Tasks(label)
        self._closed = False

    @property
    def label(self) -> str:
        return self._label

    @property
    def links(self) -> int:
        """Connections that are open."""
        return len(self._links)

    @property
    def lossy(self) -> bool:
        """Is loss what limits a connection to this host, or to one on the way?"""
        return self._growth.lossy(self._now())

    async def warm(self) -> None:
        await self._link()

    async def close(self) -> None:
        self._closed = True
        self._wake_all()
        await self._tasks.close()
        links, self._links = self._links, []
        await asyncio.gather(*(link.close() for link in links))

    async def dial(self, target: HostPort) -> Stream:
        fresh = not self._links
        apart = APART.get()
        link = await (self._apart_link(apart) if apart > 1 else self._link())
        self._tend(apart)
        try:
            return await link.open(target)
        except DialError as error:
            if fresh or error.finding != "hop.closed" or self._closed:
                raise
        # the kept link turned out to be dead: that is no verdict on the hop yet
        if link in self._links:
            self._links.remove(link)
        return await (await self._link()).open(target)

    # --- links -------------------------------------------------------------------------------

    async def _link(self, *, apart: bool = False) -> SshLink:
        """The link that suits one more stream; opens the first one.  Raises DialError."""
        if self._links:
            return self._links[place(self._loads(), apart=apart)]
        if self._closed:
            raise self._closing()
        if self._typed and self._opening is None:
            raise self._wants_person()
        if self._refused is not None and self._now() < self._refused[0]:
            raise self._refused[1].with_traceback(None)
        opening = self._opening or next(iter(self._more), None)
        if opening is None:
            opening = self._opening = self._tasks.spawn("connect", self._new_link(1))
            opening.add_done_callback(self._opened)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if was_cancelled(opening):
                raise self._closing() from None
            raise

    async def _apart_link(self, apart: int) -> SshLink:
        """One that no other such stream uses, if that can be had soon.  Raises DialError."""
        until = self._now() + APART_WAIT
        while True:
            link = await self._link(apart=True)
            self._tend(apart)
            now, loads = self._now(), self._loads()
            coming = self._growth.to_come(now, loads, len(self._more), apart)
            if not link.carries.apart or len(self._waiters) >= coming or now >= until:
                return link
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(until - now):
                        await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():  # told of a link that another may want
                    self._wake()
                raise
            finally:
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)

    async def _new_link(self, number: int) -> SshLink:
        APART.set(number)  # of this task alone: the hop before spreads our links too
        done = await log_in(
            self._plan,
            self._before,
            label=self._label,
            prompts=self._prompts,
            lost=self._lost,
            timeout=self._handshake_timeout,
        )
        self._prompts.finished = True
        self._typed = done.typed
        if done.typed or (done.touched and not self._plan.connections):
            self._growth.one_only()
        return SshLink(
            done.connection,
            done.feed,
            label=self._label,
            on_dead=self._dead,
            channel_timeout=self._channel_timeout,
        )

    def _opened(self, task: asyncio.Task[SshLink]) -> None:
        if task is self._opening:
            self._opening = None
        self._more.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            if not task.result().connection.is_closed():
                self._links.append(task.result())
            self._refused = None
            self._growth.admitted()
            self._wake()
        elif self._links:  # MaxStartups, a quota: what we have will do
            final = isinstance(error, DialError) and bool(error.retry_after)
            self._growth.turned_away(self._now(), final=final)
            self._wake_all()
        elif isinstance(error, DialError) and error.retry_after:
            self._refused = (self._now() + error.retry_after, error)
        if self._links and not self._closed:
            self._tend()

    def _wake(self) -> None:
        """Whoever waits longest looks again."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_all(self) -> None:
        """Each sees for itself whether a link is still to come."""
        for _ in range(len(self._waiters)):
            self._wake()

    # --- their number ----------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _loads(self) -> list[Load]:
        return [link.carries for link in self._links]

    def _tend(self, apart: int = 1) -> None:
        """More links where they are wanted, for streams over `apart` of them too; fewer where they idle."""
        now = self._now()
        for link in self._links[1:]:
            if not link.load and now - link.idle_since > IDLE_LINK:
                self._links.remove(link)
                self._tasks.spawn("close", link.close())
        loads = self._loads()
        if not self._waiters and not any(load.apart for load in loads):
            self._apart = 1
        self._apart = max(self._apart, apart)
        if self._links:
            for _ in range(self._growth.to_open(now, loads, len(self._more), self._apart)):
                number = len(self._links) + len(self._more) + 1
                task = self._tasks.spawn("connect", self._new_link(number))
                self._more.add(task)
                task.add_done_callback(self._opened)
        if self._looking is None and not self._closed:
            self._looking = self._tasks.spawn("look", self._look())

    async def _look(self) -> None:
        """While there is something to see."""
        last = self._now()
        try:
            while any(link.load for link in self._links) or len(self._links) > 1 or self._more:
                busy = any(link.load for link in self._links) or self._more
                await asyncio.sleep(_LOOK if busy else _LOOK_IDLE)
                now = self._now()
                seen = sum((link.traffic() for link in self._links), Traffic())
                if now - last < 2 * _LOOK:  # else it came in a time that nobody looked at
                    self._growth.looked(now, len(self._links), seen)
                last = now
                if isinstance(self._before, SshDialer) and self._before.lossy:
                    self._growth.told_of_loss(now)
                self._tend()
                coming = self._growth.to_come(now, self._loads(), len(self._more), self._apart)
                for _ in range(len(self._waiters) - coming):  # what was seen says that none comes for them
                    self._wake()
        finally:
            self._looking = None

    # --- ends --------------------------------------------------------------------------------

    def _lost(self, connection: object, error: Exception | None) -> None:
        """asyncssh: a connection is gone; its channels have been told."""
        link = next((link for link in self._links if link.connection is connection), None)
        if link is None:
            return
        words = one_line(str(error), 200) if error is not None else "the server closed the connection"
        finding = "hop.stalled" if "keepalive" in words else "hop.closed"
        self._dead(link, DialError(finding, f"{self._label}: {words}", blame=Blame.HOP, hop=self._label))

    def _dead(self, link: SshLink, error: DialError) -> None:
        if link not in self._links:
            return
        self._links.remove(link)
        _log.debug("lost: %s", error.detail)
        self._wake_all()
        if not self._links and not self._closed and self._on_lost is not None:
            self._on_lost(error)

    def _wants_person(self) -> DialError:
        return DialError(
            "ssh.auth-failed",
            f"{self._label}: the connection was lost, and a new one would want a person to log in again: "
            "start the run again",
            blame=Blame.CREDENTIALS,
            hop=self._label,
            retry_after=REFUSED_WAIT,
        )

    def _closing(self) -> DialError:
        return DialError(
            "hop.closed", f"{self._label}: the way out is being closed", blame=Blame.HOP, hop=self._label
        )
