"""`gotunnel cache prefetch`, and what it and `export` stand on: a project, ways out, the module proxy."""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gotunnel.cli.console import Console, tell
from gotunnel.dataclass import dataclass
from gotunnel.errors import ModuleError, UsageError

if TYPE_CHECKING:
    from gotunnel.assemble.modules import Opened
    from gotunnel.config.model import Config
    from gotunnel.goenv import Found
    from gotunnel.modproxy.closure import Closure, Item
    from gotunnel.modproxy.plan import Files
    from gotunnel.modproxy.receive import Verifies
    from gotunnel.storage import Store

_NAMED = 20  # missing files that are named; the rest is counted
_STEP = 0.1  # seconds between two words of progress


@dataclass(frozen=True, slots=True)
class Project:
    """What DIR holds and what go is told there."""

    directory: Path
    found: Found
    files: Files

    @property
    def names(self) -> tuple[str, ...]:
        """Its main modules."""
        return tuple(main.module for main in self.files.mains)

    @property
    def closure(self) -> Closure:
        """All that it needs."""
        from gotunnel.modproxy.closure import closure

        work = self.files.work
        replaces = work.replace if work else ()
        return closure(self.files.mains, self.files.sums, replaces=replaces, workspace=work is not None)


def read_project(directory: str, environ: Mapping[str, str]) -> Project:
    """Read DIR.  Blocks.  Raises UsageError where it is no project, ModFileError, ConfigError."""
    from gotunnel.errors import ConfigError
    from gotunnel.goenv import read
    from gotunnel.modproxy.gocommand import child_directory
    from gotunnel.modproxy.prefetch import read_files

    place = Path(directory).absolute()
    if not place.is_dir():
        raise UsageError(f"{directory}: no such directory")
    found = read(environ, cwd=str(place))
    env = {**environ, "GOFLAGS": found.goflags}
    where = child_directory(["go", "mod", "download"], place, env)
    if not where.has_modules:
        raise UsageError(f"{directory}: neither a go.mod nor a go.work here or above")
    try:
        return Project(place, found, read_files(where))
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from None


class Progress:
    """One line on a terminal that is written over; silent elsewhere."""

    def __init__(self, quiet: bool) -> None:
        self._on = not quiet and sys.stderr is not None and sys.stderr.isatty()
        self._last = 0.0

    def __call__(self, words: str) -> None:
        """Show `words`; most of the time it is too early to."""
        if self._on and (now := time.monotonic()) - self._last >= _STEP:
            self._last = now
            sys.stderr.write(f"\r\x1b[Kgotunnel: {words}")
            sys.stderr.flush()

    def close(self) -> None:
        """Leave the line empty."""
        if self._on and self._last:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


@dataclass(frozen=True, slots=True)
class Work:
    """The running parts; `opened.proxy` is None where no source is listed.

    `verifier` is the project's; `unsummed` are the globs of modules that no checksum database is asked about.
    """

    config: Config
    store: Store
    opened: Opened
    verifier: Verifies
    unsummed: str
    progress: Progress


@contextlib.asynccontextmanager
async def working(args: argparse.Namespace, project: Project, *, offline: bool) -> AsyncGenerator[Work, None]:
    """Ways out, store and module proxy.  Raises ConfigError, StoreError."""
    from gotunnel.address import HostPort
    from gotunnel.assemble import build_engine
    from gotunnel.assemble.modules import Modules, opened_store
    from gotunnel.cli.ask import terminal
    from gotunnel.cli.cache_jobs import setting_of
    from gotunnel.cli.options import load_ways, log_as_configured, ssh_defaults
    from gotunnel.goenv import mirror_url
    from gotunnel.modproxy.verify import Verifier

    setting_of(project.found)  # what go would refuse, here nobody else says
    mirrors = [mirror_url(url) for url in args.mirror]
    loaded, ways = load_ways(args)
    log_as_configured(loaded)
    config = loaded.config
    console = Console(quiet=args.quiet)
    engine = build_engine(
        config,
        ways,
        emit=console,
        tell=tell,
        ask=terminal(),
        adjust=lambda chain: ssh_defaults(args, chain),
        offline=offline,
    )
    progress = Progress(args.quiet)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(engine.close)
        stack.callback(progress.close)
        proxy_url = ""
        if not offline:
            await engine.start(HostPort("127.0.0.1", 0))
            proxy_url = engine.proxy_url
        store = await stack.enter_async_context(opened_store(config, proxy_url=proxy_url))
        modules = Modules(config, engine.ways, store, emit=console, tell=tell, offline=offline)
        stack.push_async_callback(modules.close)
        await modules.start(HostPort("127.0.0.1", 0))
        opened = await modules.open(
            project.found,
            project.files.sums,
            run_id=secrets.token_hex(6),
            mirrors=[*mirrors, *config.go.mirrors],
        )
        unsummed = ",".join(filter(None, [project.found.no_sumdb_globs, *config.go.private]))
        verifier = opened.project.verifier if opened.project else Verifier(project.files.sums, unsummed, None)
        yield Work(config, store, opened, verifier, unsummed, progress)


async def prefetch(args: argparse.Namespace) -> int:
    """Fetch what DIR's project needs into the store."""
    from gotunnel.cli.cache_jobs import size
    from gotunnel.modproxy.packing import Incomplete
    from gotunnel.tasks import in_thread

    project = await in_thread("project", lambda: read_project(args.directory, os.environ))
    async with working(args, project, offline=False) as work:
        if work.opened.proxy is None:
            raise UsageError("GOPROXY names no source to fetch from; name one: --mirror URL")
        fetched = await fetch(work, project, modcache="")
        items = [item for item in project.closure.items if not _private(project, work, item)]
        missing: dict[Item, str] = {}
        for item in items:
            if await work.store.get(item.name) is None:
                try:
                    await ensure(work, item)
                except ModuleError as error:
                    missing[item] = str(error)
        label = work.store.label
    if missing:
        name_missing(missing)
        raise Incomplete(missing)
    there = len({(item.module, item.version) for item in items if item.kind == "zip"})
    print(f"{there} modules for {', '.join(project.names)} are in {label}; {size(fetched)} were fetched")
    return 0


async def fetch(work: Work, project: Project, *, modcache: str) -> int:
    """The bulk of it, many at a time; returns the bytes that were new.  What fails is asked again later."""
    from gotunnel.cli.cache_jobs import size
    from gotunnel.modproxy import prefetch as fetching
    from gotunnel.modproxy.gocommand import Settings

    assert work.opened.proxy is not None
    assert work.opened.project is not None

    def show(now: fetching.Progress) -> None:
        work.progress(f"{now.done} of {now.wanted} files, {size(now.bytes)}")

    env = {name: value for name in ("GOWORK", "GO111MODULE") if (value := os.environ.get(name))}
    settings = Settings(
        env={**env, "GOFLAGS": project.found.goflags}, private=work.opened.project.private, modcache=modcache
    )
    prefetcher = fetching.Prefetcher(
        work.opened.proxy, work.store, work.opened.project, settings, on_progress=show
    )
    done = await prefetcher.run(project.directory, ["go", "mod", "download"])
    return done.bytes


async def ensure(work: Work, item: Item) -> None:
    """See to it that the store has it.  Raises ModuleError."""
    from gotunnel.modproxy import target

    assert work.opened.proxy is not None
    assert work.opened.project is not None
    await work.opened.proxy.ensure(
        target.of(item.module, item.version, item.kind), work.opened.project, priority=0
    )


def _private(project: Project, work: Work, item: Item) -> bool:
    from gotunnel.modproxy.filter import matches

    return work.opened.project is not None and matches(work.opened.project.private, item.module)


def name_missing(missing: Mapping[Item, str]) -> None:
    """One line for each file that can't be had."""
    for item in list(missing)[:_NAMED]:
        tell(f"missing: {item}: {missing[item]}")
    if len(missing) > _NAMED:
        tell(f"… and {len(missing) - _NAMED} more")
