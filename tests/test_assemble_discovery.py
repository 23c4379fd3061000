"""Jump hosts from a real name server: a run and a service take them, and go with what it says later."""

from __future__ import annotations

import pytest

from gotunnel.address import HostPort
from gotunnel.assemble import build_graph, discovery
from gotunnel.assemble.discovery import Discoveries
from gotunnel.config.load import WaysOut
from gotunnel.config.model import Config, Upstream
from gotunnel.errors import Blame, DialError
from gotunnel.upstream import srv
from gotunnel.upstream.srv import Answer, Target

VIA = "srv://_gotunnel-ssh._tcp.corp.example"


def answering(monkeypatch: pytest.MonkeyPatch, *answers: Answer | DialError) -> None:
    left = list(answers)

    async def resolve(name: str) -> Answer:
        assert name == "_gotunnel-ssh._tcp.corp.example"
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, DialError):
            raise answer
        return answer

    class Fake(srv.Discovery):
        def __init__(self, name: str, on_change: object) -> None:
            super().__init__(name, on_change, resolve=resolve)  # type: ignore[arg-type]

    monkeypatch.setattr(discovery, "Discovery", Fake)


async def test_each_host_is_an_upstream_with_the_tags_and_the_name_of_its_origin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answering(monkeypatch, Answer((Target("a.example", 22, 1, 0), Target("b.example", 443, 2, 0)), 60))
    ways = WaysOut((Upstream("corp", VIA, ("team",)), Upstream("here", "direct:")), (), "test")
    found = await Discoveries().expand(ways)
    assert [(u.via, u.tags) for u in found.pool] == [
        ("ssh://a.example:22", ("team", "corp")), ("ssh://b.example:443", ("team", "corp")), ("direct:", ()),
    ]  # fmt: skip
    assert len({u.name for u in found.pool}) == 3


async def test_a_name_that_is_not_answered_is_a_way_out_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, DialError("dns.timeout", "no answer", blame=Blame.HOP))
    ways = await Discoveries().expand(WaysOut((Upstream("corp", VIA),), (), "test"))
    graph = build_graph(Config(), ways, emit=lambda event: None)
    with pytest.raises(DialError, match="DNS has named no jump host yet"):
        await graph.pool.dial(HostPort("x.example", 443))
    await graph.close()
