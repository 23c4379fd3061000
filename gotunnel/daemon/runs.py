"""The runs that use this service: each with a secret of its own, its events, and its verdicts.

Rules:
- A run's secret opens the proxy and the module proxy for as long as the run lasts, or until nobody has asked
  for its events for IDLE seconds: a run that was killed says no goodbye.
- An event belongs to the run on whose behalf it happened (`RUN`); what happens to a way out concerns all.
- What a run that doesn't read can pile up is bounded.
"""

from __future__ import annotations

import asyncio
import datetime
import re
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from gotunnel.address import HostPort
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError, DialError, NoWayOut
from gotunnel.goenv import Found
from gotunnel.listener.auth import USER, new_secret
from gotunnel.observe.events import RUN, BreakerChange, Event, Failover, as_line
from gotunnel.tasks import Tasks

if TYPE_CHECKING:
    from gotunnel.assemble.engine import Engine
    from gotunnel.assemble.modules import Modules, Opened

IDLE = 60.0  # seconds without a reader after which a run is over
BEAT = 15.0  # seconds between two empty lines to a reader
_KEPT = 2000  # events that wait for a reader
_FIELDS = ("goproxy", "gosumdb", "no_proxy_globs", "no_sumdb_globs", "gomodcache", "goflags", "go111module",
           "goversion", "platform")  # fmt: skip


@dataclass(eq=False)
class Run:
    """One run; `no_way` is the target that no way out reached since it was last asked."""

    id: str
    opened: Opened | None
    waiting: deque[str]
    news: asyncio.Event
    seen: float
    no_way: str = ""


class Runs:
    """All of them.  `clock` in seconds."""

    def __init__(
        self, engine: Engine, modules: Modules | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine, self._modules, self._clock = engine, modules, clock
        self._runs: dict[str, Run] = {}
        self._tasks = Tasks("runs")

    def __len__(self) -> int:
        return len(self._runs)

    def start(self) -> None:
        """See to it that runs which were killed come to their end."""
        self._tasks.spawn("sweep", self._sweep())

    async def close(self) -> None:
        """End them all."""
        await self._tasks.close()
        for run in list(self._runs):
            self.end(run)

    async def open(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Let a run in; what it is told.  Raises ConfigError for what makes no sense."""
        found, sums, mirrors = _parse(asked)
        run_id, secret, path_secret = _again(asked)
        self.end(run_id)
        run = Run(run_id, None, deque(maxlen=_KEPT), asyncio.Event(), self._clock())
        goproxy = ""
        if self._modules is not None and asked.get("modproxy", True):
            from gotunnel.modproxy.gosum import GoSum

            try:
                listed = GoSum.parse(sums)
            except ValueError as error:
                raise ConfigError(str(error)) from None
            run.opened = await self._modules.open(
                found, listed, run_id=run.id, mirrors=mirrors, secret=path_secret
            )
            goproxy = run.opened.goproxy
            if asked.get("prefetch") and run.opened.project is not None:
                self._prefetch(run, found, asked)
        self._runs[run.id] = run
        self._engine.endpoint.keys.add(run.id, secret)
        return {
            "id": run.id,
            "again": {"id": run.id, "secret": secret, "path": run.opened.secret if run.opened else ""},
            "proxy": self._engine.url_with(USER, secret) if self._engine.secret else self._engine.proxy_url,
            "goproxy": goproxy,
            "modproxy": str(self._modules.address) if self._modules is not None else None,
            "upstreams": [upstream.name for upstream in self._engine.pool.upstreams],
        }

    def end(self, run_id: str) -> bool:
        """The run is over; False if there was none."""
        run = self._runs.pop(run_id, None)
        if run is None:
            return False
        self._engine.endpoint.keys.remove(run_id)
        if self._modules is not None and run.opened is not None:
            self._modules.shut(run.opened)
        run.news.set()
        return True

    def health(self, run_id: str) -> dict[str, Any] | None:
        """What a run asks when CMD has failed; None where there is no such run."""
        run = self._runs.get(run_id)
        if run is None:
            return None
        pool = self._engine.pool
        no_way, run.no_way = run.no_way, ""
        return {
            "no_way": no_way,
            "all_down": pool.all_down,
            "failures": [[name, error.finding, error.detail] for name, error in pool.failures()],
        }

    def blame(self, run_id: str) -> dict[str, Any] | None:
        """Put the way out that a run failed on behind the others."""
        return {"blamed": self._engine.pool.blame()} if run_id in self._runs else None

    async def events(self, run_id: str) -> AsyncIterator[str]:
        """JSON lines until the run is over; an empty one now and then shows that we live."""
        while (run := self._runs.get(run_id)) is not None:
            run.seen = self._clock()
            while run.waiting:
                yield run.waiting.popleft() + "\n"
            run.news.clear()
            try:
                async with asyncio.timeout(BEAT):
                    await run.news.wait()
            except TimeoutError:
                yield "\n"

    # --- what happens ------------------------------------------------------------------------------

    def __call__(self, event: Event) -> None:
        """An event of the engine or the module proxy."""
        if isinstance(event, BreakerChange | Failover):
            concerned = list(self._runs.values())
        else:
            run = self._runs.get(RUN.get())
            concerned = [run] if run is not None else []
        for run in concerned:
            run.waiting.append(as_line(event, run.id, datetime.datetime.now(datetime.UTC)))
            run.news.set()

    def failed(self, target: HostPort, error: DialError) -> None:
        """A target could not be reached for somebody."""
        run = self._runs.get(RUN.get())
        if run is not None and isinstance(error, NoWayOut):
            run.no_way = str(target)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(IDLE / 4)
            for run in list(self._runs.values()):
                if self._clock() - run.seen > IDLE:
                    self.end(run.id)

    def _prefetch(self, run: Run, found: Found, asked: Mapping[str, Any]) -> None:
        from pathlib import Path

        from gotunnel.modproxy.gocommand import Settings
        from gotunnel.modproxy.prefetch import Prefetcher

        assert self._modules is not None
        assert run.opened is not None
        assert run.opened.proxy is not None
        assert run.opened.project is not None
        argv, directory = asked.get("argv"), asked.get("directory")
        if not isinstance(argv, list) or not isinstance(directory, str) or not directory.startswith("/"):
            return
        env = {name: str(value) for name, value in dict(asked.get("env") or {}).items()}
        settings = Settings(
            env,
            private=found.no_proxy_globs,
            modcache=found.gomodcache,
            local_go=found.goversion,
            platform=found.platform,
        )
        prefetcher = Prefetcher(run.opened.proxy, self._modules.store, run.opened.project, settings)
        self._modules.listen(run.id, prefetcher.asked)

        async def fetch() -> None:
            RUN.set(run.id)
            fetching = self._tasks.spawn("prefetch", prefetcher.run(Path(directory), [str(w) for w in argv]))
            while run.id in self._runs and not fetching.done():
                await asyncio.wait({fetching}, timeout=0.2)
            fetching.cancel()

        self._tasks.spawn("prefetch of a run", fetch())


def _parse(asked: Mapping[str, Any]) -> tuple[Found, str, list[str]]:
    """(what go is told there, its go.sum, mirrors).  Raises ConfigError."""
    told, sums, mirrors = asked.get("found"), asked.get("sums", ""), asked.get("mirrors", [])
    if not isinstance(told, dict) or not isinstance(sums, str) or not isinstance(mirrors, list):
        raise ConfigError("the service was asked nonsense; do gotunnel and the service have one version?")
    fields = {name: told[name] for name in _FIELDS if isinstance(told.get(name), str)}
    return Found(**fields), sums, [str(mirror) for mirror in mirrors]


def _again(asked: Mapping[str, Any]) -> tuple[str, str, str]:
    """Id and secrets (proxy, module proxy) of a run: those it had, if we were started anew meanwhile."""
    again = asked.get("again")
    if not isinstance(again, dict):
        return secrets.token_hex(6), new_secret(), ""
    run_id, secret, path = (str(again.get(name, "")) for name in ("id", "secret", "path"))
    if not re.fullmatch("[0-9a-f]{12} [A-Za-z0-9_-]{32} ([A-Za-z0-9_-]{32})?", f"{run_id} {secret} {path}"):
        raise ConfigError("again: want what this run was told at first")
    return run_id, secret, path


def describe(found: Found) -> dict[str, str]:
    """What a run tells of its go settings: no more than is needed."""
    return {name: getattr(found, name) for name in _FIELDS}
