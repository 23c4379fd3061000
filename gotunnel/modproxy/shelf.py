"""The store as the proxy uses it: a fault of the store costs speed, never an answer.

Rules:
- A store that fails (a full disk, a read-only directory, a bucket that is gone) is a miss and a put that
  didn't happen; a person is told once for each kind of fault.
- What is found is passed on only if this project may trust it: by the sum in its labels, asked of the
  project's own verifier, without reading the file again.
- What contradicts the project's go.sum is the store's fault only where no checksum database vouched for it:
  then it is fetched anew and replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from gotunnel.errors import ModuleError
from gotunnel.modproxy.dirhash import h1_of_go_mod
from gotunnel.modproxy.receive import Verifies
from gotunnel.modproxy.target import Target
from gotunnel.storage.store import Store, Stored, StoreError, read_all
from gotunnel.tasks import in_thread

Tell = Callable[[str], None]


class Shelf:
    """`store`, whose faults are told by `tell`, in one line."""

    def __init__(self, store: Store, tell: Tell) -> None:
        self.store = store
        self._tell = tell
        self._told: set[str] = set()

    def fault(self, error: StoreError) -> None:
        """Say once what the store suffers from."""
        if error.finding not in self._told:
            self._told.add(error.finding)
            self._tell(f"the module store {self.store.label} fails, going on without it: {error.detail}")

    async def get(self, name: str) -> Stored | None:
        """As the store has it."""
        try:
            return await self.store.get(name)
        except StoreError as error:
            self.fault(error)
            return None

    async def put(
        self, name: str, source: Path | bytes, labels: Mapping[str, str], *, mutable: bool, replace: bool
    ) -> Stored | None:
        """What stands there now, None where it could not be put."""
        try:
            if replace:
                await self.store.delete(name)
            await self.store.put(name, source, labels=labels, mutable=mutable)
            return await self.store.get(name)
        except StoreError as error:
            self.fault(error)
            return None

    async def trusted(self, target: Target, stored: Stored, verifier: Verifies) -> Stored | None:
        """`stored`, with labels that say by what it is verified for this project; None: fetch it anew.

        Raises ModuleError where it can't be verified, or contradicts what a checksum database vouched for.
        """
        if target.kind not in ("mod", "zip"):
            return stored
        kind: Literal["mod", "zip"] = "mod" if target.kind == "mod" else "zip"
        labels = dict(stored.labels)
        try:
            h1, by = labels.get("h1", ""), labels.get("by", "")
            if not h1:
                h1, by = await self._sum(kind, stored), ""
            now = await verifier.check(target.module, target.version, kind, h1, by)
        except (StoreError, ValueError, OSError):
            return None
        except ModuleError as error:
            if error.finding == "sum.mismatch" and not labels.get("by", "").startswith("sumdb:"):
                return None
            raise
        if now != by or h1 != labels.get("h1"):
            labels |= {"h1": h1, "by": now}
            try:
                await self.store.relabel(stored.name, labels)
            except StoreError as error:
                self.fault(error)
            return Stored(stored.name, stored.size, stored.stored_at, labels)
        return stored

    async def _sum(self, kind: str, stored: Stored) -> str:
        """The sum of a file without labels, which somebody else put there.

        Raises ValueError, StoreError, OSError.
        """
        if kind == "mod":
            return h1_of_go_mod(await read_all(self.store, stored))
        path = await self.store.local(stored)
        if path is None:
            raise ValueError("not at hand")
        from gotunnel.modproxy.zipsum import sum_of

        return await in_thread("h1", lambda: sum_of(path))
