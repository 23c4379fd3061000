"""netrc and GOAUTH, as go reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gotunnel.modproxy.credentials import NONE, Credentials, parse_netrc, read_credentials
from gotunnel.wire.http1 import basic

NETRC = """
machine goproxy.corp.example login anna password s3cret
machine git.corp.example:8443
  login bob
  password pw-of-bob
macdef init
machine in.a.macro login x password y

machine goproxy.corp.example login late password second
default login any password body
machine after.default.example login x password y
"""


def test_netrc_is_read_as_go_reads_it() -> None:
    assert parse_netrc(NETRC) == {
        "goproxy.corp.example": ("anna", "s3cret"),
        "git.corp.example:8443": ("bob", "pw-of-bob"),
    }


@pytest.mark.parametrize(
    ("host", "port", "userinfo", "want"),
    [
        ("goproxy.corp.example", 443, "", basic("anna", "s3cret")),
        ("goproxy.corp.example", 8080, "", ""),
        ("git.corp.example", 8443, "", basic("bob", "pw-of-bob")),
        ("git.corp.example", 443, "", ""),
        ("goproxy.corp.example", 443, "carl:p%40ss%3A", basic("carl", "p@ss:")),
        ("elsewhere.example", 443, "token", basic("token", "")),
        ("after.default.example", 443, "", ""),
    ],
)
def test_who_gets_what(host: str, port: int, userinfo: str, want: str) -> None:
    assert Credentials(parse_netrc(NETRC)).authorization(host, port, userinfo) == want


def test_goauth_says_where_they_come_from(tmp_path: Path) -> None:
    (tmp_path / "rc").write_text(NETRC)
    environ = {"NETRC": str(tmp_path / "rc")}
    found, complaints = read_credentials(environ, "netrc")
    assert found.machines
    assert not complaints
    assert read_credentials(environ, "off") == (NONE, ())
    found, complaints = read_credentials(environ, "git /srv/x; netrc; helper --key hidden")
    assert found.machines
    assert len(complaints) == 2
    assert "GOAUTH=git" in complaints[0]
    assert "hidden" not in complaints[1]


def test_the_home_directory_and_absent_files(tmp_path: Path) -> None:
    assert read_credentials({"HOME": str(tmp_path)}) == (NONE, ())
    (tmp_path / ".netrc").write_text("machine m login l password p")
    assert read_credentials({"HOME": str(tmp_path)})[0].machines == {"m": ("l", "p")}
    assert read_credentials({"NETRC": str(tmp_path)}) == (NONE, ())  # a directory


def test_no_secret_is_shown() -> None:
    assert "s3cret" not in repr(Credentials(parse_netrc(NETRC)))
