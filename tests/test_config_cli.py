"""`gotunnel config show|check|path`."""

from __future__ import annotations

import argparse
import json
import tomllib
from pathlib import Path

import pytest

from gotunnel.cli import config as command
from gotunnel.config import load as loading
from gotunnel.config.model import Upstream

SECRETS = """
[[upstream]]
name = "office"
via = ["http://u:hunter2@proxy.office:3128", "socks5://v:hunter2@h:1080"]
tags = ["backup"]
[go]
mirrors = ["https://u:hunter2@goproxy.corp"]
[cache]
url = "s3://bucket/x?secret_access_key=hunter2"
[alert]
webhook = "https://hooks.example/hunter2"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("GOTUNNEL_CONFIG", "GOTUNNEL_VIA", "HTTPS_PROXY", "https_proxy", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(loading, "SYSTEM_FILE", str(tmp_path / "none.toml"))
    return tmp_path / "c.toml"


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    parser.add_argument("--log-level")
    command.add_arguments(parser)
    return command.main(parser.parse_args(words))


def test_show_names_sources_and_no_secrets(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(SECRETS)
    monkeypatch.setenv("GOTUNNEL_POOL_STALL", "9s")
    assert run("--config", str(file), "--log-level", "debug", "show") == 0
    out = capsys.readouterr().out
    assert "hunter2" not in out
    lines = {line.partition(" = ")[0]: line for line in out.splitlines() if " = " in line}
    assert lines["via"].endswith(f"# {file}:4; names resolve here")
    assert lines["stall"].split() == ["stall", "=", '"9s"', "#", "GOTUNNEL_POOL_STALL"]
    assert lines["level"].split()[-2:] == ["#", "--log-level"]
    assert lines["hedge"].split()[-2:] == ["#", "default"]
    shown = tomllib.loads(out)
    assert shown["upstream"][0]["via"] == "http://u:***@proxy.office:3128,socks5://v:***@h:1080"
    assert shown["cache"]["url"] == "s3://bucket/x?secret_access_key=***"


def test_what_show_prints_is_a_configuration(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(
        '[[upstream]]\nname = "a"\nvia = "b"\n[[route]]\nmatch = "*.x"\nto = "a"\n[cache]\nmax_size = "7MiB"'
    )
    assert run("--config", str(file), "show") == 0
    first = capsys.readouterr().out
    file.write_text(first)
    assert run("--config", str(file), "show") == 0
    assert tomllib.loads(capsys.readouterr().out) == tomllib.loads(first)


def test_show_as_json(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://u:hunter2@p:3128")
    monkeypatch.setenv("NO_PROXY", "corp.example")
    assert run("show", "--json") == 0
    out = capsys.readouterr().out
    assert "hunter2" not in out
    data = json.loads(out)
    assert data["ways_out"] == "HTTPS_PROXY"
    assert data["upstream"][0]["via"] == {"value": "http://u:***@p:3128", "source": "HTTPS_PROXY"}
    assert data["upstream"][0]["names_resolve"] == "far end"
    assert data["route"][0]["match"] == {"value": ["corp.example", "*.corp.example"], "source": "NO_PROXY"}
    assert data["pool"]["probe.every"] == {"value": "30s", "source": "default"}


@pytest.mark.parametrize(
    ("chain", "far"),
    [
        ("bastion", True),
        ("http://p:1", True),
        ("socks5h://h:1", True),
        ("socks4a://h:1", True),
        ("direct:", False),
        ("socks5://h:1", False),
        ("bastion,socks4://h:1", False),
        ("srv://_gotunnel-ssh._tcp.corp.example", True),
    ],
)
def test_where_names_resolve(chain: str, far: bool) -> None:
    assert command.resolves_far(Upstream("a", chain)) is far


def test_check(file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(SECRETS.replace("?secret_access_key=hunter2", ""))
    assert run("--config", str(file), "check") == 0
    assert capsys.readouterr().out == f"OK: {file}\n"
    file.write_text(SECRETS)
    assert run("--config", str(file), "check") == 78
    told = capsys.readouterr().out
    assert told.startswith(f"{file}:9: [cache] url: the store's URL takes no credentials")
    assert "hunter2" not in told
    file.write_text('[pool]\nstratgy = 1\nstall = 2\n[listen.tls]\ncert = "/nope"\nkey = "/nope"\n')
    monkeypatch.setenv("GOTUNNEL_LOG_LEVEL", "loud")
    monkeypatch.setenv("GOTUNNEL_VIA", "gopher://x")
    assert run("--config", str(file), "check") == 78
    places = [line.partition(": ")[0] for line in capsys.readouterr().out.splitlines()]
    lines = [f"{file}:{number}" for number in (2, 3, 5, 6)]
    assert places == [*lines[:2], "GOTUNNEL_LOG_LEVEL", *lines[2:], "GOTUNNEL_VIA"]


def test_show_of_a_wrong_file_is_one_line(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("[pool]\nstratgy = 1\nstall = 2\n")
    assert run("--config", str(file), "show") == 78
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f'gotunnel: {file}:2: unknown key "stratgy" in [pool]; did you mean "strategy"?\n'


def test_path(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("path") == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[1:] == [
        f"  {file.parent}/.config/gotunnel/config.toml",
        f"  {file.parent}/none.toml",
    ]
    file.write_text("")
    assert run("--config", str(file), "path") == 0
    assert capsys.readouterr().out == f"{file}\n"
