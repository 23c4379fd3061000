"""The graph of the ways out: pools, routes and the hops that they share; a reload replaces it as a whole.

Rules:
- `Switch` is what everybody holds; behind it stands the graph of the moment.
- A graph that was replaced takes no new streams, and is closed when its last one has ended; one that is being
  dialled counts.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from dataclasses import field, replace

from gotunnel.address import HostPort
from gotunnel.config.load import WaysOut
from gotunnel.config.model import Config
from gotunnel.config.model import Upstream as UpstreamConfig
from gotunnel.dataclass import dataclass
from gotunnel.errors import Blame, ConfigError, DialError
from gotunnel.observe.events import Emit
from gotunnel.pattern import Pattern
from gotunnel.pool.pool import Pool, Upstream
from gotunnel.pool.probe import Prober, ProbeTarget
from gotunnel.route import RejectDialer, Route, Router
from gotunnel.tasks import Tasks
from gotunnel.upstream.asking import Ask, Asking
from gotunnel.upstream.chain import ChainBuilder
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.upstream.direct import DirectDialer
from gotunnel.upstream.spec import Chain, HopSpec, SshHop, parse_chain
from gotunnel.upstream.srv import name_of

_LOOK = 0.5  # seconds between two looks at whether a replaced graph still carries something


class UnknownHosts:
    """A way out whose jump hosts DNS has not named yet."""

    def __init__(self, via: str) -> None:
        self.label = via

    async def dial(self, target: HostPort) -> Stream:
        words = f"{self.label}: DNS has named no jump host yet"
        raise DialError("dns.not-found", words, blame=Blame.HOP, hop=self.label)

    async def warm(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""


class Traffic:
    """Bytes by way out: what streams have carried so far, those that have ended included."""

    def __init__(self) -> None:
        self._open: dict[Stream, tuple[int, int]] = {}  # what was counted of each
        self._totals: dict[str, tuple[int, int]] = {}

    def add(self, stream: Stream) -> None:
        """A stream was opened by the way `stream.via`."""
        self._open[stream] = (stream.received, stream.sent)

    def look(self) -> None:
        """Count what came since the last look."""
        for stream, (received, sent) in list(self._open.items()):
            before = self._totals.get(stream.via, (0, 0))
            grown = (before[0] + stream.received - received, before[1] + stream.sent - sent)
            self._totals[stream.via] = grown
            if stream.is_lost:
                del self._open[stream]
            else:
                self._open[stream] = (stream.received, stream.sent)

    def of(self, way: str) -> tuple[int, int]:
        """(received, sent) as of the last look."""
        return self._totals.get(way, (0, 0))

    def open_by(self, way: str) -> int:
        """Open streams."""
        return sum(stream.via == way for stream in self._open)


@dataclass(slots=True, eq=False)
class Graph:
    """The ways out of one configuration; `pool` is the default one of `pools`."""

    pool: Pool
    pools: tuple[Pool, ...]
    router: Router
    builder: ChainBuilder
    chains: dict[str, Chain]
    tasks: Tasks
    streams: weakref.WeakSet[Stream] = field(default_factory=weakref.WeakSet)
    counted: Traffic | None = None
    dialling: int = 0

    def warm(self, after: float) -> None:
        """Begin to open the ways out in `after` seconds."""

        async def later() -> None:
            await asyncio.sleep(after)
            await self.pool.warm()

        self.tasks.spawn("warm", later())

    def watch(self, urls: Sequence[str], *, every: float, timeout: float, at_once: bool = False) -> None:
        """Probe every way out from now on, by the first of `urls` that answers; none watches nothing.

        Raises ConfigError.
        """
        if not urls:
            return
        targets = probe_targets(urls)
        for pool in self.pools:
            prober = Prober(pool, targets, every=every, timeout=timeout, at_once=at_once)
            self.tasks.spawn("probe", prober.run())

    @property
    def open_streams(self) -> int:
        """Streams that were dialled here and have not ended."""
        return sum(not stream.is_lost for stream in self.streams)

    async def retire(self, limit: float) -> None:
        """Let what is open come to its end, for `limit` seconds at most; then close."""
        await self.tasks.close()
        end = asyncio.get_running_loop().time() + limit
        try:
            while (self.dialling or self.open_streams) and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK)  # a stream tells its one owner of its end, and nobody else
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the pools, then every hop."""
        await self.tasks.close()
        for pool in self.pools:
            await pool.close()
        await self.builder.close()


class Switch:
    """`Ways` that stay while graphs come and go."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    @property
    def label(self) -> str:
        return self.graph.router.label

    def ways(self, target: HostPort) -> tuple[str, ...]:
        return self.graph.router.ways(target)

    def stalled(self, target: HostPort, name: str) -> None:
        self.graph.router.stalled(target, name)

    async def dial(self, target: HostPort) -> Stream:
        return await self.dial_by(target)

    async def dial_by(
        self, target: HostPort, *, only: str = "", avoid: frozenset[str] = frozenset()
    ) -> Stream:
        graph = self.graph
        graph.dialling += 1
        try:
            stream = await graph.router.dial_by(target, only=only, avoid=avoid)
            graph.streams.add(stream)
        finally:
            graph.dialling -= 1
        if graph.counted is not None:
            graph.counted.add(stream)
        return stream

    async def warm(self) -> None:
        await self.graph.router.warm()

    async def close(self) -> None:
        """The graph has an owner."""


def build_graph(
    config: Config,
    ways: WaysOut,
    *,
    emit: Emit,
    ask: Ask | None = None,
    tell: Callable[[str], None] | None = None,
    adjust: Callable[[Chain], Chain] = lambda chain: chain,
    offline: bool = False,
) -> Graph:
    """Pools, routes and hops of a configuration.

    `ask` is for what a jump host wants of a person; `adjust` puts the command line's -i, -F and
    --known-hosts in; `offline` rejects every target.

    Raises ConfigError.
    """
    uses: dict[str, set[tuple[HopSpec, ...]]] = {}
    pools: list[Pool] = []

    def lost(hop: tuple[HopSpec, ...], error: DialError) -> None:
        for name, hops in uses.items():
            if hop in hops:
                for pool in pools:
                    pool.lost(name, error)

    asking = Asking(ask)
    builder = ChainBuilder(asking=asking, on_lost=lost)
    built: dict[str, Upstream] = {}
    chains: dict[str, Chain] = {}
    ignored: set[tuple[str, str]] = set()
    named = {route.to for route in ways.routes}
    others = [u for u in ways.others if named & {u.name, *u.tags}]  # what is not used can't be wrong
    for wanted in (*ways.pool, *others):
        if name_of(wanted.via) is not None:
            built[wanted.name] = Upstream(wanted.name, UnknownHosts(wanted.via), wanted.tags)
            continue
        chain = adjust(chain_of(wanted, ways))
        built[wanted.name] = Upstream(wanted.name, builder.build(chain), wanted.tags)
        uses[wanted.name] = builder.prefixes(chain)
        chains[wanted.name] = chain
        ignored |= builder.ignored(chain)

    for host in sorted({host for host, _ in ignored}):
        options = ", ".join(sorted(option for where, option in ignored if where == host))
        if tell is not None:
            tell(f"ssh_config of {host}: not honoured here: {options}")

    def pool_of(names: list[str]) -> Pool:
        made = Pool(
            [built[n] for n in names],
            emit=emit,
            strategy=config.pool.strategy,
            hedge=config.pool.hedge,
            asking=asking,
        )
        pools.append(made)
        return made

    main = pool_of([u.name for u in ways.pool])
    dialers: dict[str, Dialer] = {"pool": main, "direct": DirectDialer(), "reject": RejectDialer()}

    def dialer_for(to: str) -> Dialer:
        if to not in dialers:
            names = [n for n, u in built.items() if n == to or to in u.tags]
            dialers[to] = pool_of(names)
        return dialers[to]

    routes = [Route(tuple(map(Pattern.parse, r.match)), dialer_for(r.to)) for r in ways.routes]
    router = Router([], RejectDialer("--offline")) if offline else Router(routes, main)
    return Graph(main, tuple(pools), router, builder, chains, Tasks("graph"))


def chain_of(upstream: UpstreamConfig, ways: WaysOut) -> Chain:
    """The chain of a configured way out, with the key and known hosts of CI's variables in it.

    Raises ConfigError.
    """
    chain = parse_chain(upstream.via)
    if not (ways.ssh_key or ways.ssh_known_hosts):
        return chain
    return Chain(
        tuple(
            replace(hop, key_text=ways.ssh_key, known_hosts_text=ways.ssh_known_hosts)
            if isinstance(hop, SshHop)
            else hop
            for hop in chain.hops
        )
    )


def probe_targets(urls: Sequence[str]) -> list[ProbeTarget]:
    """Those of `urls` that can be probed.  Raises ConfigError where there is none."""
    targets, problem = [], None
    for url in urls:
        try:
            targets.append(ProbeTarget.parse(url))
        except ValueError as error:
            problem = problem or error
    if not targets:
        raise ConfigError(f"pool.probe.url: {problem}")
    return targets
