"""An object store (S3, Google, Azure) through obstore: several machines over one bucket.

Rules:
- Nobody locks.  An immutable object is created with a condition (`If-None-Match: *`), so the first put
  wins; one above `_SINGLE` goes up in parts, for which there is no condition: it is looked for first, and
  of two that race the last one stays, each of them whole with its own labels.
- Labels are metadata of the object, which can't be changed without a new upload: labels that come later lie
  in an object beside, which names the object it is of by a random word; `get` asks for both at once.
- Every request is bounded in time; a store that can't be reached isn't asked again for 5 s, then for twice
  as long each time up to a minute, so that a run of hundreds of files doesn't wait for each.
- A bucket keeps no time of use: `prune` removes what was put first.
- An error's text is ours: the provider's code or status, never a request with its headers or signature.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from gotunnel.errors import ConfigError
from gotunnel.storage.object_setup import build, is_gone, setup_problem, translate
from gotunnel.storage.open import StoreUrl
from gotunnel.storage.store import OWN, PIECE, Note, Stored, StoreError, Vanished, check_name, check_prefix

if TYPE_CHECKING:
    from obstore import GetResult, ObjectMeta

T = TypeVar("T")
_KEY = "gotunnel"  # of the metadata; a C# identifier, which Azure wants
_SINGLE = 16 * 1024 * 1024  # in one request, and in memory
_PART = 8 * 1024 * 1024
_UPLOADS = 4  # of more than a piece at a time: each may hold `_SINGLE` bytes or a few parts in memory
_ANSWER = 20.0  # seconds for an answer that is small
_SLOWEST = 64 * 1024  # bytes a second: an upload that is slower is given up
_FIRST_REST, _LAST_REST = 5.0, 60.0
_BATCH = 32
_CUT_IS_RECENT, _GRACE = 2.0, 0.2  # seconds


class ObjectStore:
    """The store that `where` names, over obstore.  Raises ConfigError."""

    def __init__(
        self, where: StoreUrl, *, proxy_url: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        try:
            self._store = build(where, proxy_url)
        except (BaseError, ValueError, TypeError) as error:
            raise ConfigError(setup_problem(error, where)) from error
        self._label, self._proxy_url, self._clock = where.label, proxy_url, clock
        self._uploads = asyncio.Semaphore(_UPLOADS)
        self._spool: Path | None = None
        self._down: tuple[float, StoreError] | None = None  # until when, and why
        self._rest = _FIRST_REST
        self._cut_at = float("-inf")  # when a request was last given up

    @property
    def label(self) -> str:
        return self._label

    # --- reading --------------------------------------------------------------------------------

    async def get(self, name: str) -> Stored | None:
        check_name(name)
        found, beside = await asyncio.gather(self._head(name), self._beside(name))
        if found is None:
            return None
        note = _note(found)
        labels = beside.labels if beside.of == note.of else note.labels
        return _stored(name, found.meta, labels)

    async def _head(self, name: str) -> GetResult | None:
        """Size, time and metadata of an object."""
        with contextlib.suppress(FileNotFoundError):
            return await self._ask(
                lambda: obstore.get_async(self._store, name, options={"head": True}), _ANSWER
            )
        return None

    async def _beside(self, name: str) -> Note:
        """The labels that came later."""

        async def work() -> bytes:
            answer = await obstore.get_async(self._store, _beside_name(name))
            return bytes(await answer.bytes_async())

        try:
            return Note.decode(await self._ask(work, _ANSWER))
        except FileNotFoundError:
            return Note(of="none")

    async def read(self, stored: Stored) -> AsyncGenerator[bytes, None]:
        check_name(stored.name)
        try:
            answer = await self._ask(lambda: obstore.get_async(self._store, stored.name), _ANSWER)
        except FileNotFoundError:
            raise Vanished(stored.name) from None
        if answer.meta["size"] != stored.size:
            raise Vanished(stored.name)
        left, stream = stored.size, answer.stream(PIECE)
        while left:
            chunk = await self._ask(lambda: _next(stream.__anext__), _ANSWER)
            if not chunk:
                raise StoreError("unknown", f"{stored.name} was cut short by {self._label}")
            left -= len(chunk)
            for start in range(0, len(chunk), PIECE):
                yield bytes(chunk[start : start + PIECE])

    async def local(self, stored: Stored) -> Path | None:
        return None

    async def names(self, prefix: str = "", *, labels: bool = True) -> AsyncGenerator[Stored, None]:
        check_prefix(prefix)
        # obstore takes whole components as a prefix
        stream = obstore.list(self._store, prefix.rpartition("/")[0] or None, chunk_size=_BATCH)
        while batch := await self._ask(lambda: _next(stream.__anext__), _ANSWER):
            found = [meta for meta in batch if self._is_file(meta["path"], prefix)]
            if not labels:
                for meta in found:
                    yield _stored(meta["path"], meta, {})
                continue
            for each in await asyncio.gather(*(self.get(meta["path"]) for meta in found)):
                if each is not None:
                    yield each

    def _is_file(self, name: str, prefix: str) -> bool:
        return name.startswith(prefix) and not name.startswith(f"{OWN}/")

    # --- writing --------------------------------------------------------------------------------

    async def put(
        self,
        name: str,
        source: Path | bytes,
        *,
        labels: Mapping[str, str] | None = None,
        mutable: bool = False,
    ) -> None:
        check_name(name)
        note = Note(labels or {}, mutable, secrets.token_hex(8))
        metadata = {_KEY: base64.urlsafe_b64encode(note.encode()).decode()}
        size = _size(source)
        limit = _ANSWER + size / _SLOWEST

        async def work() -> None:
            if size <= _SINGLE:
                await obstore.put_async(
                    self._store, name, source, attributes=metadata,
                    mode="overwrite" if mutable else "create", use_multipart=False,
                )  # fmt: skip
            else:
                await obstore.put_async(
                    self._store, name, source, attributes=metadata,
                    use_multipart=True, chunk_size=_PART, max_concurrency=2,
                )  # fmt: skip

        async with self._uploads if size > PIECE else contextlib.nullcontext():
            if mutable or size <= _SINGLE or await self._head(name) is None:
                with contextlib.suppress(AlreadyExistsError):
                    await self._ask(work, limit, missing=False)
        if isinstance(source, Path):
            _use_up(source)

    async def relabel(self, name: str, labels: Mapping[str, str]) -> None:
        check_name(name)
        Note(labels).encode()
        if (found := await self._head(name)) is None:
            return
        old = _note(found)
        data = Note(labels, old.mutable, old.of).encode()
        await self._ask(
            lambda: obstore.put_async(self._store, _beside_name(name), data, use_multipart=False),
            _ANSWER,
            missing=False,
        )

    # --- removing -------------------------------------------------------------------------------

    async def delete(self, name: str) -> None:
        check_name(name)
        await self._delete(name)
        await self._delete(_beside_name(name))

    async def _delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            await self._ask(lambda: obstore.delete_async(self._store, key), _ANSWER)

    async def prune(self, max_size: int) -> tuple[int, int]:
        found = [each async for each in self.names(labels=False)]
        total = sum(each.size for each in found)
        files = removed = 0
        for each in sorted(found, key=lambda one: one.stored_at):
            if total - removed <= max_size:
                break
            head = await self._head(each.name)
            if head is None or _note(head).mutable:
                continue
            await self.delete(each.name)
            files, removed = files + 1, removed + each.size
        return files, removed

    def spool(self) -> Path:
        if self._spool is None:
            try:
                self._spool = Path(tempfile.mkdtemp(prefix="gotunnel-"))
            except OSError as error:
                raise StoreError(
                    "cache.permission", f"no directory for temporary files: {error.strerror}: set TMPDIR"
                ) from error
        return self._spool

    async def close(self) -> None:
        """Remove the spool; obstore closes its connections itself."""
        if self._clock() - self._cut_at < _CUT_IS_RECENT:
            # obstore tells Python of a request that was given up a little later, from a thread of its own,
            # and panics on standard error when there is no Python any more
            await asyncio.sleep(_GRACE)
        if self._spool is not None:
            shutil.rmtree(self._spool, ignore_errors=True)
            self._spool = None

    # --- below ----------------------------------------------------------------------------------

    async def _ask(self, job: Callable[[], Awaitable[T]], seconds: float, *, missing: bool = True) -> T:
        """A request, bounded in time.

        Raises StoreError; AlreadyExistsError; FileNotFoundError where `missing` may be (the object, not
        the bucket).
        """
        if self._down is not None:
            until, error = self._down
            if self._clock() < until:
                raise StoreError(error.finding, error.detail)
            self._down = None
        try:
            async with asyncio.timeout(seconds):
                result = await job()
            self._rest = _FIRST_REST
            return result
        except AlreadyExistsError:
            raise
        except asyncio.CancelledError:
            self._cut_at = self._clock()
            raise
        except FileNotFoundError as fault:
            if missing and not is_gone(fault):
                raise
            raise translate(fault, self._label, self._proxy_url) from fault
        except TimeoutError as fault:
            self._cut_at = self._clock()
            answer = StoreError(
                "unknown", f"{self._label} gave no answer within {seconds:.0f} s: is it reachable from here?"
            )
            self._go_down(answer)
            raise answer from fault
        except (BaseError, OSError, ValueError) as fault:
            answer = translate(fault, self._label, self._proxy_url)
            if answer.unreachable:
                self._go_down(answer)
            raise answer from fault

    def _go_down(self, error: StoreError) -> None:
        if self._down is None:  # else it was another request of the same moment
            self._down = (self._clock() + self._rest, error)
            self._rest = min(self._rest * 2, _LAST_REST)


async def _next(step: Callable[[], Awaitable[T]]) -> T | None:
    """The next of a stream, None at its end."""
    try:
        return await step()
    except StopAsyncIteration:
        return None


def _note(found: GetResult) -> Note:
    """The labels in the metadata of an object."""
    text = found.attributes.get(_KEY, "")
    try:
        return Note.decode(base64.urlsafe_b64decode(text))
    except ValueError:
        return Note()


def _stored(name: str, meta: ObjectMeta, labels: Mapping[str, str]) -> Stored:
    return Stored(name, meta["size"], meta["last_modified"].timestamp(), labels)


def _size(source: Path | bytes) -> int:
    if isinstance(source, bytes):
        return len(source)
    try:
        return source.stat().st_size
    except OSError as error:
        raise StoreError("unknown", f"can't read {source}: {error.strerror}") from error


def _use_up(source: Path) -> None:
    with contextlib.suppress(OSError):
        source.unlink()


def _beside_name(name: str) -> str:
    return f"{OWN}/labels/{name}.json"
