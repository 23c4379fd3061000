"""`gotunnel run -- govulncheck ./...`: a real one, whose database only the jump hosts reach."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.gotunnel_in_lab import jump, nothing_left, run
from tests.lab import vulndb
from tests.lab.topology import Topology

ID = "GO-2026-9001"


@pytest.fixture
def govulncheck() -> str:
    found = shutil.which("govulncheck", path=str(Path(sys.executable).parent)) or shutil.which("govulncheck")
    need(
        (
            found is not None,
            "not installed: govulncheck (go install golang.org/x/vuln/cmd/govulncheck@v1.1.4)",
        )
    )
    assert found is not None
    return found


@pytest.fixture
def database(lab: Topology) -> Iterator[str]:
    """The URL of a database with a flaw in the first module's Visit."""
    place = lab.modules.root / "vulndb"
    vulndb.write(place, id=ID, module=lab.corpus.first[0].path, symbols=["Visit"], fixed="1.0.1")
    yield f"{lab.modules.url}/vulndb"
    shutil.rmtree(place)


def test_a_vulnerable_symbol_is_found_through_the_jump_hosts(
    lab: Topology, govulncheck: str, database: str
) -> None:
    """The database's client is govulncheck's own; the modules come by the go that it starts."""
    lab.sshd1.stop()
    argv = [govulncheck, "-db", database, "./..."]
    ran = run(lab, [jump(lab, 1), jump(lab, 2)], argv, cwd=lab.fresh_project())
    assert ran.status == 3, ran.stderr  # its own: vulnerabilities were found
    assert ID in ran.stdout
    assert f"{lab.corpus.first[0].package}.Visit" in ran.stdout
    assert "Fixed in: " in ran.stdout
    asked = {(r["client"], r["path"].partition("/vulndb/")[2]) for r in lab.modules.requests()}
    assert {path for _, path in asked} >= {"index/modules.json.gz", f"ID/{ID}.json.gz"}
    assert {client for client, _ in asked} == {"10.80.0.12"}
    assert lab.direct_attempts() == []
    assert nothing_left(lab)


def test_no_way_out_is_69_and_not_a_clean_bill(lab: Topology, govulncheck: str, database: str) -> None:
    lab.sshd1.stop()
    ran = run(lab, [jump(lab, 1)], [govulncheck, "-db", database, "./..."], cwd=lab.fresh_project())
    assert ran.status == 69
    assert "No vulnerabilities found" not in ran.stdout
    assert "tcp.refused" in ran.stderr
