"""The module proxy: a question becomes an answer.

    question -> private? filter? -> store -> flight -> sources, checked -> store -> answer

Rules:
- Private names are answered 404 and nobody is asked; what the filter denies is 403.
- Immutable files come from the store, once verified for the project that asks.  What isn't there is fetched
  once, however many ask (`flight`), by `receive`, and stored with what is known of it.
- Mutable answers are kept for `list_ttl` seconds and served stale, with a header that says so, when no source
  answers.  404 is an answer.  A failure is never remembered as missing.
- Offline nobody is asked.  What a module that is in the store lacks is 503, so that go stops and prints what
  is missing; a path of which nothing is there is 404 where go only looks for a module (`list`, `.info`).
- A store that can't be written costs the copy, not the answer: go gets the file from the spool, and a large
  zip for which there is none as it comes (`stream`), each asker its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from gotunnel.errors import ModuleError
from gotunnel.modproxy.answer import Answer, Body, Got, Project
from gotunnel.modproxy.dirhash import escape, unescape
from gotunnel.modproxy.filter import Filter, matches
from gotunnel.modproxy.flight import Flight, Flights, Gate
from gotunnel.modproxy.mirrors import Mirrors
from gotunnel.modproxy.negative import Brief
from gotunnel.modproxy.receive import FOUL, Arrived, Receiver
from gotunnel.modproxy.shelf import Shelf, Tell
from gotunnel.modproxy.sources import SourceList
from gotunnel.modproxy.stream import verified
from gotunnel.modproxy.target import Target, parse
from gotunnel.modproxy.version import key
from gotunnel.modproxy.walk import MISSING, Fetches, Unsure, Walk, discard, sourced
from gotunnel.observe.events import Emit, Fetch
from gotunnel.storage.store import Store, Stored, StoreError, read_all

__all__ = ["Answer", "Got", "ModProxy", "Project"]

SMALL = 64 << 10  # bytes; sent with the head in one write
ABSENT = 20.0  # seconds
UNREACHABLE = 5.0
_KINDS = {"info": "application/json", "query": "application/json", "latest": "application/json",
          "zip": "application/zip"}  # fmt: skip
_TEXT = "text/plain; charset=utf-8"


class ModProxy:
    """`clock` is monotonic, `wall` since the epoch, both in seconds; `tell` says one line to a person."""

    def __init__(
        self,
        sources: SourceList,
        fetcher: Fetches,
        store: Store,
        *,
        emit: Emit,
        list_ttl: float = 60.0,
        offline: bool = False,
        filter: Filter = Filter(),  # noqa: B008 - frozen
        hedge: float | str = "auto",
        connections: int = 64,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        tell: Tell = lambda line: None,
    ) -> None:
        self.store, self._fetcher, self._emit = store, fetcher, emit
        self._sources, self._filter, self._offline, self._list_ttl = sources, filter, offline, list_ttl
        self._clock, self._wall = clock, wall
        self._shelf, self._say = Shelf(store, tell), tell
        self._flights: Flights[Got] = Flights("modproxy")
        walk = Walk(sources, fetcher, Mirrors(clock, hedge), clock)
        self._receiver = Receiver(walk, store.spool, Gate(connections))
        self._absent: Brief[ModuleError] = Brief(ABSENT, clock)
        self._unreachable: Brief[ModuleError] = Brief(UNREACHABLE, clock)

    async def close(self) -> None:
        """End what is under way and close the connections; the store is its owner's."""
        await self._flights.close()
        await self._fetcher.close()

    # --- what is asked --------------------------------------------------------------------------

    async def answer(self, path: str, project: Project, *, priority: int = 0) -> Answer:
        """The answer to `path` (without the secret, still encoded).  Raises ModuleError."""
        started = self._clock()
        try:
            target = parse(path)
        except ValueError as error:
            raise ModuleError("module.not-found", str(error), http_status=400, subject=path[:200]) from None
        try:
            if target.kind == "sumdb":
                data = await self._sums(target, project)
                return Answer(200, (("Content-Type", _TEXT),), data, len(data), False)
            got, cached = await self._get(target, project, priority)
            while got.coming is not None and not got.take():  # it is another asker's
                got, cached = await self._get(target, project, priority)
            answer = self._as_it_comes(target, got, project, started) or await self._as_answer(
                target, got, cached
            )
        except ModuleError as error:
            self._failed(target, started, error)
            raise
        if cached:
            self._served(target, started, got, answer.size or 0)
        return answer

    async def ensure(self, target: Target, project: Project, *, priority: int = 1) -> Stored:
        """See to it that the store has it.  Raises ModuleError."""
        started = self._clock()
        try:
            got, _ = await self._get(target, project, priority)
            if got.coming is not None:
                if got.take():
                    discard(got.coming.fetched)
                raise _no_room(target)
        except ModuleError as error:
            self._failed(target, started, error)
            raise
        return got.stored

    async def _get(self, target: Target, project: Project, priority: int) -> tuple[Got, bool]:
        self._admit(target, project)
        if target.immutable:
            return await self._immutable(target, project, priority)
        return await self._mutable(target, project, priority)

    def _admit(self, target: Target, project: Project) -> None:
        if matches(project.private, target.module):
            raise ModuleError(
                "module.not-found",
                f"{target.module} is private (GOPRIVATE, GONOPROXY): no source was asked",
                http_status=404,
                subject=str(target),
            )
        reason = self._filter.denies(target.module, target.version)
        if reason:
            # on its way to github.com/good/x go asks for github.com/good: no error of its own
            passing = self._sources.ending != "direct" and self._filter.leads_to_allowed(target.module)
            status = 404 if passing and target.kind not in ("mod", "zip") else 403
            raise ModuleError(
                "http.forbidden", f"{target}: {reason}", http_status=status, subject=str(target)
            )

    def _admit_version(self, target: Target, info: bytes) -> None:
        """A branch may lead to a version that is denied."""
        named = str(json.loads(info).get("Version", ""))
        if reason := self._filter.denies(target.module, named):
            words = f"{target.module}@{named}: {reason}"
            raise ModuleError("http.forbidden", words, http_status=403, subject=str(target))

    async def _sums(self, target: Target, project: Project) -> bytes:
        if project.sumdb is None or target.module != project.sumdb_name:
            raise ModuleError(
                "gosumdb.off",
                f"{target.module} is not this project's checksum database",
                http_status=404,
                subject=target.name,
            )
        if target.rest.startswith("lookup/"):
            module = unescape(target.rest.removeprefix("lookup/").partition("@")[0])
            if matches(project.private, module):
                raise ModuleError(
                    "gosumdb.off",
                    f"{module} is private (GOPRIVATE, GONOPROXY): the checksum database was not asked",
                    http_status=404,
                    subject=target.name,
                )
        return b"" if target.rest == "supported" else await project.sumdb.answer(target.rest)

    # --- immutable ------------------------------------------------------------------------------

    async def _immutable(self, target: Target, project: Project, priority: int) -> tuple[Got, bool]:
        while True:
            stored = await self._shelf.get(target.name)
            replace = False
            if stored is not None:
                trusted = await self._shelf.trusted(target, stored, project.verifier)
                if trusted is not None:
                    source = trusted.labels.get("source", "")
                    return Got(trusted, project.id, source=source), True
                replace = True
            if self._offline:
                raise await self._missing(target, contradicts=replace)
            mine = False

            async def start(flight: Flight[Got], replace: bool = replace) -> Got:
                nonlocal mine
                mine = True
                return await self._obtain(target, project, flight, replace=replace)

            try:
                got, _ = await self._flights.join(target.name, start, priority=priority)
            except ModuleError as error:
                if not mine and error.finding.startswith("sum."):
                    continue  # another project's go.sum was against it: ours may not be
                raise
            if got.coming is None and got.project != project.id and target.kind in ("mod", "zip"):
                kind, labels = target.kind, got.stored.labels
                await project.verifier.check(
                    target.module, target.version, "mod" if kind == "mod" else "zip",
                    labels.get("h1", ""), labels.get("by", ""),
                )  # fmt: skip
            return got, not mine

    async def _obtain(self, target: Target, project: Project, flight: Flight[Got], *, replace: bool) -> Got:
        arrived = await self._receiver.get(target, project.verifier, lambda: flight.priority)
        fetched = arrived.fetched
        if fetched.pipe is not None:
            coming = Stored(target.name, fetched.pipe.size or 0, self._wall())
            return Got(coming, project.id, source=arrived.source.label, coming=arrived)
        loose = fetched.path
        labels = self._labels(arrived)
        content = fetched.data if fetched.data is not None else fetched.path
        assert content is not None
        try:
            stored = await self._shelf.put(
                target.name, content, labels, mutable=not target.immutable, replace=replace
            )
        except BaseException:
            discard(fetched)
            raise
        if stored is not None and stored.labels.get("h1", "") != arrived.h1:
            # somebody else's came first
            stored = await self._shelf.trusted(target, stored, project.verifier)
        if loose is not None and not loose.exists():
            loose = None
        if stored is None and fetched.data is None and loose is None:
            raise _no_room(target)
        known = stored or Stored(target.name, fetched.size, self._wall(), labels)
        return Got(
            known, project.id, fetched.data, loose, source=arrived.source.label, upstream=fetched.upstream
        )

    def _labels(self, arrived: Arrived) -> dict[str, str]:
        host = urlsplit(arrived.source.url).hostname or "file"
        labels = {"source": host, "fetched": f"{self._wall():.3f}"}
        if arrived.h1:
            labels |= {"h1": arrived.h1, "by": arrived.by}
        return labels

    # --- mutable --------------------------------------------------------------------------------

    async def _mutable(self, target: Target, project: Project, priority: int) -> tuple[Got, bool]:
        if (absent := self._absent.get(target.name)) is not None:
            raise _again(absent)
        stored = await self._shelf.get(target.name)
        if self._offline:
            return await self._offline_mutable(target, stored)
        if stored is not None:
            failing = self._unreachable.get(target.name)
            if failing is not None or 0 <= self._age(stored) < self._list_ttl:
                source = stored.labels.get("source", "")
                return Got(stored, source=source, stale=failing is not None), True
        try:
            got, own = await self._flights.join(
                target.name,
                lambda flight: self._obtain(target, project, flight, replace=False),
                priority=priority,
            )
        except ModuleError as error:
            if error.http_status in MISSING and not (stored and isinstance(error, Unsure)):
                if target.kind != "query" and not isinstance(error, Unsure):
                    self._absent.add(target.name, error)
                raise
            if stored is None:
                raise
            self._unreachable.add(target.name, error)
            return Got(stored, source=stored.labels.get("source", ""), stale=True), True
        return got, not own

    def _age(self, stored: Stored) -> float:
        try:
            return self._wall() - float(stored.labels.get("fetched", ""))
        except ValueError:
            return self._wall() - stored.stored_at

    # --- offline --------------------------------------------------------------------------------

    async def _offline_mutable(self, target: Target, stored: Stored | None) -> tuple[Got, bool]:
        if target.kind == "list":
            versions = await self._versions_here(target.module)
            if versions:
                data = "".join(f"{v}\n" for v in sorted(versions, key=key)).encode()
                return Got(Stored(target.name, len(data), self._wall()), data=data), True
        if stored is None:
            raise await self._missing(target)
        return Got(stored, stale=self._age(stored) >= self._list_ttl), True

    async def _versions_here(self, module: str) -> set[str]:
        """The versions whose zip is in the store: what can be used now."""
        found: set[str] = set()
        try:
            async for stored in self.store.names(f"{escape(module)}/@v/", labels=False):
                try:
                    here = parse(stored.name)
                except ValueError:
                    continue
                if here.kind == "zip":
                    found.add(here.version)
        except StoreError as error:
            self._shelf.fault(error)
        return found

    async def _knows(self, module: str) -> bool:
        """Whether a file of any version is in the store: then it is a module, and no mere part of a path."""
        try:
            async for _ in self.store.names(f"{escape(module)}/@v/v", labels=False):
                return True
        except StoreError as error:
            self._shelf.fault(error)
        return False

    async def _missing(self, target: Target, *, contradicts: bool = False) -> ModuleError:
        if contradicts:
            words = f"offline: {target} in the store is not what go.sum says"
            return ModuleError("sum.mismatch", words, http_status=503, subject=str(target))
        hard = target.kind in ("mod", "zip", "query") or (
            target.kind == "info" and await self._knows(target.module)
        )
        what = f"{target.module} ({target.kind})" if target.kind in ("list", "latest") else str(target)
        words = f"offline: {what} is not in the store"
        return ModuleError("module.not-found", words, http_status=503 if hard else 404, subject=str(target))

    # --- answers --------------------------------------------------------------------------------

    def _as_it_comes(self, target: Target, got: Got, project: Project, started: float) -> Answer | None:
        """An answer of what is still coming; None where it is at hand."""
        if got.coming is None or got.coming.fetched.pipe is None:
            return None
        pipe, source = got.coming.fetched.pipe, got.coming.source

        def failed(error: ModuleError) -> None:
            self._failed(target, started, error)
            if error.finding in FOUL:
                self._receiver.distrust(source)
            self._say(f"{target} was cut off before its end: {error.finding}: {sourced(error)}")

        body = verified(target, pipe, got.coming.fetched, project.verifier, failed)
        return Answer(200, (("Content-Type", _KINDS["zip"]),), body, pipe.size, False, keep=got)

    async def _as_answer(self, target: Target, got: Got, cached: bool) -> Answer:
        headers = [("Content-Type", _KINDS.get(target.kind, _TEXT))]
        stored, body = got.stored, got.data
        if got.stale:
            headers += [("Warning", '110 gotunnel "Response is Stale"')]
        if not target.immutable:
            headers += [("Age", str(max(0, int(self._age(stored)))))]
        elif h1 := stored.labels.get("h1"):
            # of these very bytes: the sum alone is the same for zips that differ
            headers += [("ETag", f'"{h1}.{stored.size}.{stored.labels.get("fetched", "")}"')]
        content: Body
        if body is not None:
            content = body
        elif got.loose is not None:
            content = got.loose
        else:
            content = await self._stored_body(target, stored)
        if target.kind == "list" and isinstance(content, bytes):
            content = self._filter.without_denied(target.module, content)
        if target.kind in ("latest", "query") and self._filter and isinstance(content, bytes):
            self._admit_version(target, content)
        size = len(content) if isinstance(content, bytes) else stored.size
        return Answer(200, tuple(headers), content, size, cached, keep=got)

    async def _stored_body(self, target: Target, stored: Stored) -> Body:
        try:
            path = await self.store.local(stored)
            if stored.size <= SMALL or target.kind == "list":
                return path.read_bytes() if path else await read_all(self.store, stored)
            return path or self.store.read(stored)
        except (StoreError, OSError) as error:
            raise ModuleError(
                "cache.permission",
                f"{target}: the store lost it: {error}",
                http_status=500,
                subject=str(target),
            ) from error

    # --- events: what the fetcher did itself it has told itself ----------------------------------

    def _served(self, target: Target, started: float, got: Got, size: int) -> None:
        ms = (self._clock() - started) * 1000
        self._emit(Fetch(target.name, got.source, "", size, ms, True))

    def _failed(self, target: Target, started: float, error: ModuleError) -> None:
        if error.source and error.finding not in FOUL:
            return
        ms = (self._clock() - started) * 1000
        self._emit(
            Fetch(target.name, error.source, error.upstream, 0, ms, False, error.finding, error.detail)
        )


def _no_room(target: Target) -> ModuleError:
    words = f"{target} could not be kept"
    return ModuleError("disk.full", words, http_status=500, subject=str(target))


def _again(error: ModuleError) -> ModuleError:
    return ModuleError(
        error.finding, error.detail, http_status=error.http_status,
        subject=error.subject, source=error.source, upstream=error.upstream,
    )  # fmt: skip
