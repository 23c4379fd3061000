"""A source list with a fetcher that answers from memory, and what a ModProxy needs besides."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from gotunnel.errors import ModuleError
from gotunnel.modproxy.dirhash import h1_of_go_mod, h1_of_zip
from gotunnel.modproxy.fetch import Fetched, Source
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.proxy import Project
from gotunnel.modproxy.verify import Verifier

MODULE, VERSION = "a.example/m", "v1.0.0"
BASE = f"{MODULE}/@v/{VERSION}"
GO_MOD = f"module {MODULE}\n".encode()
INFO = json.dumps({"Version": VERSION, "Time": "2024-01-02T03:04:05Z"}).encode()


def module_zip(text: str = "package m\n", *, module: str = MODULE, version: str = VERSION) -> bytes:
    """A module zip with a go.mod and one file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{module}@{version}/go.mod", f"module {module}\n")
        archive.writestr(f"{module}@{version}/m.go", text)
    return out.getvalue()


ZIP = module_zip()
FILES = {f"{BASE}.info": INFO, f"{BASE}.mod": GO_MOD, f"{BASE}.zip": ZIP, f"{MODULE}/@v/list": b"v1.0.0\n"}


def go_sum(*, zip_: bytes = ZIP, mod: bytes = GO_MOD) -> str:
    """The two lines of go.sum."""
    return (
        f"{MODULE} {VERSION} {h1_of_zip(io.BytesIO(zip_))}\n{MODULE} {VERSION}/go.mod {h1_of_go_mod(mod)}\n"
    )


def project(sums: str | None = None, *, name: str = "one", private: str = "") -> Project:
    """A run whose go.sum is `sums` and that has no checksum database."""
    return Project(name, Verifier(GoSum.parse(go_sum() if sums is None else sums), "", None), private)


Behave = Callable[[str], Awaitable[bytes]]


class FakeFetcher:
    """Sources by URL: files by path, or a function; every call is noted."""

    def __init__(self, **sources: dict[str, bytes] | Behave) -> None:
        self.sources = {f"https://{name}.example": answer for name, answer in sources.items()}
        self.calls: list[tuple[str, str]] = []
        self.whole: list[bool] = []
        self.avoided: list[frozenset[str]] = []
        self.priorities: list[int] = []
        self.cancelled = 0

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
        self.calls.append((source.url.removeprefix("https://").removesuffix(".example"), path))
        self.whole.append(whole)
        self.avoided.append(avoid)
        self.priorities.append(priority)
        answer = self.sources[source.url]
        try:
            if callable(answer):
                data = await answer(path)
            else:
                await asyncio.sleep(0)
                if path not in answer:
                    raise ModuleError("module.not-found", f"not found: {path}", http_status=404)
                data = answer[path]
        except ModuleError as error:
            error.source = source.label
            raise
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if len(data) > limit:
            raise ModuleError("http.endless", "too long", source=source.label)
        where = None
        if spool is not None:
            where = spool / f"fetched-{len(self.calls)}"
            where.write_bytes(data)
        return Fetched(where, None if where else data, len(data), source.label, "way-1", {}, 1.0)

    async def close(self) -> None:
        """Nothing to close."""


def failing(finding: str = "tcp.refused", status: int = 502) -> Behave:
    """A source that can't be reached."""

    async def fail(path: str) -> bytes:
        raise ModuleError(finding, f"{path}: no", http_status=status)

    return fail
