"""journald's own protocol: an entry with a priority and fields, in one datagram.

Rules:
- Sending never blocks; what can't be sent (no socket, a full queue) is False, and the caller has another way.
- An entry that is too large for a datagram goes in a sealed memfd.

Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL, JOURNAL_STREAM in systemd.exec(5).
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import re
import socket
from collections.abc import Mapping

SOCKET = "/run/systemd/journal/socket"
_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # F_SEAL_SEAL, SHRINK, GROW, WRITE: linux/fcntl.h
_ADD_SEALS = 1033  # F_ADD_SEALS, which Python's fcntl has on Linux only


def is_journal(environ: Mapping[str, str], descriptor: int = 2) -> bool:
    """Whether `descriptor` leads to journald: JOURNAL_STREAM names its device and inode."""
    try:
        device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
        about = os.fstat(descriptor)
        return (int(device), int(inode)) == (about.st_dev, about.st_ino)
    except (ValueError, OSError):
        return False


def entry(fields: Mapping[str, str]) -> bytes:
    """The bytes of an entry; names are made to fit (capitals, digits and underscores, 64 at most)."""
    parts = []
    for name, value in fields.items():
        key = re.sub(r"[^A-Z0-9_]", "_", name.upper()).lstrip("_0123456789")[:64].encode()
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts.append(key + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        elif key:
            parts.append(key + b"=" + data + b"\n")
    return b"".join(parts)


class Journal:
    """A line to journald."""

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def send(self, fields: Mapping[str, str]) -> bool:
        """Write one entry; False where it didn't go."""
        data = entry(fields)
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            return error.errno in (errno.EMSGSIZE, errno.ENOBUFS) and self._send_large(data)
        return True

    def _send_large(self, data: bytes) -> bool:
        import fcntl

        with contextlib.suppress(OSError, AttributeError):  # memfd is Linux's
            descriptor = os.memfd_create("gotunnel-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
                rights = array.array("i", [descriptor])
                self._socket.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], 0, self._path)
            return True
        return False

    def close(self) -> None:
        """No more entries."""
        self._socket.close()
