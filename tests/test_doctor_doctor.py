"""The examination as a whole: a real go, a module source on loopback, and its root cause."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gotunnel.address import HostPort
from gotunnel.doctor import doctor, look
from gotunnel.doctor.doctor import Diagnosis, Way, examine, proxy_address
from gotunnel.doctor.model import Need, Seen
from gotunnel.errors import Blame, DialError
from gotunnel.upstream.dialer import Stream
from gotunnel.upstream.direct import DirectDialer
from tests.conftest import need
from tests.lab import gotool

KNOWN = {
    "/golang.org/x/text/@v/list": b"v0.3.0\n",
    "/golang.org/x/text/@v/v0.3.0.info": b'{"Version":"v0.3.0"}',
    "/sumdb/sum.golang.org/supported": b"",
}


@contextlib.contextmanager
def source(answers: Mapping[str, bytes] = KNOWN) -> Iterator[str]:
    """A module source that knows `answers`; everything else is 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def dead_port() -> int:
    """A port of loopback where nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    need(gotool.can_run_go())
    (tmp_path / "home").mkdir()
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "GOTOOLCHAIN": "local"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "go.mod").write_text("module a.example/x\n\ngo 1.20\n\nrequire golang.org/x/text v0.3.0\n")
    return folder


def told(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    """(id, severity) of what was found; a new project has no go.sum yet, which is said each time."""
    return [(f["id"], f["severity"]) for f in diagnosis.as_json()["findings"] if f["id"] != "sum.missing"]


async def test_a_healthy_machine_gives_no_finding(environ: dict[str, str], project: Path) -> None:
    with source() as url:
        diagnosis = await examine({**environ, "GOPROXY": url}, str(project))
    assert told(diagnosis) == []
    assert {k.need.kind: k.works for k in diagnosis.looks} == {"source": True, "sumdb": True}
    assert len(diagnosis.looks) == 2  # a question that two needs share is asked once


@pytest.mark.parametrize(
    ("listed", "wanted"),
    [
        ("{dead}", [("goproxy.unreachable", "error")]),
        ("{dead},{good}", [("goproxy.no-fallback", "error"), ("goproxy.unreachable", "error")]),
        ("{dead},direct", [("goproxy.no-fallback", "error"), ("goproxy.unreachable", "error")]),
        ("{dead}|{good}", [("goproxy.unreachable", "warning")]),
        ("{good},{dead}", [("goproxy.unreachable", "warning")]),
    ],
)
async def test_a_dead_source_counts_by_what_stands_behind_it(
    environ: dict[str, str], project: Path, listed: str, wanted: list[tuple[str, str]]
) -> None:
    with source() as url:
        text = listed.format(good=url, dead=f"http://127.0.0.1:{dead_port()}")
        diagnosis = await examine({**environ, "GOPROXY": text}, str(project))
    assert told(diagnosis) == wanted


async def test_a_private_module_that_no_source_knows_is_named_and_its_pattern_given(
    environ: dict[str, str], project: Path
) -> None:
    (project / "go.mod").write_text(
        "module a.example/x\n\ngo 1.20\n\nrequire git.corp.internal/team/lib v1.0.0\n"
    )
    with source() as url:
        diagnosis = await examine({**environ, "GOPROXY": url, "GOPRIVATE": "x.example"}, str(project))
    (found,) = [f for f in diagnosis.findings if f.severity == "error"]
    assert (found.id, found.subject) == ("goprivate.missing", "git.corp.internal/team/lib@v1.0.0")
    assert found.fix == ("export GOPRIVATE='x.example,git.corp.internal/*'",)


async def test_a_public_module_that_no_source_knows_does_not_exist(
    environ: dict[str, str], project: Path
) -> None:
    with source() as url:
        diagnosis = await examine(
            {**environ, "GOPROXY": url}, str(project), subjects=["golang.org/x/nothing@v1.0.0"]
        )
    assert told(diagnosis) == [("module.not-found", "error")]


async def test_a_proxy_variable_that_leads_nowhere_is_the_one_cause(
    environ: dict[str, str], project: Path
) -> None:
    dead = f"http://me:hush@127.0.0.1:{dead_port()}"
    # not loopback, which go never asks by a proxy; nothing leaves this machine, since the proxy is dead
    asked = {**environ, "HTTP_PROXY": dead, "GOPROXY": "http://source.invalid", "GOSUMDB": "off"}
    ways = [Way("http://me@proxy", Refusing("http://me@proxy"), variable="HTTP_PROXY")]
    diagnosis = await examine(asked, str(project), ways=ways)
    found = [f for f in diagnosis.findings if f.severity == "error" and f.stage == "config"]
    assert [f.id for f in found] == ["proxy-env.unreachable"]
    assert diagnosis.as_json()["root_cause"] == "proxy-env.unreachable"
    assert "hush" not in str(diagnosis.as_json())


@pytest.mark.parametrize(("private", "severity"), [(True, "error"), (False, "warning")])
async def test_gits_own_dead_proxy_counts_where_git_is_needed(
    environ: dict[str, str], project: Path, private: bool, severity: str
) -> None:
    dead = f"http://me:hush@127.0.0.1:{dead_port()}"
    settings = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.proxy", "GIT_CONFIG_VALUE_0": dead}
    if private:
        (project / "go.mod").write_text("module a.example/x\n\ngo 1.20\n\nrequire git.invalid/lib v1.0.0\n")
    with source() as url:
        asked = {**environ, **settings, "GOPROXY": url, "GOSUMDB": "off", "GOPRIVATE": "git.invalid"}
        diagnosis = await examine(asked, str(project))
    (found,) = [f for f in diagnosis.findings if f.id == "proxy-env.unreachable"]
    assert found.severity == severity
    assert found.fix[0] == "git config --global --unset http.proxy"
    assert "hush" not in str(diagnosis.as_json())


class Refusing:
    """A way out whose own server refuses."""

    def __init__(self, label: str) -> None:
        self.label = label

    async def dial(self, target: HostPort) -> Stream:
        raise DialError("ssh.auth-failed", f"{self.label}: no", blame=Blame.CREDENTIALS, hop=self.label)

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize(("second", "severity", "ok"), [(False, "error", False), (True, "warning", True)])
async def test_a_way_out_that_fails_counts_by_whether_another_works(
    environ: dict[str, str],
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    second: bool,
    severity: str,
    ok: bool,
) -> None:
    ways = [Way("ssh://one", Refusing("ssh://one"))]
    ways += [Way("direct:", DirectDialer())] if second else []
    # go asks loopback directly; here it shall stand for the world
    monkeypatch.setattr(HostPort, "is_loopback", False)
    with source() as url:
        diagnosis = await examine({**environ, "GOPROXY": url}, str(project), ways=ways)
    report = diagnosis.as_json()
    assert (report["ok"], told(diagnosis)) == (ok, [("ssh.auth-failed", severity)])


async def test_a_proxy_that_fails_where_all_works_without_it_is_to_be_left_out(
    environ: dict[str, str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HostPort, "is_loopback", False)
    with source() as url:
        proxy = url.removeprefix("http://")
        ways = [Way("http://proxy:1", Refusing("http://proxy:1"), variable="HTTP_PROXY")]
        asked = {**environ, "GOPROXY": url, "HTTP_PROXY": proxy}
        diagnosis = await examine(asked, str(project), ways=ways)
    (found,) = [f for f in diagnosis.findings if f.severity == "error"]
    assert (found.id, found.fix[0]) == ("ssh.auth-failed", "unset HTTP_PROXY http_proxy")


async def test_a_setting_that_keeps_a_named_module_away_is_told(
    environ: dict[str, str], project: Path
) -> None:
    diagnosis = await examine({**environ, "GOPROXY": "off"}, str(project), subjects=["golang.org/x/text"])
    assert diagnosis.as_json()["root_cause"] == "goproxy.off"


async def test_the_database_itself_is_asked_where_no_source_speaks_for_it(
    environ: dict[str, str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = answer_by(monkeypatch, lambda need: 404 if need.path.endswith("/supported") else 200)
    await examine({**environ, "GOPROXY": "https://source.example"}, str(project))
    assert [url for url in asked if "sum.golang.org" in url] == [
        "https://source.example/sumdb/sum.golang.org/supported",
        "https://sum.golang.org/latest",
    ]


async def test_the_repository_that_a_page_names_is_looked_at_as_well(
    environ: dict[str, str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "go.mod").write_text("module a.example/x\n\ngo 1.20\n\nrequire go.corp.example/lib v1.0.0\n")
    page = b'<html><meta name="go-import" content="go.corp.example/lib git https://git.corp.example/lib">'
    asked = answer_by(monkeypatch, lambda need: 200, page)
    await examine({**environ, "GOPRIVATE": "*.corp.example"}, str(project))
    assert "https://git.corp.example/lib/info/refs?service=git-upload-pack" in asked


async def test_a_silent_network_ends_in_time_and_does_not_pass_for_health(
    environ: dict[str, str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(need: Need, **more: Any) -> Seen:
        await asyncio.sleep(3600)
        raise AssertionError

    monkeypatch.setattr(look, "look", silent)
    diagnosis = await examine(environ, str(project), limit=0.2)
    assert {look.failed for look in diagnosis.looks} == {"http.timeout"}
    assert diagnosis.as_json()["root_cause"] == "http.timeout"


def answer_by(monkeypatch: pytest.MonkeyPatch, status: Any, body: bytes = b"") -> list[str]:
    """Answers every look; gives the list of what is asked."""
    asked: list[str] = []

    async def answered(need: Need, **more: Any) -> Seen:
        asked.append(need.url)
        return Seen(need, status=status(need), body=body)

    monkeypatch.setattr(look, "look", answered)
    return asked


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("proxy:3128", HostPort("proxy", 3128)),
        ("http://me:pw@proxy", HostPort("proxy", 80)),
        ("socks5://[::1]:1080/", HostPort("::1", 1080)),
    ],
)
def test_the_address_of_a_proxy_variable(value: str, wanted: HostPort) -> None:
    assert proxy_address(value) == wanted


@pytest.mark.parametrize("value", ["ftp://proxy:1", "http://", "http://proxy:0x1"])
def test_a_proxy_variable_that_has_no_address(value: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        proxy_address(value)


def test_the_limits_keep_everything_under_fifteen_seconds() -> None:
    from gotunnel.doctor.facts import ASK_LIMIT

    assert doctor.LIMIT + 3.0 < 15.0
    assert ASK_LIMIT <= 5.0
