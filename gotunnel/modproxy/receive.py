"""A file from the sources, checked: what leaves here may be stored and passed on.

Rules:
- Every kind is bounded in size and looked at: `.info` is an object that names the version asked for, a
  `list` is text and no web page, a zip holds only files of its module within go's limits, mods and zips are
  verified.
- Wrong bytes once are no evidence: splicing over several ways may have done it.  They are fetched once more,
  whole and by another way; wrong again is the source's fault, which is said, and the next equal source is
  asked.  The bytes are dropped.
- Spooled is beside the store, else in the machine's directory for temporary files, else in memory up to
  MEMORY bytes.  A larger zip is handed over while it comes (`Fetched.pipe`), not checked: `stream` does that.

Sources: golang.org/x/mod/zip (limits), cmd/go/internal/modfetch/proxy.go (Stat).
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal, Protocol

from gotunnel.address import one_line
from gotunnel.dataclass import dataclass
from gotunnel.errors import ModuleError
from gotunnel.modproxy.dirhash import h1_of_go_mod
from gotunnel.modproxy.fetch import Fetched, Source
from gotunnel.modproxy.flight import Gate
from gotunnel.modproxy.target import Target
from gotunnel.modproxy.version import is_canonical
from gotunnel.modproxy.walk import LOCAL, Ask, Walk, discard
from gotunnel.storage.store import StoreError
from gotunnel.tasks import in_thread

LIMITS = {
    "info": 64 << 10,
    "query": 64 << 10,
    "latest": 64 << 10,
    "list": 8 << 20,
    "mod": 16 << 20,
    "zip": 500 << 20,
}
MEMORY = 64 << 20
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # no version has one, a terminal obeys them
_SMALL = 256 << 10  # hashed in place: a thread costs more
FOUL = frozenset({"sum.mismatch", "module.bad-zip", "http.captive-portal"})


class Verifies(Protocol):
    """What is needed of a Verifier."""

    async def check(
        self, module: str, version: str, kind: Literal["zip", "mod"], h1: str, by: str = ""
    ) -> str:
        """By what it is verified now.  Raises ModuleError: sum.mismatch, sum.unverifiable."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A checked file; `h1` and `by` are "" where there is no sum, or not yet (`fetched.pipe`)."""

    fetched: Fetched
    source: Source
    h1: str
    by: str


class Receiver:
    """Fetches by `walk`, spools where `spool` says, `gate` says who goes first."""

    def __init__(self, walk: Walk, spool: Callable[[], Path], gate: Gate) -> None:
        self._walk, self._spool, self._gate = walk, spool, gate

    def distrust(self, source: Source) -> None:
        """What it gave was wrong, as was seen later: others are asked first."""
        self._walk.mirrors.failed(source)

    async def get(self, target: Target, verifier: Verifies, priority: Callable[[], int]) -> Arrived:
        """The checked file.  Raises ModuleError."""
        async with self._gate.turn(priority):
            if target.kind != "zip":
                return await self._into(target, verifier, None, priority())
            failure: ModuleError | None = None
            for spool in self._spools():
                try:
                    return await self._into(target, verifier, spool, priority())
                except ModuleError as error:
                    if error.finding not in LOCAL:
                        raise
                    failure = error
            assert failure is not None
            raise failure

    def _spools(self) -> Iterator[Path | None]:
        with contextlib.suppress(StoreError):
            yield self._spool()
        yield Path(tempfile.gettempdir())
        yield None

    async def _into(self, target: Target, verifier: Verifies, spool: Path | None, priority: int) -> Arrived:
        keep = MEMORY if spool is None and target.kind == "zip" else None
        ask = Ask(target, LIMITS[target.kind], spool, priority, keep=keep)
        failed: dict[str, ModuleError] = {}
        while True:
            source, fetched = await self._walk.fetch(ask, failed)
            if fetched.pipe is not None:
                return Arrived(fetched, source, "", "")
            try:
                return await self._checked(target, verifier, source, fetched)
            except ModuleError as error:
                if error.finding not in FOUL:
                    raise
            by = frozenset({fetched.upstream}) - {""}
            try:
                again = await self._walk.fetch_from(source, replace(ask, whole=True, avoid=by))
                if again.pipe is not None:
                    return Arrived(again, source, "", "")
                return await self._checked(target, verifier, source, again)
            except ModuleError as error:
                self._walk.mirrors.failed(source)
                failed[source.url] = error

    async def _checked(self, target: Target, verifier: Verifies, source: Source, fetched: Fetched) -> Arrived:
        try:
            h1 = await _h1(target, fetched)
            by = ""
            if target.kind in ("mod", "zip"):
                kind: Literal["mod", "zip"] = "mod" if target.kind == "mod" else "zip"
                by = await verifier.check(target.module, target.version, kind, h1)
            return Arrived(fetched, source, h1, by)
        except ModuleError as error:
            discard(fetched)
            raise blamed(error, target, fetched) from error
        except ValueError as error:
            discard(fetched)
            finding = "module.bad-zip" if target.kind == "zip" else "http.captive-portal"
            raise ModuleError(
                finding,
                f"{target}: {one_line(str(error))}",
                subject=str(target),
                source=source.label,
                upstream=fetched.upstream,
            ) from error
        except OSError as error:
            discard(fetched)
            words = f"{target} can't be checked: {error.strerror or error}"
            raise ModuleError("disk.full", words, http_status=500, subject=str(target)) from error
        except BaseException:
            discard(fetched)
            raise


def blamed(error: ModuleError, target: Target, fetched: Fetched) -> ModuleError:
    """The same, with who gave the file, and how."""
    return ModuleError(
        error.finding,
        error.detail,
        http_status=502 if error.finding in FOUL else error.http_status,
        subject=error.subject or str(target),
        source=error.source or fetched.source,
        upstream=error.upstream or fetched.upstream,
    )


async def _h1(target: Target, fetched: Fetched) -> str:
    """The sum, "" where there is none.  Raises ValueError for what isn't such a file."""
    if target.kind == "zip":
        return await in_thread("h1", lambda: zip_sum(target, fetched))
    data = fetched.data if fetched.data is not None else _content(fetched)
    if target.kind == "mod":
        if data.lstrip()[:1] == b"<":
            raise ValueError("a web page came in place of a go.mod")
        return (
            h1_of_go_mod(data) if len(data) <= _SMALL else await in_thread("h1", lambda: h1_of_go_mod(data))
        )
    if target.kind == "list":
        check_list(data)
    else:
        check_info(data, target.version if target.kind == "info" else "")
    return ""


def _content(fetched: Fetched) -> bytes:
    return fetched.path.read_bytes() if fetched.path is not None else b""


def zip_sum(target: Target, fetched: Fetched) -> str:
    """The h1 sum of a zip that was looked through.  Raises ValueError."""
    from gotunnel.modproxy.zipsum import ZipSum, sum_of

    if fetched.path is not None:
        return sum_of(fetched.path, target.module, target.version)
    summing = ZipSum(target.module, target.version)
    summing.feed(fetched.data or b"")
    return summing.finish()


def check_info(data: bytes, version: str) -> None:
    """Raises ValueError unless it is an object that names `version`, or with "" any canonical version."""
    if data.lstrip()[:1] == b"<":
        raise ValueError("a web page came in place of an .info")
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("the .info is no JSON") from None
    named = record.get("Version") if isinstance(record, dict) else None
    if not isinstance(named, str) or not is_canonical(named):
        raise ValueError("the .info names no version")
    if version and named != version:
        raise ValueError(f"the .info is that of {named}")


def check_list(data: bytes) -> None:
    """Raises ValueError unless it is plain text."""
    if data.lstrip()[:1] == b"<":
        raise ValueError("a web page came in place of a list of versions")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("the list of versions is no text") from None
    if _CONTROL.search(text):
        raise ValueError("the list of versions is no text")
