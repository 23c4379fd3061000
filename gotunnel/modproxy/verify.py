"""By what a file of a module is vouched for: the project's go.sum, else the checksum database.

Rules:
- go.sum decides first: an equal sum is enough, a different one is an error whatever a database says.
- What a checksum database has proved holds for every project; what only a go.sum vouched for holds for the
  projects whose go.sum does.
- A module that has no database (GOSUMDB=off, GONOSUMDB) and isn't in go.sum is taken as it comes, as go does.
- golang.org/toolchain is never in a go.sum and always asks the database; without one it isn't taken.
- A file that can't be verified is an error that is never 404 or 410: those would send go elsewhere.

Source: cmd/go/internal/modfetch (fetch.go: checkModSum; sumdb.go: useSumDB).
"""

from __future__ import annotations

from typing import Literal, Protocol

from gotunnel.errors import ModuleError
from gotunnel.modproxy.filter import matches
from gotunnel.modproxy.gosum import GoSum

TOOLCHAIN = "golang.org/toolchain"
GOSUM, NONE = "gosum", "none"
_DATABASE = "sumdb:"


class LooksUp(Protocol):
    """What is needed of a SumDB."""

    name: str

    async def lookup(self, module: str, version: str) -> dict[str, str]:
        """The proved sums of a version, by `VERSION` and `VERSION/go.mod`.  Raises ModuleError."""


class Verifier:
    """What vouches for modules in one run: its go.sum, its GONOSUMDB globs, its database if it has one."""

    def __init__(self, go_sum: GoSum, nosumdb: str, sumdb: LooksUp | None) -> None:
        self._go_sum, self._nosumdb, self._sumdb = go_sum, nosumdb, sumdb

    async def check(
        self, module: str, version: str, kind: Literal["zip", "mod"], h1: str, by: str = ""
    ) -> str:
        """By what the file with the sum `h1` is vouched for: `gosum`, `sumdb:NAME` or `none`.

        `by` is what the store says of it, "" for a file that was just fetched.  Raises ModuleError:
        sum.mismatch where the file is not what it should be, sum.unverifiable where that can't be found out.
        """
        key = version if kind == "zip" else f"{version}/go.mod"
        wanted = self._go_sum.sums.get((module, key))
        if wanted is not None:
            if wanted != h1:
                raise _mismatch(module, key, h1, wanted, "go.sum")
            return by if by.startswith(_DATABASE) else GOSUM
        if by.startswith(_DATABASE):
            return by
        if module != TOOLCHAIN and (self._sumdb is None or matches(self._nosumdb, module)):
            return NONE
        if self._sumdb is None:
            raise ModuleError(
                "sum.unverifiable",
                f"{module}@{version} is only taken with a checksum database, but GOSUMDB is off",
                subject=f"{module}@{version}",
            )
        wanted = (await self._ask(self._sumdb, module, version)).get(key)
        if wanted is None:
            raise ModuleError(
                "sum.unverifiable",
                f"checksum database {self._sumdb.name} has no sum for {module} {key}",
                subject=f"{module}@{version}",
                source=self._sumdb.name,
            )
        if wanted != h1:
            raise _mismatch(module, key, h1, wanted, f"checksum database {self._sumdb.name}")
        return f"{_DATABASE}{self._sumdb.name}"

    async def _ask(self, sumdb: LooksUp, module: str, version: str) -> dict[str, str]:
        try:
            return await sumdb.lookup(module, version)
        except ModuleError as error:
            missing = error.http_status in (404, 410)
            detail = (
                f"checksum database {sumdb.name} doesn't know it (a private module? set GOPRIVATE)"
                if missing
                else error.detail
            )
            raise ModuleError(
                error.finding if error.finding == "sum.mismatch" else "sum.unverifiable",
                f"can't verify {module}@{version}: {detail}",
                http_status=502 if missing else error.http_status,
                subject=f"{module}@{version}",
                source=error.source or sumdb.name,
                upstream=error.upstream,
            ) from error


def _mismatch(module: str, key: str, got: str, wanted: str, who: str) -> ModuleError:
    return ModuleError(
        "sum.mismatch",
        f"checksum mismatch: {module} {key} came as {got}, but {who} says {wanted}",
        subject=f"{module}@{key.removesuffix('/go.mod')}",
    )
