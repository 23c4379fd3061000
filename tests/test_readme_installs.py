"""The README's ways to install, the demo and the bill of materials, as they stand there, in copies of it.

Their packages come from PyPI; without it they are skipped.  Only the mirror's address is replaced by PyPI's.
They take three minutes: GOTUNNEL_LONG runs them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path

import pytest

from gotunnel import __version__
from tests import readme
from tests.lab.proc import ROOT

pytestmark = [pytest.mark.internet, pytest.mark.timeout(600)]
needs_long = pytest.mark.skipif(
    not os.environ.get("GOTUNNEL_LONG"), reason="takes a minute: set GOTUNNEL_LONG"
)

PYPI = "https://pypi.org/simple"
MIRROR = "https://pypi.tuna.tsinghua.edu.cn/simple"
SOURCE = ("gotunnel", "pyproject.toml", "requirements.lock", "README.md", "CHANGELOG.md", "LICENSE")


@cache
def reachable() -> bool:
    """Whether PyPI answers."""
    try:
        with urllib.request.urlopen(f"{PYPI}/h11/", timeout=10) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, TimeoutError):
        return False


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of what is in a clone."""
    if not reachable():
        pytest.skip("PyPI can't be reached")
    place = tmp_path / "clone"
    place.mkdir()
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(ROOT / name, place / name)
    return place


def sh(script: str, cwd: Path) -> str:
    """Run it as a user with a home of their own would, with uv and pipx; gives its standard output."""
    home = cwd.parent / "home"
    tools = home / "tools"
    if not tools.is_dir():
        tools.mkdir(parents=True)
        for name in ("uv", "uvx"):
            (tools / name).symlink_to(shutil.which(name) or Path(sys.executable).with_name(name))
        if shutil.which("pipx") is None:
            (tools / "pipx").write_text('#!/bin/sh\nexec uvx -q pipx "$@"\n')
            (tools / "pipx").chmod(0o755)
    path = f"{home}/.local/bin:{tools}:{os.environ['PATH']}"
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "PIPX_", "UV_", "GOTUNNEL_"))}
    # the caches of this user: what a package's bytes are is not in question
    caches = {
        "PIP_CACHE_DIR": os.path.expanduser("~/.cache/pip"),
        "UV_CACHE_DIR": os.path.expanduser("~/.cache/uv"),
    }
    env = kept | caches | {"HOME": str(home), "PATH": path}
    script = script.replace(MIRROR, PYPI)
    done = subprocess.run(
        ["sh", "-e", "-c", script], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def block(words: str) -> str:
    """The block with these words."""
    (found,) = [block for block in readme.installs() if words in block]
    return found


@needs_long
def test_uv_and_pipx(clone: Path) -> None:
    by_uv, by_pipx = block("uv tool").splitlines()
    for line, undo in ((by_uv, "uv tool uninstall -q gotunnel"), (by_pipx, "pipx uninstall gotunnel")):
        sh(line, clone)
        assert sh("gotunnel --version", clone) == f"gotunnel {__version__}\n"
        assert sh("command -v gotunnel", clone) == f"{clone.parent}/home/.local/bin/gotunnel\n"
        sh(undo, clone)


@needs_long
def test_a_mirror(clone: Path) -> None:
    assert MIRROR in block("tuna")
    sh(block("tuna"), clone)
    assert sh(".venv/bin/gotunnel --version", clone) == f"gotunnel {__version__}\n"


@needs_long
def test_a_wheelhouse_is_made_and_carried_over(clone: Path) -> None:
    sh(block("pip wheel"), clone)
    far = clone.parent / "far"
    far.mkdir()
    (clone / "wheelhouse").rename(far / "wheelhouse")
    offline = "export PIP_CONFIG_FILE=/dev/null HTTPS_PROXY=http://127.0.0.1:1 PIP_NO_CACHE_DIR=1\n"
    sh(offline + block("--no-index"), far)
    assert sh(".venv/bin/gotunnel --version", far) == f"gotunnel {__version__}\n"


@needs_long
def test_the_bill_of_materials(clone: Path) -> None:
    sh(block("cyclonedx-py"), clone)
    assert '"gotunnel"' in (clone / "sbom.json").read_text()


@needs_long
def test_the_demo(clone: Path) -> None:
    said = sh(block("gotunnel demo"), clone)
    assert "go mod tidy" in said


def test_all_installs_are_here() -> None:
    here = [block(w) for w in ("uv tool", "tuna", "pip wheel", "--no-index", "cyclonedx-py", "gotunnel demo")]
    assert sorted(here) == sorted(readme.installs())
