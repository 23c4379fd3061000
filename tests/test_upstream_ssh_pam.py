"""Two factors asked for by a real sshd through PAM: a key, then a password and a code that it has checked.

The server sees a PAM directory of its own, bound over /etc/pam.d in a mount namespace.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gotunnel.errors import Blame
from gotunnel.upstream.asking import NOBODY, Asking
from tests.conftest import need
from tests.jumps import Person, jumping, plan_for
from tests.lab import proc
from tests.lab.keys import Key
from tests.lab.sshd import Sshd, can_run_sshd
from tests.peers import echo, refusal_of, say, serving, until

# pam_exec asks for the password, and gives it to the program on its standard input (pam_exec(8))
_SERVICE = """auth requisite pam_exec.so quiet expose_authtok {check}
auth required pam_permit.so
account required pam_permit.so
session required pam_permit.so
"""
_CHECK = '#!/bin/sh\nread -r typed\n[ "$typed" = "123456" ]\n'
_BIND = 'mount --bind "$0" /etc/pam.d && exec "$@"'


def _can_bind() -> tuple[bool, str]:
    if os.geteuid() != 0 or not Path("/etc/pam.d").is_dir() or proc.tool("unshare") is None:
        return False, "a PAM directory of one's own needs root, unshare(1) and PAM"
    modules = [*Path("/usr/lib").glob("*/security/pam_exec.so"), *Path("/lib").glob("security/pam_exec.so")]
    return bool(modules), "not installed: pam_exec"


class PamSshd(Sshd):
    """An sshd that wants a key and then what the PAM service asks for."""

    def _argv(self) -> list[str]:
        services = self.directory / "pam.d"
        services.mkdir(exist_ok=True)
        check = self.directory / "check"
        check.write_text(_CHECK)
        check.chmod(0o755)
        (services / "sshd").write_text(_SERVICE.format(check=check))
        return [proc.need_tool("unshare"), "--mount", "sh", "-c", _BIND, str(services), *super()._argv()]


@pytest.fixture
def server(tmp_path: Path, client_key: Key) -> Iterator[Sshd]:
    need(can_run_sshd(), _can_bind())
    options = {
        "UsePAM": "yes",
        "KbdInteractiveAuthentication": "yes",
        "PermitRootLogin": "yes",
        "AuthenticationMethods": "publickey,keyboard-interactive:pam",
    }
    with PamSshd(tmp_path / "sshd", options=options, authorized=[client_key]) as server:
        server.write_known_hosts(tmp_path / "known_hosts")
        yield server


async def test_a_second_factor_of_pam_is_asked_for_once_and_has_one_link(
    server: Sshd, client_key: Key, tmp_path: Path
) -> None:
    person = Person("000000", "123456")
    plan = plan_for(server, client_key, tmp_path / "known_hosts", connections=4)
    async with serving(echo) as target, jumping(plan, asking=Asking(person)) as jump:
        streams = [await jump.dial(target) for _ in range(9)]
        assert await say(streams[-1], b"through two factors") == b"through two factors"
        assert jump.links == 1
        assert len(person.asked) == 2  # a wrong code may be typed again
        assert all("Password:" in prompt for prompt in person.asked)
        assert person.echoed == [False, False]
        jump._links[0].connection.abort()
        await until(lambda: jump.links == 0)
        refused = await refusal_of(jump, target)
        assert refused.finding == "ssh.auth-failed"
        assert len(person.asked) == 2  # nobody is asked in the background


async def test_with_nobody_to_ask_it_says_what_is_wanted(
    server: Sshd, client_key: Key, tmp_path: Path
) -> None:
    plan = plan_for(server, client_key, tmp_path / "known_hosts")
    async with serving(echo) as target, jumping(plan, asking=NOBODY) as jump:
        refused = await refusal_of(jump, target)
        assert (refused.finding, refused.blame) == ("ssh.auth-failed", Blame.CREDENTIALS)
        assert "keyboard-interactive" in refused.detail


async def test_three_wrong_codes_are_a_refusal(server: Sshd, client_key: Key, tmp_path: Path) -> None:
    person = Person("0", "1", "2", "3", "4", "5", "6")
    plan = plan_for(server, client_key, tmp_path / "known_hosts")
    async with serving(echo) as target, jumping(plan, asking=Asking(person)) as jump:
        refused = await refusal_of(jump, target)
        assert (refused.finding, refused.blame) == ("ssh.auth-failed", Blame.CREDENTIALS)
        assert len(person.asked) == 3
