"""`gotunnel service` where no systemd runs, and what it writes; the rest is in test_systemd."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest

from gotunnel.cli import service
from gotunnel.cli.main import main
from gotunnel.daemon.units import MARK, PORTS
from tests.gotunnel_alone import gotunnel


def test_print_shows_every_unit_and_writes_nothing(tmp_path: Path) -> None:
    ran = gotunnel("service", "install", "--user", "--print", home=tmp_path)
    assert ran.status == 0
    assert ran.stderr == ""
    text = ran.stdout.decode()
    shown = re.findall(rf"^# {re.escape(str(tmp_path))}/\.config/systemd/user/(\S+)$", text, re.M)
    assert sorted(shown) == sorted((*service.SOCKETS, service.SERVICE, "gotunnel@.service"))
    program = re.findall(r"^ExecStart=(/\S+)", text, re.M)
    assert len(program) == 2
    assert all(Path(path).is_file() for path in program)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["install", "uninstall", "status"])
def test_without_systemd_one_line_says_so(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(service, "BOOTED", tmp_path / "not-there")
    assert main(["service", what, "--user"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "isn't run by systemd" in err
    assert "gotunnel serve" in err


def test_the_system_s_units_need_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(service, "BOOTED", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main(["service", "install", "--system"]) == 1
    assert "needs root" in capsys.readouterr().err


def test_a_program_in_a_home_is_refused_since_the_service_can_t_see_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", "/home/me/.venv/bin/python")
    words = "in a home directory, which the system's service doesn't see"
    with pytest.raises(service.ServiceError, match=words):
        service._install(service.Scope(False, tmp_path, print))
    assert list(tmp_path.iterdir()) == []
    assert main(["service", "install", "--system", "--print"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\nExecStart=") == 2
    assert words in err
    assert service._unseen(service.Scope(True, tmp_path, print)) == ""


def test_ports_are_free_ones_and_stay(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind(("127.0.0.1", PORTS["modproxy"]))
        except OSError:
            pass  # somebody else's: as good
        else:
            taken.listen()
        chosen = service._ports(tmp_path)
    assert chosen["modproxy"] != PORTS["modproxy"]
    for name in PORTS:
        unit = f"{MARK}\n[Socket]\nListenStream=127.0.0.1:{PORTS[name] + 7}\n"
        (tmp_path / f"gotunnel-{name}.socket").write_text(unit)
    assert service._ports(tmp_path) == {name: port + 7 for name, port in PORTS.items()}


def test_a_unit_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "gotunnel-proxy.socket").write_text("[Socket]\nListenStream=1\n")
    with pytest.raises(service.ServiceError, match="was not written by gotunnel"):
        service._ports(tmp_path)
