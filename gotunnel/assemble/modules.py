"""The module proxy over an engine: store, fetcher, checksum databases, server, and a project for each run.

Rules:
- Every byte from outside comes by the engine's ways out, those of the checksum database included.
- A run gets a secret of its own; what it may have, and by what it is verified, is its `Project`.
- Nothing heavy is imported before the first request, or before something is to be prefetched.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from gotunnel.address import HostPort
from gotunnel.assemble.engine import credentials
from gotunnel.config.model import Config, Tls
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError, DialError, ModuleError
from gotunnel.goenv import DEFAULT_GOPROXY, Found, first_source, with_mirrors
from gotunnel.listener.auth import matches, new_secret
from gotunnel.listener.sockets import address_of, bind, reached_at
from gotunnel.listener.tls import server_context
from gotunnel.observe.events import RUN, Emit
from gotunnel.upstream.dialer import Stream, Ways

if TYPE_CHECKING:
    from gotunnel.modproxy.fetch import Fetcher, Source
    from gotunnel.modproxy.gosum import GoSum
    from gotunnel.modproxy.proxy import Answer, ModProxy, Project
    from gotunnel.modproxy.server import Server
    from gotunnel.modproxy.sources import SourceList
    from gotunnel.modproxy.sumdb import SumDB, SumDBSetting
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
        try:
            temporary = tempfile.mkdtemp(prefix="gotunnel-")
        except OSError as error:
            words = f"no place for modules: {error.strerror}; set XDG_CACHE_HOME, TMPDIR or [cache] url"
            raise ConfigError(words) from error
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
    """What a run has of the module proxy: `goproxy` is the list for CMD, "" leaves the user's own."""

    goproxy: str
    secret: str = ""
    project: Project | None = None
    proxy: ModProxy | None = None


class Modules:
    """The module proxy of one engine: `start` listens, `open` lets a run in."""

    def __init__(
        self,
        config: Config,
        ways: Ways,
        store: Store,
        *,
        emit: Emit,
        tell: Callable[[str], None],
        on_failure: Callable[[HostPort, DialError], None] = lambda target, error: None,
        offline: bool = False,
        shared: bool = False,
    ) -> None:
        """`shared`: for others too, and so inside TLS where that is configured."""
        self._config, self._for_others = config, shared
        self._tls = config.listen.tls if shared else Tls()
        self._ways: Ways = _Reporting(ways, on_failure)
        self._emit, self._tell = emit, tell
        self._offline = offline or config.cache.offline
        self._socket: socket.socket | None = None
        self._server: Server | None = None
        self._fetcher: Fetcher | None = None
        self._proxies: dict[str, ModProxy] = {}  # by the list of sources
        self._retired: list[ModProxy] = []
        self._databases: dict[tuple[str, str], SumDB | None] = {}  # by GOSUMDB and the list of sources
        self._of: dict[str, ModProxy] = {}  # by run
        self._listeners: dict[str, Callable[[str], None]] = {}
        self.store = store
        self.address: HostPort | None = None
        self.beyond = DEFAULT_GOPROXY  # for whom GOPROXY is ourselves: who asked us would wait for us

    async def start(self, where: HostPort | socket.socket) -> HostPort:
        """Listen; who connects before the rest is ready waits.  Raises ConfigError."""
        from gotunnel.modproxy.server import Server

        self._socket = where if isinstance(where, socket.socket) else bind(where, "listen.modproxy")
        self.address = address_of(self._socket)
        tls = self._tls
        context = server_context(tls.cert, tls.key, tls.client_ca) if tls.cert else None
        self._server = Server(self, check=self._check(), context=context)
        await self._server.start(self._socket)
        return self.address

    def url(self, secret: str) -> str:
        """Its URL for whom `secret` lets in; "" is the shared mode."""
        assert self.address is not None
        scheme = "https" if self._tls.cert else "http"
        return f"{scheme}://{reached_at(self.address)}/{secret}".rstrip("/")

    @property
    def shared(self) -> bool:
        """Whether it serves below `/` too: who comes shows a password or a certificate.

        go sends a password in TLS only, which may also be that of a balancer before us.
        """
        listen = self._config.listen
        return self._for_others and (listen.auth.mode == "user" or bool(listen.tls.client_ca))

    def _check(self) -> Callable[[str, str], bool] | None:
        """What a user and a password are held against, in the shared mode."""
        if not self.shared or self._config.listen.auth.mode != "user":
            return None
        user, secret = credentials(self._config)
        return lambda name, given: matches(name.encode(), given.encode(), secret, user)

    async def answer(self, path: str, project: Project, *, priority: int = 0) -> Answer:
        """What the server asks.  Raises ModuleError."""
        RUN.set(project.id)
        if (listener := self._listeners.get(project.id)) is not None:
            listener(unquote(path))
        return await self._of[project.id].answer(path, project, priority=priority)

    async def open(
        self,
        found: Found,
        sums: GoSum,
        *,
        run_id: str,
        mirrors: Sequence[str] = (),
        secret: str = "",
        everybody: bool = False,
    ) -> Opened:
        """Let a run in: `found` is what go is told there, `sums` its main module's.  `everybody`
        opens the shared mode instead, below `/`.

        A run whose GOPROXY or GOSUMDB go would refuse gets none of it.  Raises ConfigError for a GOSUMDB of a
        service's own.
        """
        from gotunnel.modproxy.proxy import Project
        from gotunnel.modproxy.sources import child_goproxy, parse_list
        from gotunnel.modproxy.verify import Verifier

        goproxy = self.beyond if self.is_ours(found.goproxy) else found.goproxy
        listed = with_mirrors(goproxy, mirrors) if mirrors else goproxy
        try:
            sources = parse_list(listed, mirrors)
        except ValueError:
            return Opened(listed if mirrors else "")  # go says itself what is wrong
        if not sources.entries and not self._offline:
            return Opened(listed if mirrors else "")  # direct or off among the mirrors
        try:
            database = self._database(found.gosumdb, sources, listed)
        except ValueError as error:
            if run_id and not everybody:
                return Opened(listed if mirrors else "")  # go says so itself, where it needs the database
            raise ConfigError(f"{error}; go env -u GOSUMDB restores the default") from None
        proxy = self._proxy(sources, listed)
        globs = self._config.go.private
        project = Project(
            id=run_id,
            verifier=Verifier(sums, ",".join(filter(None, [found.no_sumdb_globs, *globs])), database),
            private="" if self._offline else ",".join(filter(None, [found.no_proxy_globs, *globs])),
            sumdb_name=database.name if database is not None else "",
            sumdb=database,
        )
        self._of[run_id] = proxy
        assert self._server is not None
        secret = "" if everybody else secret or new_secret()
        self._server.add(secret, project)
        goproxy = child_goproxy(
            sources,
            self.url(secret),
            filtered=bool(self._config.go.filter),
            offline=self._offline,
        )
        return Opened(goproxy, secret, project, proxy)

    def is_ours(self, goproxy: str) -> bool:
        """Whether the list begins with this module proxy, as for whom took `gotunnel env` for good."""
        with contextlib.suppress(ValueError):
            named = HostPort.parse(urlsplit(first_source(goproxy)).netloc.rpartition("@")[2])
            return self.address is not None and named == reached_at(self.address)
        return False

    def listen(self, run_id: str, asked: Callable[[str], None]) -> None:
        """`asked` hears of every path that this run's go asks for."""
        self._listeners[run_id] = asked

    def shut(self, opened: Opened) -> None:
        """The run is over: its secret opens nothing any more."""
        if self._server is not None and opened.project is not None:
            self._server.remove(opened.secret)
            self._of.pop(opened.project.id, None)
            self._listeners.pop(opened.project.id, None)

    def reload(self, config: Config) -> None:
        """Filter, list_ttl and the like of a new configuration, for those who come from now on."""
        self._config = config
        self._retired += self._proxies.values()  # their runs go on with what they began with
        self._proxies = {}

    async def prepare(self) -> None:
        """Import now what the first answer needs."""
        if self._server is not None:
            await self._server.prepare()

    async def close(self) -> None:
        """Stop listening, end what is under way; the store is its owner's."""
        if self._server is not None:
            await self._server.close()
        for database in self._databases.values():
            if database is not None:
                await database.close()
        for proxy in (*self._proxies.values(), *self._retired):
            await proxy.close()

    # --- parts ---------------------------------------------------------------------------------------

    def fetcher(self) -> Fetcher:
        """The one fetcher of all proxies."""
        if self._fetcher is None:
            from gotunnel.modproxy.credentials import read_credentials
            from gotunnel.modproxy.fetch import Fetcher

            credentials, complaints = read_credentials(os.environ, os.environ.get("GOAUTH", "netrc"))
            for line in complaints:
                self._tell(line)
            stall = self._config.pool.stall
            self._fetcher = Fetcher(self._ways, emit=self._emit, stall=stall, credentials=credentials)
        return self._fetcher

    def _proxy(self, sources: SourceList, listed: str) -> ModProxy:
        if listed not in self._proxies:
            from gotunnel.modproxy.filter import Filter
            from gotunnel.modproxy.proxy import ModProxy

            try:
                rules = Filter.parse(rule.as_table() for rule in self._config.go.filter)
            except ValueError as error:
                raise ConfigError(str(error)) from None
            self._proxies[listed] = ModProxy(
                sources,
                self.fetcher(),
                self.store,
                emit=self._emit,
                list_ttl=self._config.cache.list_ttl,
                offline=self._offline,
                filter=rules,
                hedge=self._config.pool.hedge,
                tell=self._tell,
            )
        return self._proxies[listed]

    def _database(self, setting: str, sources: SourceList, listed: str) -> SumDB | None:
        """The checksum database that GOSUMDB names, None where it is off.  Raises ValueError."""
        key = (setting, listed)
        if key not in self._databases:
            from gotunnel.modproxy.sumdb import SumDB, parse_gosumdb

            parsed = parse_gosumdb(setting)
            self._databases[key] = None
            if parsed is not None:
                path = SumPath(parsed, sources, self.fetcher, offline=self._offline)
                self._databases[key] = SumDB(parsed, path.fetch, self.store)
        return self._databases[key]


class SumPath:
    """How a checksum database is reached: through the first source that carries it, else by itself.

    As cmd/go/internal/modfetch/sumdb.go does it: a URL in GOSUMDB goes past the sources; 404 and 410 to
    `/supported` lead to the next source, at last to the database; what was found holds for the whole run.
    """

    def __init__(
        self,
        setting: SumDBSetting,
        sources: SourceList,
        fetcher: Callable[[], Fetcher],
        *,
        offline: bool,
    ) -> None:
        self._setting, self._sources, self._fetcher = setting, sources, fetcher
        self._offline = offline
        self._base: tuple[Source, str] | None = None
        self._finding = asyncio.Lock()

    async def fetch(self, path: str) -> bytes:
        """What stands at `path` of the database.  Raises ModuleError."""
        if self._offline:
            raise ModuleError(
                "sum.unverifiable",
                f"offline: {path} of {self._setting.name} is not in the store",
                http_status=503,
                subject=path,
            )
        async with self._finding:
            if self._base is None:
                self._base = await self._find()
        source, prefix = self._base
        return await self._get(source, prefix + path)

    async def _find(self) -> tuple[Source, str]:
        from gotunnel.modproxy.fetch import Source
        from gotunnel.modproxy.sources import after_error

        name = self._setting.name
        if not self._setting.url:
            for source, separator in self._sources.entries:
                try:
                    await self._get(source, f"sumdb/{name}/supported")
                except ModuleError as error:
                    if after_error(separator, error):
                        continue
                    raise
                return source, f"sumdb/{name}/"
        return Source(self._setting.base), ""

    async def _get(self, source: Source, path: str) -> bytes:
        found = await self._fetcher().fetch(source, path, limit=1 << 20, spool=None)
        return found.data or b""
