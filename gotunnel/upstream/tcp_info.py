"""What the kernel has counted for a TCP socket (Linux: tcp(7) TCP_INFO): life and loss, before bytes come.

What came after a lost segment waits for it, so a reader sees neither that the peer lives nor why it is slow.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from typing import Protocol

from gotunnel.upstream.ssh_growth import Growth, Traffic

_TCP_INFO = socket.TCP_INFO if sys.platform == "linux" else 0
_SIZE = 228  # up to tcpi_rcv_ooopack, Linux 5.4
LOOK = 0.5  # seconds between two looks at what was lost


class Socket(Protocol):
    """A socket, or what asyncio shows of one."""

    def getsockopt(self, level: int, optname: int, buflen: int, /) -> bytes: ...


def counted(sock: Socket) -> Traffic | None:
    """Since the connection was made; None where the system doesn't say, or the socket is closed."""
    if not _TCP_INFO:
        return None
    with contextlib.suppress(OSError):
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _SIZE)
        if len(info) == _SIZE:
            return tcp_traffic(info)
    return None


def tcp_traffic(info: bytes) -> Traffic:
    """Read a `struct tcp_info` of linux/tcp.h."""
    (resent,) = struct.unpack_from("=I", info, 100)  # tcpi_total_retrans
    arrived, sent = struct.unpack_from("=II", info, 152)  # tcpi_data_segs_in, tcpi_data_segs_out
    (disordered,) = struct.unpack_from("=I", info, 224)  # tcpi_rcv_ooopack
    return Traffic(arrived, disordered, sent, resent)


class Losses:
    """Is loss what limits a connection?  Looked at while a body comes; None: nothing is seen."""

    def __init__(self, sock: Socket | None) -> None:
        self._sock = sock
        self._growth = Growth()
        self._last = (counted(sock) if sock is not None else None) or Traffic()
        self._looked = self._now()
        self.seen = False

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def look(self) -> None:
        """Call often."""
        now = self._now()
        if self._sock is None or now - self._looked < LOOK or (traffic := counted(self._sock)) is None:
            return
        since, self._last, self._looked = traffic - self._last, traffic, now
        self.seen = self.seen or since.troubled > 0
        self._growth.looked(now, 1, since)

    @property
    def limit(self) -> bool:
        """Seen again and again, and often enough."""
        return self._growth.lossy(self._now())
