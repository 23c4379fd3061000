"""An `Engine` is everything between a client and the network: endpoint -> router -> pool -> chains."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from gotunnel.address import HostPort
from gotunnel.config.load import WaysOut
from gotunnel.config.model import Config
from gotunnel.config.model import Upstream as UpstreamConfig
from gotunnel.errors import ConfigError, DialError
from gotunnel.listener.auth import USER, new_secret
from gotunnel.listener.proxy import Endpoint
from gotunnel.observe.events import Emit
from gotunnel.openfiles import raise_limit
from gotunnel.pattern import Pattern
from gotunnel.pool.pool import Pool, Upstream
from gotunnel.pool.probe import Prober, ProbeTarget
from gotunnel.route import RejectDialer, Route, Router
from gotunnel.tasks import Tasks
from gotunnel.upstream.asking import Ask, Asking
from gotunnel.upstream.chain import ChainBuilder
from gotunnel.upstream.dialer import Dialer
from gotunnel.upstream.direct import DirectDialer
from gotunnel.upstream.spec import Chain, HopSpec, SshHop, parse_chain


@dataclass(slots=True)
class Engine:
    """The running parts; `start` opens, `close` leaves nothing behind."""

    pool: Pool
    pools: tuple[Pool, ...]
    router: Router
    endpoint: Endpoint
    builder: ChainBuilder
    user: str
    secret: str
    tasks: Tasks
    address: HostPort | None = None

    @property
    def proxy_url(self) -> str:
        """What HTTPS_PROXY is set to, secret included."""
        credentials = f"{quote(self.user or USER, '')}:{quote(self.secret, '')}@" if self.secret else ""
        assert self.address is not None
        # who listens on every address is reached by loopback
        where = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.address.host, self.address.host)  # noqa: S104
        return f"http://{credentials}{HostPort(where, self.address.port)}"

    async def start(self, where: HostPort | socket.socket, *, warm_after: float | None = 0.0) -> HostPort:
        """Listen, and begin to open the ways out, which nobody waits for.  Raises ConfigError.

        `warm_after`: seconds to let pass before that, for a command that may need no network at all; no dial
        waits for it.  None: not at all.
        """
        raise_limit()
        self.address = await self.endpoint.start(where)
        if warm_after is not None:
            self.tasks.spawn("warm", self._warm(warm_after))
        return self.address

    async def _warm(self, after: float) -> None:
        await asyncio.sleep(after)
        await self.pool.warm()

    def watch(self, url: str, *, every: float, timeout: float) -> None:
        """Probe every way out from now on, by `url`; "" watches nothing.  Raises ConfigError."""
        if not url:
            return
        try:
            target = ProbeTarget.parse(url)
        except ValueError as error:
            raise ConfigError(f"pool.probe.url: {error}") from None
        for pool in self.pools:
            self.tasks.spawn("probe", Prober(pool, target, every=every, timeout=timeout).run())

    async def close(self) -> None:
        """Close the listener, then the pools, then every hop."""
        await self.tasks.close()
        await self.endpoint.close()
        for pool in self.pools:
            await pool.close()
        await self.builder.close()


def build_engine(
    config: Config,
    ways: WaysOut,
    *,
    emit: Emit,
    ask: Ask | None = None,
    on_failure: Callable[[HostPort, DialError], None] | None = None,
    tell: Callable[[str], None] | None = None,
    adjust: Callable[[Chain], Chain] = lambda chain: chain,
    offline: bool = False,
) -> Engine:
    """All objects of one run.

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
    ignored: set[tuple[str, str]] = set()
    named = {route.to for route in ways.routes}
    others = [u for u in ways.others if named & {u.name, *u.tags}]  # what is not used can't be wrong
    for wanted in (*ways.pool, *others):
        chain = adjust(chain_of(wanted, ways))
        built[wanted.name] = Upstream(wanted.name, builder.build(chain), wanted.tags)
        uses[wanted.name] = builder.prefixes(chain)
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
    user, secret = _credentials(config)
    router = Router([], RejectDialer("--offline")) if offline else Router(routes, main)
    limits = config.limits
    endpoint = Endpoint(
        router,
        user=user,
        secret=secret,
        head=limits.head,
        connections=limits.connections,
        per_client=limits.per_client,
        on_failure=on_failure,
        **({} if tell is None else {"tell": tell}),
    )
    return Engine(main, tuple(pools), router, endpoint, builder, user, secret, Tasks("engine"))


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


def _credentials(config: Config) -> tuple[str, str]:
    """(user, secret) of the listener; an empty user means any, an empty secret means nobody is asked."""
    auth = config.listen.auth
    if auth.mode == "off":
        return "", ""
    if auth.mode == "auto":
        return "", new_secret()
    try:
        secret = Path(auth.password_file).expanduser().read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or "is no text"
        raise ConfigError(f"listen.auth: password_file {auth.password_file}: {words}") from error
    if not secret:
        raise ConfigError(f"listen.auth: password_file {auth.password_file}: is empty")
    return auth.user, secret
