"""Where the rivals are, which versions, and how each is installed: by its own ecosystem's ordinary client.

Rules:
- Nothing is installed but on `--install`; what isn't there is named with the command that brings it, and is
  never fatal.
- A rival of PyPI has a venv of its own, one in Go a GOBIN of its own: DIRECTORY/NAME/bin.  Debian's are the
  machine's.
- Versions are read from the installed files, so that a table says what it measured.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from tests.lab import proc
from tests.lab.proc import LabError


@dataclass(frozen=True, slots=True)
class Rival:
    """`kind` is deb, pip or go; `package` is its name there, `program` that of its command."""

    name: str
    kind: str
    package: str
    program: str


RIVALS = {
    rival.name: rival
    for rival in (
        Rival("tinyproxy", "deb", "tinyproxy-bin", "tinyproxy"),
        Rival("squid", "deb", "squid", "squid"),
        Rival("microsocks", "deb", "microsocks", "microsocks"),
        Rival("dante", "deb", "dante-server", "danted"),
        Rival("wrk", "deb", "wrk", "wrk"),  # no rival: the client of `store`
        Rival("pproxy", "pip", "pproxy", "pproxy"),
        Rival("px", "pip", "px-proxy", "px"),
        Rival("proxy.py", "pip", "proxy.py", "proxy"),
        Rival("gost", "go", "github.com/go-gost/gost/cmd/gost", "gost"),
        Rival("glider", "go", "github.com/nadoo/glider", "glider"),
        Rival("chisel", "go", "github.com/jpillora/chisel", "chisel"),
        Rival("athens", "go", "github.com/gomods/athens/cmd/proxy", "proxy"),
        Rival("goproxy", "go", "github.com/goproxy/goproxy/cmd/goproxy", "goproxy"),
    )
}


def default_directory() -> Path:
    """$XDG_CACHE_HOME/gotunnel-bench."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "gotunnel-bench"


class Rivals:
    """The rivals below `directory` and on this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.absent: dict[str, str] = {}  # that somebody asked for, and how to install them

    def program(self, name: str) -> str | None:
        """Its command, or None where it isn't installed."""
        rival = RIVALS[name]
        if rival.kind == "deb":
            found = proc.tool(rival.program)
        else:
            path = self.directory / name / "bin" / rival.program
            found = str(path) if path.exists() else None
        if found is None:
            self.absent[name] = " ".join(self._commands(rival)[-1])
        return found

    def need(self, name: str) -> str:
        """Its command; raises LabError where it isn't installed."""
        found = self.program(name)
        if found is None:
            raise LabError(f"not installed: {name} ({self.absent[name]})")
        return found

    @functools.cache  # noqa: B019 - one for each process
    def version(self, name: str) -> str:
        """Of what is installed; "?" where that can't be found out."""
        rival, program = RIVALS[name], self.program(name)
        if rival.kind == "deb":
            return _said(["dpkg-query", "-W", "-f", "${Version}", rival.package]) or "?"
        if rival.kind == "pip":
            site = next((self.directory / name).glob("lib/python*/site-packages"), None)
            found = distributions(path=[str(site)])
            return next((d.version for d in found if d.name.lower() == rival.package), "?")
        told = _said(["go", "version", "-m", program or ""]).split()
        return told[told.index("mod") + 2] if "mod" in told[:-2] else "?"

    def install(self, names: list[str]) -> list[str]:
        """Install those of `names` that aren't there; says in one line each what didn't work."""
        failed = []
        for name in names:
            if self.program(name):
                continue
            rival = RIVALS[name]
            print(f"installing {name}", file=sys.stderr, flush=True)
            env = os.environ | {"GOBIN": str(self.directory / name / "bin")}
            for command in self._commands(rival):
                done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
                if done.returncode:
                    last = done.stderr.strip().rpartition("\n")[2]
                    failed.append(f"{name}: {' '.join(command)}: {last}")
                    break
            else:
                self.absent.pop(name, None)
        return failed

    def _commands(self, rival: Rival) -> list[list[str]]:
        place = self.directory / rival.name
        if rival.kind == "deb":
            return [["apt-get", "install", "-y", "--no-install-recommends", rival.package]]
        if rival.kind == "pip":
            pip = [str(place / "bin" / "pip"), "install", "-q", "--disable-pip-version-check", rival.package]
            return [[sys.executable, "-m", "venv", str(place)], pip]
        return [["go", "install", f"{rival.package}@latest"]]


def _said(argv: list[str]) -> str:
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""
