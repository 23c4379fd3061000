"""From source to source in go's order, until one has the file.

Rules:
- `,` goes on after 404 and 410 only, `|` after any error: `SourceList` and `after_error` say it.
- Equal mirrors are asked the healthiest first; one that is slow to answer is hedged by the next, for
  immutable files only.  The loser is cancelled.
- Where several sources failed one after the other, and one of them in a way that may pass, all are asked
  again (ROUNDS) before go hears of it, which asks once: it may have lost its way out just at its turn.
- What is told in the end: what decides whether go itself would go on to the `direct` of its list is the last
  source's word; else a source that couldn't be asked weighs more than one that said 404.
- Wrong bytes weigh most: go must not hear of a 404 where something is foul.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from gotunnel.dataclass import dataclass
from gotunnel.errors import ModuleError
from gotunnel.modproxy.fetch import Fetched, Source
from gotunnel.modproxy.mirrors import Mirrors
from gotunnel.modproxy.sources import SourceList, after_error
from gotunnel.modproxy.target import Target
from gotunnel.tasks import Tasks

MISSING = (404, 410)


class Unsure(ModuleError):
    """404, as the last source said; another one couldn't be asked."""


class Fetches(Protocol):
    """What is needed of a Fetcher."""

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
        """The body of `path` at `source`.  Raises ModuleError."""

    async def close(self) -> None:
        """Close every connection."""


ROUNDS = (0.5, 1.0)  # seconds before the second and the third time that all sources are asked
HURRY = 4.0  # seconds from the first question after which no round is begun
_FINAL = frozenset({"http.unauthorized", "http.forbidden", "sum.mismatch", "module.bad-zip"})
LOCAL = frozenset({"disk.full", "cache.permission"})  # no source is to blame, and none does better


@dataclass(frozen=True, slots=True)
class Ask:
    """What is fetched and how: at most `limit` bytes, into a file below `spool` or into memory.

    `keep`: of what goes into memory, the bytes from which on it is a pipe.
    """

    target: Target
    limit: int
    spool: Path | None
    priority: int = 0
    whole: bool = False
    avoid: frozenset[str] = frozenset()
    keep: int | None = None


class Walk:
    """The sources, and what was learnt of their health; `clock` is monotonic, in seconds."""

    def __init__(
        self, sources: SourceList, fetcher: Fetches, mirrors: Mirrors, clock: Callable[[], float]
    ) -> None:
        self.sources, self.mirrors = sources, mirrors
        self._groups = sources.groups()
        self._fetcher, self._clock = fetcher, clock

    async def fetch(self, ask: Ask, failed: Mapping[str, ModuleError]) -> tuple[Source, Fetched]:
        """The first source that has it; those in `failed` (by URL) are taken to have failed so.

        Raises ModuleError.
        """
        started = self._clock()
        for pause in (*ROUNDS, None):
            errors: dict[str, ModuleError] = {}
            found, through = await self._through(ask, failed, errors)
            if found is not None:
                return found
            late = self._clock() - started > HURRY
            if pause is None or late or ask.priority or not may_pass(errors.values()):
                break
            await asyncio.sleep(pause)
        raise self._verdict(ask.target, errors, through=through)

    async def _through(
        self, ask: Ask, failed: Mapping[str, ModuleError], errors: dict[str, ModuleError]
    ) -> tuple[tuple[Source, Fetched] | None, bool]:
        """Once through the list, noting what failed; False where an error ends it before its last source."""
        for group in self._groups:
            known = {source.url: failed[source.url] for source, _ in group if source.url in failed}
            errors |= known
            left = self.mirrors.order([source for source, _ in group if source.url not in known])
            if (found := await self._race(ask, left, errors)) is not None:
                return found, True
            last, separator = group[-1]
            if not after_error(separator, errors[last.url]) and group is not self._groups[-1]:
                return None, False
        return None, True

    async def fetch_from(self, source: Source, ask: Ask) -> Fetched:
        """From this source alone.  Raises ModuleError."""
        started = self._clock()
        try:
            fetched = await self._fetcher.fetch(
                source,
                ask.target.name,
                limit=ask.limit,
                spool=ask.spool,
                priority=ask.priority,
                subject=(ask.target.module, ask.target.version),
                whole=ask.whole,
                avoid=ask.avoid,
                keep=ask.keep,
            )
        except ModuleError as error:
            if error.http_status in MISSING:
                self.mirrors.answered(source, self._clock() - started)
            elif error.finding not in LOCAL:
                self.mirrors.failed(source)
            raise
        took = None if ask.target.kind == "zip" else self._clock() - started
        self.mirrors.answered(source, took)
        return fetched

    async def _race(
        self, ask: Ask, order: Sequence[Source], errors: dict[str, ModuleError]
    ) -> tuple[Source, Fetched] | None:
        if len(order) == 1 or not ask.target.immutable:
            for source in order:
                try:
                    return source, await self.fetch_from(source, ask)
                except ModuleError as error:
                    if error.finding in LOCAL:
                        raise  # the next source would find our disk as full
                    errors[source.url] = error
            return None
        tasks = Tasks("hedge")
        running: dict[asyncio.Task[Fetched], Source] = {}
        waiting = list(order)
        found: tuple[Source, Fetched] | None = None
        try:
            while found is None and (waiting or running):
                newest: Source | None = None
                if waiting:
                    newest = waiting.pop(0)
                    running[tasks.spawn(newest.label, self.fetch_from(newest, ask))] = newest
                delay = None
                if waiting and newest is not None:
                    delay = self.mirrors.delay(newest, zip_=ask.target.kind == "zip")
                done, _ = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    source = running.pop(task)
                    try:
                        fetched = task.result()
                    except ModuleError as error:
                        if error.finding in LOCAL:
                            raise
                        errors[source.url] = error
                        continue
                    if found is None:
                        found = source, fetched
                    else:
                        discard(fetched)
        finally:
            await tasks.close()
            for task in running:
                if not task.cancelled() and task.exception() is None:
                    discard(task.result())
        return found

    def _verdict(self, target: Target, errors: Mapping[str, ModuleError], *, through: bool) -> ModuleError:
        if not errors:
            return ModuleError(
                "goproxy.off", f"{target}: GOPROXY names no source", http_status=404, subject=str(target)
            )
        told = list(errors.values())
        foul = [error for error in told if error.finding == "sum.mismatch"]
        hard = [error for error in told if error.http_status not in MISSING]
        last_url = self._groups[-1][-1][0].url
        decides = (foul or hard or told)[-1]
        if through and not foul and self.sources.ending == "direct" and last_url in errors:
            decides = errors[last_url]
        if len(told) == 1:
            return decides
        words = "; ".join(dict.fromkeys(sourced(error) for error in told))
        kind = Unsure if hard and decides.http_status in MISSING else ModuleError
        return kind(decides.finding, words, http_status=decides.http_status, subject=str(target))


def may_pass(errors: Collection[ModuleError]) -> bool:
    """Whether another round is worth it: several sources failed, none said that it hasn't the file, and for
    one at least it may have been the moment."""
    passing = [error for error in errors if error.finding not in _FINAL | LOCAL]
    return len(errors) > 1 and bool(passing) and all(error.http_status not in MISSING for error in errors)


def sourced(error: ModuleError) -> str:
    """Its one line, with the source and the way out in it."""
    words = error.detail
    if error.source and error.source not in words:
        words = f"{error.source}: {words}"
    if error.upstream and error.upstream not in words:
        words = f"{words} (by {error.upstream})"
    return words


def discard(fetched: Fetched) -> None:
    """Remove what was spooled, end what is still coming."""
    if fetched.pipe is not None:
        fetched.pipe.give_up()
    if fetched.path is not None:
        fetched.path.unlink(missing_ok=True)
