"""What the service manager hears, by a socket like systemd's, and the sockets it hands over."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from gotunnel.daemon.activation import adopt
from gotunnel.daemon.notify import Notifier
from gotunnel.errors import ConfigError


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_hears_each_word_and_a_status_once(tmp_path: Path, abstract: bool) -> None:
    name = f"@gotunnel-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(10)
        notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "30000000"})
        assert (notifier.enabled, notifier.watchdog) == (True, 30.0)
        notifier.status("opening http://u:hunter2@proxy:1\nnow")
        notifier.status("opening http://u:hunter2@proxy:1\nnow")
        notifier.ready()
        notifier.alive()
        notifier.reloading()
        notifier.stopping()
        heard = [manager.recv(4096).decode() for _ in range(5)]
    assert heard[0].startswith("STATUS=opening http://")
    assert "hunter2" not in heard[0]
    assert "\n" not in heard[0]
    assert heard[1:3] == ["READY=1", "WATCHDOG=1"]
    assert heard[3].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert heard[4] == "STOPPING=1"


def test_without_a_manager_nothing_happens() -> None:
    for environ in ({}, {"NOTIFY_SOCKET": "/nowhere/at/all"}, {"NOTIFY_SOCKET": "vsock:2:1"}):
        notifier = Notifier(environ)
        notifier.ready()
        notifier.status("x")


@pytest.mark.parametrize("usec", ["", "0", "x", "-5"])
def test_no_watchdog(usec: str) -> None:
    assert Notifier({"WATCHDOG_USEC": usec}).watchdog is None
    assert Notifier({"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}).watchdog is None


def test_sockets_are_adopted_by_name_and_the_variables_go() -> None:
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    base = 200  # systemd's 3 belongs to pytest
    for offset, listening in enumerate(made):
        os.dup2(listening.fileno(), base + offset)
    environ = {
        "LISTEN_PID": str(os.getpid()),
        "LISTEN_FDS": "2",
        "LISTEN_FDNAMES": "admin:proxy",
        "PATH": "/",
    }
    found = adopt(environ, first=base)
    assert environ == {"PATH": "/"}
    assert {n: s.getsockname() for n, s in found.items()} == {
        "admin": made[0].getsockname(), "proxy": made[1].getsockname()
    }  # fmt: skip
    for listening in (*found.values(), *made):
        assert not os.get_inheritable(listening.fileno())
        listening.close()


def test_sockets_of_another_process_are_left_alone() -> None:
    assert adopt({"LISTEN_PID": "1", "LISTEN_FDS": "1"}) == {}
    assert adopt({}) == {}


def test_a_socket_of_an_unknown_name_is_said() -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "web:proxy"}
    with pytest.raises(ConfigError, match="FileDescriptorName= to one of proxy, modproxy, admin"):
        adopt(environ, first=200)
