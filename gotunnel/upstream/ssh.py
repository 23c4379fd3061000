"""An SSH jump host, by asyncssh: one connection, kept, many channels (direct-tcpip, RFC 4254 §7.2).

Rules:
- Connecting is single-flight: who needs the connection while it is opened waits for the same handshake, and
  hears the same error.  A handshake is never cancelled by a waiter that gives up: sshd penalises abandoned
  ones (sshd_config(5) PerSourcePenalties).
- A refused key, an unknown or changed host key is final for REFUSED_WAIT seconds: asked again sooner, the
  same error is given without touching the network.
- A channel's failure is the target's or a policy's (RFC 4254 §5.1); the connection's failure is the hop's.
- A channel that opens after its dialer gave up is closed, not leaked.
- Each hop's time is its own: the way to the host is dialled first, by the dialer before, which keeps its own
  bounds; only then the handshake's time starts.  So a hop that stalls is blamed itself, not the next one.
- ssh_config is read by `ssh_config`, keys by `ssh_keys`, host keys by `host_keys`; asyncssh gets plain
  values and reads no file of its own.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from gotunnel.address import HostPort, one_line
from gotunnel.errors import Blame, DialError, StreamLost
from gotunnel.tasks import Tasks
from gotunnel.upstream.connect import dial_hop
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.upstream.host_keys import HostKeyCheck
from gotunnel.upstream.ssh_algorithms import usable
from gotunnel.upstream.ssh_channel import open_channel
from gotunnel.upstream.ssh_errors import channel_error, handshake_error
from gotunnel.upstream.ssh_feed import Feed
from gotunnel.upstream.ssh_import import load_asyncssh
from gotunnel.upstream.ssh_keys import Ask, Keys, gather
from gotunnel.upstream.ssh_plan import SshPlan

if TYPE_CHECKING:
    import asyncssh

HANDSHAKE_TIMEOUT = 10.0  # key exchange and authentication together
CHANNEL_TIMEOUT = 10.0  # until the far end has reached the target or said no
ALIVE_TIMEOUT = 3.0
REFUSED_WAIT = 60.0
WINDOW = 16 * 1024 * 1024  # bytes in flight per channel; OpenSSH's 2 MiB caps a stream at 10 MB/s at 200 ms
MAX_PACKET = 128 * 1024
# asyncssh gives a silent server up after one interval more than the count: 44 s
KEEPALIVE, KEEPALIVE_COUNT = 11.0, 3
# fastest first: with AES instructions aes128-gcm carries twice what chacha20 does in asyncssh
CIPHERS = [
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
]

_log = logging.getLogger("gotunnel.ssh")


class SshDialer:
    """Dials through one jump host, which is itself reached by `before`.

    `ask` is called for a passphrase, once for each key; `on_lost` when an established connection breaks.
    """

    def __init__(
        self,
        before: Dialer,
        plan: SshPlan,
        *,
        label: str,
        ask: Ask | None = None,
        on_lost: Callable[[DialError], None] | None = None,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        channel_timeout: float = CHANNEL_TIMEOUT,
    ) -> None:
        self._before = before
        self._plan = plan
        self._label = label
        self._ask = None if ask is None else functools.cache(ask)
        self._on_lost = on_lost
        self._handshake_timeout = handshake_timeout
        self._channel_timeout = channel_timeout
        self._connection: asyncssh.SSHClientConnection | None = None
        self._opening: asyncio.Task[asyncssh.SSHClientConnection] | None = None
        self._refused: tuple[float, DialError] | None = None
        self._tasks = Tasks(label)
        self._closed = False

    @property
    def label(self) -> str:
        return self._label

    async def warm(self) -> None:
        await self._connect()

    async def close(self) -> None:
        self._closed = True
        await self._tasks.close()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            try:
                async with asyncio.timeout(0.5):
                    await connection.wait_closed()
            except TimeoutError:
                connection.abort()  # it has not taken what we had to say
                await connection.wait_closed()

    async def dial(self, target: HostPort) -> Stream:
        fresh = self._connection is None
        connection = await self._connect()
        try:
            return await self._open(connection, target)
        except DialError as error:
            if fresh or error.finding != "hop.closed":
                raise
        # the kept connection turned out to be dead: that is no verdict on the hop yet
        if self._connection is connection:
            self._connection = None
        return await self._open(await self._connect(), target)

    # --- the connection ----------------------------------------------------------------------

    async def _connect(self) -> asyncssh.SSHClientConnection:
        if self._connection is not None:
            return self._connection
        if self._closed:
            raise self._error("hop.closed", "the way out is being closed")
        loop = asyncio.get_running_loop()
        if self._refused is not None and loop.time() < self._refused[0]:
            raise self._refused[1].with_traceback(None)
        opening = self._opening
        if opening is None:
            opening = self._opening = self._tasks.spawn("connect", self._handshake())
            opening.add_done_callback(self._opened)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if _was_cancelled(opening):
                raise self._error("hop.closed", "the way out is being closed") from None
            raise

    def _opened(self, task: asyncio.Task[asyncssh.SSHClientConnection]) -> None:
        self._opening = None
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._connection = task.result()
            self._refused = None
        elif isinstance(error, DialError) and error.retry_after:
            self._refused = (asyncio.get_running_loop().time() + error.retry_after, error)

    async def _handshake(self) -> asyncssh.SSHClientConnection:
        load_asyncssh()
        plan = self._plan
        address = HostPort(plan.hostname, plan.port)
        check = HostKeyCheck(
            plan.host_key_name,
            plan.host_key_port,
            plan.host_key_mode,
            plan.known_hosts_files,
            plan.known_hosts_text,
        )
        keys = await gather(plan, self._ask)
        try:
            stream = await self._reach(address)
            try:
                async with asyncio.timeout(self._handshake_timeout):
                    return await self._log_in(stream, check, keys)
            except BaseException:
                stream.abort()
                raise
        except DialError:
            raise
        except Exception as error:
            raise handshake_error(
                error, self._label, address, plan, check, keys.unusable, self._handshake_timeout, REFUSED_WAIT
            ) from error
        finally:
            keys.close()

    async def _reach(self, address: HostPort) -> Stream:
        """A stream to the host, in the time that ssh_config's ConnectTimeout allows."""
        try:
            async with asyncio.timeout(self._plan.connect_timeout):
                return await dial_hop(self._before, address, self._label)
        except TimeoutError:
            words = f"{address}: no answer in {self._plan.connect_timeout:.0f} s (ConnectTimeout)"
            raise self._error("tcp.timeout", words) from None

    async def _log_in(self, stream: Stream, check: HostKeyCheck, keys: Keys) -> asyncssh.SSHClientConnection:
        import asyncssh
        from asyncssh.encryption import get_encryption_algs
        from asyncssh.kex import get_kex_algs
        from asyncssh.mac import get_mac_algs

        plan = self._plan
        found = check.lookup()
        client = _client_class()(check, self._lost)
        return await asyncssh.connect(
            plan.hostname,
            plan.port,
            config=None,
            tunnel=cast(Any, _Reached(stream)),
            client_factory=lambda: client,
            username=plan.user,
            client_keys=keys.pairs or None,
            agent_path=None,
            known_hosts=lambda host, addr, port: found,
            host_key_alias=plan.host_key_name,
            server_host_key_algs=check.algorithms(),
            encryption_algs=usable("Ciphers", plan.ciphers, get_encryption_algs()) or CIPHERS,
            mac_algs=usable("MACs", plan.macs, get_mac_algs()) or (),
            kex_algs=usable("KexAlgorithms", plan.kex, get_kex_algs()) or (),
            compression_algs=["zlib@openssh.com", "zlib", "none"] if plan.compression else ["none"],
            keepalive_interval=plan.keepalive or KEEPALIVE,
            keepalive_count_max=plan.keepalive_count or KEEPALIVE_COUNT,
            login_timeout=0,  # the time is ours to keep
            gss_host=None,
            x509_trusted_certs=None,
            x509_trusted_cert_paths=[],
        )

    def _lost(self, connection: object, error: Exception | None) -> None:
        """An established connection is gone; its channels have been told by asyncssh."""
        if connection is not self._connection:
            return
        self._connection = None
        if self._closed:
            return
        words = one_line(str(error), 200) if error is not None else "the server closed the connection"
        stalled = "keepalive" in words
        self._tell_lost(self._error("hop.stalled" if stalled else "hop.closed", words))

    def _tell_lost(self, error: DialError) -> None:
        _log.debug("lost: %s", error.detail)
        if self._on_lost is not None:
            self._on_lost(error)

    def _error(self, finding: str, words: str) -> DialError:
        return DialError(finding, f"{self._label}: {words}", blame=Blame.HOP, hop=self._label)

    # --- channels ----------------------------------------------------------------------------

    async def _open(self, connection: asyncssh.SSHClientConnection, target: HostPort) -> Stream:
        import asyncssh

        # a task of its own: cancelled in the middle, asyncssh would forget a channel that the server opens
        opening = self._tasks.spawn(
            f"channel {target}",
            open_channel(connection, target.host, target.port, window=WINDOW, max_packet=MAX_PACKET),
        )
        try:
            async with asyncio.timeout(self._channel_timeout):
                return await asyncio.shield(opening)
        except TimeoutError:
            _close_when_open(opening)
            if await self._alive(connection):
                raise DialError(
                    "tcp.timeout",
                    f"{target}: no answer in {self._channel_timeout:.0f} s through {self._label}",
                    blame=Blame.TARGET,
                ) from None
            raise self._drop(connection) from None
        except asyncio.CancelledError:
            if _was_cancelled(opening):
                raise self._error("hop.closed", "the way out is being closed") from None
            _close_when_open(opening)
            raise
        except asyncssh.ChannelOpenError as error:
            raise channel_error(error.code, error.reason, self._label, target) from error
        except Exception as error:  # asyncssh's channel in a connection that broke just then
            raise self._error("hop.closed", one_line(str(error), 200) or "the connection was lost") from error

    async def _alive(self, connection: asyncssh.SSHClientConnection) -> bool:
        """Does the server still answer anything at all?"""
        try:
            async with asyncio.timeout(ALIVE_TIMEOUT):
                # any answer is life; a refusal is what OpenSSH gives to a keepalive
                await connection._make_global_request(b"keepalive@openssh.com")
        except TimeoutError:
            return False
        return not connection.is_closed()  # asyncssh answers for a connection that is gone: refused

    def _drop(self, connection: asyncssh.SSHClientConnection) -> DialError:
        """Give a silent connection up, and all its channels with it."""
        error = self._error("hop.stalled", "accepts no channel and answers no keepalive")
        if self._connection is connection:
            self._connection = None
            connection.abort()
            self._tell_lost(error)
        return error


def _was_cancelled(task: asyncio.Task[Any]) -> bool:
    """True where the task that we wait for was cancelled (by `close`), and not we."""
    waiter = asyncio.current_task()
    return task.cancelled() and waiter is not None and not waiter.cancelling()


def _close_when_open(opening: asyncio.Task[Stream]) -> None:
    def close(task: asyncio.Task[Stream]) -> None:
        if not task.cancelled() and task.exception() is None:
            task.result().abort()

    opening.add_done_callback(close)


class _Reached:
    """What asyncssh calls to reach a server through something else: here it is reached already."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[object, asyncio.Protocol]:
        if self._stream.is_lost:  # its socket is closed already, which asyncssh would trip over
            raise StreamLost("closed the connection before the SSH handshake")
        protocol = factory()
        self._stream.become(cast(asyncio.Protocol, Feed(protocol)))
        return self._stream, protocol


def _client_class() -> Callable[
    [HostKeyCheck, Callable[[object, Exception | None], None]], asyncssh.SSHClient
]:
    """The callbacks of one connection; a function, since asyncssh is imported only when needed."""
    import asyncssh

    class Client(asyncssh.SSHClient):
        def __init__(self, check: HostKeyCheck, lost: Callable[[object, Exception | None], None]) -> None:
            self._check = check
            self._lost = lost
            self._connection: object = None

        def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
            self._connection = conn

        def connection_lost(self, exc: Exception | None) -> None:
            self._lost(self._connection, exc)

        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            return self._check.judge(key)

    return Client
