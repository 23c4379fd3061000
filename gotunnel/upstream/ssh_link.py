"""One established connection to a jump host: its channels, and the watch over its life.

Rules:
- A channel's failure is the target's or a policy's (RFC 4254 §5.1); the connection's failure is the hop's.
- A channel that opens after its dialer gave up is closed, not leaked.
- The answer to an open waits behind all that the server has for our other streams.  What it says comes in
  order: only when it has answered a question that was asked later is the target what doesn't answer.  As long
  as bytes come meanwhile it is waited for, BEHIND_BULK times as long in all.
- While an answer is due on some channel the connection is watched (`ssh_watch`); a dead one is aborted, so
  that its streams are lost at once instead of in a quarter of an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gotunnel.address import HostPort, one_line
from gotunnel.errors import Blame, DialError
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import APART, Stream
from gotunnel.upstream.ssh_channel import open_channel
from gotunnel.upstream.ssh_errors import channel_error
from gotunnel.upstream.ssh_growth import Load, Traffic
from gotunnel.upstream.ssh_watch import Decision, Watch

if TYPE_CHECKING:
    import asyncssh

    from gotunnel.upstream.ssh_feed import Feed

CHANNEL_TIMEOUT = 10.0  # seconds until the far end has reached the target or said no
BEHIND_BULK = 3
ALIVE_TIMEOUT = 3.0  # seconds in which a live server says anything at all
WINDOW = 16 * 1024 * 1024  # bytes in flight per channel; OpenSSH's 2 MiB caps a stream at 10 MB/s at 200 ms
MAX_PACKET = 128 * 1024
FLOWING = 15.0  # seconds after a stream's last bytes in which more of the body may be due
_LOOK = 0.25  # seconds between two looks while streams are open


class SshLink:
    """A connection that has logged in; `on_dead` is called when the watch gives it up."""

    def __init__(
        self,
        connection: asyncssh.SSHClientConnection,
        feed: Feed,
        *,
        label: str,
        on_dead: Callable[[SshLink, DialError], None],
        channel_timeout: float = CHANNEL_TIMEOUT,
    ) -> None:
        self.connection = connection
        self.streams: set[Stream] = set()
        self._feed = feed
        self._label = label
        self._on_dead = on_dead
        self._channel_timeout = channel_timeout
        self._tasks = Tasks(label)
        self._loop = asyncio.get_running_loop()
        self.idle_since = self._loop.time()
        self._watching: asyncio.Task[None] | None = None
        self._apart: set[object] = set()  # streams, and openings, that want to share with no other such
        self._counted = Traffic()

    @property
    def load(self) -> int:
        """Open streams, and those being opened."""
        return len(self.streams) + len(self._tasks) - (self._watching is not None)

    @property
    def carries(self) -> Load:
        """The same, with those that want to be apart (`APART`)."""
        return Load(self.load, len(self._apart))

    def traffic(self) -> Traffic:
        """What came and went since this was last asked, as far as the kernel says."""
        before, self._counted = self._counted, self._feed.traffic
        return self._counted - before

    async def close(self) -> None:
        """Say goodbye, if the server listens; then be gone."""
        await self._tasks.close()
        self.connection.close()
        try:
            async with asyncio.timeout(0.5):
                await self.connection.wait_closed()
        except TimeoutError:
            self.connection.abort()  # it has not taken what we had to say
            await self.connection.wait_closed()

    async def open(self, target: HostPort) -> Stream:
        """A channel to `target`.  Raises DialError."""
        import asyncssh

        apart = APART.get() > 1
        # a task of its own: cancelled in the middle, asyncssh would forget a channel that the server opens
        opening = self._tasks.spawn(
            f"channel {target}",
            open_channel(
                self.connection,
                target.host,
                target.port,
                window=WINDOW,
                max_packet=MAX_PACKET,
                stream=lambda: self._new_stream(apart),
            ),
        )
        if apart:
            self._apart.add(opening)
            opening.add_done_callback(self._apart.discard)
        try:
            return await self._opened(opening)
        except TimeoutError:
            _close_when_open(opening)
            raise DialError(
                "tcp.timeout",
                f"{target}: no answer in {self._channel_timeout:.0f} s through {self._label}",
                blame=Blame.TARGET,
            ) from None
        except DialError:
            _close_when_open(opening)
            raise
        except asyncio.CancelledError:
            if was_cancelled(opening):
                raise self._error("hop.closed", "the way out is being closed") from None
            _close_when_open(opening)
            raise
        except asyncssh.ChannelOpenError as error:
            raise channel_error(error.code, error.reason, self._label, target) from error
        except Exception as error:  # asyncssh's channel in a connection that broke just then
            raise self._error("hop.closed", one_line(str(error), 200) or "the connection was lost") from error

    async def _opened(self, opening: asyncio.Task[Stream]) -> Stream:
        """Raises TimeoutError where the target doesn't answer, DialError where the server doesn't."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._channel_timeout):
                return await asyncio.shield(opening)
        question = self._tasks.spawn("question", self._question())
        until = self._loop.time() + (BEHIND_BULK - 1) * self._channel_timeout
        try:
            while not (opening.done() or question.done()) and self._loop.time() < until:
                before = self._heard()
                await asyncio.wait(
                    {opening, question}, timeout=ALIVE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED
                )
                if not (opening.done() or question.done()) and self._heard() == before:
                    raise self._dead("accepts no channel and answers no keepalive")
        finally:
            question.cancel()
        if opening.done():
            return await opening
        failed = question.done() and not question.cancelled() and question.exception() is not None
        if failed or self.connection.is_closed():  # for one that is gone asyncssh answers: refused
            raise self._dead("accepts no channel and answers no keepalive")
        raise TimeoutError

    # --- life ------------------------------------------------------------------------------------

    def _new_stream(self, apart: bool) -> Stream:
        stream = Stream(on_closed=lambda: self._stream_closed(stream))
        self.streams.add(stream)
        if apart:
            self._apart.add(stream)
        if self._watching is None:
            self._watching = self._tasks.spawn("watch", self._watch())
        return stream

    def _stream_closed(self, stream: Stream) -> None:
        self.streams.discard(stream)
        self._apart.discard(stream)
        if not self.streams:
            self.idle_since = self._loop.time()

    async def _watch(self) -> None:
        """While streams are open."""
        watch = Watch(self._loop.time())
        seen = self._heard()
        carried, flowing_until = 0, 0.0
        try:
            while self.streams:
                await asyncio.sleep(_LOOK)
                now = self._loop.time()
                if (heard := self._heard()) != seen:
                    seen = heard
                    watch.heard(now)
                if (total := sum(stream.received for stream in self.streams)) > carried:
                    flowing_until = now + FLOWING
                carried = total  # less where a stream has closed
                due = now < flowing_until or any(stream.awaiting for stream in self.streams)
                decision = watch.decide(now, due=due)
                if decision is Decision.ASK:
                    self._tasks.spawn("question", self._ask(watch))
                elif decision is Decision.DEAD:
                    self._dead("has gone silent with an answer due, and answers no keepalive")
                    return
        finally:
            self._watching = None

    def _heard(self) -> tuple[int, int]:
        """Signs of life: bytes read, and segments that wait for one that was lost."""
        return self._feed.received, self._feed.traffic.arrived

    async def _ask(self, watch: Watch) -> None:
        await self._question()
        if not self.connection.is_closed():
            watch.answered(self._loop.time())

    async def _question(self) -> None:
        """Any answer is life; a refusal is what OpenSSH gives to a keepalive."""
        await self.connection._make_global_request(b"keepalive@openssh.com")

    def _dead(self, words: str) -> DialError:
        error = self._error("hop.stalled", words)
        self._on_dead(self, error)
        self.connection.abort()
        return error

    def _error(self, finding: str, words: str) -> DialError:
        return DialError(finding, f"{self._label}: {words}", blame=Blame.HOP, hop=self._label)


def was_cancelled(task: asyncio.Task[Any]) -> bool:
    """True where the task that we wait for was cancelled (by a close), and not we."""
    waiter = asyncio.current_task()
    return task.cancelled() and waiter is not None and not waiter.cancelling()


def _close_when_open(opening: asyncio.Task[Stream]) -> None:
    def close(task: asyncio.Task[Stream]) -> None:
        if not task.cancelled() and task.exception() is None:
            task.result().abort()

    opening.add_done_callback(close)
