"""The README's recipes as they stand there, by a shell in the lab, where their hosts exist.

Only the users are other ones (the lab's sshds admit the user that runs them).  `bastion` and the others stand
in the client's /etc/ssh/ssh_config, `proxy.office` in its hosts file: ip-netns(8) shows it those of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import readme
from tests.gotunnel_in_lab import nothing_left
from tests.lab import netns
from tests.lab.proc import ROOT
from tests.lab.proxies import HttpProxy
from tests.lab.sshd import Sshd
from tests.lab.topology import HOPS, INNER, Topology

PROXY, FIRST, SECOND = (INNER[name] for name in ("proxy", "jump1", "jump2"))


@pytest.fixture
def office(lab: Topology) -> Iterator[HttpProxy]:
    """The office's proxy, by the name and port that the README gives it."""
    address = f"{HOPS['proxy']}.2"
    hosts = netns.ETC / lab.client.name / "hosts"
    before = hosts.read_text()
    hosts.write_text(f"{before}{address} proxy.office\n")
    with HttpProxy(
        lab.directory / "office", place=lab.proxy, address=address, port=3128, listen="0.0.0.0"
    ) as proxy:
        yield proxy
    hosts.write_text(before)


@pytest.fixture
def bastion(lab: Topology) -> Iterator[Sshd]:
    """The first jump host's sshd on port 443 as well."""
    server = Sshd(lab.directory / "bastion-443", place=lab.jump1, address=f"{HOPS['jump1']}.2", port=443,
                  listen="0.0.0.0", authorized=[lab.key])  # fmt: skip
    with server:
        yield server


@pytest.fixture
def names(lab: Topology, bastion: Sshd) -> Iterator[None]:
    """The jump hosts by the README's names."""
    directory = netns.ETC / lab.client.name / "ssh"
    directory.mkdir()
    known = lab.directory / "readme_known_hosts"
    known.unlink(missing_ok=True)
    lab.sshd1.write_known_hosts(known, "bastion", "tokyo")
    lab.sshd2.write_known_hosts(known, "paris", INNER["jump2"])
    bastion.write_known_hosts(known, "bastion")
    (directory / "ssh_config").write_text(
        f"Host bastion tokyo\n  HostName {HOPS['jump1']}.2\nHost paris\n  HostName {HOPS['jump2']}.2\n"
        f"Host inner\n  HostName {INNER['jump2']}\n  User {lab.sshd2.user}\n"
        f"Host *\n  IdentityFile {lab.key.private}\n  UserKnownHostsFile {known}\n"
    )
    yield
    shutil.rmtree(directory)


def recipe(words: str) -> str:
    """The block with these words."""
    (block,) = [block for block in readme.recipes() if words in block]
    return block


def follow(lab: Topology, block: str, **env: str) -> set[str]:
    """Run the block; gives the addresses from which the module origin was asked."""
    script = re.sub(r"\b(dev|ci)@", f"{lab.sshd1.user}@", block)
    own = lab.go_env(PYTHONPATH=str(ROOT), **env)
    tools = Path(own["HOME"], "bin")
    tools.mkdir()
    (tools / "gotunnel").write_text(f'#!/bin/sh\nexec {sys.executable} -m gotunnel "$@"\n')
    (tools / "gotunnel").chmod(0o755)
    own["PATH"] = f"{tools}{os.pathsep}{own['PATH']}"
    lab.modules.clear_log()
    argv = ["sh", "-e", "-c", script]
    ran = lab.client_run(argv, env=own, cwd=lab.fresh_project(), timeout=100)
    assert ran.returncode == 0, ran.stderr
    assert lab.direct_attempts() == []
    assert nothing_left(lab)
    return {request["client"] for request in lab.modules.requests()}


@pytest.mark.usefixtures("names")
def test_an_office_proxy_and_a_jump_host_behind_it(lab: Topology, office: HttpProxy) -> None:
    block = recipe("proxy.office")
    assert follow(lab, block) == {PROXY}
    office.stop()
    assert follow(lab, block) == {FIRST}


@pytest.mark.usefixtures("names")
def test_one_jump_host_and_one_behind_it(lab: Topology) -> None:
    tidy, build = recipe("bastion,inner").splitlines()
    assert follow(lab, tidy) == {FIRST}
    assert follow(lab, build) == {SECOND}


@pytest.mark.usefixtures("names")
def test_two_jump_hosts(lab: Topology) -> None:
    block = recipe("tokyo")
    assert follow(lab, block) == {FIRST}
    lab.sshd1.stop()
    assert follow(lab, block) == {SECOND}


@pytest.mark.usefixtures("names")
def test_ci(lab: Topology) -> None:
    """With the key and the known hosts in variables, as it says."""
    config = netns.ETC / lab.client.name / "ssh" / "ssh_config"
    config.write_text(f"Host bastion\n  HostName {HOPS['jump1']}.2\n")
    key, known = lab.key.private.read_text(), lab.sshd1.known_hosts_line("bastion")
    assert follow(
        lab, recipe("GOTUNNEL_VIA"), CI="true", GOTUNNEL_SSH_KEY=key, GOTUNNEL_SSH_KNOWN_HOSTS=known
    ) == {FIRST}


def test_all_recipes_are_here() -> None:
    here = [recipe(words) for words in ("proxy.office", "bastion,inner", "tokyo", "GOTUNNEL_VIA")]
    assert sorted(here) == sorted(readme.recipes())
