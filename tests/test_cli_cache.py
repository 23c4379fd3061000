"""`gotunnel cache`, from one machine to another that has no network, by the real go command.

A "machine" is an environment of its own: home, module cache and store.  The checksum database is the lab's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotunnel.cli import main as cli
from tests.conftest import need
from tests.lab import gotool
from tests.lab.corpus import Corpus
from tests.lab.sumdb import NAME, SumDatabase

MODULES = 12
PRIVATE = "mods.lab.example/m001"


class Machine:
    """One machine: `cache` runs `gotunnel cache …` on it, `go` the go command."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
        self._patch = monkeypatch
        self.store = directory / "cache" / "gotunnel"
        self.project = directory / "project"
        env = gotool.go_env(directory)
        self.env = env | {"XDG_CACHE_HOME": str(directory / "cache"), **settings}
        # the machine's own settings of today are not to be seen
        self._gone = [name for name in os.environ if name.startswith(("GO", "HTTP", "http"))]

    def cache(self, *words: str) -> int:
        """The exit status of the command, run in the project."""
        with self._patch.context() as patch:
            for name in self._gone:
                patch.delenv(name)
            for name, value in self.env.items():
                patch.setenv(name, value)
            patch.chdir(self.project if self.project.is_dir() else self.project.parent)
            return cli.main(["cache", *words])

    def go(self, *words: str, **more: str) -> str:
        """What go prints; it has to succeed."""
        return self.run("go", *words, **more)

    def run(self, *words: str, **more: str) -> str:
        """What a command prints; it has to succeed."""
        done = subprocess.run(
            words, cwd=self.project, env=self.env | more, text=True, capture_output=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    need(gotool.can_run_go())
    return Corpus(tmp_path / "origin", count=MODULES, levels=3)


@pytest.fixture
def database(tmp_path: Path, corpus: Corpus) -> Iterator[SumDatabase]:
    public = "".join(line + "\n" for line in corpus.go_sum().splitlines() if f"{PRIVATE} " not in line)
    with SumDatabase(tmp_path / "sumdb", public) as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    monkeypatch.setitem(cli.COMMANDS, "cache", ("gotunnel.cli.cache", "looks after the module store"))
    return lambda name, **settings: Machine(tmp_path / name, monkeypatch, **settings)


def test_a_project_goes_to_a_machine_without_network(
    tmp_path: Path,
    corpus: Corpus,
    database: SumDatabase,
    machine: Callable[..., Machine],
    capfd: pytest.CaptureFixture[str],
) -> None:
    source = corpus.directory.as_uri()
    here = machine("here", GOPROXY=source, GOSUMDB=database.gosumdb)
    corpus.write_project(here.project)
    # the private module is in the module cache, as after a `go mod download` with credentials
    here.go("mod", "download", f"{PRIVATE}@v1.0.0", GONOSUMDB=PRIVATE)
    shutil.rmtree(corpus.directory / PRIVATE)
    here.env["GOPRIVATE"] = PRIVATE
    bundle = tmp_path / "app.bundle"
    assert here.cache("export", str(bundle)) == 0
    assert f"{MODULES} modules" in capfd.readouterr().out
    assert not database.requests(PRIVATE)
    asked = len(database.requests())

    # the database's key only: without its URL go asks the source, and nothing else
    there = machine("there", GOSUMDB=database.key, GONOPROXY="none", GONOSUMDB=PRIVATE, GOPROXY="off")
    shutil.copytree(here.project, there.project)
    assert there.cache("import", str(bundle)) == 0
    told = capfd.readouterr().out
    assert f"22 by {NAME}" in told
    assert "2 by a project's go.sum" in told
    assert there.cache("verify") == 0
    proxy = there.store.as_uri()
    there.go("mod", "download", GOPROXY=proxy)
    assert there.go("run", ".", GOPROXY=proxy).strip() == f"{MODULES} modules"

    # and with no go.sum at all: each sum comes from the records, in go's own check
    (there.project / "go.sum").unlink()
    there.go("clean", "-modcache")
    there.go("mod", "tidy", GOPROXY=proxy)
    assert (there.project / "go.sum").read_text() == corpus.go_sum()
    assert there.go("run", ".", GOPROXY=proxy).strip() == f"{MODULES} modules"
    assert (Path(there.env["GOPATH"]) / "pkg" / "sumdb" / NAME / "latest").read_text()

    # the same through our module proxy
    (there.project / "go.sum").unlink()
    there.go("clean", "-modcache")
    offline = (sys.executable, "-m", "gotunnel", "run", "--offline", "--", "go")
    there.run(*offline, "mod", "tidy")
    assert (there.project / "go.sum").read_text() == corpus.go_sum()
    assert there.run(*offline, "run", ".").strip() == f"{MODULES} modules"
    assert len(database.requests()) == asked

    # by hand: unpacked it is a source by itself
    by_hand = tmp_path / "by-hand"
    by_hand.mkdir()
    subprocess.run(["tar", "-xf", str(bundle), "-C", str(by_hand)], check=True)
    (there.project / "go.sum").unlink()
    there.go("clean", "-modcache")
    there.go("mod", "tidy", GOPROXY=by_hand.as_uri())


@pytest.mark.parametrize("kind", ["before go 1.17", "workspace"])
def test_projects_of_other_kinds(
    kind: str, tmp_path: Path, corpus: Corpus, machine: Callable[..., Machine]
) -> None:
    here = machine("here", GOPROXY=corpus.directory.as_uri(), GOSUMDB="off")
    if kind == "workspace":
        corpus.write_project(here.project / "app")
        (here.project / "go.work").write_text("go 1.21\n\nuse ./app\n")
    else:
        corpus.write_project(here.project)
        lines = (here.project / "go.mod").read_text().splitlines(keepends=True)
        text = "".join(line for line in lines if "// indirect" not in line)
        (here.project / "go.mod").write_text(text.replace("go 1.21", "go 1.16"))
    bundle = tmp_path / "app.bundle"
    assert here.cache("export", str(bundle)) == 0
    there = machine("there", GOSUMDB="off")
    shutil.copytree(here.project, there.project)
    assert there.cache("import", str(bundle)) == 0
    program = "./app" if kind == "workspace" else "."
    there.go("mod", "download", GOPROXY=there.store.as_uri())
    if kind == "before go 1.17":  # today's go wants go.mod to be as new as what it requires
        there.env["GOFLAGS"] += " -mod=mod"
    assert there.go("run", program, GOPROXY=there.store.as_uri()).strip() == f"{MODULES} modules"


def test_what_a_user_does_wrong_is_one_line(
    tmp_path: Path, machine: Callable[..., Machine], capfd: pytest.CaptureFixture[str]
) -> None:
    here = machine("here", GOSUMDB="off")
    for status, words, said in [
        (2, ["export", str(tmp_path / "x")], "neither a go.mod nor a go.work"),
        (2, ["export", str(tmp_path / "no" / "x")], "no such directory"),
        (2, ["import", str(tmp_path / "x")], "No such file"),
        (2, ["prune", "--max-size", "many"], "is no size"),
        (2, [], "COMMAND"),
    ]:
        assert here.cache(*words) == status
        told = capfd.readouterr().err
        assert said in told
        assert told.count("\n") == 1
    (tmp_path / "x").write_bytes(b"PK" + bytes(4000))
    assert here.cache("import", str(tmp_path / "x")) == 1
    assert "the bundle is broken" in capfd.readouterr().err
    here.project.mkdir()
    (here.project / "go.mod").write_text("module m\nrequire a.example/x v1.0.0\n")
    assert here.cache("export", str(tmp_path / "y")) == 2
    assert "go mod tidy" in capfd.readouterr().err
    (here.project / "go.mod").write_text("modul m\nrequire (\n")
    assert here.cache("export", str(tmp_path / "y")) == 78
    assert "go.mod:2" in capfd.readouterr().err


def test_what_is_missing_is_named_and_nothing_is_written(
    tmp_path: Path,
    corpus: Corpus,
    machine: Callable[..., Machine],
    capfd: pytest.CaptureFixture[str],
) -> None:
    here = machine("here", GOPROXY=corpus.directory.as_uri(), GOSUMDB="off")
    corpus.write_project(here.project)
    corpus.zip_path(corpus.modules[3]).unlink()
    bundle = tmp_path / "app.bundle"
    assert here.cache("export", str(bundle)) == 69
    assert f"{corpus.modules[3].path}@v1.0.0 (zip)" in capfd.readouterr().err
    assert not bundle.exists()
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    assert here.cache("prefetch") == 69
    assert f"{corpus.modules[3].path}@v1.0.0 (zip)" in capfd.readouterr().err


def test_info_verify_and_prune(
    corpus: Corpus, machine: Callable[..., Machine], capfd: pytest.CaptureFixture[str]
) -> None:
    here = machine("here", GOPROXY=corpus.directory.as_uri(), GOSUMDB="off")
    corpus.write_project(here.project)
    assert here.cache("prefetch") == 0
    capfd.readouterr()
    assert here.cache("info", "--json") == 0
    told = json.loads(capfd.readouterr().out)
    assert told["modules"] == MODULES
    assert told["verified_by"] == {"a project's go.sum": 2 * MODULES}

    bad = here.store / corpus.zip_path(corpus.modules[0]).relative_to(corpus.directory)
    data = bytearray(bad.read_bytes())
    data[-200] ^= 1
    bad.chmod(0o644)
    bad.write_bytes(data)
    assert here.cache("verify") == 1
    assert str(bad.relative_to(here.store)) in capfd.readouterr().out
    assert here.cache("verify", "--remove") == 1
    assert not bad.exists()
    assert here.cache("verify") == 0
    assert here.cache("prune", "--max-size", "10KB") == 0
    capfd.readouterr()
    assert here.cache("info", "--json") == 0
    assert json.loads(capfd.readouterr().out)["bytes"] <= 10_000
