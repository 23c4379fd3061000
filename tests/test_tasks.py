"""Owned tasks end with their owner; backoff doubles."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from gotunnel import tasks
from gotunnel.tasks import Backoff, Tasks, in_thread, time_limit


async def test_close_cancels_and_waits() -> None:
    told: list[str] = []

    async def job() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            told.append("cleaned up")

    tasks = Tasks("test")
    task = tasks.spawn("job", job())
    await asyncio.sleep(0)
    await tasks.close()
    assert task.cancelled()
    assert told == ["cleaned up"]
    assert len(tasks) == 0


async def test_what_is_started_while_it_closes_is_ended_too() -> None:
    tasks = Tasks("test")
    second: list[asyncio.Task[None]] = []

    async def forever() -> None:
        await asyncio.Event().wait()

    async def first() -> None:
        try:
            await forever()
        finally:
            second.append(tasks.spawn("second", forever()))

    tasks.spawn("first", first())
    await asyncio.sleep(0)
    await tasks.close()
    assert second[0].cancelled()


async def test_an_owner_may_be_closed_from_within_and_a_failed_task_is_forgotten() -> None:
    tasks = Tasks("test")

    async def fails() -> None:
        raise ValueError("nobody awaits this")

    tasks.spawn("fails", fails())
    closing = tasks.spawn("closes", tasks.close())
    await asyncio.wait_for(closing, 5)
    await asyncio.sleep(0)
    assert len(tasks) == 0


def test_backoff_doubles_to_its_bound_and_starts_anew() -> None:
    class Most(random.Random):
        def random(self) -> float:
            return 1.0

    backoff = Backoff(0.5, 3.0, Most())
    assert [backoff.delay() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.delay() == 0.5
    jittered = Backoff(1.0, 1.0, random.Random(7))
    assert all(0.5 <= jittered.delay() <= 1.0 for _ in range(100))
    with pytest.raises(ValueError, match="first"):
        Backoff(2.0, 1.0)


async def test_what_blocks_holds_up_neither_a_cancel_nor_the_loop() -> None:
    assert await in_thread("sum", lambda: 1 + 1) == 2
    with pytest.raises(ValueError, match="wrong"):
        await in_thread("fail", lambda: int("wrong"))
    gate = threading.Event()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await in_thread("wait", gate.wait)
    gate.set()  # its answer comes to a future that nobody has


async def test_a_time_limit_stands_still_with_its_clock() -> None:
    loop = asyncio.get_running_loop()
    stopped = loop.time()
    async with time_limit(0.02, lambda: stopped):
        await asyncio.sleep(0.2)
    with pytest.raises(TimeoutError):
        async with time_limit(0.02, loop.time):
            await asyncio.Event().wait()
    async with time_limit(None, loop.time):
        await asyncio.sleep(0)


async def test_a_thread_takes_one_job_after_another_and_none_waits_for_another() -> None:
    first = await in_thread("first", threading.get_ident)
    assert await in_thread("second", threading.get_ident) == first
    assert await in_thread("third", lambda: threading.current_thread().name) == "third"
    meeting = threading.Barrier(20)  # each holds its thread until all have one
    jobs = [in_thread("meet", lambda: meeting.wait(10)) for _ in range(20)]
    assert sorted(await asyncio.gather(*jobs)) == list(range(20))


async def test_a_thread_that_has_nothing_to_do_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_LINGER", 0.01)
    monkeypatch.setattr(tasks, "_idle", [])
    thread = await in_thread("soon over", threading.current_thread)
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
    assert await in_thread("another", lambda: 1) == 1
