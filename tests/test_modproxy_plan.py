"""From go.mod and go.sum to what go is going to ask for, by go's own word."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from urllib.parse import unquote

import pytest

from gotunnel.modproxy.closure import Item
from gotunnel.modproxy.gocommand import Needs, read_command
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.modfile import ModFile, Version, parse_mod, parse_work
from gotunnel.modproxy.plan import Files, Step, Walk, plan, toolchain
from tests.lab.corpus import Corpus
from tests.lab.gotool import can_run_go, find_go, go_env

RUNS, WHY = can_run_go()
H1 = "h1:" + "A" * 43 + "="
BUILD = Needs(infos=True, zips="imported")
LEAN = Needs(infos=True, zips="imported", graph=False)
TIDY = Needs(infos=False, zips="all")


class Origin(http.server.SimpleHTTPRequestHandler):
    """Serves a directory and notes what was asked."""

    asked: list[str]

    def __init__(self, *args: object, asked: list[str], directory: str) -> None:
        self.asked = asked
        super().__init__(*args, directory=directory)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.asked.append(unquote(self.path).removeprefix("/"))
        super().do_GET()

    def log_message(self, *words: object) -> None:
        """Nothing: the list is enough."""


@pytest.fixture(params=["1.16", "1.21"])
def go(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The go line of all go.mod files: the module graph is pruned from 1.17 on."""
    monkeypatch.setattr("tests.lab.corpus._GO", f"go {request.param}\n")
    return str(request.param)


@pytest.fixture
def served(tmp_path: Path, go: str) -> Iterator[tuple[Corpus, str, list[str]]]:
    """A corpus, the URL it is served at, and what was asked there."""
    corpus = Corpus(tmp_path / "proxy", count=24)
    asked: list[str] = []
    handler = partial(Origin, asked=asked, directory=str(corpus.directory))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield corpus, f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


COMMANDS = (
    *("go mod tidy", "go mod download", "go mod graph", "go mod vendor", "go mod verify"),
    *("go mod why mods.lab.example/m001", "go list -m all", "go list ./...", "go vet ."),
)


@pytest.mark.skipif(not RUNS, reason=WHY)
@pytest.mark.parametrize("line", COMMANDS)
def test_the_plan_is_what_go_asks_for(
    tmp_path: Path, served: tuple[Corpus, str, list[str]], line: str, go: str
) -> None:
    corpus, url, asked = served
    project = corpus.write_project(tmp_path / "project")
    text = (project / "go.mod").read_text()
    if go == "1.16":  # such a go.mod names no more than what is imported
        text = "".join(line for line in text.splitlines(keepends=True) if "indirect" not in line)
    (project / "go.mod").write_text(text)
    files = Files((parse_mod(text),), GoSum.parse(corpus.go_sum()))
    needs = read_command(line.split()).needs
    assert needs is not None
    planned = [item.name for item in plan(files, needs)]
    argv = [find_go() or "go", *line.split()[1:]]
    env = go_env(tmp_path / "go", proxy=url)
    done = subprocess.run(argv, cwd=project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    wanted = {name for name in asked if name.endswith((".mod", ".info", ".zip"))}
    assert wanted <= set(planned), "go asked for what was not planned"
    if (line, go) == ("go mod vendor", "1.16"):
        planned = [name for name in planned if not name.endswith(".info")]  # vendor asks them from 1.17 on
    assert set(planned) <= wanted, "planned what go didn't ask for"
    assert len(planned) == len(set(planned))
    kinds = [name.rpartition(".")[2] for name in planned]
    assert kinds == sorted(kinds, key=["mod", "info", "zip"].index)


def sums(*lines: str) -> GoSum:
    return GoSum.parse("".join(f"{line} {H1}\n" for line in lines))


def short(items: tuple[Item, ...]) -> list[str]:
    return [f"{item.module.rpartition('/')[2]} {item.version} {item.kind}" for item in items]


def test_direct_requirements_come_first_and_stale_lines_are_left_out() -> None:
    mod = parse_mod("module m\ngo 1.21\nrequire (\n a.b/i v1.0.0 // indirect\n a.b/d v1.1.0\n)\n")
    found = sums(
        "a.b/d v1.0.0", "a.b/d v1.0.0/go.mod", "a.b/d v1.1.0", "a.b/d v1.1.0/go.mod", "a.b/d v1.2.0",
        "a.b/i v1.0.0", "a.b/i v1.0.0/go.mod", "a.b/t v0.9.0", "a.b/t v0.10.0", "a.b/t v0.10.0/go.mod",
    )  # fmt: skip
    files = Files((mod,), found)
    assert short(plan(files, BUILD)) == [
        *("d v1.1.0 mod", "i v1.0.0 mod", "d v1.0.0 mod", "t v0.10.0 mod"),
        *("d v1.1.0 info", "i v1.0.0 info", "d v1.1.0 zip", "i v1.0.0 zip"),
    ]
    assert short(plan(files, LEAN))[:3] == ["d v1.1.0 mod", "i v1.0.0 mod", "d v1.1.0 info"]
    assert short(plan(files, TIDY))[4:] == ["d v1.1.0 zip", "i v1.0.0 zip", "t v0.10.0 zip"]
    # without pruning go.mod doesn't list all, and what it lists may be raised
    old = Files((parse_mod("module m\nrequire a.b/d v1.1.0\n"),), found)
    assert short(plan(old, LEAN)) == short(plan(old, BUILD))
    assert short(plan(old, BUILD))[-3:] == ["d v1.2.0 zip", "i v1.0.0 zip", "t v0.10.0 zip"]


def test_what_go_wont_ask_us_is_left_out() -> None:
    mod = parse_mod(
        "module own.x/m\ngo 1.21\nrequire (\n a.b/c v1.0.0\n a.b/local v1.0.0\n a.b/fork v1.0.0\n"
        " corp.x/p/q v1.0.0\n"
        " a.b/gone v1.0.0\n own.x/m v1.0.0\n)\nexclude a.b/gone v1.0.0\n"
        "replace a.b/local => ../l\nreplace a.b/fork v1.0.0 => x.y/fork v1.5.0\n"
    )
    names = ("a.b/c v1.0.0", "a.b/local v1.0.0", "a.b/fork v1.0.0", "x.y/fork v1.5.0", "corp.x/p/q v1.0.0")
    found = sums(
        *names, *(f"{name}/go.mod" for name in names), "nohost v1.0.0/go.mod", "own.x/m v1.0.0/go.mod"
    )
    got = short(plan(Files((mod,), found), TIDY, private="other,corp.x/*"))
    assert got == ["c v1.0.0 mod", "fork v1.5.0 mod", "c v1.0.0 zip", "fork v1.5.0 zip"]
    assert {item.module for item in plan(Files((mod,), found), TIDY)} == {"a.b/c", "x.y/fork", "corp.x/p/q"}
    # go.work's replace wins over go.mod's
    work = parse_work("go 1.21\nuse .\nreplace a.b/fork v1.0.0 => ./f\nreplace a.b/c => x.y/fork v1.5.0\n")
    assert short(plan(Files((mod,), found, work), TIDY, private="corp.x")) == [
        "fork v1.5.0 mod",
        "fork v1.5.0 zip",
    ]


def test_what_is_there_is_left_out() -> None:
    mod = parse_mod("module m\ngo 1.21\nrequire a.b/C v1.0.0\n")
    files = Files((mod,), sums("a.b/C v1.0.0", "a.b/C v1.0.0/go.mod"))
    assert [i.name for i in plan(files, BUILD, have=lambda item: item.kind == "mod")] == [
        "a.b/!c/@v/v1.0.0.info",
        "a.b/!c/@v/v1.0.0.zip",
    ]


def test_a_requirement_that_go_sum_doesnt_know_yet_is_wanted() -> None:
    mod = parse_mod("module m\ngo 1.21\nrequire a.b/new v1.0.0\nrequire a.b/c v1.0.0\nrequire a.b/q master\n")
    files = Files((mod,), sums("a.b/c v1.0.0", "a.b/c v1.0.0/go.mod"))
    assert short(plan(files, TIDY)) == ["new v1.0.0 mod", "c v1.0.0 mod", "new v1.0.0 zip", "c v1.0.0 zip"]


def test_members_of_a_workspace_agree_on_the_highest_version() -> None:
    one = parse_mod("module w.x/a\ngo 1.21\nrequire a.b/c v1.0.0\nrequire w.x/b v0.0.1\n")
    two = parse_mod("module w.x/b\ngo 1.21\nrequire a.b/c v1.10.0 // indirect\n")
    found = sums("a.b/c v1.0.0", "a.b/c v1.10.0", "a.b/c v1.10.0/go.mod", "a.b/c v1.0.0/go.mod")
    got = short(plan(Files((one, two), found, parse_work("go 1.21\nuse ./a\nuse ./b\n")), BUILD))
    assert got == ["c v1.10.0 mod", "c v1.0.0 mod", "c v1.10.0 info", "c v1.10.0 zip"]


def calls(count: int) -> int:
    """How many calls it takes to read and plan a go.sum of `count` modules, two lines each."""
    lines = "".join(f"h{n}.x/m v1.0.{n} {H1}\nh{n}.x/m v1.0.{n}/go.mod {H1}\n" for n in range(count))
    text = "module m\ngo 1.21\n" + "".join(f"require h{n}.x/m v1.0.{n} // indirect\n" for n in range(count))
    seen = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal seen
        seen += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        items = plan(Files((parse_mod(text),), GoSum.parse(lines)), BUILD, private="corp.x,*.corp.x/y")
    finally:
        sys.setprofile(before)
    assert len(items) == 3 * count
    return seen


def test_ten_thousand_lines_of_go_sum_take_ten_times_as_much_as_a_thousand() -> None:
    calls(10)  # caches are warm
    assert calls(5000) < 11 * calls(500)


class Graph:
    """go.mod files by `path@version`, walked; what is fetched is noted in rounds."""

    def __init__(self, main: str, mods: dict[str, str]) -> None:
        self.walk = Walk(Files((parse_mod(main),)))
        self.mods = mods
        self.rounds: list[list[str]] = []

    def run(self, needs: Needs = BUILD) -> list[str]:
        steps = self.walk.start()
        while steps:
            self.rounds.append([str(step.wanted.path) + step.wanted.version for step in steps])
            steps = [further for step in steps for further in self.walk.add(step, self._read(step))]
        return short(self.walk.rest(needs))

    def _read(self, step: Step) -> ModFile:
        return parse_mod(self.mods[f"{step.wanted.path}@{step.wanted.version}"], lax=True)


def test_without_go_sum_the_graph_is_walked_and_the_highest_version_is_selected() -> None:
    old = {
        "a.b/a@v1.0.0": "module a.b/a\nrequire a.b/c v1.2.0\n",
        "a.b/b@v1.0.0": "module a.b/b\nrequire a.b/c v1.10.0\nrequire a.b/a v1.0.0\n",
        "a.b/c@v1.2.0": "module a.b/c\n",
        "a.b/c@v1.10.0": "module a.b/c\nrequire a.b/b v1.0.0\n",  # a circle
    }
    requires = "require a.b/a v1.0.0\nrequire a.b/b v1.0.0\nrequire a.b/c v1.0.0 // indirect\n"
    graph = Graph(f"module m\ngo 1.16\n{requires}",
                  old | {"a.b/c@v1.0.0": "module a.b/c\n"})  # fmt: skip
    assert graph.run(TIDY) == ["a v1.0.0 zip", "b v1.0.0 zip"]
    assert graph.rounds == [["a.b/av1.0.0", "a.b/bv1.0.0", "a.b/cv1.0.0"], ["a.b/cv1.2.0", "a.b/cv1.10.0"]]
    listing = Graph("module m\ngo 1.17\nrequire a.b/a v1.0.0\nrequire a.b/c v1.0.0 // indirect\n",
                    old | {"a.b/c@v1.0.0": "module a.b/c\n"})  # fmt: skip
    assert listing.run(TIDY) == ["a v1.0.0 zip", "c v1.2.0 zip"]


def test_a_graph_that_is_pruned_ends_where_go_ends_it() -> None:
    mods = {
        "a.b/new@v1.0.0": "module a.b/new\ngo 1.20\nrequire a.b/deep v1.0.0\n",
        "a.b/old@v1.0.0": "module a.b/old\ngo 1.15\nrequire a.b/deep v1.1.0\nrequire a.b/new v1.0.0\n",
        "a.b/deep@v1.0.0": "module a.b/deep\ngo 1.20\nrequire a.b/deeper v1.0.0\n",
        "a.b/deep@v1.1.0": "module a.b/deep\ngo 1.20\n",
        "a.b/deeper@v1.0.0": "module a.b/deeper\n",
    }
    pruned = Graph("module m\ngo 1.20\nrequire a.b/new v1.0.0\n", mods)
    pruned.run()
    assert pruned.rounds == [["a.b/newv1.0.0"]]
    # from one that doesn't prune everything is read, what was read as pruned before too
    both = Graph("module m\ngo 1.20\nrequire a.b/new v1.0.0\nrequire a.b/old v1.0.0\n", mods)
    both.run()
    assert both.rounds == [
        ["a.b/newv1.0.0", "a.b/oldv1.0.0"],
        ["a.b/deepv1.1.0", "a.b/deepv1.0.0"],
        ["a.b/deeperv1.0.0"],
    ]


def test_the_walk_goes_through_a_directory_and_past_what_is_private() -> None:
    mod = parse_mod(
        "module m\ngo 1.20\nrequire a.b/l v1.0.0\nrequire corp.x/p v1.0.0\nreplace a.b/l => /src/l\n"
    )
    walk = Walk(Files((mod,)), "corp.x")
    (step,) = walk.start()
    assert (step.item, step.directory) == (None, "/src/l")
    (further,) = walk.add(step, parse_mod("module l\nrequire a.b/c v1.0.0\n"))
    assert further == Step(Version("a.b/c", "v1.0.0"), Item("a.b/c", "v1.0.0", "mod"))
    assert walk.rest(TIDY) == ()


@pytest.mark.parametrize(
    ("lines", "setting", "wanted"),
    [
        ("go 1.27", "auto", "go1.27.0"),
        ("go 1.27.1", "", "go1.27.1"),
        ("go 1.27rc1", "auto", "go1.27rc1"),
        ("go 1.26.8", "auto", None),
        ("go 1.26", "auto", None),
        ("go 1.22\ntoolchain go1.27.2", "auto", "go1.27.2"),
        ("go 1.27.3\ntoolchain go1.27.2", "auto", "go1.27.3"),
        ("go 1.22\ntoolchain go1.26.3", "auto", None),
        ("go 1.27\ntoolchain default", "auto", None),
        ("go 1.27", "local", None),
        ("go 1.27", "path", None),
        ("go 1.27", "go1.25.0+auto", None),  # depends on more than this
        ("", "auto", None),
    ],
)
def test_a_toolchain_is_wanted_where_the_switch_is_certain(
    lines: str, setting: str, wanted: str | None
) -> None:
    files = Files((parse_mod(f"module m\n{lines}\n"),))
    found = toolchain(files, setting, "go1.26.8", "linux-amd64")
    name = f"golang.org/toolchain/@v/v0.0.1-{wanted}.linux-amd64.zip" if wanted else None
    assert (found.name if found else None) == name
    assert toolchain(files, setting, "", "linux-amd64") is None
