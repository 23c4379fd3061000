"""The lab's origin does right and wrong as it is told, and the corpus notices."""

from __future__ import annotations

import concurrent.futures
import io
import re
import socket
import ssl
import statistics
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.conftest import need
from tests.lab import gotool, pki, proc
from tests.lab.corpus import Corpus, h1, realistic_sizes
from tests.lab.faults import PAGE, Chooser, Fault
from tests.lab.origin import Origin
from tests.lab.ranges import Part, decide


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"), count=6, levels=2, filler=20_000)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> pki.Authority:
    return pki.Authority(tmp_path_factory.mktemp("pki"))


def test_origin_can_be_slow_and_broken(corpus: Corpus, tmp_path: Path) -> None:
    with Origin(tmp_path / "origin", corpus.directory) as origin:
        base = f"{origin.url}/{corpus.modules[0].path}/@v"
        origin.behave(zip_rate=2_000, status={r"\.mod$": 503})
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{base}/v1.0.0.mod", timeout=10)
        with socket.create_connection((origin.address, origin.port), timeout=10) as peer:
            path = f"/{corpus.modules[0].path}/@v/v1.0.0.zip"
            peer.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert peer.recv(100).startswith(b"HTTP/1.1 200 ")
            origin.wait_for(r"\.zip$")
            assert not [r for r in origin.requests() if r["path"] == path], (
                "20 kB at 2 kB/s are not through yet"
            )
        cut = proc.wait_until("the end", lambda: [r for r in origin.requests() if r["path"] == path])
        assert (cut[0]["complete"], cut[0]["client"]) == (False, "127.0.0.1")

        origin.behave()
        with urllib.request.urlopen(f"{base}/v1.0.0.zip", timeout=10) as answer:
            assert answer.read() == corpus.zip_path(corpus.modules[0]).read_bytes()


def test_ranges_as_http_has_them() -> None:
    tag, date = '"a-1"', "Tue, 02 Jan 2024 03:04:05 GMT"
    whole = Part(0, 100, False)
    for asked, if_range, wanted in (
        (None, None, whole),
        ("bytes=10-19", None, Part(10, 20, True)),
        ("bytes=90-", None, Part(90, 100, True)),
        ("bytes=90-500", None, Part(90, 100, True)),
        ("bytes=-7", None, Part(93, 100, True)),
        ("bytes=100-", None, None),
        ("bytes=-0", None, None),
        ("bytes=5-2", None, whole),
        ("bytes=0-1,5-6", None, whole),
        ("bytes=90-", tag, Part(90, 100, True)),
        ("bytes=90-", '"other"', whole),
        ("bytes=90-", date, Part(90, 100, True)),
        ("bytes=90-", "Wed, 03 Jan 2024 03:04:05 GMT", whole),
    ):
        assert decide(100, asked, if_range, tag, date) == wanted, (asked, if_range)
    assert decide(100, "bytes=90-", 'W/"a"', 'W/"a"', date) == whole, "a weak tag never matches"


def test_faults_are_counted() -> None:
    chooser = Chooser([Fault("cut", r"zip$", each=1), Fault("stall", r"zip$", count=1)])
    asked = ["a.zip", "a.zip", "b.zip", "a.zip", "a.mod"]
    kinds = [fault.kind if (fault := chooser.choose(path)) else "" for path in asked]
    assert kinds == ["cut", "stall", "cut", "", ""]
    with pytest.raises(ValueError, match="no such fault: ctu"):
        Fault("ctu")


class Heard(NamedTuple):
    """What an origin answered: the head in lower case, the body as far as it came, and how it ended."""

    head: str
    body: bytes
    end: str

    @property
    def status(self) -> int:
        return int(self.head.split()[1])


def ask(origin: Origin, path: str, *fields: str, patience: float = 5.0) -> Heard:
    """One request on its own connection, read to its end or until nothing came for `patience` seconds."""
    data, end = b"", "closed"
    with socket.create_connection((origin.address, origin.port), timeout=patience) as peer:
        lines = [f"GET {path} HTTP/1.1", "Host: x", "Connection: close", *fields, "", ""]
        peer.sendall("\r\n".join(lines).encode())
        try:
            while (piece := peer.recv(1 << 16)) and len(data) < 4_000_000:
                data += piece
            end = "more" if piece else end
        except TimeoutError:
            end = "silence"
        except ConnectionResetError:
            end = "reset"
    head, _, body = data.partition(b"\r\n\r\n")
    return Heard(head.decode().lower(), body, end)


def test_origin_serves_ranges_and_validators(
    corpus: Corpus, authority: pki.Authority, tmp_path: Path
) -> None:
    module = corpus.modules[0]
    path, body = f"/{module.path}/@v/v1.0.0.zip", corpus.zip_path(module).read_bytes()
    theirs = corpus.mirror(tmp_path / "mirror")
    with (
        Origin(tmp_path / "one", corpus.directory) as one,
        Origin(tmp_path / "two", theirs) as two,
    ):
        whole = ask(one, path)
        tag = re.search(r"etag: (.*)", whole.head)
        assert tag
        assert (whole.status, whole.body, "accept-ranges: bytes" in whole.head) == (200, body, True)
        part = ask(one, path, "Range: bytes=5000-", f"If-Range: {tag[1].strip()}")
        assert (part.status, part.body) == (206, body[5000:])
        assert f"content-range: bytes 5000-{len(body) - 1}/{len(body)}" in part.head
        other = ask(two, path, "Range: bytes=5000-", f"If-Range: {tag[1].strip()}")
        assert other.status == 200
        assert other.body != body

        def content(data: bytes) -> dict[str, bytes]:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return {name: archive.read(name) for name in archive.namelist()}

        assert h1(content(other.body)) == h1(content(body))
        one.behave(etag="weak")
        assert 'etag: w/"' in ask(one, path).head
        one.behave(etag="none", dates=False, ranges=False)
        bare = ask(one, path, "Range: bytes=5000-")
        assert (bare.status, bare.body) == (200, body)
        assert not re.search("etag|accept-ranges|last-modified", bare.head)


def test_origin_faults(corpus: Corpus, tmp_path: Path) -> None:
    module = corpus.modules[0]
    path, body = f"/{module.path}/@v/v1.0.0.zip", corpus.zip_path(module).read_bytes()
    length = f"content-length: {len(body)}"
    with Origin(tmp_path / "origin", corpus.directory) as origin:

        def told(kind: str, **fields: Any) -> Heard:
            origin.behave(Fault(kind, r"\.zip$", **fields))
            return ask(origin, path, patience=0.5 if kind in ("stall", "silent") else 5.0)

        cut = told("cut", at=7000, how="close")
        assert (cut.body, cut.end, length in cut.head) == (body[:7000], "closed", True)
        reset = told("cut", at=7000, how="rst")
        assert (reset.end, body.startswith(reset.body)) == ("reset", True)
        stalled = told("stall", at=7000)
        assert (stalled.body, stalled.end) == (body[:7000], "silence")
        assert told("stall", at=7000, seconds=0.1).body == body
        flipped = told("flip", at=9000).body
        assert [i for i, (a, b) in enumerate(zip(flipped, body, strict=True)) if a != b] == [9000]
        double = told("double")
        assert (double.body, f"content-length: {2 * len(body)}" in double.head) == (body * 2, True)
        for by in (100, -100):
            lied = told("length", by=by)
            assert (lied.body, f"content-length: {len(body) + by}" in lied.head) == (body, True)
        assert told("silent").end == "silence"
        assert told("close", how="rst").end == "reset"
        endless = told("endless")
        assert (endless.end, "transfer-encoding: chunked" in endless.head) == ("more", True)
        busy = told("status", status=429, seconds=7)
        assert (busy.status, "retry-after: 7" in busy.head) == (429, True)
        moved = told("redirect", to="https://elsewhere.example{path}")
        assert (moved.status, f"location: https://elsewhere.example{path}" in moved.head) == (302, True)
        page = told("page")
        assert (page.status, page.body, "text/html" in page.head) == (200, PAGE, True)
        assert len(told("heads", by=70_000).head) > 70_000
        assert told("slow", seconds=0.1).body == body
        assert told("drip", rate=200_000).body == body
        done = [(r["fault"], r["complete"]) for r in origin.requests()]
        assert ("cut", False) in done
        assert ("double", True) in done


def test_origin_serves_sixty_four_at_once(authority: pki.Authority, tmp_path: Path) -> None:
    corpus = Corpus(tmp_path / "tree", count=1, levels=1, filler=300_000)
    module = corpus.modules[0]
    path, body = f"/{module.path}/@v/v1.0.0.zip", corpus.zip_path(module).read_bytes()
    certificate = authority.issue("127.0.0.1")
    trust = ssl.create_default_context(cafile=str(authority.cert))
    with Origin(tmp_path / "origin", corpus.directory, certificate=certificate) as origin:

        def fetch(_: int) -> bool:
            with urllib.request.urlopen(f"{origin.url}{path}", timeout=30, context=trust) as answer:
                return bool(answer.read() == body)

        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            assert all(pool.map(fetch, range(64)))


def test_damage_is_noticed(corpus: Corpus, tmp_path: Path) -> None:
    need(gotool.can_run_go())
    with Origin(tmp_path / "origin", corpus.directory) as origin:
        env = gotool.go_env(tmp_path / "go", proxy=origin.url)
        proc.run(["go", "mod", "download"], env=env, cwd=corpus.write_project(tmp_path / "project"))
    cache, first, second = Path(env["GOMODCACHE"]), *corpus.modules[:2]
    assert corpus.damage(cache) == []
    file = cache / f"{first.path}@v1.0.0" / "filler.bin"
    file.write_bytes(file.read_bytes()[:-1])
    (cache / "cache" / "download" / second.path / "@v" / "v1.0.0.zip").unlink()
    wrong = corpus.damage(cache)
    assert wrong[0] == f"{first.path}: unpacked files differ"
    assert (len(wrong), wrong[1].startswith(f"{second.path}: ")) == (2, True)


def test_sizes_of_the_bench() -> None:
    sizes = realistic_sizes()
    assert (len(sizes), sum(size > 900_000 for size in sizes)) == (120, 3)
    assert 11e6 < sum(sizes) < 13e6
    assert 50e3 < statistics.median(sizes) < 70e3
