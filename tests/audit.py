"""Is a version in requirements.lock known to be vulnerable?  What CI runs, where a database answers.

    python -m tests.audit [--osv URL] [--strict] [LOCK]

Rules:
- PyPI is asked first, then OSV.  pip-audit is content with a PyPI that knows no package (a mirror that has
  files only); here a database counts as reached when it answered for every package.
- Status 1: something is vulnerable.  None reached is said, and is no failure unless `--strict`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Verdict:
    """`vulnerable` has a line for each; None: the database wasn't reached, for `why`."""

    vulnerable: list[str] | None
    why: str = ""


def judge(report: dict[str, Any]) -> Verdict:
    """What pip-audit's JSON report says."""
    packages = report["dependencies"]
    if skipped := [package["name"] for package in packages if "skip_reason" in package]:
        return Verdict(None, f"it has no answer for {len(skipped)} of {len(packages)} packages")
    return Verdict(
        [
            f"{package['name']} {package['version']}: {flaw['id']}, "
            f"mended in {' or '.join(flaw['fix_versions']) or 'no version yet'}"
            for package in packages
            for flaw in package["vulns"]
        ]
    )


def ask(service: Sequence[str], lock: Path) -> Verdict:
    """pip-audit with the options that name a database."""
    argv = [sys.executable, "-m", "pip_audit", "-f", "json", "--progress-spinner", "off", *service]
    argv += ["--require-hashes", "--disable-pip", "-r", str(lock)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    except subprocess.TimeoutExpired:
        return Verdict(None, "no answer in five minutes")
    try:
        report = json.loads(done.stdout)
    except ValueError:
        return Verdict(None, done.stderr.strip().rpartition("\n")[2])
    return judge(report)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--osv", metavar="URL", help="an OSV database, and no other")
    parser.add_argument("--strict", action="store_true", help="fail where no database was reached")
    parser.add_argument("lock", nargs="?", type=Path, default=ROOT / "requirements.lock")
    told = parser.parse_args(argv)
    services = [["-s", "osv", "--osv-url", told.osv]] if told.osv else [["-s", "pypi"], ["-s", "osv"]]
    for service in services:
        verdict = ask(service, told.lock)
        if verdict.vulnerable is not None:
            print(*verdict.vulnerable or [f"no known vulnerability, says {service[1]}"], sep="\n")
            return int(bool(verdict.vulnerable))
        print(f"{service[1]} was not reached: {verdict.why}")
    print("NOT AUDITED: no vulnerability database can be reached from here")
    return int(told.strict)


if __name__ == "__main__":
    sys.exit(main())
