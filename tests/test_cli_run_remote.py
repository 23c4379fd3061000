"""What a run knows of the service that it uses."""

from __future__ import annotations

from typing import Any, cast

from gotunnel.address import HostPort
from gotunnel.cli.remote import Server, ServerError
from gotunnel.cli.run_remote import RemoteHealth


class Told:
    """A service that gives this answer, or (None) none."""

    def __init__(self, answer: dict[str, Any] | None) -> None:
        self.answer = answer

    def ask(self, method: str, path: str) -> dict[str, Any]:
        if self.answer is None:
            raise ServerError("it doesn't answer")
        return self.answer


async def test_a_service_is_waited_for_longer_than_a_way_out() -> None:
    """A run that can't be helped ends within 15 s: only a service that may be starting is worth so many."""
    down = {"all_down": True, "failures": [["tokyo", "tcp.refused", "no"]], "no_way": "x.example:443"}
    told = Told(down)
    health = RemoteHealth(cast(Server, told), "run")
    assert await health.refresh() == HostPort("x.example", 443)
    assert [(name, error.finding) for name, error in health.failures()] == [("tokyo", "tcp.refused")]
    assert (health.all_down, health.patience) == (True, 2.0)
    told.answer = None
    await health.refresh()
    assert [(name, error.finding) for name, error in health.failures()] == [("the service", "hop.closed")]
    assert (health.all_down, health.patience) == (True, 15.0)
    told.answer = {"all_down": False}
    await health.refresh()
    assert (health.all_down, health.patience) == (False, 2.0)
