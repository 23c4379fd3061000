"""Shared fixtures: the lab.

Rules:
- Where a part of the lab is not possible here, its tests are skipped with the reason; with CI=true
  they fail instead, since there nothing may be missing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.lab import gitserver, gotool, keys, netns, sshd
from tests.lab.keys import Key
from tests.lab.proxies import HttpProxy, SocksProxy
from tests.lab.sshd import Sshd
from tests.lab.topology import Topology

Able = tuple[bool, str]


def need(*abilities: Able) -> None:
    """Skip the test, or in CI fail it, with the reasons of what is not possible here."""
    reasons = [reason for able, reason in abilities if not able]
    if reasons and os.environ.get("CI") == "true":
        pytest.fail("CI must have it: " + "; ".join(reasons), pytrace=False)
    if reasons:
        pytest.skip("; ".join(reasons))


@pytest.fixture(scope="session")
def topology(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Topology]:
    """The whole lab in namespaces, once a session.  Tests take `lab`, which is healthy each time."""
    need(
        netns.can_make_namespaces(), sshd.can_run_sshd(), gotool.can_run_go(), gitserver.can_serve_git(),
        HttpProxy.available(), SocksProxy.available(),
    )  # fmt: skip
    with Topology(tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest.fixture
def lab(topology: Topology) -> Topology:
    """The topology with every server up, links whole, logs and counters empty."""
    return topology.reset()


@pytest.fixture(scope="session")
def client_key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    """A client key, admitted by every server of the `sshd` fixture."""
    need(sshd.can_run_sshd())
    return keys.new_key(tmp_path_factory.mktemp("client") / "id_lab")


@pytest.fixture(name="sshd")
def sshd_factory(tmp_path: Path, client_key: Key) -> Iterator[Callable[..., Sshd]]:
    """Starts OpenSSH servers on loopback: `sshd()`, `sshd(AllowTcpForwarding="no")`; no root needed.

    The host keys of all of them are in `tmp_path / "known_hosts"`.
    """
    with contextlib.ExitStack() as stack:
        count = 0

        def start(**options: str) -> Sshd:
            nonlocal count
            count += 1
            settings: Mapping[str, str] = options
            server = Sshd(tmp_path / f"sshd-{count}", options=settings, authorized=[client_key])
            stack.enter_context(server)
            server.write_known_hosts(tmp_path / "known_hosts")
            return server

        yield start
