"""A configuration file with two ways out, tags and routes, under `gotunnel run --config` in the lab."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gotunnel_in_lab import Ran, finish, jump, nothing_left, start
from tests.lab.origin import Origin
from tests.lab.topology import GIT, HOPS, PLAIN, Topology

ONE, TWO, DIRECT = "10.80.0.11", "10.80.0.12", "10.77.3.1"  # whom an origin sees


@pytest.fixture
def near(lab: Topology) -> Iterator[Origin]:
    """An origin that the client itself can reach."""
    with Origin(
        lab.directory / "near", lab.corpus.directory, place=lab.proxy, address=f"{HOPS['proxy']}.2", port=8000
    ) as made:
        made.clear_log()
        yield made


def config(lab: Topology, where: Path) -> Path:
    options = f"identity={lab.key.private}&known_hosts={lab.known_hosts}"
    file = where / "config.toml"
    file.write_text(f"""
[[upstream]]
name = "one"
via  = "ssh://{jump(lab, 1)}?{options}"
[[upstream]]
name = "two"
via  = ["ssh://{jump(lab, 2)}?{options}"]
tags = ["backup"]

[[route]]
match = ["forbidden.lab.example", "10.80.0.99"]
to    = "reject"
[[route]]
match = ["plain.lab.example"]
to    = "two"
[[route]]
match = ["*.lab.example"]
to    = "one"
[[route]]
match = ["{PLAIN}/32"]
to    = "backup"
[[route]]
match = ["10.77.0.0/16"]
to    = "direct"
""")
    return file


def curl(lab: Topology, where: Path, *urls: str) -> Ran:
    """`gotunnel run --config` of one curl for all of `urls`."""
    began = time.monotonic()
    argv = ["curl", "-sS", "--max-time", "20", "--cacert", str(lab.ca), *urls]
    process, events = start(lab, ["--config", str(config(lab, where))], argv, env=lab.go_env())
    return finish(process, events, began)


def test_each_target_goes_its_way(lab: Topology, near: Origin, tmp_path: Path) -> None:
    urls = {
        "http://plain.lab.example/by-name": (lab.plain, TWO),
        f"{lab.modules.url}/by-suffix": (lab.modules, ONE),
        f"http://{PLAIN}/by-cidr-and-tag": (lab.plain, TWO),
        f"{near.url}/direct": (near, DIRECT),
    }
    ran = curl(lab, tmp_path, *urls)
    assert ran.status == 0, ran.stderr
    for url, (origin, client) in urls.items():
        path = "/" + url.rsplit("/", 1)[1]
        assert [r["client"] for r in origin.requests() if r["path"] == path] == [client], url
    dials = {(e["target"], e["upstream"]) for e in ran.events("dial")}
    assert dials == {
        ("plain.lab.example:80", "two"),
        ("modules.lab.example:443", "one"),
        (f"{PLAIN}:80", "two"),
    }
    assert ran.events("failover") == []
    assert lab.direct_attempts() == []
    assert nothing_left(lab)


def test_no_route_is_the_pool_and_a_cidr_resolves_no_name(lab: Topology, tmp_path: Path) -> None:
    """git's address is in no route, so the pool takes it, the first way first."""
    ran = curl(lab, tmp_path, "--insecure", f"https://{GIT}/")
    assert ran.status == 0, ran.stderr
    assert {(e["target"], e["upstream"]) for e in ran.events("dial")} == {(f"{GIT}:443", "one")}
    assert lab.client_queries() <= {"jump1.lab.example", "jump2.lab.example"}


@pytest.mark.parametrize("host", ["forbidden.lab.example", "FORBIDDEN.lab.example.", "10.80.0.99"])
def test_what_is_rejected_is_denied_and_nothing_is_dialled(lab: Topology, tmp_path: Path, host: str) -> None:
    ran = curl(lab, tmp_path, "--fail-with-body", f"http://{host}/x")
    assert "proxy.denied" in ran.stdout + ran.stderr
    assert ran.status != 0
    assert ran.events("dial") == []
    assert host.lower().rstrip(".") not in lab.inner_dns.asked() | lab.client_queries()
    assert lab.direct_attempts() == []


def test_a_route_to_one_way_does_not_fall_to_another(lab: Topology, tmp_path: Path) -> None:
    lab.sshd2.stop()
    ran = curl(lab, tmp_path, "--fail", "http://plain.lab.example/x")
    assert ran.status != 0
    assert {e["upstream"] for e in ran.events("dial") if e["target"].startswith("plain")} <= {"two"}
    assert lab.plain.begun() == []
    assert lab.direct_attempts() == []
