"""`gotunnel probe` over real hops on loopback: an sshd, tinyproxy, microsocks, and an origin with TLS."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gotunnel.address import HostPort
from gotunnel.cli.probe import table
from gotunnel.probe import Goal, Report, Result, some_way_reached_all
from tests.conftest import need
from tests.lab.keys import Key
from tests.lab.origin import Origin
from tests.lab.pki import Authority
from tests.lab.proc import dead_port
from tests.lab.proxies import HttpProxy, SocksProxy
from tests.lab.silent import Silent
from tests.lab.sshd import Sshd

SIZE = 2_000_000


@dataclass(frozen=True)
class World:
    """An origin and who trusts it."""

    url: str
    env: dict[str, str]
    key: Key
    known_hosts: Path

    def run(self, *args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "gotunnel", "probe", "-i", str(self.key.private)]
        line += ["--known-hosts", str(self.known_hosts), *args]
        return subprocess.run(
            line, env=self.env | (env or {}), capture_output=True, text=True, timeout=100, check=False
        )

    def json(self, *args: str, status: int = 0) -> dict[str, Any]:
        ran = self.run("--json", *args)
        assert ran.returncode == status, ran.stderr
        assert ran.stderr == ""
        found: dict[str, Any] = json.loads(ran.stdout)
        assert found["ok"] is (status == 0)
        return found


@pytest.fixture
def world(tmp_path: Path, client_key: Key) -> Iterator[World]:
    authority = Authority(tmp_path / "pki")
    root = tmp_path / "root"
    root.mkdir()
    (root / "big.zip").write_bytes(os.urandom(SIZE))
    (root / "small").write_bytes(b"hello")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SSL_CERT_FILE": str(authority.cert)}
    with Origin(
        tmp_path / "origin", root, certificate=authority.issue("localhost"), name="localhost"
    ) as origin:
        yield World(origin.url, env, client_key, tmp_path / "known_hosts")


def only(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The ways of the one URL."""
    (url,) = found["urls"]
    ways: list[dict[str, Any]] = url["ways"]
    return ways


def test_ways_side_by_side_one_of_them_dead(world: World, sshd: Callable[..., Sshd]) -> None:
    jump = sshd()
    dead = f"http://127.0.0.1:{dead_port()}"
    ssh = f"ssh://{jump.user}@127.0.0.1:{jump.port}"
    direct, refused, through = only(
        world.json("--via", "direct:", "--via", dead, "--via", ssh, f"{world.url}/big.zip")
    )
    for way in (direct, through):
        assert (way["ok"], way["status"], way["finding"]) == (True, 200, None)
        assert way["bytes"] == SIZE
        assert way["rate_bps"] > 0
        assert way["phases"]["tls_ms"] > 0
        assert way["phases"]["first_byte_ms"] > 0
        assert way["phases"]["connect_ms"] > 0
    assert (direct["names"], direct["hops"]) == ("here", [])
    assert direct["phases"]["name_ms"] >= 0
    assert (through["names"], through["phases"]["name_ms"]) == ("far", None)
    assert [hop["hop"] for hop in through["hops"]] == [ssh]
    assert through["hops"][0]["ms"] > through["phases"]["connect_ms"]  # a log-in against a bare connect
    assert (refused["ok"], refused["finding"]) == (False, "tcp.refused")
    assert "connection refused" in refused["detail"]
    assert refused["hops"] == [{"hop": dead, "ms": None}]
    assert "Accepted publickey" in jump.log_text()
    assert jump.log_text().count("Connection from") == 1  # nobody dials an sshd just to time it


def test_each_kind_of_hop_has_its_time(world: World, sshd: Callable[..., Sshd], tmp_path: Path) -> None:
    need(HttpProxy.available(), SocksProxy.available())
    jump = sshd()
    ssh = f"ssh://{jump.user}@127.0.0.1:{jump.port}"
    with (
        HttpProxy(tmp_path / "http") as http,
        SocksProxy(tmp_path / "socks", user="u", password="s3cret-pw") as socks,
    ):
        chain = f"{http.url},{ssh},{socks.url}"
        ran = world.run(
            "--json", "--via", chain, "--via", "direct:?source=127.0.0.1," + ssh, f"{world.url}/small"
        )
        assert ran.returncode == 0, ran.stdout
        assert "s3cret-pw" not in ran.stdout + ran.stderr
        long, bound = only(json.loads(ran.stdout))
    assert [hop["hop"] for hop in long["hops"]] == [http.url, ssh, f"socks5h://u:***@127.0.0.1:{socks.port}"]
    assert all(hop["ms"] > 0 for hop in long["hops"])
    assert (long["bytes"], long["rate_bps"]) == (5, None)
    assert [hop["hop"] for hop in bound["hops"]] == [ssh]
    assert bound["phases"]["connect_ms"] > 0


def test_a_hop_kept_from_the_first_url_has_no_time_at_the_second(
    world: World, sshd: Callable[..., Sshd]
) -> None:
    jump = sshd()
    found = world.json(
        "--via", f"{jump.user}@127.0.0.1:{jump.port}", f"{world.url}/small", f"{world.url}/none"
    )
    (first,), (second,) = (url["ways"] for url in found["urls"])
    assert first["phases"]["connect_ms"] > 0
    assert second["phases"]["connect_ms"] is None
    assert 0 < second["hops"][0]["ms"] < first["hops"][0]["ms"]  # a channel against a log-in and a channel
    assert second["status"] == 404  # any answer counts
    assert jump.log_text().count("Accepted publickey") == 1


def test_failures_after_the_connection_have_their_finding(world: World, tmp_path: Path) -> None:
    name = HostPort.parse(world.url.removeprefix("https://"))
    with (
        Silent(tmp_path / "garbage", "garbage") as noise,
        Silent(tmp_path / "close", "close") as close,
        Silent(tmp_path / "ssh", "banner") as ssh,
    ):
        urls = [
            f"https://127.0.0.1:{name.port}/",  # the certificate is for localhost
            f"https://127.0.0.1:{noise.port}/",
            f"https://127.0.0.1:{close.port}/",
            f"http://127.0.0.1:{close.port}/",
            f"http://127.0.0.1:{ssh.port}/",
        ]
        found = world.json("--via", "direct:", *urls, status=1)
    findings = [url["ways"][0]["finding"] for url in found["urls"]]
    assert findings[:2] == ["tls.wrong-name", "tls.not-tls"]
    assert findings[2:] == ["tcp.reset", "http.truncated", "unknown"]


def test_table_is_plain_and_80_wide(world: World) -> None:
    dead = f"http://127.0.0.1:{dead_port()}"
    ran = world.run(f"{world.url}/big.zip", env={"GOTUNNEL_VIA": f"direct: {dead}"})  # the ways configured
    assert ran.returncode == 0
    lines = ran.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert ran.stdout.isascii()
    assert lines[0] == f"{world.url}/big.zip"
    assert lines[2].split()[0] == "direct:"
    assert lines[2].rstrip().endswith(" 200")
    assert lines[3].startswith(f"! {dead}")
    assert lines[4].strip().startswith("tcp.refused: ")
    assert "\x1b" not in ran.stdout


@pytest.mark.parametrize(
    "url",
    ["ftp://a/", "a.example", "https://", "http://a:0/", "https://u:pw@a/", "https://a/ b", "http://[::/"],
)
def test_bad_urls(world: World, url: str) -> None:
    ran = world.run("--via", "direct:", url)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("gotunnel: probe ")
    assert ran.stderr.count("\n") == 1
    assert "pw" not in ran.stderr


def test_one_way_must_reach_all() -> None:
    def report(*oks: bool) -> Report:
        return Report(Goal.parse("http://a/"), [Result("way", "far", ok=ok) for ok in oks])

    assert some_way_reached_all([report(False, True), report(True, True)])
    assert not some_way_reached_all([report(False, True), report(True, False)])


def test_long_chains_are_shown_below_their_row() -> None:
    hops: Sequence[tuple[str, float | None]] = [
        (f"ssh://someone@jump-{n}.corp.example", 10.0 * n) for n in range(1, 4)
    ]
    result = Result(
        ",".join(hop for hop, _ in hops), "far", True, hops=list(hops), rate=12_300_000, status=200
    )
    lines = list(table(Report(Goal.parse("https://a.example/"), [result])))
    assert all(len(line) <= 80 for line in lines)
    assert "60 ms" in lines[2]
    assert "12.3 MB/s" in lines[2]
    below = " ".join(line.strip() for line in lines[3:]).strip()
    assert below == ", then ".join(f"{hop} {ms:.0f} ms" for hop, ms in hops)
