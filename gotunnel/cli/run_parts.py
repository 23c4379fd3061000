"""What a run stands on when it brings its own: engine, module proxy, prefetch; and the environment of CMD.

Rules:
- All sockets listen before CMD starts; what is behind them may come later.
- Offline nothing is dialled: neither for go nor for anybody else.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from gotunnel.address import HostPort, one_line
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError
from gotunnel.goenv import (
    Asking,
    Found,
    compose,
    git_proxy_command,
    http_sources,
    own_command,
    with_mirrors,
    without_network,
)
from gotunnel.observe.events import Emit, Ready
from gotunnel.tasks import Tasks, in_thread

if TYPE_CHECKING:
    from gotunnel.assemble.modules import Modules, Opened
    from gotunnel.child.retry import Runner
    from gotunnel.config.load import WaysOut
    from gotunnel.config.model import Config
    from gotunnel.modproxy.gocommand import Settings
    from gotunnel.modproxy.gosum import GoSum
    from gotunnel.pool.pool import Pool

_log = logging.getLogger("gotunnel.run")
WARM_AFTER = 0.15  # seconds in which a command that isn't go's may end before the ways out are opened


@dataclass(frozen=True, slots=True)
class Parts:
    """`env` is CMD's whole environment, `sources` are the entries of go's own list."""

    env: dict[str, str]
    sources: tuple[str, ...]


async def own_parts(
    args: argparse.Namespace,
    config: Config,
    ways: WaysOut,
    runner: Runner,
    stack: contextlib.AsyncExitStack,
    *,
    emit: Emit,
    run_id: str,
    offline: bool,
    planned: Callable[[int], None] = lambda count: None,
) -> tuple[Parts, Pool]:
    """Start everything; `stack` ends it.  `planned` hears how many files are wanted.  Raises ConfigError."""
    asking = stack.enter_context(Asking(os.environ))  # they answer while all the rest is imported
    from gotunnel.assemble import build_engine
    from gotunnel.child.classify import loads_modules
    from gotunnel.cli.ask import terminal
    from gotunnel.cli.console import teller
    from gotunnel.cli.options import ssh_defaults

    tell = teller(quiet=args.quiet)
    if any(upstream.via.startswith("srv://") for upstream in (*ways.pool, *ways.others)):
        from gotunnel.assemble.discovery import Discoveries

        ways = await Discoveries().expand(ways)
    engine = build_engine(
        config,
        ways,
        emit=emit,
        on_failure=runner.failed,
        tell=tell,
        ask=terminal(),
        adjust=lambda chain: ssh_defaults(args, chain),
        offline=offline,
    )
    stack.push_async_callback(engine.close)
    proxy = config.listen.proxy
    # what needs no network shall not pay for asyncssh's import
    loads = loads_modules(args.argv)
    warm_after = None if offline else 0.0 if loads else WARM_AFTER
    address = await engine.start(HostPort(proxy.host, proxy.port), warm_after=warm_after)
    modules: Modules | None = None
    if not args.no_modproxy:
        await in_thread("import modproxy", _load_modproxy)  # meanwhile the ways out are dialled
        from gotunnel.assemble.modules import Modules, opened_store

        store = await stack.enter_async_context(opened_store(config, proxy_url=engine.proxy_url))
        modules = Modules(
            config, engine.ways, store, emit=emit, tell=tell, on_failure=runner.failed, offline=offline
        )
        stack.push_async_callback(modules.close)
        listen = config.listen.modproxy
        await modules.start(HostPort(listen.host, listen.port))
    emit(
        Ready(
            str(address),
            str(modules.address) if modules is not None else None,
            tuple(u.name for u in engine.pool.upstreams),
        )
    )
    found = await in_thread("go env", asking.found)
    mirrors = [*args.mirror, *config.go.mirrors]
    goproxy = with_mirrors(found.goproxy, mirrors) if mirrors else ""
    if offline:
        goproxy = without_network(goproxy or found.goproxy)
    if not offline:
        probe = config.pool.probe.url
        urls = [probe] if probe else http_sources(goproxy or found.goproxy)
        engine.watch(urls, every=config.pool.probe.every, timeout=config.pool.probe.timeout)
    if modules is not None:
        project = await project_of(args.argv, found)
        opened = await modules.open(found, project.sums, run_id=run_id, mirrors=mirrors)
        goproxy = opened.goproxy or goproxy
        tasks = Tasks("run")
        stack.push_async_callback(tasks.close)
        if opened.project is not None and loads:
            tasks.spawn("prepare", modules.prepare())
        if opened.project is not None and not args.no_prefetch and not offline:
            tasks.spawn("prefetch", _prefetch(args.argv, modules, opened, project, planned))
    env = environment(
        found, config, proxy_url=engine.proxy_url, run_id=run_id, goproxy=goproxy, offline=offline
    )
    return Parts(env, (*mirrors, *re.split("[,|]", found.goproxy))), engine.pool


def _load_modproxy() -> None:
    """After this what the module proxy needs before CMD starts is imported."""
    names = ("assemble.modules", "storage.disk", "modproxy.server", "modproxy.prefetch", "modproxy.sumdb")
    for name in names:
        import_module(f"gotunnel.{name}")


def environment(
    found: Found, config: Config, *, proxy_url: str, run_id: str, goproxy: str, offline: bool
) -> dict[str, str]:
    """The whole environment of CMD."""
    return compose(
        os.environ,
        found,
        proxy_url=proxy_url,
        run_id=run_id,
        goproxy=goproxy,
        private=config.go.private,
        offline=offline,
        command=own_command(),
        git_proxy=git_proxy_command(),
    )


def here() -> Path:
    """The working directory; the root, which holds no project either, for one that was removed under us."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return Path("/")


@dataclass(frozen=True, slots=True)
class Project:
    """The main module that CMD works on, as far as there is one."""

    settings: Settings
    sums: GoSum


async def project_of(argv: Sequence[str], found: Found) -> Project:
    """Raises ConfigError for a go.sum that can't be read, where CMD is a go command that reads it."""
    from gotunnel.child.classify import loads_modules
    from gotunnel.modproxy.gocommand import Settings, child_directory, read_command
    from gotunnel.modproxy.gosum import GoSum, read_go_sums

    env = {
        "GOFLAGS": found.goflags,
        "GOWORK": os.environ.get("GOWORK", ""),
        "GO111MODULE": found.go111module,
        "GOTOOLCHAIN": os.environ.get("GOTOOLCHAIN", ""),
    }
    settings = Settings(
        {name: value for name, value in env.items() if value},
        private=found.no_proxy_globs,
        modcache=found.gomodcache,
        local_go=found.goversion,
        platform=found.platform,
    )

    def sums() -> GoSum:
        place = child_directory(argv, here(), settings.env)
        if not place.has_modules:
            return GoSum()
        modfile = read_command(argv, found.goflags).modfile
        return read_go_sums(place.directory, gowork=str(place.go_work or "off"), modfile=modfile)

    try:
        return Project(settings, await in_thread("go.sum", sums))
    except (OSError, ValueError) as error:
        if not loads_modules(argv):  # an editor or git may be about to mend it; go says itself what is wrong
            return Project(settings, GoSum())
        raise ConfigError(one_line(f"{error}; mend it, or remove it and run go mod tidy", 300)) from error


async def _prefetch(
    argv: Sequence[str],
    modules: Modules,
    opened: Opened,
    project: Project,
    planned: Callable[[int], None],
) -> None:
    from gotunnel.modproxy.prefetch import Prefetcher

    assert opened.proxy is not None
    assert opened.project is not None
    prefetcher = Prefetcher(
        opened.proxy,
        modules.store,
        opened.project,
        project.settings,
        on_progress=lambda progress: planned(progress.wanted),
    )
    modules.listen(opened.project.id, prefetcher.asked)
    done = await prefetcher.run(here(), argv)
    _log.debug("prefetch: %s", done)
