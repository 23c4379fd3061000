"""Which dialer a target goes to: first match wins, else the pool.  Reject is a dialer that says no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gotunnel.address import HostPort
from gotunnel.errors import Blame, DialError
from gotunnel.pattern import Pattern
from gotunnel.upstream.dialer import Dialer, Stream


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
        return await self.pick(target).dial(target)

    async def warm(self) -> None:
        await self._default.warm()

    async def close(self) -> None:
        """Routes own nothing."""


class RejectDialer:
    """Says no to every target."""

    label = "reject"

    async def dial(self, target: HostPort) -> Stream:
        raise DialError(
            "proxy.denied", f"{target}: rejected by a route", blame=Blame.POLICY, another_way=False
        )

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""
