"""Upstreams that DNS hands out: `srv://…` becomes one upstream for each host, by the service's records.

Rules:
- Each keeps the tags of the upstream it came from, and its name as one more: routes that name it go on.
- One whose name was never answered stays as it is: a way out that is down, and says why.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

from gotunnel.config.load import WaysOut
from gotunnel.config.model import Upstream
from gotunnel.errors import DialError
from gotunnel.tasks import Tasks
from gotunnel.upstream.srv import Discovery, name_of


class Discoveries:
    """The names that are asked; `changed` is called when a set of hosts has become another."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._known: dict[str, Discovery] = {}
        self._tasks = Tasks("srv")

    async def expand(self, ways: WaysOut, *, keep: bool = False) -> WaysOut:
        """`ways` with hosts in place of names; with `keep` the names are asked anew from now on."""
        return replace(
            ways,
            pool=await self._expand(ways.pool, keep=keep),
            others=await self._expand(ways.others, keep=keep),
        )

    async def close(self) -> None:
        """Ask no more."""
        await self._tasks.close()

    async def _expand(self, upstreams: tuple[Upstream, ...], *, keep: bool) -> tuple[Upstream, ...]:
        found: list[Upstream] = []
        for upstream in upstreams:
            name = name_of(upstream.via)
            if name is None:
                found.append(upstream)
                continue
            chains = await self._chains(name, keep=keep)
            found += [
                Upstream(
                    f"{upstream.name} {chain.partition('://')[2]}", chain, (*upstream.tags, upstream.name)
                )
                for chain in chains
            ] or [upstream]
        return tuple(found)

    async def _chains(self, name: str, *, keep: bool) -> tuple[str, ...]:
        discovery = self._known.get(name)
        if discovery is None:
            told = False

            def changed(chains: tuple[str, ...]) -> None:
                if told:
                    self._changed()

            discovery = self._known[name] = Discovery(name, changed)
            wait = 5.0
            with contextlib.suppress(DialError):
                wait = await discovery.ask()
            told = True
            if keep:
                self._tasks.spawn(name, discovery.run(wait))
        return discovery.chains
