"""Which dialer a target goes to: first match wins, else the pool.  Reject is a dialer that says no."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

from gotunnel.address import HostPort
from gotunnel.dataclass import dataclass
from gotunnel.errors import Blame, DialError
from gotunnel.pattern import Pattern
from gotunnel.upstream.dialer import Dialer, Stream, Ways


@dataclass(frozen=True, slots=True)
class Route:
    """Targets that match any of `patterns` go to `dialer`."""

    patterns: tuple[Pattern, ...]
    dialer: Dialer


class Router:
    """A dialer that picks a dialer."""

    def __init__(self, routes: Sequence[Route], default: Dialer) -> None:
        self._routes = tuple(routes)
        self._default = default

    @property
    def label(self) -> str:
        return "router"

    def pick(self, target: HostPort) -> Dialer:
        """The dialer for `target`."""
        for route in self._routes:
            if any(pattern.matches(target.host, target.port) for pattern in route.patterns):
                return route.dialer
        return self._default

    async def dial(self, target: HostPort) -> Stream:
        return await self.dial_by(target)

    def ways(self, target: HostPort) -> tuple[str, ...]:
        dialer = self.pick(target)
        return dialer.ways(target) if _has_ways(dialer) else (dialer.label,)

    async def dial_by(
        self, target: HostPort, *, only: str = "", avoid: frozenset[str] = frozenset()
    ) -> Stream:
        dialer = self.pick(target)
        if _has_ways(dialer):
            return await dialer.dial_by(target, only=only, avoid=avoid)
        stream = await dialer.dial(target)
        stream.via = dialer.label
        return stream

    def stalled(self, target: HostPort, name: str) -> None:
        dialer = self.pick(target)
        if _has_ways(dialer):
            dialer.stalled(target, name)

    async def warm(self) -> None:
        await self._default.warm()

    async def close(self) -> None:
        """Routes own nothing."""


def _has_ways(dialer: Dialer) -> TypeGuard[Ways]:
    return hasattr(dialer, "dial_by")


class RejectDialer:
    """Says no to every target; `why` is what it is rejected by."""

    label = "reject"

    def __init__(self, why: str = "a route") -> None:
        self._why = why

    async def dial(self, target: HostPort) -> Stream:
        raise DialError(
            "proxy.denied", f"{target}: rejected by {self._why}", blame=Blame.POLICY, another_way=False
        )

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""
