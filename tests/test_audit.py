"""What CI says of the lock: a real pip-audit against a database of our own; bandit's terms; the SBOM."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests import audit
from tests.conftest import need
from tests.lab import proc

FLAW = {
    "id": "LAB-2026-1",
    "details": "made up",
    "aliases": [],
    "affected": [
        {
            "package": {"name": "h11", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
        }
    ],
}
LOCK = "".join(f"{name} \\\n    --hash=sha256:{'0' * 64}\n" for name in ("h11==0.16.0", "rich==15.0.0"))


class Osv(BaseHTTPRequestHandler):
    """Answers a query for h11 with FLAW, others with nothing."""

    flaws: tuple[dict[str, Any], ...] = ()

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = [flaw for flaw in self.flaws if asked["package"]["name"] == "h11"]
        body = json.dumps({"vulns": found} if found else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def osv() -> Iterator[str]:
    need((find_spec("pip_audit") is not None, "not installed: pip-audit (the audit extra)"))
    with ThreadingHTTPServer(("127.0.0.1", 0), Osv) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


@pytest.fixture
def lock(tmp_path: Path) -> str:
    file = tmp_path / "requirements.lock"
    file.write_text(LOCK)
    return str(file)


def test_a_vulnerable_version_fails(
    osv: str, lock: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Osv, "flaws", (FLAW,))
    assert audit.main(["--osv", osv, lock]) == 1
    assert capsys.readouterr().out == "h11 0.16.0: LAB-2026-1, mended in 99.0\n"


def test_none_known_is_said_with_its_source(osv: str, lock: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["--osv", osv, lock]) == 0
    assert capsys.readouterr().out == "no known vulnerability, says osv\n"


def test_an_unreached_database_is_said_and_fails_only_if_asked(
    osv: str, lock: str, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = "http://127.0.0.1:1/v1/query"
    assert audit.main(["--osv", nowhere, lock]) == 0
    assert "NOT AUDITED" in capsys.readouterr().out
    assert audit.main(["--osv", nowhere, "--strict", lock]) == 1


def test_a_database_that_skips_packages_counts_as_unreached() -> None:
    known = {"name": "h11", "version": "0.16.0", "vulns": []}
    verdict = audit.judge({"dependencies": [known, {"name": "rich", "skip_reason": "not found"}]})
    assert verdict.vulnerable is None
    assert "1 of 2" in verdict.why


def test_bandit_finds_what_is_bad_on_our_terms(tmp_path: Path) -> None:
    """CI runs it over the package."""
    need((find_spec("bandit") is not None, "not installed: bandit"))
    (tmp_path / "bad.py").write_text("import subprocess\n\nsubprocess.run(input(), shell=True)\n")
    bandit = [sys.executable, "-m", "bandit", "-q", "-c", str(proc.ROOT / "pyproject.toml"), "-r"]
    found = subprocess.run([*bandit, tmp_path], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "B602" in found.stdout


def test_what_bandit_skips_ruff_holds() -> None:
    """An S rule has the number of the bandit check that it was taken from."""
    told = tomllib.loads((proc.ROOT / "pyproject.toml").read_text())["tool"]
    skipped = {check.replace("B", "S") for check in told["bandit"]["skips"]}
    assert "S" in told["ruff"]["lint"]["select"]
    excused = {line.rpartition("noqa: ")[2].split()[0].strip(",") for line in noqas()}
    empty_passwords = {"S105", "S107"}
    by_ruff = skipped - set(told["ruff"]["lint"]["ignore"]) - {"S404"} - empty_passwords
    assert by_ruff <= excused


def noqas() -> list[str]:
    """The lines of the package that ruff's S rules are told to let through."""
    files = (proc.ROOT / "gotunnel").rglob("*.py")
    return [line for file in files for line in file.read_text().splitlines() if "noqa: S" in line]


def test_the_bill_of_materials_lists_what_is_pinned(tmp_path: Path) -> None:
    need((find_spec("cyclonedx_py") is not None, "not installed: cyclonedx-bom (the audit extra)"))
    written = tmp_path / "sbom.json"
    argv = ["requirements", "--pyproject", "pyproject.toml", "--output-reproducible", "-o", str(written)]
    subprocess.run(
        [sys.executable, "-m", "cyclonedx_py", *argv, "requirements.lock"], cwd=proc.ROOT, check=True
    )
    bill = json.loads(written.read_text())
    assert bill["metadata"]["component"]["name"] == "gotunnel"
    listed = {part["name"]: part["version"] for part in bill["components"]}
    pins = [
        line.split()[0] for line in (proc.ROOT / "requirements.lock").read_text().splitlines() if "==" in line
    ]
    assert {pin.partition("==")[0] for pin in pins} == set(listed)
    assert listed["asyncssh"] == "2.24.1"
    assert all(part["externalReferences"][0]["hashes"] for part in bill["components"])
