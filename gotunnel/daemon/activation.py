"""Sockets that systemd holds for us: sd_listen_fds(3).

Rules:
- They are ours only if LISTEN_PID is our pid; the variables are taken out of the environment, since no child
  is to have them.
- A socket is known by its name (FileDescriptorName= in the .socket unit): proxy, modproxy, admin.  A single
  one without a name is the proxy's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

from gotunnel.errors import ConfigError

NAMES = ("proxy", "modproxy", "admin")
_FIRST = 3  # SD_LISTEN_FDS_START


def adopt(environ: MutableMapping[str, str], *, first: int = _FIRST) -> dict[str, socket.socket]:
    """The listening sockets by name; {} where there are none.  Raises ConfigError for one that isn't ours."""
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return {}
    found: dict[str, socket.socket] = {}
    for number in range(int(count)):
        name = names[number] if number < len(names) else ""
        if int(count) == 1 and name not in NAMES:
            name = "proxy"
        if name not in NAMES:
            raise ConfigError(
                f"socket activation: a socket is named {name!r}; set FileDescriptorName= to one of "
                f"{', '.join(NAMES)}"
            )
        try:
            listening = socket.socket(fileno=first + number)
        except OSError as error:
            raise ConfigError(f"socket activation: {name}: no socket: {error.strerror}") from error
        if listening.type != socket.SOCK_STREAM:
            raise ConfigError(f"socket activation: {name}: want ListenStream=")
        os.set_inheritable(listening.fileno(), False)
        listening.setblocking(False)
        found[name] = listening
    return found
