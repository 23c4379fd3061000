"""A store in a bucket when things go wrong: through a proxy, without the bucket, with the wrong key."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gotunnel.errors import ConfigError
from gotunnel.storage import StoreError, open_store, read_all
from tests.conftest import need
from tests.lab.proc import ROOT, dead_port, run
from tests.lab.proxies import HttpProxy
from tests.lab.s3 import VersityGw

ZIP = "a.com/m/@v/v1.0.0.zip"


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VersityGw]:
    need(VersityGw.available())
    with VersityGw(tmp_path / "s3") as running:
        for name, value in running.variables.items():
            monkeypatch.setenv(name, value)
        yield running


async def test_requests_go_through_the_proxy(s3: VersityGw, tmp_path: Path) -> None:
    need(HttpProxy.available())
    with HttpProxy(tmp_path / "proxy", user="run", password="s3cr3t") as proxy:
        store = open_store(s3.store_url("team"), proxy_url=proxy.url)
        await store.put(ZIP, b"by the proxy", labels={"h1": "1"})
        found = await store.get(ZIP)
        assert found is not None
        assert await read_all(store, found) == b"by the proxy"
        assert f"127.0.0.1:{s3.port}" in proxy.log_text() or f":{s3.port}/bucket/team/" in proxy.log_text()
        proxy.stop()
        with pytest.raises(StoreError, match="can't be reached by the proxy") as caught:
            await store.get(ZIP)
        assert "s3cr3t" not in str(caught.value)


async def test_a_bucket_that_is_gone(s3: VersityGw) -> None:
    store = open_store(s3.store_url("team"))
    await store.put(ZIP, b"x")
    source = store.spool() / "download"
    source.write_bytes(b"body")
    s3.remove_bucket()
    for attempt in (store.get(ZIP), store.put(ZIP, source), store.prune(0), store.delete(ZIP)):
        with pytest.raises(StoreError, match=r"s3://bucket/team: there is no such bucket \(NoSuchBucket\)"):
            await attempt
    assert source.read_bytes() == b"body", "go can still have it"
    s3.make_bucket()
    await store.put(ZIP, source)
    assert await store.get(ZIP)
    await store.close()
    assert not source.parent.exists()


async def test_a_wrong_key(s3: VersityGw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-but-wrong")
    store = open_store(s3.store_url())
    for attempt in (store.get(ZIP), store.put(ZIP, b"x"), store.relabel(ZIP, {}), store.prune(0)):
        with pytest.raises(StoreError, match=r"doesn't let us in.*: check AWS_ACCESS_KEY_ID") as caught:
            await attempt
        assert caught.value.finding == "cache.permission"
        assert "s3cr3t" not in str(caught.value)
        assert "\n" not in str(caught.value)


async def test_a_store_that_is_away_is_not_waited_for_each_time(s3: VersityGw) -> None:
    store = open_store(s3.store_url())
    s3.stop()
    with pytest.raises(StoreError, match="can't be reached"):
        await store.get(ZIP)
    started = time.monotonic()
    for _ in range(200):
        with pytest.raises(StoreError, match="can't be reached"):
            await store.get(ZIP)
    assert time.monotonic() - started < 4, "each was waited for"
    s3.start()
    async with asyncio.timeout(30):
        while True:
            try:
                await store.put(ZIP, b"x")
            except StoreError:
                await asyncio.sleep(0.2)
            else:
                break
    assert await store.get(ZIP)


async def test_plain_http_is_for_an_endpoint_that_says_so(
    s3: VersityGw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    await open_store("s3://bucket/x?region=us-east-1").put(ZIP, b"x")
    secure = f"https://127.0.0.1:{s3.port}"
    with pytest.raises(StoreError, match="can't be reached"):
        await open_store(f"s3://bucket/x?region=us-east-1&endpoint={secure}").put(ZIP, b"x")


def test_an_account_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigError) as caught:
        open_store(f"az://box?endpoint=http://127.0.0.1:{dead_port()}")
    assert "account" in str(caught.value)
    assert "\n" not in str(caught.value)


GIVEN_UP = """
import asyncio, contextlib, sys
from gotunnel.storage import open_store

async def main(url):
    store = open_store(url)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.02):
            await asyncio.gather(*(store.get(f"a{number}") for number in range(20)))
    await store.close()

asyncio.run(main(sys.argv[1]))
"""


def test_requests_that_were_given_up_write_nothing_at_the_end(s3: VersityGw) -> None:
    s3.freeze()
    for _ in range(3):  # without the wait in close, obstore panics about every other time
        done = run([sys.executable, "-c", GIVEN_UP, s3.store_url()], cwd=ROOT)
        assert (done.stdout, done.stderr) == ("", "")


async def test_googles_endpoint_is_the_one_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # no server of Google's API that installs here takes obstore's requests; what can be seen is where they go
    key = '{"disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}'
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", key)
    store = open_store(f"gs://bucket/x?endpoint=http://127.0.0.1:{dead_port()}")
    with pytest.raises(StoreError, match="gs://bucket/x can't be reached"):
        await store.put(ZIP, b"x")


async def test_the_bucket_is_in_the_host_where_the_style_is_virtual(s3: VersityGw, tmp_path: Path) -> None:
    need(HttpProxy.available())
    with HttpProxy(tmp_path / "proxy") as proxy:
        url = "s3://bucket/x?region=us-east-1&style=virtual&endpoint=http://s3.invalid:9000"
        with pytest.raises(StoreError):
            await open_store(url, proxy_url=proxy.url).put(ZIP, b"x")
        assert "http://bucket.s3.invalid:9000/x/a.com/m/" in proxy.log_text()
