"""The fetcher: a file from a source, whatever happens to the way out, or a `ModuleError` that says why not.

Rules:
- What is handed over is whole by the transfer's own measure, but not verified: the caller hashes it.
- After an error or a cancel nothing is left: no connection, no task, no spool file.
- A file:// source is a directory in go's layout (go help goproxy); nothing outside it is read.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from gotunnel.address import one_line, redact
from gotunnel.errors import ModuleError
from gotunnel.modproxy.client import Connections, Gate, Url
from gotunnel.modproxy.credentials import NONE, Credentials
from gotunnel.modproxy.failed import Failed, local
from gotunnel.modproxy.part import Timing
from gotunnel.modproxy.spool import Spool
from gotunnel.modproxy.transfer import Transfer
from gotunnel.observe.events import Emit, Fetch
from gotunnel.tasks import in_thread
from gotunnel.upstream.dialer import Ways
from gotunnel.upstream.tls import client_context

_KEPT = ("etag", "last-modified", "content-type")
_PIECE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """One entry of a GOPROXY list: http, https or file; `url` without a slash at its end.

    `url` may hold userinfo, so it is never shown; `label` may be.
    """

    url: str = field(repr=False)
    label: str = ""

    def __post_init__(self) -> None:
        if not self.label:
            object.__setattr__(self, "label", one_line(redact(self.url)))


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file as it came.  `path` (the caller's to remove) or `data`; `ms` the time it took.

    `source` is the source's label, `upstream` the way out that gave its last bytes, `resumed` how often it
    went on after a break.
    """

    path: Path | None
    data: bytes | None
    size: int
    source: str
    upstream: str
    headers: Mapping[str, str]
    ms: float
    resumed: int = 0
    status: int = 200


class Fetcher:
    """Fetches over `ways`; one for the whole process.

    `stall`, `first_byte`: seconds, see `Timing`.  `connections`: transfers at once.
    """

    def __init__(
        self,
        ways: Ways,
        *,
        emit: Emit,
        stall: float = 5.0,
        first_byte: float = 60.0,
        connections: int = 64,
        context: Callable[[], ssl.SSLContext] = client_context,
        credentials: Credentials = NONE,
    ) -> None:
        self._connections = Connections(ways, context=context, credentials=credentials)
        self._gate = Gate(connections)
        self._timing = Timing(stall, first_byte)
        self._emit = emit

    async def fetch(
        self,
        source: Source,
        path: str,
        *,
        limit: int,
        spool: Path | None,
        priority: int = 0,
        subject: tuple[str, str] = ("", ""),
        whole: bool = False,
        avoid: frozenset[str] = frozenset(),
    ) -> Fetched:
        """`path` below `source`, at most `limit` bytes, into a new file in the directory `spool` or memory.

        `path` is escaped as go does it (`!x`), not %-encoded.  `priority` 0 is demand, which goes before
        prefetch.  `subject`: module and version, for events and errors.  `whole`: join nothing, start from
        zero after each break.  `avoid`: ways out to be tried last.  Raises ModuleError.
        """
        started = time.monotonic()
        via, size, failure = "", 0, None
        try:
            if source.url.lower().startswith("file:"):
                got = await in_thread("read a file source", lambda: _read(source, path, limit, spool))
            else:
                got = await self._over_http(source, path, limit, spool, priority, subject, whole, avoid)
            via, size = got.upstream, got.size
            return got
        except ModuleError as error:
            error.source = error.source or source.label
            module, version = subject
            error.subject = error.subject or (f"{module}@{version}" if version else module or path)
            via, failure = error.upstream, error
            raise
        finally:
            done = failure is not None or size or via
            if done:
                words = (failure.finding, failure.detail) if failure is not None else (None, None)
                ms = (time.monotonic() - started) * 1000
                self._emit(Fetch(path, source.label, via, size, ms, False, *words))

    async def _over_http(
        self,
        source: Source,
        path: str,
        limit: int,
        spool: Path | None,
        priority: int,
        subject: tuple[str, str],
        whole: bool,
        avoid: frozenset[str],
    ) -> Fetched:
        try:
            url = Url.parse(f"{source.url.rstrip('/')}/{quote(path, safe='/@:$&+=~')}")
        except ValueError as error:
            raise ModuleError("goproxy.malformed", str(error), http_status=502) from None
        async with self._gate.pass_through(priority):
            started = time.monotonic()
            into = Spool(spool, limit)
            transfer = Transfer(
                self._connections, self._gate, url, into, self._timing, self._emit, subject, avoid, whole
            )
            try:
                await transfer.run()
                into.finish()
            except BaseException:
                into.discard()
                raise
        assert transfer.head is not None
        found = {name: transfer.head.header(name) for name in _KEPT}
        return Fetched(
            path=into.path,
            data=bytes(into.memory) if into.path is None else None,
            size=transfer.offset,
            source=source.label,
            upstream=transfer.via,
            headers={name: value for name, value in found.items() if value},
            ms=(time.monotonic() - started) * 1000,
            resumed=transfer.resumed,
        )

    async def close(self) -> None:
        """Close every connection; what is under way fails."""
        await self._connections.close()


def _read(source: Source, path: str, limit: int, spool: Path | None) -> Fetched:
    """A file of a file:// source.  Blocks.  Raises ModuleError."""
    started = time.monotonic()
    parts = urlsplit(source.url)
    base = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not base.is_absolute():
        raise ModuleError("goproxy.malformed", f"{source.label}: want file:///DIR")
    wanted = base / path
    try:
        inside = "\0" not in path and wanted.resolve().is_relative_to(base.resolve())
        if not inside or any(part in ("", ".", "..") for part in path.split("/")):
            raise Failed("unknown", f"{source.label}: {one_line(path, 200)!r} is no path in it", again=False)
        with wanted.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            into = Spool(spool, limit)
            try:
                place = 0
                while data := file.read(_PIECE):
                    into.write(data, place)
                    place += len(data)
                into.finish()
            except BaseException:
                into.discard()
                raise
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        words = f"not found: {source.label} has no {one_line(path, 200)}"
        raise Failed("module.not-found", words, again=False, http_status=404) from None
    except OSError as error:
        raise local(error, f"{source.label}/{one_line(path, 200)}") from error
    ms = (time.monotonic() - started) * 1000
    data_in = bytes(into.memory) if into.path is None else None
    return Fetched(into.path, data_in, max(size, place), source.label, "", {}, ms)
