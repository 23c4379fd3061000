"""One fetch for each name, and who goes first."""

from __future__ import annotations

import asyncio

import pytest

from gotunnel.modproxy.flight import Flight, Flights, Gate
from gotunnel.modproxy.negative import Brief


class Job:
    """A fetch that ends when told."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.started = 0
        self.cancelled = False
        self.flight: Flight[str] | None = None

    async def __call__(self, flight: Flight[str]) -> str:
        self.started += 1
        self.flight = flight
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "file"


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_many_ask_one_flies() -> None:
    flights: Flights[str] = Flights("t")
    job = Job()
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(flights.join("x", job)) for _ in range(50)]
        await turns()
        job.go.set()
    assert job.started == 1
    assert sorted(task.result() for task in asked) == [("file", False)] * 49 + [("file", True)]
    assert await flights.join("x", job) == ("file", True)  # a new one
    assert not len(flights)


async def test_the_last_waiter_ends_it() -> None:
    flights: Flights[str] = Flights("t")
    job = Job()
    async with asyncio.TaskGroup() as group:
        one, two = (group.create_task(flights.join("x", job)) for _ in range(2))
        await turns()
        one.cancel()
        await turns()
        assert not job.cancelled
        two.cancel()
    await turns()
    assert job.cancelled
    assert not len(flights)


async def test_an_error_reaches_all_and_is_not_kept() -> None:
    flights: Flights[str] = Flights("t")

    async def fails(_: Flight[str]) -> str:
        await turns(2)
        raise OSError("gone")

    told = await asyncio.gather(*(flights.join("x", fails) for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in told] == ["gone"] * 3
    job = Job()
    job.go.set()
    assert await flights.join("x", job) == ("file", True)


async def test_a_prefetch_that_is_asked_for_rises() -> None:
    flights: Flights[str] = Flights("t")
    gate = Gate(1)
    order: list[str] = []

    def starter(name: str) -> Job:
        job = Job()

        async def run(flight: Flight[str]) -> str:
            async with gate.turn(lambda: flight.priority):
                order.append(name)
                await turns()
            return name

        job.__call__ = run  # type: ignore[method-assign]
        return job

    raised: list[bool] = []
    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(flights.join(name, starter(name).__call__, priority=1))
        await turns(2)
        group.create_task(
            flights.join("c", starter("c").__call__, priority=0, raised=lambda: raised.append(True))
        )
    assert order == ["a", "c", "b"]
    assert raised == [True]


async def test_a_turn_that_comes_with_the_cancel_is_passed_on() -> None:
    gate = Gate(1)
    inside = asyncio.Event()

    async def stay() -> None:
        async with gate.turn(lambda: 0):
            await inside.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(stay())
        await turns()
        waiting = group.create_task(stay())
        await turns()
        inside.set()
        waiting.cancel()
    async with asyncio.timeout(5), gate.turn(lambda: 0):
        pass


def test_brief_memory() -> None:
    now = [0.0]
    kept: Brief[int] = Brief(20.0, lambda: now[0], most=2)
    for name in "abc":
        kept.add(name, 1)
    assert [kept.get(name) for name in "abc"] == [None, 1, 1]
    kept.drop("b")
    now[0] = 20.0
    assert [kept.get(name) for name in "bc"] == [None, None]


async def test_close_ends_all() -> None:
    flights: Flights[str] = Flights("t")
    job = Job()
    asked = asyncio.get_running_loop().create_task(flights.join("x", job))
    await turns()
    await flights.close()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert job.cancelled
