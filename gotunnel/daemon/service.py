"""`serve`: the engine for ever, and its manager told of it.

    listen -> tell where (runtime file) -> probe until a way out works -> READY -> serve -> drain -> end

Rules:
- It listens before any way out works: clients wait or are told; READY only after a probe through the data
  path of some way out.
- The watchdog is fed while the event loop turns and our own listener answers; an outage outside, or an hour
  without a client, never counts against us.
- A reload builds the new graph first; a configuration that is wrong changes nothing.
- Ports and secrets stay the same over restarts; where `listen.auth` names a user, all secrets come of the
  password, so that replicas which share it agree.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import time
from collections.abc import Callable, MutableMapping
from dataclasses import replace

from gotunnel import __version__
from gotunnel.address import HostPort, one_line
from gotunnel.assemble import build_engine, build_graph
from gotunnel.assemble.discovery import Discoveries
from gotunnel.assemble.engine import Engine
from gotunnel.assemble.graph import Traffic, probe_targets
from gotunnel.assemble.modules import Modules, opened_store
from gotunnel.config.load import Loaded, WaysOut
from gotunnel.config.model import Config
from gotunnel.config.values import Endpoint as Address
from gotunnel.daemon.activation import NAMES, adopt
from gotunnel.daemon.notify import Notifier, feed
from gotunnel.daemon.observed import Observed
from gotunnel.daemon.runs import Runs
from gotunnel.daemon.state import (
    Kept,
    Running,
    Unwritable,
    answers,
    forget_running,
    load_kept,
    load_running,
    runtime_directory,
    save_kept,
    save_running,
    state_directory,
)
from gotunnel.daemon.upkeep import keep_small, left_as_it_was
from gotunnel.daemon.webhook import Webhook, secret_from
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError, DialError
from gotunnel.goenv import http_sources, read, with_mirrors
from gotunnel.listener.auth import derived, new_secret
from gotunnel.listener.sockets import bind, reached_at
from gotunnel.modproxy.gosum import GoSum
from gotunnel.observe.alert import Alerts
from gotunnel.observe.events import Emit
from gotunnel.observe.logs import register_secret, set_level
from gotunnel.pool.probe import Prober
from gotunnel.tasks import Backoff, Tasks, in_thread
from gotunnel.upstream.spec import Chain

DRAIN = 10.0  # seconds for clients to come to their end when the service stops
FALLBACK_PROBE = "https://proxy.golang.org"

Load = Callable[[], tuple[Loaded, WaysOut]]


@dataclass(frozen=True, slots=True)
class Setup:
    """What the command line gave: `load` reads the configuration anew each time; `profile` names a second
    service of the same user."""

    load: Load
    tell: Callable[[str], None]
    adjust: Callable[[Chain], Chain] = lambda chain: chain
    profile: str = ""
    listeners: tuple[Emit, ...] = ()


class Service:
    """One running service."""

    def __init__(self, setup: Setup, environ: MutableMapping[str, str]) -> None:
        self._setup, self._environ = setup, environ
        self._notifier = Notifier(environ)
        self._sockets = adopt(environ)
        self._state, self._runtime = state_directory(environ), runtime_directory(environ)
        self._tasks = Tasks("service")
        self._ending = asyncio.Event()
        self._ready = False
        self._why = "starting"
        self._refused = ""  # why the last reload was
        self._moved: list[str] = []  # ports of the last time that are somebody else's now
        self._reloading = asyncio.Lock()
        self._runs: Runs | None = None
        self.observed = Observed()
        self.traffic = Traffic()
        self._discoveries = Discoveries(self._reload_soon)

    async def run(self) -> int:
        """Until SIGTERM or SIGINT.  Raises ConfigError where it can't begin."""
        try:
            return await self._run()
        except ConfigError as error:
            self._notifier.status(str(error))
            raise

    async def _run(self) -> int:
        loaded, ways = self._setup.load()
        ways = await self._discoveries.expand(ways, keep=True)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        self._refuse_twin()
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(self._tasks.close)
            stack.push_async_callback(self._discoveries.close)
            await self._start(loaded.config, ways, stack)
            self._tasks.spawn("ready", self._become_ready())
            self._tasks.spawn("status", self._keep_status())
            upkeep = keep_small(self._modules.store, lambda: self._config, self._setup.tell)
            self._tasks.spawn("upkeep", upkeep)
            if self._notifier.watchdog is not None:
                assert self._engine.address is not None
                feeding = feed(
                    self._notifier,
                    reached_at(self._engine.address),
                    self._notifier.watchdog / 3,
                    tls=self._engine.scheme == "https",
                )
                self._tasks.spawn("watchdog", feeding)
            await self._ending.wait()
            self._notifier.stopping()
            self._setup.tell("ending: no new clients; waiting for those who are in")
            await self._engine.endpoint.drain(DRAIN)
        return 0

    # --- start --------------------------------------------------------------------------------------

    def _refuse_twin(self) -> None:
        """Two services of one user and profile would each tell runs where they are.

        Where systemd holds the socket there is one, and a stale file would have us ask ourselves.
        """
        running = load_running(self._runtime, self._setup.profile)
        if running is None or running.pid == os.getpid() or "admin" in self._sockets:
            return
        if answers(running, 2.0):
            raise ConfigError(
                f"a service of yours runs already (pid {running.pid}); stop it, or take another name "
                "with --profile NAME"
            )

    async def _start(self, config: Config, ways: WaysOut, stack: contextlib.AsyncExitStack) -> None:
        self._config, listen = config, config.listen
        kept = load_kept(self._state, self._setup.profile)
        sockets = {name: self._socket(name, getattr(listen, name), getattr(kept, name)) for name in NAMES}
        for listening in sockets.values():
            stack.callback(listening.close)
        if self._moved:
            ports = ", ".join(self._moved)
            self._setup.tell(f"ports of the last time are taken: {ports}; shells need `gotunnel env` anew")
            kept = Kept()  # who has them has heard the secrets too
        kept = replace(kept, secret=kept.secret or new_secret(), token=kept.token or new_secret())
        emit = self.observed
        for listener in self._setup.listeners:
            emit.add(listener)
        self._alerts = Alerts(config.alert.sigma, emit)
        emit.add(self._alerts)
        engine = self._engine = build_engine(
            config,
            ways,
            emit=emit,
            on_failure=self._failed,
            tell=self._setup.tell,
            adjust=self._setup.adjust,
            secret=kept.secret,
            shared=True,
        )
        stack.push_async_callback(engine.close)
        path, token, login = kept.secret, kept.token, None
        if engine.user:
            login = engine.user, engine.secret
            path, token = derived(engine.secret, "module proxy"), derived(engine.secret, "admin")
        for to_mask in (path, token):
            stack.callback(register_secret(to_mask))
        proxy = await engine.start(sockets["proxy"])
        store = await stack.enter_async_context(opened_store(config, proxy_url=engine.proxy_url))
        self._modules = modules = Modules(
            config,
            engine.ways,
            store,
            emit=emit,
            tell=self._setup.tell,
            on_failure=self._failed,
            shared=True,
        )
        stack.push_async_callback(modules.close)
        modproxy = await modules.start(sockets["modproxy"])
        if config.alert.webhook:
            webhook = Webhook(config.alert.webhook, secret_from(self._environ), engine.ways)
            stack.push_async_callback(webhook.close)
            webhook.start()
            emit.add(webhook)
        self._runs = runs = Runs(engine, modules)
        stack.push_async_callback(runs.close)
        runs.start()
        emit.add(runs)
        self._found = await in_thread("go env", lambda: read(os.environ))
        if modules.is_ours(self._found.goproxy):
            self._setup.tell(
                f"GOPROXY is this service itself; {modules.beyond} is taken (name sources: [go] mirrors)"
            )
            self._found = replace(self._found, goproxy=modules.beyond)
        modules.beyond = self._found.goproxy
        # for shells that took `gotunnel env`
        mirrors = config.go.mirrors
        self.shell = await modules.open(self._found, GoSum(), run_id="", mirrors=mirrors, secret=path)
        if modules.shared:
            await modules.open(self._found, GoSum(), run_id="shared", mirrors=mirrors, everybody=True)
        admin = await self._start_admin(sockets["admin"], token, login, stack)
        self._watch(config)
        kept = replace(kept, proxy=proxy.port, modproxy=modproxy.port, admin=admin.port)
        try:
            save_kept(self._state, kept, self._setup.profile)
        except Unwritable as error:
            self._setup.tell(f"ports and secrets are new after a restart: {error}")
        running = Running(
            os.getpid(),
            time.time(),
            __version__,
            engine.proxy_url,
            modules.url(path),
            f"http://{reached_at(admin)}",
            token,
        )
        try:
            save_running(self._runtime, running, self._setup.profile)
        except Unwritable as error:
            self._setup.tell(f"run, env and status don't find this service: {error}")
        stack.callback(forget_running, self._runtime, self._setup.profile)
        self._setup.tell(f"proxy on {proxy}, module proxy on {modproxy}, admin on http://{admin}")

    def _socket(self, name: str, address: Address, kept: int) -> socket.socket:
        """Systemd's, else the same port as the last time, else the configured or a free one."""
        if name in self._sockets:
            return self._sockets[name]
        if not address.port and kept:
            with contextlib.suppress(ConfigError):
                return bind(HostPort(address.host, kept), f"listen.{name}")
            self._moved.append(f"{kept} ({name})")
        return bind(HostPort(address.host, address.port), f"listen.{name}")

    async def _start_admin(
        self,
        listening: socket.socket,
        token: str,
        login: tuple[str, str] | None,
        stack: contextlib.AsyncExitStack,
    ) -> HostPort:
        from gotunnel.daemon.admin_api import start_admin  # aiohttp, after the sockets listen

        return await start_admin(self, listening, token, login, stack)

    # --- while it runs ------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The engine."""
        return self._engine

    @property
    def modules(self) -> Modules:
        """The module proxy."""
        return self._modules

    @property
    def runs(self) -> Runs:
        """The runs that use us."""
        assert self._runs is not None
        return self._runs

    def _failed(self, target: HostPort, error: DialError) -> None:
        """Clients may come, and fail, while we are still being put together."""
        if self._runs is not None:
            self._runs.failed(target, error)

    def environment(self) -> dict[str, object]:
        """What `gotunnel env` is told."""
        return {
            "proxy": self._engine.proxy_url,
            "goproxy": self.shell.goproxy,
            "private": list(self._config.go.private),
        }

    @property
    def readiness(self) -> tuple[bool, str]:
        """(ready, why not): a way out has worked, and they have not all failed since."""
        if self._ready and self._engine.pool.all_down:
            return False, self._no_way()
        return self._ready, "" if self._ready else self._why

    def _no_way(self) -> str:
        failures = self._engine.pool.failures()
        words = (f"{name.removesuffix(':')}: {error.finding}" for name, error in failures)
        return "no way out works: " + "; ".join(words)

    def _probe_urls(self, config: Config) -> list[str]:
        mirrors = config.go.mirrors
        listed = with_mirrors(self._found.goproxy, mirrors) if mirrors else self._found.goproxy
        named = config.pool.probe.url
        return [named] if named else http_sources(listed) or [FALLBACK_PROBE]

    def _watch(self, config: Config, *, at_once: bool = False) -> None:
        probe = config.pool.probe
        self._urls, self._timeout = self._probe_urls(config), probe.timeout
        self._engine.watch(self._urls, every=probe.every, timeout=probe.timeout, at_once=at_once)

    async def _become_ready(self) -> None:
        """Probe until something comes through some way out."""
        backoff, turns = Backoff(0.5, 10.0), itertools.count()
        while not self._ready:
            pool, targets = self._engine.pool, probe_targets(self._urls)
            target = targets[next(turns) % len(targets)]
            prober = Prober(pool, [target], every=1.0, timeout=self._timeout)
            trying = [self._tasks.spawn(f"probe {u.name}", prober.once(u)) for u in pool.upstreams]
            for done in asyncio.as_completed(trying):
                if await done:
                    self._ready = True
                    break
            else:
                self._why = self._no_way()
                self._notifier.status(self._why)
                await asyncio.sleep(backoff.delay())
        self._notifier.ready()
        self._notifier.status(self._status())
        self._setup.tell("ready: a way out works")

    def _status(self) -> str:
        upstreams = self._engine.pool.upstreams
        up = sum(not u.is_down for u in upstreams)
        streams = self._engine.graph.open_streams
        return (
            f"{up} of {len(upstreams)} ways out up, {streams} streams, {len(self.runs)} runs{self._refused}"
        )

    async def _keep_status(self) -> None:
        for turn in itertools.count(1):
            await asyncio.sleep(2.0)
            if turn % 5 == 0:
                self._alerts.tick()
            if self._ready:
                self._notifier.status(self._status())

    def _reload_soon(self) -> None:
        self._tasks.spawn("reload", self.reload())

    async def reload(self) -> str:
        """Take the configuration anew; why not, "" where it was taken."""
        async with self._reloading:
            if self._ready:  # READY=1 ends it, which before would say that a way out works
                self._notifier.reloading()
            try:
                loaded, ways = self._setup.load()
                config = loaded.config
                ways = await self._discoveries.expand(ways, keep=True)
                graph = build_graph(
                    config, ways, emit=self.observed, tell=self._setup.tell, adjust=self._setup.adjust
                )
            except ConfigError as error:
                why = one_line(str(error), 500)
                self._setup.tell(f"the new configuration is refused, the old one stays: {why}")
                self._refused = f"; reload refused: {why}"
                self._reloaded()
                return why
            self._refused = ""
            late = ", ".join(left_as_it_was(self._config, config))
            self._config = config
            graph.counted = self.traffic
            self._engine.replace(graph)
            limits = config.limits
            self._engine.endpoint.limit(
                head=limits.head, connections=limits.connections, per_client=limits.per_client
            )
            self._modules.reload(config)
            set_level(config.log.level)
            self._watch(config, at_once=True)
            beside = f", but for what only a restart changes: {late}" if late else ""
            self._setup.tell(f"the new configuration is in force{beside}")
            self._reloaded()
            return ""

    def _reloaded(self) -> None:
        if self._ready:
            self._notifier.ready()
            self._notifier.status(self._status())
