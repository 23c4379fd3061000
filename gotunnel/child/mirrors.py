"""The public module mirrors everybody may use, and which of them answers from here.

Rules:
- Asked only after a run without any way out has failed on the network, and only for a public module that has
  nothing to do with the user's: no name of theirs is sent anywhere.
- Verified TLS and a 200 for that module are wanted: a login page answers too.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence

import aiohappyeyeballs

from gotunnel.address import HostPort
from gotunnel.upstream.direct import resolve

PRESETS = ("https://proxy.golang.org", "https://goproxy.cn", "https://goproxy.io")
_ASKED = "/golang.org/x/mod/@v/v0.20.0.info"
_TIMEOUT = 5.0  # seconds for all of them, asked at once


async def first_reachable(mirrors: Sequence[str]) -> str | None:
    """The first of `mirrors` (https URLs), in their order, that serves modules from here."""
    answers = await asyncio.gather(*(_serves(mirror) for mirror in mirrors))
    return next((mirror for mirror, serves in zip(mirrors, answers, strict=True) if serves), None)


async def _serves(mirror: str) -> bool:
    where, _, prefix = mirror.removeprefix("https://").partition("/")
    try:
        target = HostPort.parse(where, 443)
        async with asyncio.timeout(_TIMEOUT):
            # asyncio's own resolver would hold up the end of the process
            sock = await aiohappyeyeballs.start_connection(await resolve(target))
            reader, writer = await _over_tls(sock, target.host)
            try:
                path = f"/{prefix}" if prefix else ""
                writer.write(
                    f"GET {path}{_ASKED} HTTP/1.1\r\nHost: {where}\r\nConnection: close\r\n\r\n".encode()
                )
                status = await reader.readline()
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, ValueError):
        return False
    return status.startswith(b"HTTP/1.") and status[9:12] == b"200"


async def _over_tls(sock: socket.socket, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_connection(
            sock=sock, ssl=ssl.create_default_context(), server_hostname=name
        )
    except BaseException:
        sock.close()
        raise
