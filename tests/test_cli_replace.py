"""`gotunnel replace` with a real go: builds see the stand-in, `go mod tidy` and `go get` too under `run`."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotunnel.cli import main as cli
from gotunnel.cli import run_replaces
from gotunnel.cli.run_replaces import MergeError, with_modfile, with_replaces
from tests.conftest import need
from tests.lab import gotool
from tests.lab.corpus import Corpus
from tests.lab.origin import Origin

STANDIN = "mods.lab.example/m001"


class Project:
    """A project of the corpus, and beside it a copy of one of its modules with something new in it."""

    def __init__(self, directory: Path, corpus: Corpus, proxy: str, patch: pytest.MonkeyPatch) -> None:
        self.directory = corpus.write_project(directory / "app")
        self.env = gotool.go_env(directory / "env", proxy=proxy)
        self.lib = directory / "my lib"
        self.lib.mkdir()
        module = next(module for module in corpus.modules if module.path == STANDIN)
        for name, data in module.files().items():
            (self.lib / name).write_bytes(data)
        for name in [name for name in os.environ if name.startswith(("GO", "HTTP", "http"))]:
            patch.delenv(name)
        for name, value in self.env.items():
            patch.setenv(name, value)
        patch.chdir(self.directory)

    def says(self, text: str) -> None:
        """The stand-in prints a line when it is visited."""
        source = self.lib / "m001.go"
        body = source.read_text().replace("package m001\n", 'package m001\n\nimport "os"\n', 1)
        source.write_text(body.replace("{\n", f'{{\n\tos.Stdout.WriteString("{text}\\n")\n', 1))

    def read(self, name: str) -> str:
        return (self.directory / name).read_text()

    def go(self, *words: str) -> str:
        done = subprocess.run(
            ["go", *words], cwd=self.directory, env=self.env, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *words: str, meanwhile: Callable[[], None] = lambda: None) -> tuple[int, str]:
        """As `gotunnel run -- go …` does it: status and standard error."""

        async def run() -> tuple[int, str]:
            async with with_replaces(["go", *words], self.directory, os.environ) as replaced:
                process = await asyncio.create_subprocess_exec(
                    *replaced.argv, cwd=self.directory, env=self.env | replaced.env, stderr=subprocess.PIPE
                )
                _, said = await process.communicate()
                meanwhile()
                assert process.returncode is not None
                replaced.done(process.returncode)
            return process.returncode, said.decode()

        return asyncio.run(run())


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    need(gotool.can_run_go())
    return Corpus(tmp_path / "origin", count=6, levels=2)


@pytest.fixture
def origin(tmp_path: Path, corpus: Corpus) -> Iterator[Origin]:
    with Origin(tmp_path / "server", corpus.directory) as running:
        yield running


@pytest.fixture
def project(tmp_path: Path, corpus: Corpus, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setitem(cli.COMMANDS, "replace", ("gotunnel.cli.replace", "local stand-ins"))
    return Project(tmp_path, corpus, origin.url, monkeypatch)


def test_go_builds_with_the_stand_in_and_nothing_is_left_after_the_drop(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    project.says("it is me")
    before = {path.name: path.read_bytes() for path in project.directory.iterdir()}
    assert cli.main(["replace", f"{STANDIN}=../my lib"]) == 0
    assert project.read("go.mod").encode() == before["go.mod"]
    assert "it is me" in project.go("run", ".")
    capsys.readouterr()
    assert cli.main(["replace", "--list"]) == 0
    assert capsys.readouterr().out == f"{STANDIN} => ../my lib\n"
    (project.lib / "go.mod").rename(project.lib / "gone")
    assert cli.main(["replace", "--list"]) == 0
    assert "no go.mod there" in capsys.readouterr().out
    assert cli.main(["replace", "--drop", STANDIN]) == 0
    assert {path.name: path.read_bytes() for path in project.directory.iterdir()} == before


def test_tidy_and_get_see_the_stand_in_and_go_mod_stays_clean(project: Project) -> None:
    # the stand-in needs a module that the published one doesn't
    other = "mods.lab.example/M005"
    source = project.lib / "more.go"
    source.write_text(f'package m001\n\nimport m "{other}"\n\nvar _ = m.Visit\n')
    assert cli.main(["replace", f"{STANDIN}@v1.0.0=../my lib"]) == 0
    sums = set(project.read("go.sum").splitlines())
    status, said = project.run("mod", "tidy", "-v")
    assert status == 0, said
    assert "replace" not in project.read("go.mod")
    assert "my lib" not in project.read("go.mod")
    assert sums <= set(project.read("go.sum").splitlines()), "the published module's sums are still needed"
    project.go("build", "./...")
    status, said = project.run("get", "-C", ".", f"{STANDIN}@v1.0.0")
    assert status == 0, said
    assert "my lib" not in project.read("go.mod")


def test_a_command_that_failed_or_was_cut_changes_nothing(project: Project) -> None:
    assert cli.main(["replace", f"{STANDIN}=../my lib"]) == 0
    before = project.read("go.mod"), project.read("go.sum")
    status, said = project.run("get", "mods.lab.example/none@v9.9.9")
    assert status != 0
    assert "none" in said

    async def cut() -> None:
        async with with_replaces(["go", "mod", "tidy"], project.directory, os.environ) as replaced:
            modfile = Path(next(w for w in replaced.argv if w.startswith("-modfile=")).partition("=")[2])
            modfile.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(cut())
    assert (project.read("go.mod"), project.read("go.sum")) == before


def test_a_change_meanwhile_is_kept_and_so_is_the_result(project: Project) -> None:
    assert cli.main(["replace", f"{STANDIN}=../my lib"]) == 0
    go_mod = project.directory / "go.mod"
    go_mod.write_text(project.read("go.mod").replace("go 1.21", "go 1.21 // tidy has something to do", 1))
    project.go("mod", "edit", "-require=mods.lab.example/m000@v1.0.0")

    def edit() -> None:
        go_mod.write_text(go_mod.read_text() + "\n// somebody else\n")

    unused = "example.com/unused v1.0.0"
    go_mod.write_text(project.read("go.mod") + f"\nrequire {unused}\n\nreplace example.com/unused => ../x\n")
    with pytest.raises(MergeError, match=r"go.mod was changed by somebody else"):
        project.run("mod", "tidy", meanwhile=edit)
    assert "// somebody else" in project.read("go.mod")
    assert unused in project.read("go.mod")
    assert f"require {unused}" not in project.read("go.mod.gotunnel")
    assert project.run("mod", "tidy")[0] == 0
    assert f"require {unused}" not in project.read("go.mod")
    assert "// somebody else" in project.read("go.mod")


def test_a_module_that_nobody_published_and_a_newer_go(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    new = project.directory.parent / "new"
    new.mkdir()
    (new / "go.mod").write_text("module example.com/new\n\ngo 1.22\n")
    (new / "new.go").write_text("package new\n")
    (project.directory / "more.go").write_text('package main\n\nimport _ "example.com/new"\n')
    assert cli.main(["replace", "example.com/new=../new"]) == 0
    status, said = project.run("mod", "tidy")
    assert status == 0, said
    assert "go made up" in capsys.readouterr().err
    assert "replace" not in project.read("go.mod")
    project.go("build", "./...")  # go.work asks for as much as go.mod
    assert project.run("mod", "tidy")[0] == 0
    assert "go made up" not in capsys.readouterr().err, "said once"
    made = project.directory / "go.work"
    made.write_text(made.read_text() + "// mine, too\n")
    assert cli.main(["replace", "--drop", "example.com/new"]) == 0
    assert "// mine, too" in made.read_text()
    assert "example.com/new" not in made.read_text()


def test_no_copy_is_made_where_there_is_nothing_to_carry(project: Project) -> None:
    def argv(*words: str) -> list[str]:
        async def ask() -> list[str]:
            async with with_replaces(words, project.directory, os.environ) as replaced:
                return replaced.argv

        return asyncio.run(ask())

    assert argv("go", "mod", "tidy") == ["go", "mod", "tidy"]
    assert cli.main(["replace", f"{STANDIN}=../my lib"]) == 0
    assert argv("go", "mod", "tidy")[2] == "tidy"
    assert argv("go", "mod", "tidy")[3].startswith("-modfile=")
    for words in (
        ["go", "build", "./..."],
        ["go", "mod", "tidy", "-modfile=mine.mod"],
        ["go", "test", "-run", "get"],
        ["make", "tidy"],
    ):
        assert argv(*words) == words


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("go get -u x", "go get -modfile=T -u x"),
        ("go -C d mod tidy -v", "go -C d mod tidy -modfile=T -v"),
        ("go mod tidy -C d -v", "go mod tidy -C d -modfile=T -v"),
        ("go get -C=d x", "go get -C=d -modfile=T x"),
        ("go -C get get x", "go -C get get -modfile=T x"),
    ],
)
def test_the_flag_stands_where_go_takes_it(words: str, wanted: str) -> None:
    assert with_modfile(words.split(), Path("T")) == wanted.split()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "what shall be replaced?"),
        (["--list", "--drop", "a.b/c"], "--list stands alone"),
        (["a.b/c"], r"want MODULE\[@VERSION\]=PATH"),
        (["a.b/c=../nowhere"], "want a directory with a go.mod"),
        (["--drop", "a.b/c"], "no go.work, so nothing is replaced"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    project: Project, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    before = sorted(os.listdir())
    assert cli.main(["replace", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert re.search(told, said)
    assert sorted(os.listdir()) == before


def test_gowork_off_is_said(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOWORK", "off")
    assert cli.main(["replace", f"{STANDIN}=../my lib"]) == 78
    assert run_replaces.concerns(["go", "get"])
