"""Files in go's own layout below a directory: `GOPROXY=file://DIR` reads it too.

Rules:
- Many processes use one directory.  A name appears, or goes, under the lock `.gotunnel/lock`, for some
  microseconds; what takes long (copies, fsync) is done before, in the spool.  A reader never locks.
- An immutable file is synced before it is linked into place: after a power cut it is whole or not there.
- Labels are there before the file is.  They name its size and time, so that those of another file, or of
  one that was altered by hand, count for nothing.
- The access time is the time of last use; it is set on purpose, at most once an hour, since most machines
  mount with relatime or noatime.  The modification time is the time of the put.
- New files and directories take the permissions of DIR, so a directory shared by a group stays shared.
- What may take long runs in a thread; a look at one small file doesn't: a thread costs more than that.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import secrets
import shutil
import stat
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

from gotunnel.storage.lock import Lock
from gotunnel.storage.store import (
    OWN,
    PIECE,
    Finding,
    Note,
    Stored,
    StoreError,
    Vanished,
    check_name,
    check_prefix,
)
from gotunnel.tasks import in_thread

_TOUCH_EVERY = 3600 * 10**9  # nanoseconds
_LEFTOVER_AGE = 24 * 3600.0
_BATCH = 256
_AHEAD = 8 * PIECE  # read by one thread: starting one costs as much as reading a piece
_NOT_THERE = (FileNotFoundError, NotADirectoryError)


class DiskStore:
    """The store below `root`, which is made when something is put; `clock` gives seconds since the epoch."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._own = root / OWN
        self._spool = self._own / "spool"
        self._clock = clock
        self._swept = False
        self._own_lock = Lock(self._own / "lock")

    @property
    def label(self) -> str:
        return str(self._root)

    # --- reading --------------------------------------------------------------------------------

    async def get(self, name: str) -> Stored | None:
        path = self._path(name)
        with self._faults():
            found = _stat(path)
            if found is None:
                return None
            now = int(self._clock() * 1e9)
            if now - found.st_atime_ns > _TOUCH_EVERY:
                with contextlib.suppress(OSError):  # somebody else's file, or a read-only disk: no harm
                    os.utime(path, ns=(now, found.st_mtime_ns))
            return self._stored(name, found)

    async def read(self, stored: Stored) -> AsyncGenerator[bytes, None]:
        path = self._path(stored.name)
        with self._faults():
            try:
                file = path.open("rb", buffering=0)
            except (*_NOT_THERE, IsADirectoryError):
                raise Vanished(stored.name) from None
            with file:
                if os.fstat(file.fileno()).st_size != stored.size:
                    raise Vanished(stored.name)
                left = stored.size
                while left:
                    small = left <= PIECE  # the last piece, or the only one: the disk has read ahead
                    data = file.read(PIECE) if small else await in_thread("read", lambda: file.read(_AHEAD))
                    if not data:
                        raise StoreError("unknown", f"{stored.name} was cut short in {self._root}")
                    left -= len(data)
                    for start in range(0, len(data), PIECE):
                        yield data[start : start + PIECE]

    async def local(self, stored: Stored) -> Path | None:
        path = self._path(stored.name)
        with self._faults():
            found = _stat(path)
        return path if found is not None and found.st_size == stored.size else None

    async def names(self, prefix: str = "", *, labels: bool = True) -> AsyncGenerator[Stored, None]:
        check_prefix(prefix)
        walk = self._walk(prefix)
        while True:
            with self._faults():
                batch = await in_thread("names", lambda: list(itertools.islice(walk, _BATCH)))
            for name, found in batch:
                yield self._stored(name, found, labels=labels)
            if len(batch) < _BATCH:
                return

    def _walk(self, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        """Names that start with `prefix`, sorted within each directory; what vanishes is left out."""
        todo = [prefix.rpartition("/")[0]]
        while todo:
            directory, below = todo.pop(), list[str]()
            with contextlib.suppress(*_NOT_THERE), os.scandir(self._root / directory) as entries:
                for entry in sorted(entries, key=lambda each: each.name):
                    name = f"{directory}/{entry.name}".lstrip("/")
                    if name == OWN or not (name.startswith(prefix) or prefix.startswith(f"{name}/")):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        below.append(name)
                    elif (found := _stat(Path(entry.path))) is not None:
                        yield name, found
            todo += reversed(below)

    def _stored(self, name: str, found: os.stat_result, *, labels: bool = True) -> Stored:
        note = self._note(name, found) if labels else Note()
        return Stored(name, found.st_size, found.st_mtime, note.labels)

    def _note(self, name: str, found: os.stat_result) -> Note:
        """What is known of this very file."""
        try:
            note = Note.decode(self._note_path(name).read_bytes())
        except OSError:
            return Note()
        return note if note.of == _identity(found) else Note()

    # --- writing --------------------------------------------------------------------------------

    async def put(
        self,
        name: str,
        source: Path | bytes,
        *,
        labels: Mapping[str, str] | None = None,
        mutable: bool = False,
    ) -> None:
        path, note = self._path(name), Note(labels or {}, mutable)
        note.encode()  # too many labels: said before anything is written
        with self._faults():
            await in_thread("put", lambda: self._put(name, path, source, note))

    def _put(self, name: str, path: Path, source: Path | bytes, note: Note) -> None:
        given = source if isinstance(source, Path) else None
        if note.mutable or _stat(path) is None:
            self._ready_spool()
            mode = self._file_mode()
            made, found = self._prepare(source, mode, synced=not note.mutable)
            try:
                with self._written(Note(note.labels, note.mutable, _identity(found)), mode) as beside:
                    self._make_directories(path.parent)  # may take long; what a prune removes is made again
                    with self._own_lock.held(mode):
                        if note.mutable or _stat(path) is None:
                            self._place_note(name, beside)
                            self._appear(path, made, mutable=note.mutable)
            finally:
                if made != given:
                    made.unlink(missing_ok=True)
        if given is not None:
            given.unlink(missing_ok=True)

    def _prepare(self, source: Path | bytes, mode: int, *, synced: bool) -> tuple[Path, os.stat_result]:
        """A file on the store's file system with the permissions and time it is to have."""
        temporary = self._temporary()
        try:
            made = source if isinstance(source, Path) else temporary
            if isinstance(source, Path) and source.stat().st_dev != self._spool.stat().st_dev:
                made = temporary
                shutil.copyfile(source, temporary)
            with made.open("xb" if isinstance(source, bytes) else "rb") as file:
                if isinstance(source, bytes):
                    file.write(source)
                    file.flush()
                now = int(self._clock() * 1e9)
                os.utime(file.fileno(), ns=(now, now))
                os.fchmod(file.fileno(), mode)
                if synced:
                    os.fsync(file.fileno())
                return made, os.fstat(file.fileno())
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _appear(self, path: Path, made: Path, *, mutable: bool) -> None:
        """Under the lock, when the labels are there."""
        self._make_directories(path.parent)
        if mutable:
            made.replace(path)
            return
        try:
            os.link(made, path)
        except FileExistsError:
            pass  # where the lock doesn't reach, such as another machine's: the first one wins all the same
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
                raise
            made.rename(path)  # a file system without links

    async def relabel(self, name: str, labels: Mapping[str, str]) -> None:
        path = self._path(name)
        Note(labels).encode()

        def work() -> None:
            if _stat(path) is None:
                return
            self._ready_spool()
            with self._lock():
                if (found := _stat(path)) is not None:
                    mutable = self._note(name, found).mutable
                    written = self._written(Note(labels, mutable, _identity(found)), self._file_mode())
                    with written as beside:
                        self._place_note(name, beside)

        with self._faults():
            await in_thread("relabel", work)

    @contextlib.contextmanager
    def _written(self, note: Note, mode: int) -> Iterator[Path | None]:
        """The note as a file in the spool; None for one that says nothing."""
        if not note.labels and not note.mutable:
            yield None
            return
        temporary = self._temporary()
        try:
            with temporary.open("xb") as file:
                file.write(note.encode())
                os.fchmod(file.fileno(), mode)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    def _place_note(self, name: str, written: Path | None) -> None:
        """Under the lock: replace what is known of `name`."""
        path = self._note_path(name)
        if written is None:
            path.unlink(missing_ok=True)
        else:
            self._make_directories(path.parent)
            written.replace(path)

    # --- removing -------------------------------------------------------------------------------

    async def delete(self, name: str) -> None:
        path = self._path(name)

        def work() -> None:
            if _stat(path) is not None:
                self._ready_spool()
                with self._lock():
                    self._remove(name)

        with self._faults():
            await in_thread("delete", work)

    async def prune(self, max_size: int) -> tuple[int, int]:
        with self._faults():
            return await in_thread("prune", lambda: self._prune(max_size))

    def _prune(self, max_size: int) -> tuple[int, int]:
        self._sweep()
        found = list(self._walk(""))
        total = sum(status.st_size for _, status in found)
        files = removed = 0
        for name, status in sorted(found, key=lambda each: _used(each[1])):
            if total - removed <= max_size:
                break
            if self._note(name, status).mutable:
                continue
            self._ready_spool()
            with self._lock():
                now = _stat(self._root / name)
                if now is None or _used(now) != _used(status):
                    continue  # gone, or used, meanwhile
                self._remove(name)
            files, removed = files + 1, removed + status.st_size
        return files, removed

    def _remove(self, name: str) -> None:
        """Under the lock: the file first, so that it never lacks its labels; then what is empty."""
        for path, top in ((self._root / name, self._root), (self._note_path(name), self._own)):
            with contextlib.suppress(*_NOT_THERE):
                path.unlink()
            for parent in path.parents:
                if parent == top:
                    break
                try:
                    parent.rmdir()
                except OSError:
                    break

    def _sweep(self) -> None:
        """Remove what dead processes left in the spool a day ago."""
        self._swept = True
        with contextlib.suppress(OSError), os.scandir(self._spool) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if self._clock() - entry.stat(follow_symlinks=False).st_mtime > _LEFTOVER_AGE:
                        os.unlink(entry.path)

    def spool(self) -> Path:
        with self._faults():
            return self._ready_spool()

    async def close(self) -> None:
        """Nothing is kept open."""

    # --- below ----------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        check_name(name)
        return self._root / name

    def _temporary(self) -> Path:
        return self._spool / f"{os.getpid()}-{secrets.token_hex(8)}"

    def _note_path(self, name: str) -> Path:
        return self._own / "labels" / f"{name}.json"

    def _ready_spool(self) -> Path:
        """The spool, made if need be; raises OSError where nothing can be written there."""
        if not self._spool.is_dir():
            if not self._root.is_dir():
                self._root.mkdir(parents=True, exist_ok=True)
            self._make_directories(self._spool)
        if not os.access(self._spool, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self._spool))
        if not self._swept:
            self._sweep()
        return self._spool

    def _make_directories(self, path: Path) -> None:
        """`path` and what is missing above it, with the permissions of the store's own directory."""
        if path.is_dir():
            return
        self._make_directories(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            path.chmod(stat.S_IMODE(self._root.stat().st_mode))

    def _lock(self) -> AbstractContextManager[None]:
        return self._own_lock.held(self._file_mode())

    def _file_mode(self) -> int:
        return self._root.stat().st_mode & 0o666 | 0o600

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """OSErrors become StoreErrors, with the path and what to do."""
        try:
            yield
        except OSError as error:
            self._translate(error)

    def _translate(self, error: OSError) -> NoReturn:
        where = os.fspath(error.filename) if isinstance(error.filename, (str, Path)) else str(self._root)
        finding: Finding = "unknown"
        words = f"the module store {self._root} failed: {where}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            finding = "disk.full"
            words = (
                f"no space left for the module store {self._root}: "
                "free some, run `gotunnel cache prune` or lower [cache] max_size"
            )
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            finding = "cache.permission"
            words = (
                f"the module store can't use {where}: {error.strerror}: "
                "give this user the right to it, or set [cache] url to another directory"
            )
        raise StoreError(finding, words) from error


def _stat(path: Path) -> os.stat_result | None:
    """None where there is no file."""
    try:
        found = path.stat()
    except _NOT_THERE:
        return None
    return found if stat.S_ISREG(found.st_mode) else None


def _used(found: os.stat_result) -> int:
    """When a file was last used, in nanoseconds."""
    return max(found.st_atime_ns, found.st_mtime_ns)


def _identity(found: os.stat_result) -> str:
    """What tells a file from another of the same name; whole seconds survive tar and rsync."""
    return f"{found.st_size}@{found.st_mtime_ns // 10**9}"
