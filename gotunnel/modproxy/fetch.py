"""The fetcher: a file from a source, whatever happens to the way out, or a `ModuleError` that says why not.

Rules:
- What is handed over is whole by the transfer's own measure, but not verified: the caller hashes it.
- After an error or a cancel nothing is left: no connection, no task, no spool file.
- What fits nowhere is handed over as a `Pipe` while it comes; then its end is told by the pipe.
- A file:// source is a directory in go's layout (go help goproxy); nothing outside it is read.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from gotunnel.address import one_line, redact
from gotunnel.dataclass import dataclass
from gotunnel.errors import ModuleError
from gotunnel.modproxy.client import Connections, Gate, Url
from gotunnel.modproxy.credentials import NONE, Credentials
from gotunnel.modproxy.failed import Failed, local
from gotunnel.modproxy.part import Timing
from gotunnel.modproxy.pipe import Pipe
from gotunnel.modproxy.spool import Spool
from gotunnel.modproxy.transfer import Transfer
from gotunnel.observe.events import Emit, Fetch
from gotunnel.tasks import Tasks, in_thread
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

    With `pipe` it is still coming: neither is there, nor `size`, and the caller reads or gives up the pipe.

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
    pipe: Pipe | None = None


@dataclass(frozen=True, slots=True)
class _Job:
    """What `Fetcher.fetch` was asked for."""

    source: Source
    path: str
    subject: tuple[str, str]
    priority: int
    whole: bool
    avoid: frozenset[str]


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
        self._tasks = Tasks("fetcher")

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
        keep: int | None = None,
    ) -> Fetched:
        """`path` below `source`, at most `limit` bytes, into a new file in the directory `spool` or memory.

        `path` is escaped as go does it (`!x`), not %-encoded.  `priority` 0 is demand, which goes before
        prefetch.  `subject`: module and version, for events and errors.  `whole`: join nothing, start from
        zero after each break.  `avoid`: ways out to be tried last.  `keep`: in memory so many bytes are kept,
        and what is larger comes as a pipe.  Raises ModuleError.
        """
        started = time.monotonic()
        via, size, failure = "", 0, None
        try:
            if source.url.lower().startswith("file:"):
                most = limit if spool is not None or keep is None else keep
                got = await in_thread("read a file source", lambda: _read(source, path, most, spool))
            else:
                job = _Job(source, path, subject, priority, whole, avoid)
                if spool is not None or keep is None:
                    got = await self._whole(job, limit, spool)
                else:
                    got = await self._by_pipe(job, Pipe(limit, keep))
            if got.pipe is None:
                via, size = got.upstream, got.size
            return got
        except ModuleError as error:
            _name(error, source, path, subject)
            via, failure = error.upstream, error
            raise
        finally:
            if failure is not None or size or via:
                self._tell(path, source, via, size, started, failure)

    def _tell(
        self, path: str, source: Source, via: str, size: int, started: float, failure: ModuleError | None
    ) -> None:
        words = (failure.finding, failure.detail) if failure is not None else (None, None)
        ms = (time.monotonic() - started) * 1000
        self._emit(Fetch(path, source.label, via, size, ms, False, *words))

    def _transfer(self, job: _Job, into: Spool) -> Transfer:
        try:
            url = Url.parse(f"{job.source.url.rstrip('/')}/{quote(job.path, safe='/@:$&+=~')}")
        except ValueError as error:
            raise ModuleError("goproxy.malformed", str(error), http_status=502) from None
        return Transfer(
            self._connections, self._gate, url, into, self._timing, self._emit, job.subject, job.avoid,
            job.whole,
        )  # fmt: skip

    async def _whole(self, job: _Job, limit: int, spool: Path | None) -> Fetched:
        async with self._gate.pass_through(job.priority):
            started = time.monotonic()
            into = Spool(spool, limit)
            try:
                transfer = self._transfer(job, into)
                await transfer.run()
                into.finish()
            except BaseException:
                into.discard()
                raise
        return _fetched(job.source, transfer, started)

    async def _by_pipe(self, job: _Job, pipe: Pipe) -> Fetched:
        """What the pipe kept whole, or the pipe as soon as it flows."""
        started = time.monotonic()
        transfer = self._transfer(job, pipe)
        pipe.filled_by(self._tasks.spawn("pipe", self._fill(job, transfer, pipe)))
        try:
            flows = await pipe.begun()
        except BaseException:
            pipe.give_up()
            raise
        return _fetched(job.source, transfer, started, pipe if flows else None)

    async def _fill(self, job: _Job, transfer: Transfer, pipe: Pipe) -> None:
        started = time.monotonic()
        failure: ModuleError | None = None
        try:
            async with self._gate.pass_through(job.priority):
                await transfer.run()
        except ModuleError as error:
            _name(error, job.source, job.path, job.subject)
            failure = error
        if pipe.flows:
            via = failure.upstream if failure is not None else transfer.via
            self._tell(job.path, job.source, via, transfer.offset, started, failure)
        pipe.end(failure)

    async def close(self) -> None:
        """Close every connection; what is under way fails."""
        await self._tasks.close()
        await self._connections.close()


def _name(error: ModuleError, source: Source, path: str, subject: tuple[str, str]) -> None:
    """Say in the error what was asked of whom."""
    error.source = error.source or source.label
    module, version = subject
    error.subject = error.subject or (f"{module}@{version}" if version else module or path)


def _fetched(source: Source, transfer: Transfer, started: float, pipe: Pipe | None = None) -> Fetched:
    """What a transfer brought, or brings by `pipe`."""
    into, found = transfer.spool, {}
    if transfer.head is not None:
        found = {name: transfer.head.header(name) for name in _KEPT}
    return Fetched(
        path=into.path,
        data=bytes(into.memory) if into.path is None and pipe is None else None,
        size=transfer.offset,
        source=source.label,
        upstream=transfer.via,
        headers={name: value for name, value in found.items() if value},
        ms=(time.monotonic() - started) * 1000,
        resumed=transfer.resumed,
        pipe=pipe,
    )


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
