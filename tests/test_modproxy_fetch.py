"""The fetcher over ways out that fail, to an origin that fails: every body is right, or an error says why."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import ModuleError
from gotunnel.modproxy import client, striped
from gotunnel.modproxy.fetch import Fetched, Fetcher, Source
from gotunnel.observe.events import Event, Fetch, Resume
from gotunnel.pool.pool import Pool, Upstream
from gotunnel.upstream.dialer import Stream
from tests.flaky_origin import Line, Manner, Origin, bytes_of, serving, sha
from tests.peers import until

SMALL = bytes_of(700_000)
LARGE = bytes_of(6_000_000, seed=2)
ZIP = "example.com/m/@v/v1.0.0.zip"


class Scene:
    """A fetcher over two ways out to one origin."""

    def __init__(self, origin: Origin, spool: Path, *, stall: float = 0.4, first_byte: float = 5.0) -> None:
        self.origin, self.spool = origin, spool
        self.events: list[Event] = []
        self.a, self.b = Line("a"), Line("b")
        ups = [Upstream("a", self.a), Upstream("b", self.b)]
        self.pool = Pool(ups, emit=self.events.append)
        self.fetcher = Fetcher(
            self.pool, emit=self.events.append, stall=stall, first_byte=first_byte, connections=40
        )

    async def fetch(self, path: str = ZIP, *, memory: bool = False, whole: bool = False) -> Fetched:
        return await self.fetcher.fetch(
            Source(self.origin.url),
            path,
            limit=50_000_000,
            spool=None if memory else self.spool,
            subject=("example.com/m", "v1.0.0"),
            whole=whole,
        )

    @property
    def resumes(self) -> list[tuple[int, str, str]]:
        return [(e.offset, e.source, e.to) for e in self.events if isinstance(e, Resume)]


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    origin = Origin({f"/{ZIP}": SMALL, "/large.zip": LARGE})
    async with serving(origin):
        made = Scene(origin, tmp_path)
        yield made
        await made.fetcher.close()
        await made.pool.close()
        await origin.deserted()
    left = [task for task in asyncio.all_tasks() if "stripes" in task.get_name()]
    assert not left


def content(got: Fetched) -> bytes:
    if got.path is None:
        assert got.data is not None
        return got.data
    data = got.path.read_bytes()
    got.path.unlink()
    return data


BREAKS = {
    "reset in mid-body": Manner(cut=300_000),
    "ended before its Content-Length": Manner(end=300_000),
    "stalled": Manner(stall=300_000),
    "chunks without an end": Manner(cut=300_000, chunked=True),
}


@pytest.mark.parametrize("name", BREAKS)
@pytest.mark.parametrize("memory", [False, True])
async def test_what_broke_goes_on_by_the_other_way_under_the_same_tag(
    scene: Scene, name: str, memory: bool
) -> None:
    scene.origin.script.append(BREAKS[name])
    got = await scene.fetch(memory=memory)
    assert sha(content(got)) == sha(SMALL)
    assert got.upstream == "b"
    first, second = scene.origin.asked
    assert "range" not in first.headers
    assert second.headers["range"].startswith("bytes=")
    assert second.headers["if-range"] == '"v1"'
    assert second.headers["accept-encoding"] == "identity"
    assert scene.resumes == [(int(second.headers["range"][6:-1]), "a", "b")]
    assert got.resumed == 1


@pytest.mark.parametrize("etag", ["", 'W/"v1"'])
async def test_without_a_strong_validator_it_starts_from_zero(scene: Scene, etag: str) -> None:
    dated = (("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT"),)
    scene.origin.manner = Manner(etag=etag, headers=dated)
    scene.origin.script.append(Manner(etag=etag, cut=300_000, headers=dated))
    assert sha(content(await scene.fetch())) == sha(SMALL)
    assert scene.origin.ranges() == ["", ""]


OTHER = bytes_of(650_000, seed=9)


@pytest.mark.parametrize(
    ("after", "want"),
    [
        (Manner(etag='"v2"', body=OTHER), OTHER),  # If-Range fails: a 200 with another file
        (Manner(ranges=False), SMALL),  # 200 in place of 206
        (Manner(etag='"v1"', body=OTHER), SMALL),  # the same tag, another total: a liar
        (Manner(content_range="bytes 0-399999/700000"), SMALL),
        (Manner(content_range="bytes 300000-699999/*"), SMALL),
        (Manner(status=416), SMALL),
    ],
)
async def test_nothing_is_joined_that_does_not_fit(scene: Scene, after: Manner, want: bytes) -> None:
    scene.origin.script += [Manner(cut=300_000), after]
    assert sha(content(await scene.fetch())) == sha(want)


async def test_a_206_with_another_tag_is_not_joined(scene: Scene) -> None:
    scene.origin.script += [
        Manner(cut=300_000),
        Manner(status=206, etag='"v2"', body=OTHER[300_000:], ranges=False,
               headers=(("Content-Range", "bytes 300000-649999/650000"),)),
    ]  # fmt: skip
    assert sha(content(await scene.fetch())) == sha(SMALL)


async def test_a_length_that_was_a_lie_ends_in_a_whole_fetch(scene: Scene) -> None:
    scene.origin.script.append(Manner(claim=50, end=700_000))
    assert sha(content(await scene.fetch())) == sha(SMALL)
    assert scene.origin.ranges() == ["", "bytes=700000-", ""]


async def test_whole_means_that_nothing_is_joined(scene: Scene) -> None:
    scene.origin.script.append(Manner(cut=300_000))
    assert sha(content(await scene.fetch(whole=True))) == sha(SMALL)
    assert sha(content(await scene.fetch("large.zip", whole=True))) == sha(LARGE)
    assert scene.origin.ranges() == ["", "", ""]


@pytest.mark.parametrize(
    "manner", [Manner(status=503), Manner(status=502), Manner(status=429), Manner(close=True)]
)
async def test_what_may_pass_is_tried_by_the_other_way(scene: Scene, manner: Manner) -> None:
    scene.origin.script.append(manner)
    got = await scene.fetch()
    assert sha(content(got)) == sha(SMALL)
    assert got.resumed == 0


async def test_a_source_that_cuts_every_body_is_given_up_in_bounded_time(scene: Scene) -> None:
    scene.origin.manner = Manner(etag="", cut=100_000)
    with pytest.raises(ModuleError) as caught:
        await scene.fetch()
    assert (caught.value.finding, caught.value.http_status) == ("http.truncated", 502)
    assert "127.0.0.1" in caught.value.detail
    assert len(scene.origin.asked) <= 12
    assert os.listdir(scene.spool) == []
    assert [e.error for e in scene.events if isinstance(e, Fetch)] == ["http.truncated"]


async def test_a_source_that_cuts_every_body_but_knows_ranges_is_read_to_the_end(scene: Scene) -> None:
    scene.origin.manner = Manner(cut=100_000)
    got = await scene.fetch()
    assert sha(content(got)) == sha(SMALL)
    assert got.resumed == 6  # the seventh part is the last


ERRORS = {
    "http.unauthorized": (Manner(status=401), 502),
    "http.forbidden": (Manner(status=403), 502),
    "module.not-found": (Manner(status=410), 410),
    "http.server-error": (Manner(status=500), 502),
    "http.rate-limited": (Manner(status=429), 502),
    "http.captive-portal": (Manner(headers=(("Content-Type", "text/html; charset=utf-8"),)), 502),
    "http.timeout": (Manner(mute=True), 504),
    "http.endless": (Manner(body=bytes(60), sized=False, chunked=True), 502),
}


@pytest.mark.parametrize("finding", ERRORS)
async def test_each_failure_has_its_finding(scene: Scene, finding: str, tmp_path: Path) -> None:
    scene.origin.manner, status = ERRORS[finding]
    scene.origin.files["/x"] = bytes(40)
    fetcher = Fetcher(scene.pool, emit=scene.events.append, first_byte=0.2)
    with pytest.raises(ModuleError) as caught:
        await fetcher.fetch(Source(scene.origin.url), "x", limit=50, spool=tmp_path)
    await fetcher.close()
    assert os.listdir(tmp_path) == []
    assert (caught.value.finding, caught.value.http_status) == (finding, status)
    assert caught.value.source == scene.origin.url
    assert "\n" not in str(caught.value)


async def test_a_404_is_final_and_its_text_is_handed_on(scene: Scene) -> None:
    with pytest.raises(ModuleError) as caught:
        await scene.fetch("example.com/none/@v/list")
    assert caught.value.http_status == 404
    assert caught.value.detail == "not found: no such file"
    assert len(scene.origin.asked) == 1


async def test_a_login_page_by_one_way_is_not_one_by_the_other(scene: Scene) -> None:
    scene.origin.script.append(Manner(body=b"<!DOCTYPE html><title>Log in</title>"))
    assert sha(content(await scene.fetch())) == sha(SMALL)


async def test_a_full_disk_is_ours_and_no_reason_to_ask_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int, _data: bytes, _place: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    for path in (ZIP, "large.zip"):
        with pytest.raises(ModuleError) as caught:
            await scene.fetch(path)
        assert (caught.value.finding, caught.value.http_status) == ("disk.full", 500)
        assert os.listdir(scene.spool) == []


# --- several connections and ways out ------------------------------------------------------------


async def test_a_large_body_comes_in_ranges_over_both_ways(scene: Scene) -> None:
    scene.origin.manner = Manner(rate=1_500_000)
    got = await scene.fetch("large.zip")
    assert sha(content(got)) == sha(LARGE)
    assert scene.a.dials > 0
    assert scene.b.dials > 0
    assert all(a.headers["if-range"] == '"v1"' for a in scene.origin.asked[1:])
    assert len(scene.origin.asked) > 4


async def test_a_way_that_dies_under_ranges_costs_a_pause_and_no_byte(scene: Scene) -> None:
    scene.origin.manner = Manner(rate=800_000)

    async def kill() -> None:
        await asyncio.sleep(0.3)
        scene.a.kill()

    async with asyncio.TaskGroup() as group:
        group.create_task(kill())
        fetching = [group.create_task(scene.fetch("large.zip")) for _ in range(3)]
    for task in fetching:
        assert sha(content(task.result())) == sha(LARGE)
        assert task.result().resumed >= 1
    assert {source for _, source, _ in scene.resumes} >= {"a"}


async def test_both_ways_die_and_come_back(scene: Scene) -> None:
    scene.origin.manner = Manner(rate=800_000)

    async def kill() -> None:
        await asyncio.sleep(0.3)
        scene.a.kill()
        scene.b.kill()
        await asyncio.sleep(0.3)
        scene.a.dead = False

    async with asyncio.TaskGroup() as group:
        group.create_task(kill())
        fetching = group.create_task(scene.fetch("large.zip"))
    assert sha(content(fetching.result())) == sha(LARGE)


async def test_a_way_that_came_back_is_used_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(striped, "FORGIVEN", 0.1)
    scene.origin.manner = Manner(rate=250_000)

    async def kill() -> int:
        await asyncio.sleep(0.3)
        scene.a.kill()
        await asyncio.sleep(0.3)
        scene.a.dead = False
        return len(scene.a.streams)

    async with asyncio.TaskGroup() as group:
        killing = group.create_task(kill())
        fetching = group.create_task(scene.fetch("large.zip"))
    assert sha(content(fetching.result())) == sha(LARGE)
    assert len(scene.a.streams) > killing.result()


async def test_on_a_long_line_connections_are_open_before_a_large_body_wants_them(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in (scene.a, scene.b):
        monkeypatch.setattr(line, "dial", slowly(line))
    await scene.fetch(memory=True)
    await until(lambda: scene.origin.open == client.SPREAD)
    assert scene.a.dials == client.SPREAD
    assert sha(content(await scene.fetch("large.zip"))) == sha(LARGE)
    assert scene.a.dials + scene.b.dials < 2 * client.SPREAD + 8  # those were used
    await until(lambda: not len(scene.pool._tasks))


def slowly(line: Line) -> Callable[[HostPort], Awaitable[Stream]]:
    dial = line.dial

    async def slow(target: HostPort) -> Stream:
        await asyncio.sleep(client.LONG)
        return await dial(target)

    return slow


@pytest.mark.parametrize(
    "odd",
    [
        Manner(etag='"v2"'),
        Manner(content_range="bytes 0-65535/6000000"),
        Manner(ranges=False),
        Manner(body=LARGE[:5_000_000]),
        Manner(status=404),
    ],
)
async def test_odd_ranges_end_in_one_whole_fetch(scene: Scene, odd: Manner) -> None:
    scene.origin.script += [Manner(rate=2_000_000), odd]
    got = await scene.fetch("large.zip")
    assert sha(content(got)) == sha(LARGE)
    assert scene.origin.ranges()[-1] == ""


async def test_a_range_that_hangs_is_asked_again(scene: Scene) -> None:
    scene.origin.manner = Manner(rate=2_000_000)
    scene.origin.script += [Manner(rate=2_000_000), Manner(stall=1000), Manner(mute=True), Manner(stall=0)]
    assert sha(content(await scene.fetch("large.zip"))) == sha(LARGE)


async def test_connections_that_are_cut_again_and_again_still_bring_it_all(scene: Scene) -> None:
    scene.origin.manner = Manner(cut=200_000)
    scene.origin.script += [Manner(cut=400_000)]
    got = await scene.fetch("large.zip")
    assert sha(content(got)) == sha(LARGE)
    assert len(scene.origin.asked) < 400


async def test_a_source_that_wants_few_connections_gets_few(scene: Scene) -> None:
    scene.origin.manner, scene.origin.most = Manner(rate=2_000_000), 3
    assert sha(content(await scene.fetch("large.zip"))) == sha(LARGE)
    assert len(scene.origin.asked) < 80


async def test_a_cancel_in_mid_body_leaves_nothing(scene: Scene) -> None:
    scene.origin.manner = Manner(rate=400_000)
    for path in (ZIP, "large.zip"):
        fetching = asyncio.get_running_loop().create_task(scene.fetch(path))
        await asyncio.sleep(0.3)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        assert os.listdir(scene.spool) == []
        await scene.origin.deserted()


async def test_many_at_once_are_all_right_and_bounded(scene: Scene) -> None:
    scene.origin.manner = Manner(rate=20_000_000)
    scene.origin.script += [Manner(cut=50_000), Manner(end=10), Manner(cut=100_000)] * 4
    files = {f"/m{i}.zip": bytes_of(60_000 * (i + 1), seed=i) for i in range(40)}
    scene.origin.files |= files
    got = await asyncio.gather(*(scene.fetch(name[1:]) for name in files))
    for name, one in zip(files, got, strict=True):
        assert sha(content(one)) == sha(files[name]), name
    assert len(scene.fetcher._connections) <= 40


# --- other sources -------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [False, True])
async def test_a_directory_is_a_source(scene: Scene, tmp_path: Path, memory: bool) -> None:
    (tmp_path / "base" / "example.com" / "m" / "@v").mkdir(parents=True)
    (tmp_path / "base" / ZIP).write_bytes(SMALL)
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "base" / "link").symlink_to(tmp_path / "secret")
    source = Source((tmp_path / "base").as_uri())

    async def read(path: str, limit: int = 10**6) -> Fetched:
        spool = None if memory else tmp_path
        return await scene.fetcher.fetch(source, path, limit=limit, spool=spool)

    assert content(await read(ZIP)) == SMALL
    for path, finding, status in [
        ("example.com/none/@v/list", "module.not-found", 404),
        ("example.com/m/@v", "module.not-found", 404),
        ("../secret", "unknown", 502),
        ("link", "unknown", 502),
        ("a\0b", "unknown", 502),
    ]:
        with pytest.raises(ModuleError) as caught:
            await read(path)
        assert (caught.value.finding, caught.value.http_status) == (finding, status)
    with pytest.raises(ModuleError):
        await read(ZIP, 100)


async def test_userinfo_over_http_is_refused_and_never_shown(scene: Scene) -> None:
    source = Source(scene.origin.url.replace("//", "//anna:s3cret@"))
    assert "s3cret" not in source.label + repr(source)
    with pytest.raises(ModuleError) as caught:
        await scene.fetcher.fetch(source, ZIP, limit=10**6, spool=None)
    assert caught.value.finding == "goproxy.malformed"
    assert "s3cret" not in f"{caught.value} {caught.value.source}"
    assert scene.origin.asked == []
