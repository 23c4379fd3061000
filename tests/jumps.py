"""What the tests of the ssh hop share: dialers to the lab's servers, and a server of asyncssh to script."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncssh

from gotunnel.address import HostPort
from gotunnel.upstream.dialer import Dialer
from gotunnel.upstream.direct import DirectDialer
from gotunnel.upstream.ssh import SshDialer
from gotunnel.upstream.ssh_plan import SshPlan
from tests.lab.keys import Key
from tests.lab.sshd import Sshd


def plan_for(server: Sshd | HostPort, key: Key | None, known_hosts: Path, **changes: Any) -> SshPlan:
    """The plan of a jump host that reads nothing of the user's; `changes` are fields of it."""
    host, port = (server.address, server.port) if isinstance(server, Sshd) else (server.host, server.port)
    fields: dict[str, Any] = {
        "host": "jump",
        "hostname": host,
        "port": port,
        "user": server.user if isinstance(server, Sshd) else "someone",
        "named": False,
        "identities": (str(key.private),) if key else (),
        "explicit_identities": True,
        "identities_only": True,
        "known_hosts_files": (str(known_hosts),),
        "host_key_name": host,
        "host_key_port": port,
    }
    return SshPlan(**(fields | changes))


@contextlib.asynccontextmanager
async def jumping(plan: SshPlan, before: Dialer | None = None, **options: Any) -> AsyncIterator[SshDialer]:
    """A dialer for `plan`, closed at the exit."""
    dialer = SshDialer(before or DirectDialer(), plan, label="ssh://jump", **options)
    try:
        yield dialer
    finally:
        await dialer.close()


@contextlib.asynccontextmanager
async def scripted(
    requested: Callable[[str, int], Any], known_hosts: Path, host_key: Key, **options: Any
) -> AsyncIterator[HostPort]:
    """An SSH server of asyncssh that admits everybody; `requested` answers for each channel asked for."""

    class Server(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

        def connection_requested(self, dest_host: str, dest_port: int, orig_host: str, orig_port: int) -> Any:
            return requested(dest_host, dest_port)

    listener = await asyncssh.create_server(
        Server, "127.0.0.1", 0, server_host_keys=[str(host_key.private)], **options
    )
    port = listener.get_port()
    with known_hosts.open("a") as file:
        file.write(f"[127.0.0.1]:{port} {host_key.public}\n")
    try:
        yield HostPort("127.0.0.1", port)
    finally:
        listener.close()
        await listener.wait_closed()


class Person:
    """Gives these answers, one after the other; each takes `slow` seconds."""

    def __init__(self, *answers: str | None, slow: float = 0.0) -> None:
        self._answers = list(answers)
        self._slow = slow
        self.asked: list[str] = []
        self.echoed: list[bool] = []

    async def __call__(self, prompt: str, *, echo: bool = False) -> str | None:
        self.asked.append(prompt)
        self.echoed.append(echo)
        await asyncio.sleep(self._slow)
        return self._answers.pop(0)


def logins(server: Sshd) -> int:
    """How often somebody was admitted."""
    return server.log_text().count("Accepted publickey")


def callers(server: Sshd) -> int:
    """How often somebody connected."""
    return server.log_text().count("Connection from")
