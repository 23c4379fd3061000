"""The checksum database: against one of our own that go trusts too, honest and not, and the real one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gotunnel.errors import ModuleError
from gotunnel.modproxy.dirhash import escape
from gotunnel.modproxy.sumdb import KNOWN, SumDB, SumDBSetting, parse_gosumdb
from gotunnel.tasks import in_thread
from tests.conftest import need
from tests.lab.corpus import VERSION, Corpus
from tests.lab.gotool import can_run_go, find_go, go_env
from tests.lab.sumdb import NAME, SumDatabase
from tests.memory_store import MemoryStore

Fetch = Callable[[str], Awaitable[bytes]]


def setting_of(gosumdb: str) -> SumDBSetting:
    setting = parse_gosumdb(gosumdb)
    assert setting is not None
    return setting


def fetch_from(base: str) -> Fetch:
    """GET below `base`, with the errors that a SumDB expects."""

    def get(path: str) -> bytes:
        try:
            with urllib.request.urlopen(f"{base}/{path}", timeout=20) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                status = error.code if error.code in (404, 410) else 502
                raise ModuleError("http.server-error", f"{error.code}", http_status=status) from error
        except OSError as error:
            raise ModuleError("tcp.refused", str(error), http_status=502) from error

    return lambda path: in_thread("get", lambda: get(path))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path / "corpus", count=12, levels=2, filler=10)


@pytest.fixture
def server(tmp_path: Path, corpus: Corpus) -> Iterator[SumDatabase]:
    with SumDatabase(tmp_path / "sumdb", corpus.go_sum()) as made:
        yield made


def client(server: SumDatabase, store: MemoryStore | None = None) -> SumDB:
    return SumDB(setting_of(server.gosumdb), fetch_from(server.url), store or MemoryStore())


async def refused(db: SumDB, module: str) -> ModuleError:
    with pytest.raises(ModuleError) as caught:
        await db.lookup(module, VERSION)
    assert "\n" not in str(caught.value)
    assert caught.value.http_status not in (404, 410)
    return caught.value


def test_go_takes_the_lab_database_for_real_and_sees_when_it_lies(
    tmp_path: Path, corpus: Corpus, server: SumDatabase
) -> None:
    need(can_run_go())
    project = corpus.write_project(tmp_path / "project", sums=False)

    def download() -> subprocess.CompletedProcess[str]:
        env = go_env(tmp_path / "go", proxy=corpus.directory.as_uri()) | {"GOSUMDB": server.gosumdb}
        argv = [find_go() or "go", "mod", "download", "all"]
        return subprocess.run(argv, cwd=project, env=env, capture_output=True, text=True, check=False)

    done = download()
    assert done.returncode == 0, done.stderr
    assert sorted((project / "go.sum").read_text().splitlines()) == corpus.go_sum().splitlines()
    assert server.requests("^/tile/8/0/000$")
    (project / "go.sum").unlink()
    server.behave(wrong="hash")
    assert download().returncode != 0
    server.behave(wrong="signature")
    assert "invalid signature" in download().stderr


async def test_every_module_is_looked_up_and_proved(corpus: Corpus, server: SumDatabase) -> None:
    db = client(server)
    wanted = dict[tuple[str, str], str]()
    for line in corpus.go_sum().splitlines():
        module, version, h1 = line.split()
        wanted[module, version] = h1
    for each in corpus.modules:
        sums = await db.lookup(each.path, VERSION)
        assert sums == {key: wanted[each.path, key] for key in (VERSION, f"{VERSION}/go.mod")}
    assert server.requests("!m")  # capitals are escaped
    tiles = server.requests("tile")
    assert len(tiles) == len(set(tiles))
    await db.close()


async def test_the_store_saves_all_but_the_first_questions(corpus: Corpus, server: SumDatabase) -> None:
    store, module = MemoryStore(), min(module.path for module in corpus.modules)
    sums = await client(server, store).lookup(module, VERSION)
    name = f"sumdb/{NAME}/lookup/{escape(module)}@{VERSION}"
    assert store.files[name].startswith(b"200\n")
    assert store.files[f"sumdb/{NAME}/tile/8/0/000"]
    asked = len(server.requests())

    async def offline(path: str) -> bytes:
        raise ModuleError("tcp.refused", f"no network for {path}", http_status=502)

    db = SumDB(setting_of(server.gosumdb), offline, store)
    assert await db.lookup(module, VERSION) == sums
    assert await db.answer("latest") == store.files[f"sumdb/{NAME}/latest"]
    assert len(server.requests()) == asked
    for kept in [kept for kept in store.files if "/tile/" in kept]:
        await store.delete(kept)
    db = SumDB(setting_of(server.gosumdb), offline, store)
    assert await db.lookup(module, VERSION) == sums  # it was proved when it was stored


async def test_what_is_broken_in_the_store_is_fetched_anew(corpus: Corpus, server: SumDatabase) -> None:
    store, module = MemoryStore(), corpus.modules[0].path
    sums = await client(server, store).lookup(module, VERSION)
    good = dict(store.files)
    for name, data in good.items():
        store.files[name] = bytes(reversed(data))
    assert await client(server, store).lookup(module, VERSION) == sums
    assert store.files == good


async def test_a_store_that_fails_stops_nothing(corpus: Corpus, server: SumDatabase) -> None:
    store = MemoryStore()
    store.broken = True
    assert await client(server, store).lookup(corpus.modules[0].path, VERSION)


async def test_many_at_once_ask_once(corpus: Corpus, server: SumDatabase) -> None:
    db = client(server)
    asked = [db.lookup(module.path, VERSION) for module in corpus.modules for _ in range(5)]
    await asyncio.gather(*asked)
    paths = server.requests()
    assert len(paths) == len(set(paths))
    assert len(server.requests("lookup")) == len(corpus.modules)


async def test_a_log_that_grows_is_followed(corpus: Corpus, server: SumDatabase) -> None:
    store = MemoryStore()
    db = client(server, store)
    for number, path in enumerate(sorted(module.path for module in corpus.modules)):
        server.behave(size=601 + number)
        await db.lookup(path, VERSION)
        assert f"\n{601 + number}\n".encode() in store.files[f"sumdb/{NAME}/latest"]
    # somebody else's older answer is of the same timeline; the head stays
    server.behave(size=605)
    await db.answer("latest")
    assert b"\n612\n" in store.files[f"sumdb/{NAME}/latest"]


@pytest.mark.parametrize(("wrong", "words"), [
    ("signature", "signature of sum.lab.example"),
    ("hash", "isn't what stands in its log"),
    ("tile", "don't fit its tree of 612 records"),
])  # fmt: skip
async def test_a_lie_is_seen_and_not_kept(
    corpus: Corpus, server: SumDatabase, wrong: str, words: str
) -> None:
    store, module = MemoryStore(), corpus.modules[0].path
    db = client(server, store)
    server.behave(wrong=wrong)
    error = await refused(db, module)
    assert error.finding == "sum.unverifiable"
    assert words in str(error)
    assert not [name for name in store.files if "lookup" in name]
    server.behave()
    assert await db.lookup(module, VERSION)  # and it isn't held against it for ever


async def test_a_fork_is_refused_from_either_side(corpus: Corpus, server: SumDatabase) -> None:
    first, second = sorted(module.path for module in corpus.modules)[:2]
    for before, after in ((604, 0), (0, 604), (0, 0)):
        store = MemoryStore()
        server.behave(size=before)
        await client(server, store).lookup(first, VERSION)
        kept = store.files[f"sumdb/{NAME}/latest"]
        server.behave(size=after, fork=True)
        for db in (client(server, store), client(server, store)):
            error = await refused(db, second)
            assert str(before or 612) in str(error)
            assert str(after or 612) in str(error)
            assert error.finding in ("sum.mismatch", "sum.unverifiable")
            assert store.files[f"sumdb/{NAME}/latest"] == kept
    assert error.finding == "sum.mismatch"


async def test_two_processes_that_are_told_different_things_find_out(
    corpus: Corpus, server: SumDatabase
) -> None:
    first, other, second, third = sorted(module.path for module in corpus.modules)[:4]
    for before, after in ((604, 606), (606, 604)):
        store = MemoryStore()
        early = client(server, store)
        server.behave(size=601, fork=True)
        await early.lookup(first, VERSION)
        await store.delete(f"sumdb/{NAME}/latest")
        server.behave(size=before)
        await client(server, store).lookup(other, VERSION)
        server.behave(size=after, fork=True)
        for module in (second, third):
            assert "records" in str(await refused(early, module))


async def test_a_database_that_was_set_back_can_t_prove_what_it_showed(
    corpus: Corpus, server: SumDatabase
) -> None:
    store = MemoryStore()
    first, second = sorted(module.path for module in corpus.modules)[:2]
    await client(server, store).lookup(first, VERSION)
    for name in [name for name in store.files if "/tile/" in name]:
        await store.delete(name)
    server.behave(size=604)
    error = await refused(client(server, store), second)
    assert error.finding == "sum.unverifiable"
    assert "612 records before, now answers with one of 604" in str(error)


async def test_faults_of_the_network_stay_what_they_are(corpus: Corpus, server: SumDatabase) -> None:
    module = corpus.modules[0].path
    server.behave(status=500)
    assert (await refused(client(server), module)).finding == "http.server-error"
    server.behave(status=500, only="tile")
    assert (await refused(client(server), module)).finding == "http.server-error"
    server.behave()
    with pytest.raises(ModuleError) as caught:
        await client(server).lookup("unknown.example/x", VERSION)
    assert caught.value.http_status == 404


async def test_who_gives_up_waiting_holds_up_nobody(corpus: Corpus, server: SumDatabase) -> None:
    db, module = client(server), corpus.modules[0].path
    server.behave(hang=60.0, only="tile")  # while the head is being moved on
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await db.lookup(module, VERSION)
    server.behave()
    assert await db.lookup(module, VERSION)
    await db.close()


async def test_what_go_asks_is_answered_with_the_kept_head(corpus: Corpus, server: SumDatabase) -> None:
    db = client(server)
    first = min(module.path for module in corpus.modules)
    assert await db.answer("supported") == b""
    head = await db.answer("latest")
    server.behave(size=604)
    answer = await db.answer(f"lookup/{escape(first)}@{VERSION}")
    assert answer.startswith(b"200\n")
    assert answer.endswith(b"\n\n" + head)
    log = server.log_of_sums
    server.behave(status=500, only="lookup|latest")
    assert await db.answer("latest") == head
    assert await db.answer(f"lookup/{escape(first)}@{VERSION}") == answer
    server.behave(status=500)
    assert await db.answer("tile/8/1/000.p/2") == log.tile(1, 0, 2, 612)  # cut, and known already
    assert await db.answer("tile/8/0/002.p/7") == log.tile(0, 2, 7, 612)
    for wrong in (
        "tile/8/0/2",
        "tile/8/data/000",
        "tile/4/0/000",
        "lookup/X@v1",
        "lookup/x",
        "../x",
        "x/y",
        "",
    ):
        with pytest.raises(ModuleError) as caught:
            await db.answer(wrong)
        assert caught.value.http_status == 404


async def test_go_itself_is_content_with_our_answers(
    tmp_path: Path, corpus: Corpus, server: SumDatabase
) -> None:
    need(can_run_go())
    db = client(server)
    tree = tmp_path / "proxy"
    (tree / "sumdb").mkdir(parents=True)
    for child in corpus.directory.iterdir():
        (tree / child.name).symlink_to(child)
    answers = [f"lookup/{escape(module.path)}@{VERSION}" for module in corpus.modules]
    answers += ["supported", "tile/8/1/000.p/2", "tile/8/0/000", "tile/8/0/001", "tile/8/0/002.p/100"]
    await db.answer("latest")
    for rest in answers:
        place = tree / "sumdb" / NAME / rest
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(await db.answer(rest))
    project = corpus.write_project(tmp_path / "project", sums=False)
    env = go_env(tmp_path / "go", proxy=tree.as_uri()) | {"GOSUMDB": server.key}
    argv = [find_go() or "go", "mod", "download", "-json", "all"]
    done = await in_thread(
        "go", lambda: subprocess.run(argv, cwd=project, env=env, capture_output=True, text=True, check=False)
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count('"Sum"') == len(corpus.modules)


def test_gosumdb_is_read_as_go_does(server: SumDatabase) -> None:
    assert parse_gosumdb("off") is None
    for text in ("", "sum.golang.org", KNOWN["sum.golang.org"]):
        assert setting_of(text).base == "https://sum.golang.org"
    china = setting_of("sum.golang.google.cn")
    assert (china.name, china.url) == ("sum.golang.org", "https://sum.golang.google.cn")
    assert setting_of(server.gosumdb).base == server.url
    assert setting_of(f"  {server.key}\t{server.url}/x/ ").base == f"{server.url}/x"


@pytest.mark.parametrize("text", [
    " ", "other.example", "a b c", "sum.golang.org ftp://x", "sum.golang.org https://", "sum.golang.org x",
    KNOWN["sum.golang.org"].replace("033d", "133d"), KNOWN["sum.golang.org"][:-3], "a+b+c", "sum.golang.org+",
    "sum.golang.org http://[",
])  # fmt: skip
def test_gosumdb_that_is_wrong_is_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"\AGOSUMDB[^\n]*\Z"):
        parse_gosumdb(text)


@pytest.mark.internet
async def test_the_real_database_proves_a_real_module() -> None:
    need(can_run_go())
    argv = [find_go() or "go", "env", "-json", "GOPROXY"]
    proxies = json.loads(subprocess.run(argv, capture_output=True, check=True).stdout)["GOPROXY"]
    source = proxies.replace("|", ",").split(",")[0].rstrip("/")
    setting = setting_of("sum.golang.org")
    store = MemoryStore()
    fetch = fetch_from(f"{source}/sumdb/{setting.name}")
    db = SumDB(setting, fetch, store)
    assert await db.lookup("rsc.io/quote", "v1.5.2") == {
        "v1.5.2": "h1:w5fcysjrx7yqtD/aO+QwRjYZOKnaM9Uh2b40tElTs3Y=",
        "v1.5.2/go.mod": "h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0=",
    }
    assert await db.lookup("github.com/BurntSushi/toml", "v1.0.0")
    again = SumDB(setting, fetch, store)
    await again.answer("latest")
    assert await again.lookup("golang.org/x/mod", "v0.20.0")
