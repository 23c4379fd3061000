"""sd_notify(3): what the service manager is told.

Rules:
- Without NOTIFY_SOCKET everything is silently nothing: the same code runs under a terminal.
- A message is one datagram and never blocks; a manager that doesn't read is none of our problem.
- STATUS is one line without secrets.

Source: sd_notify(3), systemd.service(5) (Type=notify, WatchdogSec, MONOTONIC_USEC for notify-reload).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Mapping

from gotunnel.address import HostPort, one_line, redact
from gotunnel.pool.probe import client_hello


class Notifier:
    """One service's line to its manager."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._watchdog = _watchdog(environ)
        self._status = ""

    @property
    def enabled(self) -> bool:
        """True where somebody listens."""
        return self._address.startswith(("/", "@"))

    @property
    def watchdog(self) -> float | None:
        """Seconds within which a WATCHDOG=1 is wanted each time, None where none is."""
        return self._watchdog

    def ready(self) -> None:
        """The service does its work."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; the same one twice is sent once."""
        line = one_line(redact(text), 400)
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service ends."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self.enabled:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.setblocking(False)
            line.sendto(message.encode(), address)


async def feed(notifier: Notifier, where: HostPort, every: float, *, tls: bool = False) -> None:
    """The watchdog gets its food as long as our own listener answers, inside TLS by its first flight."""
    question = b"GET / HTTP/1.1\r\nHost: gotunnel\r\nConnection: close\r\n\r\n"
    if tls:
        question = client_hello("gotunnel")
    while True:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(every * 2):
                reader, writer = await asyncio.open_connection(where.host, where.port)
                try:
                    writer.write(question)
                    if await reader.read(1):
                        notifier.alive()
                finally:
                    writer.close()
        await asyncio.sleep(every)


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """WATCHDOG_USEC, if it is meant for this process (sd_watchdog_enabled(3))."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isascii() or not usec.isdigit() or int(usec) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1e6
