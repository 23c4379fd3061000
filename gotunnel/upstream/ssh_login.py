"""Opening one connection to a jump host: reach it, shake hands, log in.

Rules:
- Each hop's time is its own: the way to the host is dialled first, by the dialer before, which keeps its own
  bounds; only then the handshake's time starts.  So a hop that stalls is blamed itself, not the next one.
- ssh_config is read by `ssh_config`, keys by `ssh_keys`, host keys by `host_keys`; asyncssh gets plain
  values and reads no file of its own.
- While asyncssh is being imported the host is dialled already, unless somebody may have to be asked first.
- A person is asked (`ssh_prompts`) for what nothing else gives: a locked key before the host is reached, a
  password or second factor after the keys, in ssh_config's order.  For a new host key the connection is given
  up first, and made again after a yes.  The handshake's time stands still meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from gotunnel.address import HostPort
from gotunnel.dataclass import dataclass
from gotunnel.errors import Blame, DialError, StreamLost
from gotunnel.tasks import Tasks, in_thread, time_limit
from gotunnel.upstream.connect import dial_hop
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.upstream.host_keys import HostKeyCheck
from gotunnel.upstream.ssh_algorithms import usable
from gotunnel.upstream.ssh_errors import handshake_error
from gotunnel.upstream.ssh_feed import Feed, insides_known
from gotunnel.upstream.ssh_import import load_asyncssh, loaded
from gotunnel.upstream.ssh_keys import Keys, gather, may_ask
from gotunnel.upstream.ssh_plan import METHODS, SshPlan
from gotunnel.upstream.ssh_prompts import TRIES, Prompts
from gotunnel.upstream.ssh_quick import quicken_login

if TYPE_CHECKING:
    import asyncssh

HANDSHAKE_TIMEOUT = 10.0  # seconds for key exchange and authentication together
USER_TIMEOUT_MS = 30_000
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

T = TypeVar("T")
Lost = Callable[[object, Exception | None], None]


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A connection ready for channels.

    `touched`: a person had to do something for it; `typed`: what must be done anew for each connection.
    """

    connection: asyncssh.SSHClientConnection
    feed: Feed
    touched: bool
    typed: bool


async def log_in(
    plan: SshPlan,
    before: Dialer,
    *,
    label: str,
    prompts: Prompts,
    lost: Lost,
    timeout: float = HANDSHAKE_TIMEOUT,
) -> LoggedIn:
    """Raises DialError.  `lost` is called with the connection when it ends, however it does."""
    address = HostPort(plan.hostname, plan.port)
    with _Way(plan, before, address, label, prompts) as way:
        if not loaded():
            if not may_ask(plan, prompts):
                way.begin()
            await in_thread("import asyncssh", load_asyncssh)  # CMD and its first questions needn't wait
        return await _log_in(plan, way, address, label, prompts, lost, timeout)


async def _log_in(
    plan: SshPlan, way: _Way, address: HostPort, label: str, prompts: Prompts, lost: Lost, timeout: float
) -> LoggedIn:
    import asyncssh

    check = HostKeyCheck(
        plan.host_key_name,
        plan.host_key_port,
        plan.host_key_mode,
        plan.known_hosts_files,
        plan.known_hosts_text,
    )
    check.accepted = prompts.accepted
    keys = await gather(plan, prompts)
    login = Login(plan, prompts, keys)
    try:
        try:
            return await _connect(plan, way, check, login, lost, timeout)
        except asyncssh.HostKeyNotVerifiable:
            if not await prompts.trust(check):
                raise
        return await _connect(plan, way, check, login, lost, timeout)
    except DialError:
        raise
    except Exception as error:
        cause: Exception = error
        refused = isinstance(error, asyncssh.DisconnectError)
        if login.open:  # the server's patience is over (LoginGraceTime)
            cause = asyncssh.PermissionDenied("nobody answered in time")
            prompts.finished = True
        elif refused and not isinstance(error, asyncssh.ConnectionLost):
            prompts.finished = True
        raise handshake_error(
            cause,
            label,
            address,
            plan,
            check,
            keys.unusable,
            timeout,
            REFUSED_WAIT,
            offers=login.offers,
            typed=login.typed,
        ) from error
    finally:
        keys.close()


async def _connect(
    plan: SshPlan, way: _Way, check: HostKeyCheck, login: Login, lost: Lost, timeout: float
) -> LoggedIn:
    stream = await way.stream()
    try:
        async with time_limit(timeout, login.prompts.asking.clock):
            return await _shake_hands(plan, stream, check, login, lost)
    except BaseException:
        stream.abort()
        raise


class _Way:
    """Streams to the host; the first may be dialled ahead, and is aborted at the end if nobody took it."""

    def __init__(
        self, plan: SshPlan, before: Dialer, address: HostPort, label: str, prompts: Prompts
    ) -> None:
        self._plan, self._before, self._address, self._label = plan, before, address, label
        self._clock = prompts.asking.clock
        self._tasks = Tasks(label)
        self._ahead: asyncio.Task[Stream] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if (ahead := self._ahead) is not None:
            ahead.cancel()
            ahead.add_done_callback(_abort)

    def begin(self) -> None:
        """Dial the first one now."""
        self._ahead = self._tasks.spawn("reach", self._reach())

    async def stream(self) -> Stream:
        """A stream that is the caller's from now on.  Raises DialError."""
        if self._ahead is None:
            return await self._reach()
        stream = await self._ahead
        self._ahead = None
        return stream

    async def _reach(self) -> Stream:
        """In the time that ssh_config's ConnectTimeout allows."""
        limit = self._plan.connect_timeout
        try:
            async with time_limit(limit, self._clock):
                return await dial_hop(self._before, self._address, self._label)
        except TimeoutError:
            words = f"{self._label}: {self._address}: no answer in {limit:.0f} s (ConnectTimeout)"
            raise DialError("tcp.timeout", words, blame=Blame.HOP, hop=self._label) from None


def _abort(ahead: asyncio.Task[Stream]) -> None:
    if not ahead.cancelled() and ahead.exception() is None:
        ahead.result().abort()


async def _shake_hands(
    plan: SshPlan, stream: Stream, check: HostKeyCheck, login: Login, lost: Lost
) -> LoggedIn:
    import asyncssh
    from asyncssh.encryption import get_encryption_algs
    from asyncssh.kex import get_kex_algs
    from asyncssh.mac import get_mac_algs

    found = check.lookup()
    keys = login.keys
    client = _client_class()(check, login, lost)
    reached = _Reached(stream, quick=[*plan.methods, *METHODS][0] == "publickey")
    connection = await asyncssh.connect(
        plan.hostname,
        plan.port,
        config=None,
        tunnel=cast(Any, reached),
        client_factory=lambda: client,
        username=plan.user,
        client_keys=keys.pairs or None,
        preferred_auth=list(dict.fromkeys([*plan.methods, *METHODS])),  # `login` refuses what isn't ours
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
    touched = keys.asked or login.typed or any(pair.algorithm.startswith(b"sk-") for pair in keys.pairs)
    return LoggedIn(connection, reached.feed, touched, login.typed)


class Login:
    """The methods of one login, as the server asks for them; None to it means: the next one, please."""

    def __init__(self, plan: SshPlan, prompts: Prompts, keys: Keys) -> None:
        self.prompts = prompts
        self.keys = keys
        self.offers: list[str] = []  # the methods that the server would take, in the order met
        self.typed = False  # a person has answered
        self.open = False  # a question is
        self._plan = plan
        self._left = dict.fromkeys(METHODS, TRIES)
        self._notes: list[str] = []  # of the server, to be shown with its next question

    async def more_keys(self) -> list[Any] | None:
        """What was locked."""
        self._offered("publickey")
        self.open = True
        pairs = await self.keys.more(self._plan, self.prompts)
        self.open = False
        return pairs or None

    async def password(self) -> str | None:
        """Typed by a person."""
        return await self._answer(self.prompts.password()) if self._try("password") else None

    def may_challenge(self) -> bool:
        """Is keyboard-interactive to be tried (again)?"""
        return self._try("keyboard-interactive")

    async def answers(
        self, name: str, instructions: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        """To one challenge of several in a round."""
        self._notes += [name, instructions]
        if not prompts:
            return []
        notes, self._notes = self._notes, []
        return await self._answer(self.prompts.challenge(notes, prompts))

    async def _answer(self, question: Coroutine[Any, Any, T | None]) -> T | None:
        self.open = True
        answer = await question  # a connection that is lost meanwhile cancels it, and leaves it open
        self.open = False
        self.typed = self.typed or answer is not None
        return answer

    def _try(self, method: str) -> bool:
        self._offered(method)
        if self.prompts.finished or method not in self._plan.methods or not self._left[method]:
            return False
        self._left[method] -= 1
        return True

    def _offered(self, method: str) -> None:
        if method not in self.offers:
            self.offers.append(method)


def _fail_fast(stream: Stream) -> None:
    """An SSH server always reads: what it doesn't acknowledge for so long it will never get (tcp(7))."""
    sock = (
        stream.transport.get_extra_info("socket") if isinstance(stream.transport, asyncio.Transport) else None
    )
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        with contextlib.suppress(OSError):  # no TCP: a ProxyCommand's socket pair
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)


class _Reached:
    """What asyncssh calls to reach a server through something else: here it is reached already."""

    def __init__(self, stream: Stream, *, quick: bool) -> None:
        self._stream, self._quick = stream, quick
        self.feed: Feed | None = None

    async def create_connection(
        self, factory: Callable[[], asyncio.Protocol], host: str, port: int
    ) -> tuple[object, asyncio.Protocol]:
        if self._stream.is_lost:  # its socket is closed already, which asyncssh would trip over
            raise StreamLost("closed the connection before the SSH handshake")
        protocol = factory()
        self.feed = Feed(protocol)
        if self._quick and insides_known():
            quicken_login(protocol)
        self._stream.become(cast(asyncio.Protocol, self.feed))
        _fail_fast(self._stream)
        return self._stream, protocol


def _client_class() -> Callable[[HostKeyCheck, Login, Lost], asyncssh.SSHClient]:
    """The callbacks of one connection; a function, since asyncssh is imported only when needed."""
    import asyncssh

    class Client(asyncssh.SSHClient):
        def __init__(self, check: HostKeyCheck, login: Login, lost: Lost) -> None:
            self._check = check
            self._login = login
            self._lost = lost
            self._connection: object = None

        def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
            self._connection = conn

        def connection_lost(self, exc: Exception | None) -> None:
            self._lost(self._connection, exc)

        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            return self._check.judge(key)

        async def public_key_auth_requested(self) -> Any:
            return await self._login.more_keys()

        async def password_auth_requested(self) -> str | None:
            return await self._login.password()

        def kbdint_auth_requested(self) -> str | None:
            return "" if self._login.may_challenge() else None

        async def kbdint_challenge_received(
            self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
        ) -> list[str] | None:
            return await self._login.answers(name, instructions, prompts)

    return Client
