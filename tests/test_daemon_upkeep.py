"""A service's store stays within bounds."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from gotunnel.config.model import Config
from gotunnel.daemon import upkeep
from gotunnel.storage import Store, StoreError, open_store
from gotunnel.tasks import Tasks
from tests.memory_store import MemoryStore


async def kept(store: Store, config: Config, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told within two rounds."""
    told: list[str] = []
    for name in ("FIRST", "EVERY"):
        monkeypatch.setattr(upkeep, name, 0.05)
    tasks = Tasks("test")
    tasks.spawn("upkeep", upkeep.keep_small(store, lambda: config, told.append))
    await asyncio.sleep(0.4)
    await tasks.close()
    return told


async def test_old_files_go_beyond_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(tmp_path.as_uri())
    for number in range(4):
        await store.put(f"a.com/m{number}/@v/v1.zip", b"x" * 600_000)
    cache = replace(Config().cache, url=tmp_path.as_uri(), max_size=1_300_000)
    told = await kept(store, replace(Config(), cache=cache), monkeypatch)
    assert told == ["module store: 2 old files removed (1 MB): cache.max_size"]
    assert len([name async for name in store.names()]) == 2
    await store.close()


async def test_a_bucket_is_left_alone_unless_a_bound_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Full(MemoryStore):
        async def prune(self, max_size: int) -> tuple[int, int]:
            asked.append(max_size)
            raise StoreError("cache.permission", "no")

    cache = replace(Config().cache, url="s3://bucket/team")
    assert await kept(Full(), replace(Config(), cache=cache), monkeypatch) == []
    assert asked == []
    told = await kept(Full(), replace(Config(), cache=replace(cache, max_size=10**9)), monkeypatch)
    assert set(asked) == {10**9}
    assert set(told) == {"the module store can't be kept within cache.max_size: no"}
