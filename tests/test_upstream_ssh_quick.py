"""The quick login: what a real sshd is asked, also when the first key is not the right one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from gotunnel.upstream import ssh_login
from tests.jumps import jumping, plan_for
from tests.lab.keys import Key, new_key
from tests.lab.sshd import Sshd

Start = Callable[..., Sshd]


def known(server: Sshd, directory: Path) -> Path:
    """A file with the server's key."""
    return server.write_known_hosts(directory / "known_hosts")


def requests(server: Sshd) -> list[str]:
    """The methods of the requests in the server's log, in order."""
    text = r"userauth-request for user \S+ service ssh-connection method (\S+)"
    return re.findall(text, server.log_text())


async def test_one_request_is_enough(sshd: Start, client_key: Key, tmp_path: Path) -> None:
    server = sshd(LogLevel="DEBUG3")
    async with jumping(plan_for(server, client_key, known(server, tmp_path))) as jump:
        await jump.warm()
    assert requests(server) == ["publickey"]


async def test_a_key_that_is_refused_costs_no_more_than_itself(
    sshd: Start, client_key: Key, tmp_path: Path
) -> None:
    server = sshd(LogLevel="DEBUG3")
    wrong = new_key(tmp_path / "wrong")
    plan = plan_for(server, client_key, known(server, tmp_path))
    plan = dataclasses.replace(plan, identities=(str(wrong.private), *plan.identities))
    async with jumping(plan) as jump:
        await jump.warm()
    assert requests(server) == ["publickey", "none", "publickey", "publickey"]


async def test_an_unknown_asyncssh_logs_in_its_own_way(
    sshd: Start, client_key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_login, "insides_known", lambda: False)
    server = sshd(LogLevel="DEBUG3")
    async with jumping(plan_for(server, client_key, known(server, tmp_path))) as jump:
        await jump.warm()
    assert requests(server) == ["none", "publickey", "publickey"]
