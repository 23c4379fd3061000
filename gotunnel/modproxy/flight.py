"""One upstream fetch for each name, however many ask; and who goes first when many wait.

Rules:
- Whoever asks for a name that is under way waits for the same flight.
- A waiter that is cancelled leaves the flight flying, unless it was the last: then the flight ends.
- The flight takes the best priority of those who wait for it (0 is demand, more is prefetch): a prefetched
  file that go asks for overtakes those that nobody waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from gotunnel.tasks import Tasks

T = TypeVar("T")


class Flight(Generic[T]):
    """One fetch under way; `priority` may fall while it waits for its turn."""

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.waiters = 0
        self.task: asyncio.Task[T] | None = None


class Flights(Generic[T]):
    """The flights by name."""

    def __init__(self, owner: str) -> None:
        self._tasks = Tasks(owner)
        self._flying: dict[str, Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flying)

    async def join(
        self,
        name: str,
        start: Callable[[Flight[T]], Coroutine[Any, Any, T]],
        *,
        priority: int = 0,
        raised: Callable[[], None] = lambda: None,
    ) -> tuple[T, bool]:
        """The result of the flight `name`, and whether it was ours: started by this call.

        `raised` is called where the flight's priority has just become better.  Raises what the flight raises.
        """
        flight = self._flying.get(name)
        own = flight is None
        if flight is None:
            flight = Flight(priority)
            flight.task = self._tasks.spawn(name, start(flight))
            self._flying[name] = flight
            flight.task.add_done_callback(lambda _: self._landed(name, flight))
        elif priority < flight.priority:
            flight.priority = priority
            raised()
        flight.waiters += 1
        assert flight.task is not None
        try:
            return await asyncio.shield(flight.task), own
        except asyncio.CancelledError:
            if flight.waiters == 1 and not flight.task.done():
                self._landed(name, flight)  # who asks from now on starts anew
                flight.task.cancel()
            raise
        finally:
            flight.waiters -= 1

    def _landed(self, name: str, flight: Flight[T] | None) -> None:
        if self._flying.get(name) is flight:
            del self._flying[name]

    async def close(self) -> None:
        """End every flight."""
        await self._tasks.close()


class Gate:
    """At most `width` at once; of those who wait the one with the best priority comes first."""

    def __init__(self, width: int) -> None:
        self._free = width
        self._waiting: list[tuple[Callable[[], int], asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def turn(self, priority: Callable[[], int]) -> AsyncIterator[None]:
        """Wait for a turn; `priority` is asked each time one comes free."""
        await self._enter(priority)
        try:
            yield
        finally:
            self._leave()

    def _enter(self, priority: Callable[[], int]) -> Awaitable[None]:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._free:
            self._free -= 1
            place.set_result(None)
        else:
            self._waiting.append((priority, place))
        return self._hold(place)

    async def _hold(self, place: asyncio.Future[None]) -> None:
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave()  # the turn came at the same moment
            raise

    def _leave(self) -> None:
        self._waiting = [waiter for waiter in self._waiting if not waiter[1].done()]
        if not self._waiting:
            self._free += 1
            return
        best = min(range(len(self._waiting)), key=lambda i: (self._waiting[i][0](), i))
        self._waiting.pop(best)[1].set_result(None)
