"""Each go command once through the module proxy and once without: same go.mod, go.sum, cache and output."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab import gotool

pytestmark = pytest.mark.internet

GOTUNNEL = [sys.executable, "-m", "gotunnel", "run", "--no-daemon", "--"]
MOD = "module example.com/m\n\ngo 1.21\n"
MAIN = 'package main\n\nimport "github.com/google/uuid"\n\nfunc main() { println(uuid.New().String()) }\n'
TOML = 'package main\n\nimport _ "github.com/BurntSushi/toml"\n\nfunc main() {}\n'
OLD = 'package main\n\nimport _ "github.com/satori/go.uuid"\n\nfunc main() {}\n'


@dataclass(frozen=True)
class Case:
    """`lines` are run one after the other, the last one is compared; `before` are those run plainly."""

    name: str
    lines: tuple[str, ...]
    source: str = MAIN
    require: str = "require github.com/google/uuid v1.3.0\n"
    output: bool = False


CASES = (
    Case("tidy", ("go mod tidy",)),
    Case("tidy finds versions", ("go mod tidy",), require=""),
    Case("escaped", ("go mod tidy",), TOML, "require github.com/BurntSushi/toml v1.2.0\n"),
    Case("download", ("go mod tidy", "go mod download")),
    Case("download -json", ("go mod tidy", "go mod download -json all"), output=True),
    Case("get latest", ("go get github.com/google/uuid@latest",)),
    Case("get none", ("go mod tidy", "go get github.com/google/uuid@none")),
    Case("incompatible", ("go mod tidy",), OLD, "require github.com/satori/go.uuid v1.2.0\n"),
    Case("versions", ("go mod tidy", "go list -m -versions -u github.com/google/uuid"), output=True),
    Case("vendor", ("go mod tidy", "go mod vendor")),
    Case("build", ("go mod tidy", "go build -o app .")),
    Case("install", ("go install github.com/BurntSushi/toml/cmd/tomlv@latest",)),
    Case("verify", ("go mod tidy", "go mod verify"), output=True),
    Case("missing", ("go get github.com/google/uuid@v1.99.99",)),
)  # fmt: skip


def files(root: Path) -> dict[str, str]:
    """The digest of each file that go has kept, but for locks, and what it saw of the checksum database."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        if (
            path.is_file()
            and not name.endswith((".lock", "/list", "/@latest"))
            and "/sumdb/" not in f"/{name}"
        ):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def perform(case: Case, place: Path, *, through: bool) -> tuple[object, ...]:
    place.mkdir()
    project = place / "project"
    project.mkdir()
    (project / "go.mod").write_text(MOD + case.require)
    (project / "main.go").write_text(case.source)
    env = {
        **os.environ,
        "GOMODCACHE": str(place / "modcache"),
        "GOBIN": str(place / "bin"),
        "XDG_CACHE_HOME": str(place / "cache"),
        "GOCACHE": str(gotool.build_cache()),
        "GOFLAGS": "-modcacherw",
        "GOTOOLCHAIN": "local",
        "GOTELEMETRY": "off",
    }
    done = None
    for line in case.lines:
        argv = [*(GOTUNNEL if through else []), *line.split()]
        done = subprocess.run(
            argv, cwd=project, env=env, capture_output=True, text=True, timeout=100, check=False
        )
        if case.name != "missing":
            assert done.returncode == 0, done.stderr
    assert done is not None
    output = done.stdout.replace(str(place), "PLACE") if case.output else ""
    sums = (project / "go.sum").read_text() if (project / "go.sum").exists() else ""
    vendored = files(project / "vendor")
    programs = sorted(path.name for path in (place / "bin").glob("*"))
    told = (done.returncode, output, (project / "go.mod").read_text(), sums, vendored, programs)
    return (*told, files(place / "modcache"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_through_it_and_without_it_is_the_same(case: Case, tmp_path: Path) -> None:
    without = perform(case, tmp_path / "without", through=False)
    through = perform(case, tmp_path / "through", through=True)
    for one, other in zip(without, through, strict=True):
        assert one == other
    shutil.rmtree(tmp_path)


def test_a_toolchain_comes_through_it(tmp_path: Path) -> None:
    go = shutil.which("go")
    assert go is not None
    here = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, check=True,
                          env={**os.environ, "GOTOOLCHAIN": "local"}).stdout.strip()  # fmt: skip
    wanted = "go1.25.1" if here != "go1.25.1" else "go1.25.2"
    env = {
        **os.environ,
        "GOTOOLCHAIN": wanted,
        "GOMODCACHE": str(tmp_path / "modcache"),
        "GOFLAGS": "-modcacherw",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GOTELEMETRY": "off",
    }
    ran = subprocess.run([*GOTUNNEL, "go", "version"], env=env, capture_output=True, text=True, timeout=110,
                         check=False)  # fmt: skip
    assert wanted in ran.stdout, ran.stderr
    kept = list((tmp_path / "cache" / "gotunnel" / "golang.org" / "toolchain" / "@v").glob(f"*{wanted}*.zip"))
    assert len(kept) == 1
    shutil.rmtree(tmp_path)
