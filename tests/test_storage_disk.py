"""The store in a directory: go's own layout, time of use, faults of a real disk, what others leave there."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gotunnel.storage import StoreError, read_all
from gotunnel.storage.disk import DiskStore
from tests.conftest import need
from tests.lab import gotool, netns, proc
from tests.lab.corpus import Corpus

ZIP = "a.com/m/@v/v1.0.0.zip"
DAY = 24 * 3600.0


class Clock:
    """A clock that is moved by hand; it starts when the test does."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> DiskStore:
    return DiskStore(tmp_path / "store", clock=clock)


def files_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


async def test_the_directory_is_a_goproxy(store: DiskStore, tmp_path: Path) -> None:
    need(gotool.can_run_go())
    corpus = Corpus(tmp_path / "corpus", count=4)
    for path in corpus.directory.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(corpus.directory))
            await store.put(name, path.read_bytes(), labels={"by": "gosum"})
    project = corpus.write_project(tmp_path / "project")
    go = gotool.find_go()
    assert go is not None
    env = gotool.go_env(tmp_path / "go", proxy=f"file://{store.label}")
    proc.run([go, "mod", "download"], cwd=project, env=env)


async def test_what_is_ours_lies_beside(store: DiskStore, tmp_path: Path) -> None:
    await store.put(ZIP, b"x", labels={"h1": "1"})
    await store.put("a.com/m/@v/v1.0.0.mod", b"x")
    assert files_below(tmp_path / "store") == [
        ".gotunnel/labels/a.com/m/@v/v1.0.0.zip.json",
        ".gotunnel/lock",
        "a.com/m/@v/v1.0.0.mod",
        "a.com/m/@v/v1.0.0.zip",
    ]
    await store.delete(ZIP)
    await store.delete("a.com/m/@v/v1.0.0.mod")
    assert files_below(tmp_path / "store") == [".gotunnel/lock"]
    assert not (tmp_path / "store" / "a.com").exists()


@pytest.mark.parametrize("how", ["longer", "same size, later", "torn labels"])
async def test_a_file_that_was_altered_has_no_labels(store: DiskStore, tmp_path: Path, how: str) -> None:
    await store.put(ZIP, b"good", labels={"by": "sumdb:sum.golang.org"})
    path = tmp_path / "store" / ZIP
    if how == "longer":
        path.write_bytes(b"good and more")
    elif how == "same size, later":
        path.write_bytes(b"evil")
        os.utime(path, (time.time(), time.time() + 5))
    else:
        note = tmp_path / "store/.gotunnel/labels" / f"{ZIP}.json"
        note.write_bytes(note.read_bytes()[:-5])
    found = await store.get(ZIP)
    assert found is not None
    assert found.labels == {}


async def test_labels_survive_a_copy_that_keeps_times(store: DiskStore, tmp_path: Path) -> None:
    await store.put(ZIP, b"good", labels={"by": "gosum"})
    archive = shutil.make_archive(str(tmp_path / "cache"), "tar", tmp_path / "store")
    shutil.unpack_archive(archive, tmp_path / "copy", filter="data")
    found = await DiskStore(tmp_path / "copy").get(ZIP)
    assert found is not None
    assert found.labels == {"by": "gosum"}


async def test_the_least_recently_used_goes_first(store: DiskStore, clock: Clock) -> None:
    for number in range(3):
        await store.put(f"a.com/m{number}/@v/v1.zip", b"x" * 1000)
        clock.now += DAY
    assert await store.get("a.com/m0/@v/v1.zip")
    clock.now += DAY
    assert await store.prune(2000) == (1, 1000)
    assert [each.name async for each in store.names()] == ["a.com/m0/@v/v1.zip", "a.com/m2/@v/v1.zip"]


async def test_a_use_is_noted_at_most_once_an_hour(store: DiskStore, clock: Clock, tmp_path: Path) -> None:
    await store.put(ZIP, b"x")
    path, put_at = tmp_path / "store" / ZIP, clock.now
    for later, noted in ((600, 0), (3700, 3700), (4000, 3700), (3700 + 3700, 7400)):
        clock.now = put_at + later
        found = await store.get(ZIP)
        assert abs(path.stat().st_atime - put_at - noted) < 1, later
        assert found is not None
        assert abs(found.stored_at - put_at) < 1, "a use is no put"


async def test_leftovers_of_the_dead_go_after_a_day(store: DiskStore, clock: Clock, tmp_path: Path) -> None:
    old, new = store.spool() / "old", store.spool() / "new"
    old.write_bytes(b"x")
    new.write_bytes(b"x")
    os.utime(old, (clock.now - DAY - 60, clock.now - DAY - 60))
    DiskStore(tmp_path / "store", clock=clock).spool()
    assert (old.exists(), new.exists()) == (False, True)


async def test_a_download_elsewhere_is_moved_in(store: DiskStore) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as elsewhere:
        source = Path(elsewhere) / "download"
        source.write_bytes(b"from another file system")
        await store.put(ZIP, source)
        assert not source.exists()
    found = await store.get(ZIP)
    assert found is not None
    assert await read_all(store, found) == b"from another file system"
    assert list(store.spool().iterdir()) == []


async def test_a_member_with_a_narrow_umask_shuts_nobody_out(tmp_path: Path) -> None:
    root = tmp_path / "shared"
    root.mkdir()
    root.chmod(0o2775)
    before = os.umask(0o077)
    try:
        store = DiskStore(root)
        source = store.spool() / "download"
        source.touch(0o600)
        await store.put(ZIP, source, labels={"h1": "1"})
    finally:
        os.umask(before)
    modes = {str(path.relative_to(root)): path.stat().st_mode & 0o777 for path in root.rglob("*")}
    assert {name: oct(mode) for name, mode in modes.items() if mode not in (0o775, 0o664)} == {}


async def test_a_link_that_leads_nowhere_and_a_directory_are_no_files(
    store: DiskStore, tmp_path: Path
) -> None:
    await store.put(ZIP, b"x")
    (tmp_path / "store/a.com/m/@v/v2.zip").symlink_to("nowhere")
    for name in ("a.com/m/@v/v2.zip", "a.com/m/@v", f"{ZIP}/below"):
        assert await store.get(name) is None
    with pytest.raises(StoreError, match=f"the module store {tmp_path}"):
        await store.put(f"{ZIP}/below", b"x")


async def test_a_process_that_dies_with_the_lock_frees_it(store: DiskStore, tmp_path: Path) -> None:
    store.spool()
    script = (
        "import fcntl, sys; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); "
        "print('held', flush=True); input()"
    )
    holder = proc.popen(
        [sys.executable, "-c", script, str(tmp_path / "store/.gotunnel/lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        await store.put(ZIP, b"x")
    assert await store.get(ZIP)


# --- faults of a real disk ------------------------------------------------------------------------------

FAULT = """
import asyncio, os, sys
from pathlib import Path
from gotunnel.storage import StoreError
from gotunnel.storage.disk import DiskStore

async def main(root, uid, size):
    store = DiskStore(Path(root))
    await store.get("warm/up")
    if os.getuid() == 0 and uid:
        os.setresuid(uid, uid, uid)
    found = await store.get("a.com/m/@v/v1.0.0.zip")
    print("found", found and found.labels.get("h1"))
    for what in ("put", "spool", "relabel"):
        try:
            if what == "put":
                await store.put("a.com/m/@v/v1.0.1.zip", os.urandom(size))
            elif what == "spool":
                store.spool()
            else:
                await store.relabel("a.com/m/@v/v1.0.0.zip", {"h1": "2"})
            print(what, "done")
        except StoreError as error:
            print(what, error.finding, error)
    print("there", await store.get("a.com/m/@v/v1.0.1.zip") is not None)

asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that another user can reach; pytest's own are closed to others."""
    path = Path(tempfile.mkdtemp(prefix="gotunnel-test-"))
    path.chmod(0o755)
    yield path
    for each in [path, *path.rglob("*")]:
        if each.is_dir():
            each.chmod(0o755)
    shutil.rmtree(path)


async def test_a_directory_that_is_read_only_still_serves(open_directory: Path) -> None:
    await DiskStore(open_directory).put(ZIP, b"x", labels={"h1": "1"})
    for path in [open_directory, *open_directory.rglob("*")]:
        path.chmod(stat.S_IMODE(path.stat().st_mode) & ~0o222)
    # root ignores modes: another user then
    out = proc.run([sys.executable, "-c", FAULT, str(open_directory), "65534", "10"], cwd=proc.ROOT).stdout
    lines = out.splitlines()
    assert lines[0] == "found 1"
    for line, what in zip(lines[1:4], ("put", "spool", "relabel"), strict=True):
        assert line.startswith(f"{what} cache.permission the module store can't use {open_directory}"), line
        assert "Permission denied" in line
    assert lines[4] == "there False"


async def test_a_disk_that_is_full(open_directory: Path) -> None:
    need(netns.can_make_namespaces())  # the same right as for a mount
    script = 'mount -t tmpfs -o size=1m none "$1" && shift && exec "$@"'
    argv = ["unshare", "-m", "sh", "-c", script, "sh", str(open_directory)]
    out = proc.run(
        [*argv, sys.executable, "-c", FAULT, str(open_directory), "0", "4000000"], cwd=proc.ROOT
    ).stdout
    lines = out.splitlines()
    assert lines[1].startswith(f"put disk.full no space left for the module store {open_directory}"), out
    assert lines[2:] == ["spool done", "relabel done", "there False"]


async def test_after_a_failure_the_download_is_still_there(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    source = tmp_path / "download"
    source.write_bytes(b"body")
    with pytest.raises(StoreError, match="the module store"):
        await DiskStore(blocked).put(ZIP, source)
    assert source.read_bytes() == b"body"
