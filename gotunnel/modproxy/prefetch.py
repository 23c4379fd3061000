"""Prefetch: what a command is going to ask for is fetched before it asks, many files at a time.

Rules:
- Nothing is fetched that the command surely won't ask for; what isn't go itself (make, a shell) first has to
  run a go that asks for a file of the project (`asked`).
- Demand goes first: everything here has a priority above 0.
- A file that can't be had is no fault here: go asks for it itself, and is told.  Where the network fails time
  and again the prefetch pauses, and at last gives up; where the store can't keep a file it stops.
- Reading and planning happen in a thread, once; what is to be fetched is decided purely (`plan.py`).
- A prefetch ends by being cancelled, at any moment: the command has ended.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from gotunnel.dataclass import dataclass
from gotunnel.errors import GotunnelError, ModuleError
from gotunnel.modproxy import target
from gotunnel.modproxy.closure import Item
from gotunnel.modproxy.gocommand import GoCommand, Needs, Place, Settings, child_directory, read_command
from gotunnel.modproxy.gosum import GoSum, read_go_sums
from gotunnel.modproxy.modfile import ModFile, ModFileError, Replace, Version, parse_mod, parse_work
from gotunnel.modproxy.plan import Files, Step, Walk, plan, toolchain
from gotunnel.storage.store import Stored, StoreError
from gotunnel.tasks import Backoff, in_thread

WIDTH = 64
PRIORITY = {"mod": 1, "info": 2, "zip": 3}
_MOD_LIMIT = 16 << 20  # bytes, as go has it
_FAILURES = 8  # of the network one after another, then a pause
_PAUSES = 5  # one after another, then no more
_TRIES = 2  # of one file
_NETWORK = (502, 504)

P = TypeVar("P")
P_contra = TypeVar("P_contra", contravariant=True)
T = TypeVar("T")


class PrefetchTarget(Protocol[P_contra]):
    """What is needed of a ModProxy."""

    async def ensure(self, target: target.Target, project: P_contra, *, priority: int) -> Stored:
        """See to it that the store has it.  Raises ModuleError."""


class Readable(Protocol):
    """What is needed of a Store."""

    def read(self, stored: Stored) -> AsyncGenerator[bytes, None]:
        """Its bytes.  Raises StoreError."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Files wanted so far, those done (in the store now) and failed; `bytes` of those that were new to it.

    `problem` says in one line why nothing, or nothing more, is fetched.
    """

    wanted: int = 0
    done: int = 0
    failed: int = 0
    bytes: int = 0
    problem: str = ""


def read_files(place: Place, modfile: str = "") -> Files:
    """The go.mod, go.work and go.sum files of a place.  Blocks.

    Raises ModFileError, ValueError for a malformed go.sum, OSError.
    """
    work = parse_work(place.go_work.read_bytes(), str(place.go_work)) if place.go_work else None
    if work is None or place.go_work is None:
        paths = [place.go_mod] if place.go_mod else []
    else:
        base = place.go_work.parent
        work = _absolute(work, base)
        paths = [path for use in work.use if (path := base / use / "go.mod").is_file()]
    # where -modfile leads elsewhere, directories still count from where the go.mod proper stands
    root = place.root if modfile and not work else None
    mains = tuple(_absolute(parse_mod(path.read_bytes(), str(path)), root or path.parent) for path in paths)
    gowork = str(place.go_work) if place.go_work else "off"
    sums = read_go_sums(place.directory, gowork=gowork, modfile=modfile) if paths else GoSum()
    return Files(mains, sums, work)


def _absolute(mod: ModFile, base: Path) -> ModFile:
    replaces = tuple(
        Replace(one.old, Version(os.path.normpath(base / one.new.path))) if one.is_local else one
        for one in mod.replace
    )
    return dataclasses.replace(mod, replace=replaces)


def in_modcache(modcache: str, item: Item, *, unpacked: bool) -> bool:
    """Whether $GOMODCACHE has it, so that go won't ask; `unpacked`: a zip's content will do.  Blocks."""
    if not modcache:
        return False
    file = Path(modcache, "cache", "download", item.name)
    if item.kind != "zip" or not unpacked:
        return file.is_file()
    if not file.with_suffix(".ziphash").is_file():
        return False
    module, _, version = item.name.removesuffix(".zip").rpartition("/@v/")
    content = Path(modcache, f"{module}@{version}")
    return file.is_file() or (content.is_dir() and not file.with_suffix(".partial").exists())


@dataclass(frozen=True)
class _Job:
    """What is known of one command: `ahead` stands before everything else."""

    files: Files
    needs: Needs
    have: Callable[[Item], bool]
    ahead: tuple[Item, ...] = ()

    @property
    def walks(self) -> bool:
        """Whether the graph has to be read, for want of a go.sum."""
        return not len(self.files.sums)


class Prefetcher(Generic[P]):
    """The prefetch of one run.  `wall` is in seconds since the epoch."""

    def __init__(
        self,
        proxy: PrefetchTarget[P],
        store: Readable,
        project: P,
        settings: Settings,
        *,
        width: int = WIDTH,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._proxy, self._store, self._project, self._settings = proxy, store, project, settings
        self._width, self._tell, self._sleep, self._wall = width, on_progress, sleep, wall
        self.progress = Progress()
        self._names: set[str] = set()
        self._news = asyncio.Event()
        self._going = asyncio.Event()
        self._failures = self._pauses = 0
        self._rest = Backoff(1.0, 30.0)
        self._stopped = False
        self._started = 0.0

    def asked(self, name: str) -> None:
        """A go of this run has asked for `name` (escaped, as in a Target)."""
        if not self._news.is_set() or len(self._names) < 1000:
            self._names.add(name)
            self._news.set()

    async def run(self, directory: Path, argv: Sequence[str]) -> Progress:
        """Fetch what `argv`, started in `directory` (absolute), is going to ask for.

        Raises nothing for what is wrong with files or the network: see `Progress`.
        """
        command = read_command(argv, self._settings.env.get("GOFLAGS", ""))
        if command.needs is None:
            return self.progress
        place = await in_thread("prefetch", lambda: child_directory(argv, directory, self._settings.env))
        if not place.has_modules or (place.vendored and not command.armed):
            return self.progress
        try:
            job = await (self._wait_for_go if command.armed else self._read)(place, command, command.needs)
        except (ModFileError, ValueError, OSError) as error:
            self._report(problem=str(error))
            return self.progress
        self._started = self._wall()
        self._going.set()
        if job.walks:
            await self._by_graph(job)
        else:
            items = await in_thread("prefetch", lambda: self._planned(job))
            await self._fetch((*job.ahead, *items))
        return self.progress

    async def _read(self, place: Place, command: GoCommand, needs: Needs) -> _Job:
        """Raises what `read_files` raises."""
        settings = self._settings
        unpacked = command.verb != "mod download"

        def have(item: Item) -> bool:
            return in_modcache(settings.modcache, item, unpacked=unpacked)

        def work() -> _Job:
            files = read_files(place, command.modfile)
            setting = settings.env.get("GOTOOLCHAIN", "")
            switch = toolchain(files, setting, settings.local_go, settings.platform)
            return _Job(files, needs, have, (switch,) if switch and not have(switch) else ())

        return await in_thread("prefetch", work)

    def _planned(self, job: _Job, *, all_of_it: bool = False) -> tuple[Item, ...]:
        if all_of_it:
            return plan(job.files, job.needs, private=self._settings.private)
        return plan(job.files, job.needs, private=self._settings.private, have=job.have)

    async def _wait_for_go(self, place: Place, command: GoCommand, needs: Needs) -> _Job:
        """Until something is asked for that is the project's; its files may change meanwhile."""
        stamp: tuple[tuple[int, int] | None, ...] | None = None
        mine: set[str] = set()
        job: _Job | None = None
        while True:
            await self._news.wait()
            self._news.clear()
            names, self._names = self._names, set()
            now = await in_thread("prefetch", lambda: _stamp(place))
            if now != stamp:
                stamp, job = now, None
                try:
                    job = await self._read(place, command, needs)
                except (ModFileError, ValueError, OSError):
                    mine = set()  # half written, perhaps
                else:
                    mine = await in_thread("prefetch", partial(self._all_names, job))
            if job is not None and mine & names:
                return job

    def _all_names(self, job: _Job) -> set[str]:
        steps = Walk(job.files, self._settings.private).start()
        listed = () if job.walks else self._planned(job, all_of_it=True)
        return {item.name for item in (*job.ahead, *listed, *(s.item for s in steps if s.item))}

    async def _by_graph(self, job: _Job) -> None:
        walk = Walk(job.files, self._settings.private)
        steps = deque(walk.start())
        self._report(wanted=len(steps) + len(job.ahead))

        async def one(step: Step) -> Iterable[Step]:
            mod = await self._go_mod(step, job)
            further = walk.add(step, mod) if mod is not None else []
            self._report(wanted=self.progress.wanted + len(further))
            return further

        async with asyncio.TaskGroup() as group:
            if job.ahead:
                group.create_task(self._fetch(job.ahead, counted=True))
            await self._side_by_side(steps, one)
        await self._fetch(await in_thread("prefetch", lambda: walk.rest(job.needs, have=job.have)))

    async def _go_mod(self, step: Step, job: _Job) -> ModFile | None:
        """The go.mod of one step; None where it can't be had or read."""
        try:
            file = await in_thread("prefetch", lambda: self._at_hand(step, job))
            if file is not None:
                data = await in_thread("prefetch", file.read_bytes)
                self._report(done=self.progress.done + 1)
            elif (
                step.item is None
                or (stored := await self._ensure(step.item)) is None
                or stored.size > _MOD_LIMIT
            ):
                return None
            else:
                data = b"".join([piece async for piece in self._store.read(stored)])
            return parse_mod(data, step.wanted.path, lax=True)
        except (OSError, GotunnelError):
            return None

    def _at_hand(self, step: Step, job: _Job) -> Path | None:
        """The file of a step, where it needn't be fetched."""
        if step.item is None:
            return Path(step.directory, "go.mod")
        if job.have(step.item):
            return Path(self._settings.modcache, "cache", "download", step.item.name)
        return None

    async def _fetch(self, items: Sequence[Item], *, counted: bool = False) -> None:
        if not counted:
            self._report(wanted=self.progress.wanted + len(items))

        async def one(item: Item) -> Iterable[Item]:
            await self._ensure(item)
            return ()

        await self._side_by_side(deque(items), one)

    async def _side_by_side(self, waiting: deque[T], one: Callable[[T], Awaitable[Iterable[T]]]) -> None:
        """`one` for each, `width` at a time, in order; what it gives back is done after the others."""
        busy = 0
        change = asyncio.Event()

        async def worker() -> None:
            nonlocal busy
            while not self._stopped:
                if waiting:
                    job = waiting.popleft()
                    busy += 1
                    try:
                        waiting.extend(await one(job))
                    finally:
                        busy -= 1
                        change.set()
                elif busy:
                    change.clear()
                    await change.wait()
                else:
                    return

        async with asyncio.TaskGroup() as group:
            for _ in range(self._width):
                group.create_task(worker())

    async def _ensure(self, item: Item) -> Stored | None:
        """None where it can't be had; waits while the network is given a rest."""
        wanted = target.of(item.module, item.version, item.kind)  # `is_askable`: it is one
        for _ in range(_TRIES):
            await self._going.wait()
            if self._stopped:
                break
            try:
                stored = await self._proxy.ensure(wanted, self._project, priority=PRIORITY[item.kind])
            except ModuleError as error:
                if error.http_status not in _NETWORK:
                    break
                await self._lost(error)
            except StoreError as error:
                self._stop(str(error))
                break
            except GotunnelError:
                break
            else:
                self._failures = self._pauses = 0
                self._rest.reset()
                new = stored.size if stored.stored_at >= self._started - 1 else 0
                self._report(done=self.progress.done + 1, bytes=self.progress.bytes + new)
                return stored
        self._report(failed=self.progress.failed + 1)
        return None

    async def _lost(self, error: ModuleError) -> None:
        """One more failure of the network: after several a rest for all, after several rests the end."""
        self._failures += 1
        if self._failures < _FAILURES or not self._going.is_set():
            return
        self._failures = 0
        self._pauses += 1
        if self._pauses > _PAUSES:
            self._stop(error.detail)
            return
        self._going.clear()
        try:
            await self._sleep(self._rest.delay())
        finally:
            self._going.set()

    def _stop(self, problem: str) -> None:
        if not self._stopped:
            self._stopped = True
            self._report(problem=problem)

    def _report(self, **changes: int | str) -> None:
        self.progress = dataclasses.replace(self.progress, **changes)  # type: ignore[arg-type]
        self._tell(self.progress)


def _stamp(place: Place) -> tuple[tuple[int, int] | None, ...]:
    """Changes when one of the files does."""
    return tuple(_stat(path) if path else None for path in (place.go_mod, place.go_sum, place.go_work))


def _stat(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
