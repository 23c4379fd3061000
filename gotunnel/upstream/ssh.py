"""An SSH jump host: a few connections (links), kept, with many channels each.

Rules:
- Connecting is single-flight: who needs a link while the first is opened waits for the same handshake, and
  hears the same error.  A handshake is never cancelled by a waiter that gives up: sshd penalises abandoned
  ones (sshd_config(5) PerSourcePenalties).
- A refused key, an unknown or changed host key is final for some time (`retry_after`): asked again sooner,
  the same error is given without touching the network.
- Nobody is asked in the background (`ssh_prompts`).  Where a password or a second factor was typed there is
  one link, and when it is lost the way out is: no other login is even tried.
- One link at rest; one more, in the background, when each has STREAMS_PER_LINK streams, since one TCP
  connection's window is shared by all its streams; those that idle are closed.  Where a person had to log in
  (a passphrase, a touch) there is one link.
- One link's end is the hop's end only if no other is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gotunnel.address import HostPort, one_line
from gotunnel.errors import Blame, DialError
from gotunnel.tasks import Tasks
from gotunnel.upstream.asking import NOBODY, Asking
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.upstream.ssh_link import CHANNEL_TIMEOUT, SshLink, was_cancelled
from gotunnel.upstream.ssh_login import HANDSHAKE_TIMEOUT, REFUSED_WAIT, log_in
from gotunnel.upstream.ssh_plan import SshPlan
from gotunnel.upstream.ssh_prompts import Prompts

MOST_LINKS = 8  # with connections=auto
STREAMS_PER_LINK = 4
IDLE_LINK = 60.0  # seconds without a stream after which a second link is closed
GROW_PAUSE = 30.0  # seconds without growing after a server didn't want another link

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
        self._most = plan.connections or MOST_LINKS
        self._opening: asyncio.Task[SshLink] | None = None
        self._no_growth_before = 0.0
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

    async def warm(self) -> None:
        await self._link()

    async def close(self) -> None:
        self._closed = True
        await self._tasks.close()
        links, self._links = self._links, []
        await asyncio.gather(*(link.close() for link in links))

    async def dial(self, target: HostPort) -> Stream:
        fresh = not self._links
        link = await self._link()
        self._tend()
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

    async def _link(self) -> SshLink:
        """The link with the fewest streams; opens the first one.  Raises DialError."""
        if self._links:
            return min(self._links, key=lambda link: link.load)
        if self._closed:
            raise self._closing()
        if self._typed and self._opening is None:
            raise self._wants_person()
        loop = asyncio.get_running_loop()
        if self._refused is not None and loop.time() < self._refused[0]:
            raise self._refused[1].with_traceback(None)
        opening = self._opening or self._open_link()
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if was_cancelled(opening):
                raise self._closing() from None
            raise

    def _open_link(self) -> asyncio.Task[SshLink]:
        self._opening = self._tasks.spawn("connect", self._new_link())
        self._opening.add_done_callback(self._opened)
        return self._opening

    async def _new_link(self) -> SshLink:
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
            self._most = 1
        return SshLink(
            done.connection,
            done.feed,
            label=self._label,
            on_dead=self._dead,
            channel_timeout=self._channel_timeout,
        )

    def _opened(self, task: asyncio.Task[SshLink]) -> None:
        self._opening = None
        if task.cancelled():
            return
        now = asyncio.get_running_loop().time()
        error = task.exception()
        if error is None:
            if not task.result().connection.is_closed():
                self._links.append(task.result())
            self._refused = None
        elif self._links:
            self._no_growth_before = now + GROW_PAUSE  # MaxStartups, a quota: what we have will do
        elif isinstance(error, DialError) and error.retry_after:
            self._refused = (now + error.retry_after, error)

    def _tend(self) -> None:
        """More links where all are busy, fewer where they idle."""
        now = asyncio.get_running_loop().time()
        for link in self._links[1:]:
            if not link.load and now - link.idle_since > IDLE_LINK:
                self._links.remove(link)
                self._tasks.spawn("close", link.close())
        busy = all(link.load >= STREAMS_PER_LINK for link in self._links)
        if busy and len(self._links) < self._most and self._opening is None and now >= self._no_growth_before:
            self._open_link()

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
