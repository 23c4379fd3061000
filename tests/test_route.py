"""First match wins, else the pool."""

from __future__ import annotations

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import Blame, DialError
from gotunnel.pattern import Pattern
from gotunnel.route import RejectDialer, Route, Router
from gotunnel.upstream.dialer import Stream


class Named:
    """A dialer that only notes what it is asked for."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.asked: list[str] = []

    async def dial(self, target: HostPort) -> Stream:
        self.asked.append(str(target))
        return Stream()

    async def warm(self) -> None:
        self.asked.append("warm")

    async def close(self) -> None:
        self.asked.append("close")


async def test_the_first_route_that_matches_is_taken() -> None:
    pool, direct, office = Named("pool"), Named("direct"), Named("office")
    router = Router(
        [
            Route((Pattern.parse("git.corp.example"), Pattern.parse("10.0.0.0/8")), direct),
            Route((Pattern.parse("*.corp.example"),), office),
            Route((Pattern.parse("*.evil.example"),), RejectDialer()),
        ],
        pool,
    )
    for host in ("git.corp.example", "10.1.2.3", "www.corp.example", "corp.example", "other.example"):
        await router.dial(HostPort(host, 443))
    assert direct.asked == ["git.corp.example:443", "10.1.2.3:443"]
    assert office.asked == ["www.corp.example:443"]
    assert pool.asked == ["corp.example:443", "other.example:443"]
    with pytest.raises(DialError, match="rejected by a route") as caught:
        await router.dial(HostPort("www.evil.example", 443))
    assert (caught.value.finding, caught.value.blame) == ("proxy.denied", Blame.POLICY)
    await router.warm()
    await router.close()
    assert pool.asked[-1] == "warm"  # the pool is another's to close
