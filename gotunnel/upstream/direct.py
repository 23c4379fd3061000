"""The machine's own network as a dialer, and the bottom of every chain.

Rules:
- Names are resolved in a daemon thread, so that a silent resolver holds up neither a cancel nor the
  end of the process (asyncio's own executor is joined at exit).
- Addresses are tried by Happy Eyeballs (RFC 8305): a broken IPv6 costs 250 ms, not a timeout.
- Every hop's socket has keepalives and, on Linux, TCP_USER_TIMEOUT: a half-open connection is noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import aiohappyeyeballs

from gotunnel.address import HostPort, one_line
from gotunnel.errors import Blame, DialError
from gotunnel.tasks import in_thread
from gotunnel.upstream.dialer import Stream

AddrInfo = tuple[Any, Any, int, str, tuple[Any, ...]]

CONNECT_TIMEOUT = 7.0  # three SYNs (0, 1 and 3 s) and a slow answer to the last
_EYEBALLS_DELAY = 0.25
# who measures hears here of each look-up that is made for it: the name and the seconds it took
LOOKUPS: ContextVar[Callable[[str, float], object] | None] = ContextVar("lookups", default=None)
# Unacknowledged data for so long: the peer is gone.  Linux counts a closed window too, and behind a proxy or
# a busy server that is no death, so it is long; an SSH server always reads (`ssh_login` has it shorter).
_USER_TIMEOUT_MS = 120_000


class DirectDialer:
    """Dials from this machine; `interface` and `source` bind the socket (SO_BINDTODEVICE wants Linux)."""

    def __init__(
        self,
        *,
        interface: str = "",
        source: str = "",
        timeout: float = CONNECT_TIMEOUT,
        label: str = "direct:",
    ) -> None:
        self._interface = interface
        self._source = source
        self._timeout = timeout
        self._label = label

    @property
    def label(self) -> str:
        return self._label

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def dial(self, target: HostPort) -> Stream:
        finding, whose = "dns.timeout", "no answer from the resolver"
        try:
            async with asyncio.timeout(self._timeout):
                self._look_for_interface()  # first: where it is missing, names may be unknown for that
                addresses = await resolve(target)
                finding, whose = "tcp.timeout", "no answer"
                sock = await self._connect(addresses)
        except TimeoutError:
            words = f"{target}: {whose} in {self._timeout:.0f} s"
            raise DialError(finding, words, blame=Blame.TARGET) from None
        except OSError as error:
            raise self._translate(error, target) from error
        stream = Stream()
        try:
            await asyncio.get_running_loop().create_connection(lambda: stream, sock=sock)
        except OSError as error:  # it was reset before we could look
            sock.close()
            raise translate(error, target) from error
        return stream

    def _look_for_interface(self) -> None:
        """Raises OSError where there is none of that name."""
        if self._interface and hasattr(socket, "if_nametoindex"):
            try:
                socket.if_nametoindex(self._interface)
            except OSError as error:
                raise OSError(errno.ENODEV, f"interface {self._interface}: {error}") from error

    def _translate(self, error: OSError, target: HostPort) -> DialError:
        told = translate(error, target)
        if not (self._interface or self._source) or error.errno not in _OWN_FAULTS:
            return told
        return DialError(told.finding, f"{self._label}: {told.detail}", blame=Blame.HOP, hop=self._label)

    async def _connect(self, addresses: list[AddrInfo]) -> socket.socket:
        local: list[AddrInfo] | None = None
        if self._source:
            source = HostPort(self._source, 1).ip
            family = socket.AF_INET6 if source is not None and source.version == 6 else socket.AF_INET
            local = [(family, socket.SOCK_STREAM, 0, "", (self._source, 0))]
            addresses = [a for a in addresses if a[0] == family]
            if not addresses:
                raise OSError(errno.EADDRNOTAVAIL, f"no address of the family of source {self._source}")
        sock = await aiohappyeyeballs.start_connection(
            addresses,
            local_addr_infos=local,
            happy_eyeballs_delay=_EYEBALLS_DELAY,
            socket_factory=self._socket,
        )
        set_keepalive(sock)
        return sock

    def _socket(self, address: AddrInfo) -> socket.socket:
        sock = socket.socket(address[0], address[1], address[2])
        if self._interface:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode() + b"\0")
            except (AttributeError, OSError) as error:
                sock.close()
                raise OSError(
                    getattr(error, "errno", None) or errno.ENODEV, f"interface {self._interface}: {error}"
                ) from error
        return sock


def set_keepalive(sock: socket.socket) -> None:
    """Make a dead peer show within about 45 s when idle, two minutes with data under way (tcp(7))."""
    options = (
        ("TCP_KEEPIDLE", 15),
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", _USER_TIMEOUT_MS),
    )
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in options:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def resolve(target: HostPort) -> list[AddrInfo]:
    """The addresses of `target` by the system's resolver, in its order.  Raises socket.gaierror."""
    if target.ip is not None:
        return socket.getaddrinfo(
            target.host, target.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )

    def look_up() -> list[AddrInfo]:
        try:
            return list(socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM))
        except OSError:
            raise
        except Exception as error:  # an impossible name is a UnicodeError or ValueError
            raise socket.gaierror(socket.EAI_NONAME, str(error)) from error

    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        return await in_thread(f"resolve {target.host}", look_up)
    except RuntimeError as error:  # no thread to be had
        raise socket.gaierror(socket.EAI_AGAIN, str(error)) from error
    finally:
        if (told := LOOKUPS.get()) is not None:
            told(target.host, loop.time() - started)


_ERRNO = {
    errno.ECONNREFUSED: ("tcp.refused", "connection refused"),
    errno.ETIMEDOUT: ("tcp.timeout", "connection timed out"),
    errno.ECONNRESET: ("tcp.reset", "connection reset by peer"),
    errno.EPIPE: ("tcp.reset", "connection reset by peer"),
    errno.ECONNABORTED: ("tcp.reset", "connection aborted"),
    errno.ENETUNREACH: ("net.unreachable", "network is unreachable"),
    errno.EHOSTUNREACH: ("net.unreachable", "no route to host"),
    errno.ENETDOWN: ("net.unreachable", "network is down"),
    errno.EADDRNOTAVAIL: ("net.unreachable", "cannot assign the source address"),
    errno.ENODEV: ("net.unreachable", "no such interface"),
    errno.EACCES: ("net.unreachable", "forbidden by a local firewall"),
    errno.EPERM: ("net.unreachable", "forbidden by a local firewall"),
}
# with an interface or source of its own these are the way out's fault: it isn't there
_OWN_FAULTS = (errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENETDOWN)


def translate(error: OSError, target: HostPort) -> DialError:
    """The system's error for a dial of `target`, in our tree; the caller decides whom it charges."""
    if isinstance(error, socket.gaierror):
        if error.errno == getattr(socket, "EAI_AGAIN", None):
            return DialError(
                "dns.timeout",
                f"{target.host}: temporary failure in name resolution (the resolver doesn't answer)",
                blame=Blame.TARGET,
            )
        if error.errno == getattr(socket, "EAI_FAIL", None):
            return DialError(
                "dns.refused", f"{target.host}: the resolver refused to answer", blame=Blame.TARGET
            )
        return DialError("dns.not-found", f"{target.host}: no such host", blame=Blame.TARGET)
    finding, words = _ERRNO.get(error.errno or 0, ("unknown", one_line(str(error), 200)))
    if error.errno is None and isinstance(error, OSError) and error.args:
        # Happy Eyeballs joins the errors of several addresses into one without a number
        text = str(error)
        for number, (candidate, phrase) in _ERRNO.items():
            if f"Errno {number}]" in text:
                finding, words = candidate, phrase
                break
    return DialError(finding, f"{target}: {words}", blame=Blame.TARGET)
