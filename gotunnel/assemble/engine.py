"""An `Engine` is everything between a client and the network: endpoint -> switch -> pool -> chains."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

from gotunnel.address import HostPort
from gotunnel.assemble.graph import Graph, Switch, build_graph
from gotunnel.config.load import WaysOut
from gotunnel.config.model import Config, Tls
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError, DialError
from gotunnel.listener.auth import USER, Keys, new_secret
from gotunnel.listener.proxy import Endpoint
from gotunnel.listener.sockets import reached_at
from gotunnel.listener.tls import server_context
from gotunnel.observe.events import Emit
from gotunnel.openfiles import raise_limit
from gotunnel.pool.pool import Pool
from gotunnel.tasks import Tasks
from gotunnel.upstream.asking import Ask
from gotunnel.upstream.spec import Chain

DRAIN = 3600.0  # seconds that the streams of a replaced graph may go on


@dataclass(slots=True)
class Engine:
    """The running parts; `start` opens, `close` leaves nothing behind."""

    ways: Switch
    endpoint: Endpoint
    user: str
    secret: str
    tasks: Tasks
    address: HostPort | None = None
    scheme: str = "http"  # of the endpoint's URL

    @property
    def graph(self) -> Graph:
        """The ways out of the moment."""
        return self.ways.graph

    @property
    def pool(self) -> Pool:
        """The default pool of the moment."""
        return self.graph.pool

    @property
    def proxy_url(self) -> str:
        """What HTTPS_PROXY is set to, secret included."""
        return self.url_with(self.user or USER, self.secret)

    def url_with(self, user: str, secret: str) -> str:
        """The endpoint's URL with these credentials, "" for none."""
        credentials = f"{quote(user, '')}:{quote(secret, '')}@" if secret else ""
        assert self.address is not None
        return f"{self.scheme}://{credentials}{reached_at(self.address)}"

    async def start(self, where: HostPort | socket.socket, *, warm_after: float | None = 0.0) -> HostPort:
        """Listen, and begin to open the ways out, which nobody waits for.  Raises ConfigError.

        `warm_after`: seconds to let pass before that, for a command that may need no network at all; no dial
        waits for it.  None: not at all.
        """
        raise_limit()
        self.address = await self.endpoint.start(where)
        if warm_after is not None:
            self.graph.warm(warm_after)
        return self.address

    def watch(self, urls: Sequence[str], *, every: float, timeout: float, at_once: bool = False) -> None:
        """Probe every way out from now on (see `Graph.watch`).  Raises ConfigError."""
        self.graph.watch(urls, every=every, timeout=timeout, at_once=at_once)

    def replace(self, graph: Graph) -> None:
        """New streams go by `graph` from now on; the old one's go on to their end."""
        old, self.ways.graph = self.graph, graph
        graph.warm(0.0)
        self.tasks.spawn("retire", old.retire(DRAIN))

    async def close(self) -> None:
        """Close the listener, then the pools, then every hop."""
        await self.tasks.close()
        await self.endpoint.close()
        await self.graph.close()


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
    secret: str = "",
    shared: bool = False,
) -> Engine:
    """All objects of one run: see `build_graph`.  `secret` is taken where a new one would be made.

    `shared`: for others too, and so inside TLS where that is configured; a run's own endpoint needs none.

    Raises ConfigError.
    """
    graph = build_graph(config, ways, emit=emit, ask=ask, tell=tell, adjust=adjust, offline=offline)
    switch = Switch(graph)
    user, secret = credentials(config, secret)
    limits, tls = config.limits, config.listen.tls if shared else Tls()
    endpoint = Endpoint(
        switch,
        keys=Keys(secret, user),
        tls=server_context(tls.cert, tls.key, tls.client_ca) if tls.cert else None,
        head=limits.head,
        connections=limits.connections,
        per_client=limits.per_client,
        on_failure=on_failure,
        **({} if tell is None else {"tell": tell}),
    )
    return Engine(switch, endpoint, user, secret, Tasks("engine"), scheme="https" if tls.cert else "http")


def credentials(config: Config, kept: str = "") -> tuple[str, str]:
    """(user, secret) of the listener; an empty user means any, an empty secret means nobody is asked."""
    auth = config.listen.auth
    if auth.mode == "off":
        return "", ""
    if auth.mode == "auto":
        return "", kept or new_secret()
    try:
        secret = Path(auth.password_file).expanduser().read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or "is no text"
        raise ConfigError(f"listen.auth: password_file {auth.password_file}: {words}") from error
    if not secret:
        raise ConfigError(f"listen.auth: password_file {auth.password_file}: is empty")
    return auth.user, secret
