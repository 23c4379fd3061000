"""TCP connections to addresses of one's own choice, and what the kernel knows of them.

Rules:
- Each family is tried at once (up to two addresses each); a family to which this machine has no route isn't
  counted where the other has one: a machine without IPv6 is healthy.
- A connection may announce small segments (`mss`): what works so and not otherwise is lost for its size.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import field
from typing import Any

from gotunnel.address import HostPort
from gotunnel.dataclass import dataclass
from gotunnel.errors import Blame, DialError, StreamLost
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import Stream
from gotunnel.upstream.direct import translate

SMALL_MSS = 536  # the least that every IPv4 path carries (RFC 9293 §3.7.1)
_EACH = 2  # addresses of one family


async def connect(address: str, port: int, timeout: float, mss: int = 0) -> Stream:
    """A stream to one address.  Raises DialError."""
    target = HostPort(address, port)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    loop = asyncio.get_running_loop()
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if mss:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, mss)
        async with asyncio.timeout(timeout):
            await loop.sock_connect(sock, _sockaddr(address, port))
        stream = Stream()
        await loop.create_connection(lambda: stream, sock=sock)
    except TimeoutError as error:
        sock.close()
        words = f"{target}: no answer in {timeout:.0f} s"
        failure = DialError("tcp.timeout", words, blame=Blame.TARGET)
        raise (translate(error, target) if error.errno else failure) from None
    except OSError as error:
        sock.close()
        raise translate(error, target) from error
    except BaseException:
        sock.close()
        raise
    return stream


def _sockaddr(address: str, port: int) -> tuple[Any, ...]:
    if ":" not in address:
        return address, port
    host, _, zone = address.partition("%")
    scope = 0
    if zone:
        with contextlib.suppress(OSError, ValueError):
            scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    return host, port, 0, scope


def has_route(address: str) -> bool:
    """Would this machine send to the address at all?  Nothing is sent to find out."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(_sockaddr(address, 9))
    except OSError:
        return False
    return True


@dataclass(slots=True)
class Reached:
    """`families`: "ipv4"/"ipv6" -> "ok" or an id; `stream` is the first that stood."""

    stream: Stream | None = None
    address: str = ""
    ms: float | None = None
    error: DialError | None = None
    families: dict[str, str] = field(default_factory=dict)


class Race:
    """Connections to the addresses of a name, all at once; the first that stands wins."""

    def __init__(self, addresses: Sequence[str], port: int, timeout: float) -> None:
        self._port = port
        self._timeout = timeout
        self._tasks = Tasks("doctor-connect")
        self._first = asyncio.Event()
        self._result = Reached()
        routed = [address for address in addresses if has_route(address)] or list(addresses)
        by_family = {"ipv4": [a for a in routed if ":" not in a], "ipv6": [a for a in routed if ":" in a]}
        self._left = sum(bool(members) for members in by_family.values())
        self._started = time.monotonic()
        self._jobs = [
            self._tasks.spawn(family, self._family(family, members[:_EACH]))
            for family, members in by_family.items()
            if members
        ]

    async def first(self) -> Reached:
        """As soon as one stands, or all have failed."""
        await self._first.wait()
        return self._result

    async def rest(self, seconds: float) -> dict[str, str]:
        """The verdict on every family; those that don't answer in so many seconds have timed out."""
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=seconds)
        for job in self._jobs:
            if not job.done():
                self._result.families[job.get_name().rpartition(":")[2]] = "tcp.timeout"
        await self.close()
        return self._result.families

    async def close(self) -> None:
        """End what still runs; the stream that won is its taker's."""
        await self._tasks.close()

    async def _family(self, family: str, addresses: Sequence[str]) -> None:
        tries = [
            self._tasks.spawn(f"{family}-{number}", self._one(address))
            for number, address in enumerate(addresses)
        ]
        errors: list[DialError] = []
        for done in asyncio.as_completed(tries):
            error = await done
            if error is None:
                self._result.families[family] = "ok"
                break
            errors.append(error)
        else:
            self._result.families[family] = errors[0].finding
            self._result.error = self._result.error or errors[0]
        self._left -= 1
        if self._left == 0:
            self._first.set()

    async def _one(self, address: str) -> DialError | None:
        try:
            stream = await connect(address, self._port, self._timeout)
        except DialError as error:
            return error
        if self._result.stream is None:
            self._result.stream, self._result.address = stream, address
            self._result.ms = 1000 * (time.monotonic() - self._started)
            self._first.set()
        else:
            stream.close()
        return None


# struct tcp_info (linux/tcp.h): name -> offset; all are u32 but `backoff` and `retransmits`
_TCP_INFO = {"pmtu": 60, "advmss": 84, "retrans": 100, "out_of_order": 224}


def kernel_evidence(stream: Stream) -> dict[str, int]:
    """What Linux knows of the connection below: path MTU, retransmissions, packets that came early."""
    sock = None
    with contextlib.suppress(StreamLost):
        sock = stream.transport.get_extra_info("socket")
    if sock is None or not sys.platform.startswith("linux"):
        return {}
    try:
        raw = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    except OSError:
        return {}
    return {
        name: struct.unpack_from("=I", raw, offset)[0]
        for name, offset in _TCP_INFO.items()
        if len(raw) >= offset + 4
    }


def interface_of(stream: Stream) -> str:
    """The interface that holds our address of the connection (IPv4 on Linux); "" where it isn't known."""
    if not sys.platform.startswith("linux"):
        return ""
    import fcntl

    found = ""
    with contextlib.suppress(StreamLost, OSError, AttributeError, IndexError):
        ours = stream.transport.get_extra_info("socket").getsockname()[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):  # it has no IPv4 address
                    raw = fcntl.ioctl(sock, 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
                    if socket.inet_ntoa(raw[20:24]) == ours:
                        found = name
    return found
