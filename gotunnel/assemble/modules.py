"""The module proxy over an engine: store, fetcher, checksum databases, server, and a project for each run.

Rules:
- Every byte from outside comes by the engine's ways out, those of the checksum database included.
- A run gets a secret of its own; what it may have, and by what it is verified, is its `Project`.
- Nothing heavy is imported before the first request, or before something is to be prefetched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gotunnel.address import HostPort
from gotunnel.config.model import Config
from gotunnel.errors import ConfigError, DialError, ModuleError
from gotunnel.goenv import Found
from gotunnel.listener.auth import new_secret
from gotunnel.observe.events import Emit
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import Stream, Ways

if TYPE_CHECKING:
    from gotunnel.modproxy.fetch import Fetcher
    from gotunnel.modproxy.prefetch import Progress
    from gotunnel.modproxy.proxy import ModProxy, Project
    from gotunnel.modproxy.server import Server
    from gotunnel.modproxy.sources import SourceList
    from gotunnel.modproxy.sumdb import SumDB
    from gotunnel.storage.store import Store


def store_url(config: Config, environ: dict[str, str] | os._Environ[str] = os.environ) -> str:
    """Where the store is: `cache.url`, else the user's cache directory; "" where there is none."""
    if config.cache.url:
        return config.cache.url
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = environ.get("HOME", "")
        if not os.path.isabs(home):
            return ""
        base = os.path.join(home, ".cache")
    return Path(base, "gotunnel").as_uri()


@contextlib.asynccontextmanager
async def opened_store(config: Config, *, proxy_url: str = "") -> AsyncIterator[Store]:
    """The store, a temporary one where there is no place for one.  Raises ConfigError, StoreError."""
    from gotunnel.storage import open_store

    url, temporary = store_url(config), ""
    if not url:
        temporary = tempfile.mkdtemp(prefix="gotunnel-")
        url = Path(temporary).as_uri()
    store = open_store(url, proxy_url=proxy_url)
    try:
        yield store
    finally:
        await store.close()
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)


class _Reporting:
    """The engine's ways out; a target that none of them reached is reported as the endpoint does it."""

    def __init__(self, ways: Ways, on_failure: Callable[[HostPort, DialError], None]) -> None:
        self._ways, self._on_failure = ways, on_failure

    @property
    def label(self) -> str:
        return self._ways.label

    def ways(self, target: HostPort) -> tuple[str, ...]:
        return self._ways.ways(target)

    def stalled(self, target: HostPort, name: str) -> None:
        self._ways.stalled(target, name)

    async def dial(self, target: HostPort) -> Stream:
        return await self.dial_by(target)

    async def dial_by(
        self, target: HostPort, *, only: str = "", avoid: frozenset[str] = frozenset()
    ) -> Stream:
        try:
            return await self._ways.dial_by(target, only=only, avoid=avoid)
        except DialError as error:
            self._on_failure(target, error)
            raise

    async def warm(self) -> None:
        await self._ways.warm()

    async def close(self) -> None:
        """The engine closes its own."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What a run has of the module proxy: `goproxy` is CMD's list, secret included."""

    secret: str
    goproxy: str
    project: Project
    proxy: ModProxy


class Modules:
    """The module proxy of one engine; `start` binds, `open` lets a run in, `close` leaves nothing behind."""

    def __init__(
        self,
        config: Config,
        ways: Ways,
        *,
        emit: Emit,
        tell: Callable[[str], None],
        on_failure: Callable[[HostPort, DialError], None] = lambda target, error: None,
        proxy_url: Callable[[], str] = lambda: "",
        offline: bool = False,
    ) -> None:
        """`proxy_url` is asked for when an object store is opened, whose own HTTP goes by our endpoint."""
        self._config = config
        self._ways: Ways = _Reporting(ways, on_failure)
        self._emit, self._tell = emit, tell
        self._proxy_url = proxy_url
        self._offline = offline or config.cache.offline
        self._tasks = Tasks("modules")
        self._socket: socket.socket | None = None
        self._stack = contextlib.AsyncExitStack()
        self._server: Server | None = None
        self._fetcher: Fetcher | None = None
        self._store: Store | None = None
        self._proxies: dict[str, ModProxy] = {}
        self._databases: dict[str, SumDB | None] = {}
        self.address: HostPort | None = None

    async def start(self, where: HostPort | socket.socket) -> HostPort:
        """Listen; who connects before the rest is ready waits.  Raises ConfigError."""
        self._socket = where if isinstance(where, socket.socket) else bind(where, "listen.modproxy")
        self.address = address_of(self._socket)
        return self.address

    async def open(self, found: Found, directory: Path, *, run_id: str, mirrors: Sequence[str] = ()) -> Opened:
        """Let a run in: what go is told there (`found`), in the directory of its main module.

        Raises ConfigError, StoreError.
        """
        from gotunnel.modproxy.gosum import read_go_sums
        from gotunnel.modproxy.proxy import Project
        from gotunnel.modproxy.sources import child_goproxy, parse_list
        from gotunnel.modproxy.verify import Verifier

        listed = with_mirrors(found.goproxy, mirrors) if mirrors else found.goproxy
        sources = parse_list(listed)
        proxy = await self._proxy(sources, listed)
        database = self._database(found.gosumdb, sources)
        private = ",".join(filter(None, [found.no_proxy_globs, *self._config.go.private]))
        unsummed = ",".join(filter(None, [found.no_sumdb_globs, *self._config.go.private]))
        sums = await asyncio.to_thread(read_go_sums, directory)
        project = Project(
            id=run_id,
            verifier=Verifier(sums, unsummed, database),
            private="" if self._offline else private,
            sumdb=database,
        )
        server = await self._serve()
        secret = new_secret()
        server.add(secret, proxy, project)
        assert self.address is not None
        url = f"http://{self.address}/{secret}"
        goproxy = child_goproxy(sources, url, filtered=bool(self._config.go.filter), offline=self._offline)
        return Opened(secret, goproxy, project, proxy)
