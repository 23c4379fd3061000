"""Prefetch: what is fetched, when, and what becomes of it when something fails."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import pytest

from gotunnel.errors import ModuleError
from gotunnel.modproxy.closure import Item
from gotunnel.modproxy.gocommand import Settings, child_directory
from gotunnel.modproxy.prefetch import Prefetcher, Progress, in_modcache, read_files
from gotunnel.modproxy.target import Target
from gotunnel.storage.store import Stored, StoreError
from tests.lab.corpus import Corpus
from tests.lab.gotool import can_run_go, find_go, go_env

RUNS, WHY = can_run_go()


class Source:
    """A module proxy and its store: copies from the corpus' tree into `store`; `fail` may raise instead."""

    def __init__(self, corpus: Corpus, store: Path) -> None:
        self.origin, self.store = corpus.directory, store
        self.asked: list[str] = []
        self.priorities: dict[str, int] = {}
        self.busy = self.most = 0
        self.fail: Callable[[str], Exception | None] = lambda name: None
        self.gate = asyncio.Event()
        self.gate.set()

    async def ensure(self, target: Target, project: str, *, priority: int) -> Stored:
        assert project == "run"
        self.asked.append(target.name)
        self.priorities[target.name.rpartition(".")[2]] = priority
        self.busy += 1
        self.most = max(self.most, self.busy)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            if error := self.fail(target.name):
                raise error
            path = self.store / target.name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.origin / target.name, path)
            return Stored(target.name, path.stat().st_size, time.time())
        finally:
            self.busy -= 1

    async def read(self, stored: Stored) -> AsyncGenerator[bytes, None]:
        yield (self.store / stored.name).read_bytes()


class Bench:
    """A project, its source and a prefetcher whose pauses take no time."""

    def __init__(self, tmp_path: Path, *, sums: bool = True, width: int = 64, modcache: str = "") -> None:
        self.corpus = Corpus(tmp_path / "origin", count=30)
        self.project = self.corpus.write_project(tmp_path / "project", sums=sums)
        self.source = Source(self.corpus, tmp_path / "store")
        self.slept: list[float] = []
        self.seen: list[Progress] = []
        settings = Settings(modcache=modcache)
        self.prefetcher = Prefetcher(
            self.source, self.source, "run", settings,
            width=width, on_progress=self.seen.append, sleep=self._sleep,
        )  # fmt: skip

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def run(self, line: str) -> Progress:
        return await self.prefetcher.run(self.project, line.split())

    def kinds(self) -> list[str]:
        return [name.rpartition(".")[2] for name in self.source.asked]


async def settle() -> None:
    """Long enough for threads to have answered; what mustn't happen has its chance."""
    await asyncio.sleep(0.2)


async def test_everything_of_go_sum_is_fetched_in_order_and_counted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, width=5)
    progress = await bench.run("go mod download")
    assert (progress.wanted, progress.done, progress.failed, progress.problem) == (90, 90, 0, "")
    size = sum(path.stat().st_size for path in bench.source.store.rglob("*.*") if path.is_file())
    assert progress.bytes == size
    assert bench.kinds() == ["mod"] * 30 + ["info"] * 30 + ["zip"] * 30
    assert bench.source.most == 5
    assert bench.source.priorities == {"mod": 1, "info": 2, "zip": 3}
    assert [p.done for p in bench.seen] == sorted(p.done for p in bench.seen)


@pytest.mark.skipif(not RUNS, reason=WHY)
@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize("line", ["go mod tidy", "go vet .", "go mod download"])
async def test_go_then_finds_all_it_asks_for(tmp_path: Path, line: str, sums: bool) -> None:
    bench = Bench(tmp_path, sums=sums)
    await bench.run(line)
    assert len(bench.source.asked) == len(set(bench.source.asked))
    (bench.project / "go.sum").write_text(bench.corpus.go_sum())
    env = go_env(tmp_path / "go", proxy=bench.source.store.as_uri())
    argv = [find_go() or "go", *line.split()[1:]]
    done = subprocess.run(argv, cwd=bench.project, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def test_without_go_sum_the_graph_is_walked_through_what_is_fetched(tmp_path: Path) -> None:
    bench = Bench(tmp_path, sums=False)
    text = (bench.project / "go.mod").read_text().replace("go 1.21", "go 1.16")
    direct = "".join(line for line in text.splitlines(keepends=True) if "indirect" not in line)
    (bench.project / "go.mod").write_text(direct)
    progress = await bench.run("go mod tidy")
    assert bench.kinds() == ["mod"] * 30 + ["zip"] * len(bench.corpus.first)
    assert (progress.wanted, progress.done) == (30 + len(bench.corpus.first),) * 2


async def test_a_file_that_cant_be_had_is_one_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    gone = "mods.lab.example/m001/@v/v1.0.0.zip"
    bench.source.fail = lambda name: (
        ModuleError("module.not-found", "no", http_status=404) if name == gone else None
    )
    progress = await bench.run("go mod download")
    assert (progress.done, progress.failed, progress.problem) == (89, 1, "")
    assert bench.source.asked.count(gone) == 1
    assert bench.slept == []


async def test_a_failing_network_is_given_a_rest_and_the_files_a_second_try(tmp_path: Path) -> None:
    bench = Bench(tmp_path, width=4)
    left = [12]

    def fail(name: str) -> Exception | None:
        left[0] -= 1
        return ModuleError("tcp.reset", "the hop is gone", http_status=502) if left[0] >= 0 else None

    bench.source.fail = fail
    progress = await bench.run("go mod download")
    assert len(bench.slept) == 1
    assert progress.done + progress.failed == 90
    assert progress.failed <= 6
    assert progress.problem == ""


async def test_a_network_that_stays_down_ends_the_prefetch(tmp_path: Path) -> None:
    bench = Bench(tmp_path, width=4)
    bench.source.fail = lambda name: ModuleError("tcp.timeout", "nobody answers", http_status=504)
    progress = await bench.run("go mod download")
    assert progress.problem == "nobody answers"
    assert progress.done == 0
    assert len(bench.slept) == 5
    assert bench.slept == sorted(bench.slept) or max(bench.slept) > 4  # they grow
    assert len(bench.source.asked) < 60


async def test_a_store_that_cant_keep_it_ends_the_prefetch(tmp_path: Path) -> None:
    bench = Bench(tmp_path, width=4)
    bench.source.fail = lambda name: StoreError("disk.full", "no space left")
    progress = await bench.run("go mod download")
    assert progress.problem == "no space left"
    assert len(bench.source.asked) <= 4


async def test_cancelling_leaves_nothing_under_way(tmp_path: Path) -> None:
    bench = Bench(tmp_path, sums=False)
    bench.source.gate.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await bench.run("go mod download")
    assert bench.source.most > 1
    assert bench.source.busy == 0


async def test_a_shell_fetches_nothing_before_go_asks_for_a_file_of_the_project(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    async with asyncio.TaskGroup() as group:
        job = group.create_task(bench.run("bash"))
        await settle()
        bench.prefetcher.asked("elsewhere.example/m/@v/list")
        bench.prefetcher.asked("elsewhere.example/m/@v/v1.0.0.mod")
        await settle()
        assert bench.source.asked == []
        bench.prefetcher.asked("mods.lab.example/m001/@v/v1.0.0.mod")
        progress = await job
    assert progress.done == 90


async def test_a_project_that_a_script_writes_is_read_when_go_asks(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    sums = (bench.project / "go.sum").read_text()
    text = (bench.project / "go.mod").read_text()
    (bench.project / "go.mod").write_text("module m\nrequire (\n")
    (bench.project / "go.sum").write_text("")
    async with asyncio.TaskGroup() as group:
        job = group.create_task(bench.run("make"))
        bench.prefetcher.asked("mods.lab.example/m001/@v/v1.0.0.mod")
        await settle()
        assert bench.source.asked == []
        (bench.project / "go.mod").write_text(text)
        (bench.project / "go.sum").write_text(sums)
        bench.prefetcher.asked("mods.lab.example/m001/@v/v1.0.0.mod")
        assert (await job).done == 90


@pytest.mark.parametrize("line", ["go version", "go env", "go install a.b/c@latest", "go mod edit -json"])
async def test_a_command_without_needs_fetches_nothing(tmp_path: Path, line: str) -> None:
    bench = Bench(tmp_path)
    assert await bench.run(line) == Progress()


async def test_no_module_and_vendored_packages_need_nothing(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert await bench.prefetcher.run(Path("/"), ["bash"]) == Progress()
    (bench.project / "vendor").mkdir()
    assert await bench.run("go build") == Progress()


async def test_a_broken_file_is_told_in_a_line(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (bench.project / "go.mod").write_text("module m\nrequire x\n")
    progress = await bench.run("go build")
    assert progress.problem.startswith(f"{bench.project}/go.mod:2: want: require")
    assert bench.seen[-1] is progress


@pytest.mark.skipif(not RUNS, reason=WHY)
async def test_what_gomodcache_has_is_left_out(tmp_path: Path) -> None:
    env = go_env(tmp_path / "go")
    bench = Bench(tmp_path, modcache=env["GOMODCACHE"])
    env["GOPROXY"] = bench.corpus.directory.as_uri()
    argv = [find_go() or "go", "vet", "."]
    subprocess.run(argv, cwd=bench.project, env=env, capture_output=True, check=True)
    assert (await bench.run("go vet .")).wanted == 0
    item = Item("mods.lab.example/m001", "v1.0.0", "zip")
    (Path(env["GOMODCACHE"]) / "cache" / "download" / item.name).unlink()
    # unpacked it serves a build, but not `go mod download`
    assert in_modcache(env["GOMODCACHE"], item, unpacked=True)
    assert not in_modcache(env["GOMODCACHE"], item, unpacked=False)
    await bench.run("go mod download")
    assert bench.source.asked == [item.name]


def test_a_workspace_is_read_whole_and_directories_become_absolute(tmp_path: Path) -> None:
    (tmp_path / "go.work").write_text("go 1.21\nuse ./a\nuse ./b\nuse ./gone\nreplace x.y/w => ./w\n")
    (tmp_path / "go.work.sum").write_text("x.y/s v1.0.0 h1:s=\n")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "go.mod").write_text(f"module w.x/{name}\ngo 1.21\nreplace x.y/l => ../l{name}\n")
        (tmp_path / name / "go.sum").write_text(f"x.y/{name} v1.0.0 h1:{name}=\n")
    files = read_files(child_directory(["go", "build"], tmp_path / "a", {}))
    assert [main.module for main in files.mains] == ["w.x/a", "w.x/b"]
    assert {path for path, _ in files.sums.sums} == {"x.y/s", "x.y/a", "x.y/b"}
    assert files.work is not None
    assert files.work.replace[0].new.path == str(tmp_path / "w")
    assert files.mains[1].replace[0].new.path == str(tmp_path / "lb")


def test_with_modfile_directories_count_from_the_main_module(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module m\n")
    (tmp_path / "alt").mkdir()
    (tmp_path / "alt" / "x.mod").write_text("module m\nreplace x.y/l => ./l\n")
    (tmp_path / "alt" / "x.sum").write_text("x.y/a v1.0.0 h1:a=\n")
    place = child_directory(["go", "build", "-modfile=x.mod"], tmp_path / "alt", {})
    files = read_files(place, "x.mod")
    assert files.mains[0].replace[0].new.path == str(tmp_path / "l")
    assert len(files.sums) == 1
