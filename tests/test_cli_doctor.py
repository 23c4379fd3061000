"""`gotunnel doctor` on its command line: report, JSON, status, mending."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gotunnel.cli import doctor as command
from gotunnel.cli.main import main
from gotunnel.doctor import fixes
from gotunnel.doctor.fixes import Change, add_known_hosts, change_of, changes
from tests.conftest import need
from tests.lab import gotool
from tests.test_doctor_doctor import dead_port, source


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment and a directory of the test's own."""
    need(gotool.can_run_go())
    for name in list(os.environ):
        if name.upper().endswith("_PROXY") or name.startswith("GO"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GOTOOLCHAIN", "local")
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return home


def test_a_healthy_report_fits_the_terminal(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with source() as url:
        monkeypatch.setenv("GOPROXY", url)
        assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "healthy" in out
    assert "  ok  directly" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "\x1b" not in out


def test_json_is_exactly_the_contracts_object(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOPROXY", f"http://127.0.0.1:{dead_port()}")
    assert main(["doctor", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert set(said) == {"ok", "root_cause", "findings"}
    assert (said["ok"], said["root_cause"]) == (False, "goproxy.unreachable")
    assert set(said["findings"][0]) == {
        "id", "severity", "stage", "subject", "via", "summary", "evidence", "fix", "retryable",
    }  # fmt: skip


def test_the_root_cause_stands_first_with_the_command_that_mends_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOPROXY", "off")
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "ROOT CAUSE: goproxy.off" in out
    assert "mend: unset GOPROXY\n" in out


@pytest.mark.parametrize("line", [["a b"], ["--yes"], ["--nonsense"]])
def test_a_wrong_command_line_is_status_2(
    here: Path, line: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *line]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_fix_with_yes_mends_a_written_setting_and_looks_again(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = here / ".config" / "go" / "env"
    written.parent.mkdir(parents=True)
    with source() as url:
        monkeypatch.setenv("GOPROXY", url)
        written.write_text("GO111MODULE=off\n")
        assert main(["doctor", "--fix", "--yes"]) == 0
    said = capsys.readouterr()
    assert "gotunnel: done: go env -u GO111MODULE" in said.err
    assert "healthy" in said.out
    assert "GO111MODULE" not in written.read_text()


def test_fix_without_a_person_changes_nothing(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = here / ".config" / "go" / "env"
    written.parent.mkdir(parents=True)
    written.write_text("GO111MODULE=off\n")
    monkeypatch.setattr("gotunnel.cli.ask.terminal", lambda: None)
    monkeypatch.setenv("GOPROXY", "direct")
    monkeypatch.setenv("GOSUMDB", "off")
    assert main(["doctor", "--fix"]) == 1
    assert "nobody to ask" in capsys.readouterr().err
    assert written.read_text() == "GO111MODULE=off\n"


@pytest.mark.parametrize(
    ("command_line", "words"),
    [
        ("go env -u GOPROXY", ("go", "env", "-u", "GOPROXY")),
        ("go env -w 'GOPROXY=https://a|direct'", ("go", "env", "-w", "GOPROXY=https://a|direct")),
        ("go env -w GOPRIVATE=a.b/*   # if it is private", ("go", "env", "-w", "GOPRIVATE=a.b/*")),
        ("ssh-keyscan -p 99 b >> ~/.ssh/known_hosts   # by eye", ("ssh-keyscan", "-T", "5", "-p", "99", "b")),
    ],
)  # fmt: skip
def test_what_may_be_run_for_a_person(command_line: str, words: tuple[str, ...]) -> None:
    change = change_of(command_line)
    assert change is not None
    assert change.words == words


@pytest.mark.parametrize(
    "command_line",
    [
        "go env -w GOPRIVATE=MODULE",
        "go env -w GOPROXY='https://a",
        "go env -w A=b C=d",
        "go clean -modcache",
        "unset GOPROXY",
        "ssh-keyscan -p PORT HOST >> ~/.ssh/known_hosts",
        "ssh-keyscan -oProxyCommand=x >> ~/.ssh/known_hosts",
        "ssh-keyscan bastion >> ~/.ssh/known_hosts; rm -r /",
        "sysctl -w net.ipv4.tcp_mtu_probing=1",
        "gotunnel run --via ssh://USER@JUMPHOST -- go …",
    ],
)
def test_what_is_never_run(command_line: str) -> None:
    assert change_of(command_line) is None


def test_one_variable_is_changed_once_and_the_root_cause_first() -> None:
    findings = [
        {"severity": "error", "fix": ["go env -u GOPROXY"]},
        {"severity": "error", "fix": ["tell somebody", "go env -w GOPROXY=https://b"]},
        {"severity": "info", "fix": ["go env -u GOSUMDB"]},
    ]
    assert [change.command for change in changes(findings)] == ["go env -u GOPROXY"]


def test_a_host_key_is_shown_and_only_a_person_takes_it(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change = Change("ssh-keyscan b >> ~/.ssh/known_hosts", ("ssh-keyscan", "b"), host="b")
    monkeypatch.setattr(fixes, "scan_keys", lambda *_: ("b ssh-ed25519 AAAA\n", ("256 SHA256:xyz b",)))
    assert not command._offer(change, yes=True)
    monkeypatch.setattr(command, "_agreed", lambda question: True)
    assert command._offer(change, yes=False)
    assert "host key: 256 SHA256:xyz b" in capsys.readouterr().err
    assert (here / ".ssh" / "known_hosts").read_text() == "b ssh-ed25519 AAAA\n"


def test_known_hosts_keep_what_they_had(tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    file = tmp_path / ".ssh" / "known_hosts"
    file.write_text("a ssh-ed25519 BBBB")  # no end of line
    assert add_known_hosts("b ssh-ed25519 AAAA\n", str(tmp_path)) == ""
    assert file.read_text() == "a ssh-ed25519 BBBB\nb ssh-ed25519 AAAA\n"
