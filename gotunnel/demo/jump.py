"""One throw-away SSH jump host: `python -P -m gotunnel.demo.jump TARGET SOCKET PUBLIC-KEY`.

Rules:
- It knows one target, HOST:PORT, and takes it to a Unix socket; everything else is refused.
- It lets in one key, whatever the user's name; there is no shell, no file transfer, no agent.
- Its first line on standard output says port and host key; at the end of its standard input it ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable
from typing import Any, cast

import asyncssh

from gotunnel.address import HostPort


class JumpHost(asyncssh.SSHServer):
    """The server's side of one connection."""

    def __init__(self, target: HostPort, socket: str) -> None:
        self._target, self._socket = target, socket
        self._connection: asyncssh.SSHServerConnection | None = None

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Keep the connection: channels are opened on it."""
        self._connection = conn

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> Any:  # asyncssh's type leaves out the coroutine that its forwarders are
        """Take the one known target to its socket."""
        if HostPort(dest_host, dest_port) != self._target or self._connection is None:
            raise asyncssh.ChannelOpenError(asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, "not in this demo")
        return cast(Awaitable[object], self._connection.forward_unix_connection(self._socket))


async def serve(target: HostPort, socket: str, public_key: str) -> None:
    """Until standard input ends."""
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=lambda: JumpHost(target, socket),
        server_host_keys=[host_key],
        authorized_client_keys=asyncssh.import_authorized_keys(public_key),
        agent_forwarding=False,
        gss_host=None,
    )
    told = {"port": server.get_port(), "host_key": host_key.export_public_key().decode().strip()}
    print(json.dumps(told), flush=True)
    over = asyncio.Event()

    def read() -> None:
        if not os.read(0, 4096):
            over.set()

    asyncio.get_running_loop().add_reader(0, read)
    await over.wait()


def main() -> None:
    """The command line, which only the demo types."""
    target, socket, public_key = sys.argv[1:]
    asyncio.run(serve(HostPort.parse(target), socket, public_key))


if __name__ == "__main__":
    main()
