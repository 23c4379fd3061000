"""Listening sockets: bound here, or adopted from who started us.

Rules:
- A socket listens from the moment it is bound: clients that come before its server is ready wait in the
  kernel's queue and are not refused.
- An error names the key of the configuration, and what to do.
"""

from __future__ import annotations

import errno
import socket

from gotunnel.address import HostPort
from gotunnel.errors import ConfigError

BACKLOG = 1024


def bind(address: HostPort, key: str) -> socket.socket:
    """A socket that listens at `address` (port 0: a free one), named `key` in errors.  Raises ConfigError."""
    try:
        found = socket.getaddrinfo(
            address.host,
            address.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV,
        )
        family, kind, protocol, _, where = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setblocking(False)
            listening.bind(where)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        words = "already in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
        raise ConfigError(
            f"{key} {address}: {words}; choose another address, or port 0 for a free one"
        ) from error
    return listening


def reached_at(address: HostPort) -> HostPort:
    """Where a client on this machine reaches it: who listens on every address is reached by loopback."""
    return HostPort({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host), address.port)  # noqa: S104


def address_of(listening: socket.socket) -> HostPort:
    """Where it listens."""
    host, port = listening.getsockname()[:2]
    return HostPort(host, port)
