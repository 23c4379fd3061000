"""From the question to the answer: store, sources, verification, what is stale, offline and private."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gotunnel.errors import ModuleError
from gotunnel.modproxy import walk
from gotunnel.modproxy.filter import Filter
from gotunnel.modproxy.proxy import Answer, ModProxy, Project
from gotunnel.modproxy.sources import parse_list
from gotunnel.modproxy.target import parse
from gotunnel.observe.events import Event, Fetch
from gotunnel.storage.disk import DiskStore
from tests.modfakes import (
    BASE,
    FILES,
    GO_MOD,
    INFO,
    MODULE,
    VERSION,
    ZIP,
    Behave,
    FakeFetcher,
    failing,
    go_sum,
    module_zip,
    project,
)  # fmt: skip


class World:
    """A store in a directory, a clock, and proxies over them."""

    def __init__(self, directory: Path) -> None:
        self.now = 1_000_000.0
        self.directory = directory
        self.store = DiskStore(directory, clock=lambda: self.now)
        self.events: list[Event] = []
        self.told: list[str] = []
        self.made: list[ModProxy] = []

    def proxy(
        self,
        fetcher: FakeFetcher,
        goproxy: str = "https://one.example,direct",
        *,
        mirrors: tuple[str, ...] = (),
        offline: bool = False,
        rules: Filter | None = None,
        hedge: float | str = "off",
    ) -> ModProxy:
        made = ModProxy(
            parse_list(goproxy, mirrors), fetcher, self.store, emit=self.events.append, offline=offline,
            filter=rules or Filter(), hedge=hedge, clock=lambda: self.now, wall=lambda: self.now,
            tell=self.told.append,
        )  # fmt: skip
        self.made.append(made)
        return made


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "store")
    yield made
    for proxy in made.made:
        await proxy.close()


async def content(answer: Answer) -> bytes:
    if isinstance(answer.body, bytes):
        return answer.body
    if isinstance(answer.body, Path):
        return answer.body.read_bytes()
    return b"".join([piece async for piece in answer.body])


async def refusal(proxy: ModProxy, path: str, run: Project | None = None) -> ModuleError:
    with pytest.raises(ModuleError) as caught:
        await proxy.answer(path, run or project())
    assert "\n" not in caught.value.detail
    return caught.value


def left_over(world: World) -> list[Path]:
    spool = world.directory / ".gotunnel" / "spool"
    return list(spool.iterdir()) if spool.is_dir() else []


async def test_fetched_once_then_from_the_store(world: World) -> None:
    fetcher = FakeFetcher(one=FILES)
    proxy = world.proxy(fetcher)
    for path, data in FILES.items():
        first = await proxy.answer(path, project())
        again = await proxy.answer(path.replace("@", "%40"), project())
        assert await content(first) == await content(again) == data
        assert (first.cached, again.cached) == (False, True)
        assert first.size == again.size == len(data)
    assert fetcher.calls == [("one", path) for path in FILES]
    assert (world.directory / f"{BASE}.zip").read_bytes() == ZIP
    stored = await world.store.get(f"{BASE}.zip")
    assert stored is not None
    assert stored.labels["by"] == "gosum"
    assert stored.labels["source"] == "one.example"
    assert not left_over(world)
    told = [event for event in world.events if isinstance(event, Fetch)]
    assert [(event.path, event.cached) for event in told] == [(path, True) for path in FILES]


async def test_sixty_four_ask_one_fetch(world: World) -> None:
    fetcher = FakeFetcher(one=FILES)
    proxy = world.proxy(fetcher)
    runs = [project(name=str(number)) for number in range(64)]
    answers = await asyncio.gather(*(proxy.answer(f"{BASE}.zip", run) for run in runs))
    assert len(fetcher.calls) == 1
    assert {await content(answer) for answer in answers} == {ZIP}
    assert sum(not answer.cached for answer in answers) == 1


async def test_what_one_go_sum_vouched_for_is_verified_anew(world: World) -> None:
    proxy = world.proxy(FakeFetcher(one=FILES))
    await proxy.answer(f"{BASE}.zip", project())
    other = project(go_sum(zip_=module_zip("package other\n")), name="other")
    error = await refusal(proxy, f"{BASE}.zip", other)  # the source has nothing else either
    assert (error.finding, error.http_status) == ("sum.mismatch", 502)
    assert await content(await proxy.answer(f"{BASE}.zip", project())) == ZIP


async def test_a_wrong_go_sum_doesnt_spoil_the_flight_of_others(world: World) -> None:
    proxy = world.proxy(FakeFetcher(one=FILES))
    wrong = project(go_sum(zip_=module_zip("package other\n")), name="wrong")
    first, second = await asyncio.gather(
        proxy.answer(f"{BASE}.zip", wrong), proxy.answer(f"{BASE}.zip", project()), return_exceptions=True
    )
    assert isinstance(first, ModuleError)
    assert isinstance(second, Answer)
    assert await content(second) == ZIP


async def test_wrong_bytes_once_are_fetched_whole_another_way(world: World) -> None:
    said = iter([module_zip("package evil\n"), ZIP])

    async def spliced(path: str) -> bytes:
        return next(said)

    fetcher = FakeFetcher(one=spliced)
    assert await content(await world.proxy(fetcher).answer(f"{BASE}.zip", project())) == ZIP
    assert fetcher.whole == [False, True]
    assert fetcher.avoided == [frozenset(), frozenset({"way-1"})]
    assert not left_over(world)


async def test_wrong_bytes_twice_are_the_sources_fault(world: World) -> None:
    evil = FILES | {f"{BASE}.zip": module_zip("package evil\n"), f"{BASE}.mod": b"module evil\n"}
    fetcher = FakeFetcher(one=evil, two=FILES)
    proxy = world.proxy(fetcher, "https://one.example,https://two.example,direct")
    for path in (f"{BASE}.zip", f"{BASE}.mod"):
        error = await refusal(proxy, path)  # after a comma nobody else is asked
        assert (error.finding, error.http_status) == ("sum.mismatch", 502)
        assert "one.example" in error.source
        assert await world.store.get(path) is None
    assert {name for name, _ in fetcher.calls} == {"one"}
    assert not left_over(world)
    bar = world.proxy(fetcher, "https://one.example|https://two.example|direct")
    assert await content(await bar.answer(f"{BASE}.zip", project())) == ZIP


@pytest.mark.parametrize(
    ("path", "data", "finding"),
    [
        (f"{BASE}.info", b"<html>log in</html>", "http.captive-portal"),
        (f"{BASE}.info", b"[]", "http.captive-portal"),
        (f"{BASE}.info", b'{"Version": "v1.0.1"}', "http.captive-portal"),
        (f"{BASE}.info", b'{"Version": "v1.0.0", "x": "%s"}' % (b"x" * 70_000), "http.endless"),
        (f"{BASE}.zip", b"PK\x03\x04 and no more", "module.bad-zip"),
        (f"{MODULE}/@v/list", b"\n<!DOCTYPE html>", "http.captive-portal"),
        (f"{MODULE}/@latest", b'{"Version": "latest"}', "http.captive-portal"),
    ],
)
async def test_what_is_no_such_file(world: World, path: str, data: bytes, finding: str) -> None:
    error = await refusal(world.proxy(FakeFetcher(one={path: data})), path)
    assert (error.finding, error.http_status) == (finding, 502)
    assert await world.store.get(path) is None


async def test_commas_and_bars(world: World) -> None:
    path = f"{BASE}.mod"
    cases: list[tuple[str, dict[str, dict[str, bytes] | Callable[..., object]], int | None]] = [
        ("https://one.example,https://two.example", {"one": {}, "two": FILES}, None),
        ("https://one.example,https://two.example", {"one": failing(), "two": FILES}, 502),
        ("https://one.example|https://two.example", {"one": failing(), "two": FILES}, None),
        ("https://one.example,https://two.example", {"one": {}, "two": {}}, 404),
        ("https://one.example|https://two.example", {"one": failing(status=504), "two": {}}, 504),
        # go itself goes on to direct here, since the last source said 404
        ("https://one.example|https://two.example,direct", {"one": failing(), "two": {}}, 404),
        ("https://one.example|https://two.example,off", {"one": failing(), "two": {}}, 502),
    ]
    for goproxy, sources, status in cases:
        proxy = world.proxy(FakeFetcher(**sources), goproxy)  # type: ignore[arg-type]
        if status is None:
            assert await content(await proxy.answer(path, project())) == GO_MOD
        else:
            assert (await refusal(proxy, path)).http_status == status, goproxy
        await world.store.delete(path)


async def test_sources_that_failed_one_after_the_other_are_asked_once_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first had lost its way out just when it was its turn, the second is broken: go asks only once."""
    monkeypatch.setattr(walk, "ROUNDS", (0.01, 0.01))

    async def lost_once(path: str) -> bytes:
        if fetcher.calls.count(("one", path)) == 1:
            raise ModuleError("hop.closed", "its jump host was restarted", http_status=502)
        return FILES[path]

    fetcher = FakeFetcher(one=lost_once, two=failing("http.server-error"))
    both = "https://one.example|https://two.example"
    answer = await world.proxy(fetcher, both).answer(f"{BASE}.mod", project())
    assert await content(answer) == GO_MOD
    assert [name for name, _ in fetcher.calls] == ["one", "two", "one"]


@pytest.mark.parametrize(
    ("one", "two", "asked"),
    [
        (failing("hop.closed"), failing("http.forbidden"), 3),
        (failing("http.forbidden"), failing("http.unauthorized"), 1),
        (failing("hop.closed"), {}, 1),  # a 404 is an answer
    ],
)
async def test_what_is_asked_once_more_and_what_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch, one: Behave, two: Behave | dict[str, bytes], asked: int
) -> None:
    monkeypatch.setattr(walk, "ROUNDS", (0.01, 0.01))
    fetcher = FakeFetcher(one=one, two=two)
    proxy = world.proxy(fetcher, "https://one.example|https://two.example")
    await refusal(proxy, f"{BASE}.mod")
    assert [name for name, _ in fetcher.calls] == ["one", "two"] * asked
    with pytest.raises(ModuleError):  # go may ask for it itself, and will
        await proxy.ensure(parse(f"{BASE}.info"), project())
    assert len(fetcher.calls) == 2 * asked + 2


async def test_a_slow_mirror_is_hedged_and_never_across_a_comma(world: World) -> None:
    async def silent(path: str) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    fetcher = FakeFetcher(one=silent, two=FILES)
    mirrors = ("https://one.example", "https://two.example")
    proxy = world.proxy(fetcher, "|".join(mirrors), mirrors=mirrors, hedge=0.01)
    assert await content(await proxy.answer(f"{BASE}.mod", project())) == GO_MOD
    assert fetcher.cancelled == 1
    alone = world.proxy(fetcher, ",".join(mirrors), mirrors=mirrors, hedge=0.01)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await alone.answer(f"{BASE}.info", project())
    assert ("two", f"{BASE}.info") not in fetcher.calls


async def test_lists_grow_stale(world: World) -> None:
    path = f"{MODULE}/@v/list"
    files = {path: b"v1.0.0\n"}
    fetcher = FakeFetcher(one=files)
    proxy = world.proxy(fetcher)
    await proxy.answer(path, project())
    files[path] = b"v1.0.0\nv1.1.0\n"
    world.now += 59
    assert await content(await proxy.answer(path, project())) == b"v1.0.0\n"
    world.now += 2
    assert await content(await proxy.answer(path, project())) == files[path]
    fetcher.sources["https://one.example"] = failing()
    world.now += 100
    stale = await proxy.answer(path, project())
    assert await content(stale) == files[path]
    assert dict(stale.headers)["Warning"] == '110 gotunnel "Response is Stale"'
    assert dict(stale.headers)["Age"] == "100"
    count = len(fetcher.calls)
    await proxy.answer(path, project())  # the source isn't asked each time
    assert len(fetcher.calls) == count
    fetcher.sources["https://one.example"] = {}
    world.now += 100
    assert (await refusal(proxy, path)).http_status == 404  # an answer


async def test_prefixes_are_missing_for_a_moment_failures_never(world: World) -> None:
    fetcher = FakeFetcher(one={})
    proxy = world.proxy(fetcher)
    for _ in range(3):
        assert (await refusal(proxy, "a.example/@v/list")).http_status == 404
        assert (await refusal(proxy, f"{BASE}.mod")).http_status == 404
    assert fetcher.calls.count(("one", "a.example/@v/list")) == 1
    assert fetcher.calls.count(("one", f"{BASE}.mod")) == 3
    world.now += 21
    await refusal(proxy, "a.example/@v/list")
    assert fetcher.calls.count(("one", "a.example/@v/list")) == 2
    fetcher.sources["https://one.example"] = failing()
    for _ in range(2):
        assert (await refusal(proxy, "b.example/@v/list")).http_status == 502
    assert fetcher.calls.count(("one", "b.example/@v/list")) == 2


async def test_private_names_are_asked_of_nobody(world: World) -> None:
    fetcher = FakeFetcher(one=FILES)
    proxy = world.proxy(fetcher)
    for path in (*FILES, f"{MODULE}/@latest", f"{MODULE}/sub/@v/master.info"):
        error = await refusal(proxy, path, project(private="b.example,*.example/m"))
        assert error.http_status == 404
        assert "private" in error.detail
    assert not fetcher.calls


async def test_filter(world: World) -> None:
    latest = {f"{MODULE}/@latest": b'{"Version": "v1.3.0"}', f"{MODULE}/@v/list": b"v1.0.0\nv1.3.0\n"}
    fetcher = FakeFetcher(one=FILES | latest)
    rules = Filter.parse([{"module": MODULE, "action": "deny", "versions": ">=v1.3.0"}])
    proxy = world.proxy(fetcher, rules=rules)
    assert await content(await proxy.answer(f"{BASE}.mod", project())) == GO_MOD
    assert await content(await proxy.answer(f"{MODULE}/@v/list", project())) == b"v1.0.0\n"
    for path in (f"{MODULE}/@latest", f"{MODULE}/@v/v1.3.0.zip"):
        error = await refusal(proxy, path)
        assert error.http_status == 403
        assert ">=v1.3.0" in error.detail


async def test_offline(world: World) -> None:
    online = world.proxy(FakeFetcher(one=FILES))
    for path in FILES:
        await online.answer(path, project())
    await world.store.put("c.example/x/@v/v1.0.0.mod", b"module c.example/x\n")
    fetcher = FakeFetcher(one=FILES)
    proxy = world.proxy(fetcher, offline=True)
    world.now += 10_000
    for path, data in FILES.items():
        assert await content(await proxy.answer(path, project())) == data
    for path, status in {
        f"{MODULE}/@v/v1.1.0.mod": 503, f"{MODULE}/@v/v1.1.0.info": 503, "c.example/x/@v/v1.0.0.info": 503,
        "b.example/x/@v/v1.0.0.zip": 503,
        # go looks for a module along the path: not here is no failure
        "a.example/@v/list": 404, "a.example/@v/v1.0.0.info": 404, f"{MODULE}/@latest": 404,
    }.items():  # fmt: skip
        error = await refusal(proxy, path)
        assert error.http_status == status, path
        assert error.detail.startswith("offline: ")
        assert error.detail.endswith(" is not in the store")
        assert parse(path).module in error.detail
    assert not fetcher.calls


async def test_a_store_that_cant_be_written(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.directory.parent.mkdir(exist_ok=True)
    world.directory.write_text("no directory")
    mine = world.directory.parent / "tmp"
    mine.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(mine))
    proxy = world.proxy(FakeFetcher(one=FILES))
    for path, data in FILES.items():
        answer = await proxy.answer(path, project())
        assert await content(answer) == data
        del answer
    assert len(world.told) == 1
    assert str(world.directory) in world.told[0]
    await asyncio.sleep(0)
    assert not list(mine.iterdir())  # the file went with its answer


async def test_no_disk_at_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.directory.parent.mkdir(exist_ok=True)
    world.directory.write_text("no directory")

    class NoDisk(FakeFetcher):
        async def fetch(self, *args: object, **kw: object) -> object:  # type: ignore[override]
            if kw["spool"] is not None:
                raise ModuleError("disk.full", "no space left")
            return await super().fetch(*args, **kw)  # type: ignore[arg-type]

    proxy = world.proxy(NoDisk(one=FILES))
    assert await content(await proxy.answer(f"{BASE}.zip", project())) == ZIP


async def test_a_file_somebody_else_put_there(world: World) -> None:
    """A store begun as a copy of GOMODCACHE has no labels: the files are summed."""
    for path, data in FILES.items():
        (world.directory / path).parent.mkdir(parents=True, exist_ok=True)
        (world.directory / path).write_bytes(data)
    evil = module_zip("package evil\n")
    fetcher = FakeFetcher(one=FILES)
    proxy = world.proxy(fetcher)
    assert await content(await proxy.answer(f"{BASE}.mod", project())) == GO_MOD
    assert await content(await proxy.answer(f"{BASE}.info", project())) == INFO
    assert not fetcher.calls
    (world.directory / f"{BASE}.zip").write_bytes(evil)
    assert await content(await proxy.answer(f"{BASE}.zip", project())) == ZIP
    assert (world.directory / f"{BASE}.zip").read_bytes() == ZIP


async def test_prefetch_and_demand_are_one_flight(world: World) -> None:
    fetcher = FakeFetcher(one=FILES)
    proxy = world.proxy(fetcher)
    target = parse(f"{BASE}.zip")
    ensured, answer = await asyncio.gather(
        proxy.ensure(target, project(), priority=1), proxy.answer(target.name, project())
    )
    assert len(fetcher.calls) == 1
    assert ensured.name == target.name
    assert await content(answer) == ZIP
    assert fetcher.priorities == [0]  # it rose before its turn came


class Sums:
    name = "sum.example"

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def answer(self, rest: str) -> bytes:
        self.asked.append(rest)
        return b"signed"


async def test_checksum_database(world: World) -> None:
    sums = Sums()
    run = Project("r", project().verifier, "*.corp", "sum.example", sums)
    proxy = world.proxy(FakeFetcher())
    assert await content(await proxy.answer("sumdb/sum.example/supported", run)) == b""
    lookup = f"lookup/{MODULE}@{VERSION}"
    assert await content(await proxy.answer(f"sumdb/sum.example/{lookup}", run)) == b"signed"
    for path in ("sumdb/other.example/supported", "sumdb/sum.example/lookup/git.corp/x@v1.0.0"):
        assert (await refusal(proxy, path, run)).http_status == 404
    assert sums.asked == [lookup]
    assert (await refusal(proxy, "sumdb/sum.example/supported")).http_status == 404


async def test_a_query_names_its_version(world: World) -> None:
    branch = {f"{MODULE}/@v/master.info": json.dumps({"Version": "v1.1.0"}).encode()}
    proxy = world.proxy(FakeFetcher(one=branch))
    assert json.loads(await content(await proxy.answer(f"{MODULE}/@v/master.info", project()))) == {
        "Version": "v1.1.0"
    }
    assert (await refusal(proxy, "a.example/../b/@v/list")).http_status == 400
