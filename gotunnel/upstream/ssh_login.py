"""Opening one connection to a jump host: reach it, shake hands, log in.

Rules:
- Each hop's time is its own: the way to the host is dialled first, by the dialer before, which keeps its own
  bounds; only then the handshake's time starts.  So a hop that stalls is blamed itself, not the next one.
- ssh_config is read by `ssh_config`, keys by `ssh_keys`, host keys by `host_keys`; asyncssh gets plain
  values and reads no file of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from gotunnel.address import HostPort
from gotunnel.errors import Blame, DialError, StreamLost
from gotunnel.upstream.connect import dial_hop
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.upstream.host_keys import HostKeyCheck
from gotunnel.upstream.ssh_algorithms import usable
from gotunnel.upstream.ssh_errors import handshake_error
from gotunnel.upstream.ssh_feed import Feed
from gotunnel.upstream.ssh_import import load_asyncssh
from gotunnel.upstream.ssh_keys import Ask, Keys, gather
from gotunnel.upstream.ssh_plan import SshPlan

if TYPE_CHECKING:
    import asyncssh

HANDSHAKE_TIMEOUT = 10.0  # seconds for key exchange and authentication together
REFUSED_WAIT = 60.0  # seconds before a server that refused us is asked again
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

Lost = Callable[[object, Exception | None], None]


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A connection ready for channels; `touched`: a person had to do something for it."""

    connection: asyncssh.SSHClientConnection
    feed: Feed
    touched: bool


async def log_in(
    plan: SshPlan,
    before: Dialer,
    *,
    label: str,
    ask: Ask | None,
    lost: Lost,
    timeout: float = HANDSHAKE_TIMEOUT,
) -> LoggedIn:
    """Raises DialError.  `lost` is called with the connection when it ends, however it does."""
    load_asyncssh()
    address = HostPort(plan.hostname, plan.port)
    check = HostKeyCheck(
        plan.host_key_name,
        plan.host_key_port,
        plan.host_key_mode,
        plan.known_hosts_files,
        plan.known_hosts_text,
    )
    keys = await gather(plan, ask)
    try:
        stream = await _reach(plan, before, address, label)
        try:
            async with asyncio.timeout(timeout):
                return await _shake_hands(plan, stream, check, keys, lost)
        except BaseException:
            stream.abort()
            raise
    except DialError:
        raise
    except Exception as error:
        raise handshake_error(
            error, label, address, plan, check, keys.unusable, timeout, REFUSED_WAIT
        ) from error
    finally:
        keys.close()


async def _reach(plan: SshPlan, before: Dialer, address: HostPort, label: str) -> Stream:
    """A stream to the host, in the time that ssh_config's ConnectTimeout allows."""
    try:
        async with asyncio.timeout(plan.connect_timeout):
            return await dial_hop(before, address, label)
    except TimeoutError:
        words = f"{label}: {address}: no answer in {plan.connect_timeout:.0f} s (ConnectTimeout)"
        raise DialError("tcp.timeout", words, blame=Blame.HOP, hop=label) from None


async def _shake_hands(
    plan: SshPlan, stream: Stream, check: HostKeyCheck, keys: Keys, lost: Lost
) -> LoggedIn:
    import asyncssh
    from asyncssh.encryption import get_encryption_algs
    from asyncssh.kex import get_kex_algs
    from asyncssh.mac import get_mac_algs

    found = check.lookup()
    client = _client_class()(check, lost)
    reached = _Reached(stream)
    connection = await asyncssh.connect(
        plan.hostname,
        plan.port,
        config=None,
        tunnel=cast(Any, reached),
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
    assert reached.feed is not None
    touched = keys.asked or any(pair.algorithm.startswith(b"sk-") for pair in keys.pairs)
    return LoggedIn(connection, reached.feed, touched)


class _Reached:
    """What asyncssh calls to reach a server through something else: here it is reached already."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.feed: Feed | None = None

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[object, asyncio.Protocol]:
        if self._stream.is_lost:  # its socket is closed already, which asyncssh would trip over
            raise StreamLost("closed the connection before the SSH handshake")
        protocol = factory()
        self.feed = Feed(protocol)
        self._stream.become(cast(asyncio.Protocol, self.feed))
        return self._stream, protocol


def _client_class() -> Callable[[HostKeyCheck, Lost], asyncssh.SSHClient]:
    """The callbacks of one connection; a function, since asyncssh is imported only when needed."""
    import asyncssh

    class Client(asyncssh.SSHClient):
        def __init__(self, check: HostKeyCheck, lost: Lost) -> None:
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
