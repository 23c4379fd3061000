"""What is released: the same source gives the same bytes, and they install into a place of their own."""

from __future__ import annotations

import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from gotunnel import __version__
from tests.conftest import need
from tests.lab import proc

FILES = ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE")
FOLDERS = ("gotunnel", "systemd")


def uv() -> str:
    """The program; the tests are skipped where it isn't installed."""
    found = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    need((found is not None, "not installed: uv"))
    assert found is not None
    return found


def build(directory: Path, *, epoch: str = "1700000000") -> Path:
    """A copy of the source in `directory`, built; gives the directory of the wheel and the sdist."""
    need((find_spec("hatchling") is not None, "not installed: hatchling"))
    source = directory / "source"
    source.mkdir(parents=True)
    for name in FOLDERS:
        if (proc.ROOT / name).is_dir():
            shutil.copytree(proc.ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copyfile(proc.ROOT / name, source / name)
    argv = [uv(), "build", "--offline", "--no-build-isolation", "--python", sys.executable, "-q"]
    done = subprocess.run(
        [*argv, "-o", str(directory / "dist"), str(source)],
        env={**os.environ, "SOURCE_DATE_EPOCH": epoch},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return directory / "dist"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("first"))


def test_the_same_source_gives_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    first, second = (
        {f.name: f.read_bytes() for f in place.iterdir() if f.is_file()} for place in (dist, again)
    )
    assert first == second
    assert {name.rpartition(".")[2] for name in first} >= {"whl", "gz"}


def test_what_is_in_them(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        said = email.message_from_bytes(archive.read(metadata))
    assert said["Version"] == __version__
    code = {str(path.relative_to(proc.ROOT)) for path in (proc.ROOT / "gotunnel").rglob("*.py")}
    assert code <= set(names)
    strays = [n for n in names if not n.startswith(("gotunnel/", "gotunnel-"))]
    assert not strays, strays
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as source:
        inside = {name.partition("/")[2] for name in source.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE"} | code <= inside


def test_uv_installs_the_wheel_as_a_tool(dist: Path, tmp_path: Path) -> None:
    """The dependencies are this environment's: nothing is fetched, and what is tried is the wheel."""
    (wheel,) = dist.glob("*.whl")
    venv = tmp_path / "venv"
    subprocess.run([uv(), "venv", "-q", "--offline", "--python", sys.executable, str(venv)], check=True)
    python = venv / "bin" / "python"
    install = [uv(), "pip", "install", "-q", "--offline", "--no-deps", "--python", str(python), str(wheel)]
    subprocess.run(install, check=True)
    said = subprocess.run(
        [venv / "bin" / "gotunnel", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert said.stdout == f"gotunnel {__version__}\n"
    page = venv / "share" / "man" / "man1" / "gotunnel.1"
    if "shared-data" in (proc.ROOT / "pyproject.toml").read_text():
        assert page.read_text().startswith(".")
