"""`Store`: where files of modules are kept; what every kind of store holds to.

Rules:
- A name is an escaped path as go asks for it: `github.com/!burnt!sushi/toml/@v/v1.0.0.zip`.  It is never
  decoded, and one that could leave the store is refused (`check_name`) before anything is touched.
- A file is whole or it is not there.  An immutable one is written once: the first put wins, a later one of
  the same name changes nothing.  A mutable one is replaced as a whole.
- Labels say what is known of a file, such as by what it was verified.  They become visible with the file;
  a file whose labels are lost is a file without labels: unverified, never wrongly verified.
- A file that vanished meanwhile, pruned by somebody else, is a miss (`Vanished`) and no fault.
- Every other fault is a `StoreError` of one line: what, where, what to do.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Literal, Protocol

from gotunnel.dataclass import dataclass
from gotunnel.errors import GotunnelError

PIECE = 256 * 1024
OWN = ".gotunnel"  # the part of a store that is ours: labels, temporary files
_NAME_LIMIT = 2048
_COMPONENT_LIMIT = 255  # NAME_MAX of every file system that matters
_LAST_LIMIT = 250  # its labels lie in a file that ends in ".json"
_LABELS_LIMIT = 1024  # S3 keeps 2 KB of metadata, base64 takes a third more

Finding = Literal["disk.full", "cache.permission", "unknown"]


class StoreError(GotunnelError):
    """The store can't do what was asked; `finding` is an id of the catalogue."""

    def __init__(self, finding: Finding, detail: str) -> None:
        super().__init__(detail)
        self.finding: Finding = finding
        self.detail = detail


class Vanished(StoreError):
    """The file that `get` told of is gone, or is another one by now: to be treated as a miss."""

    def __init__(self, name: str) -> None:
        super().__init__("unknown", f"{name} was removed from the module store meanwhile")


@dataclass(frozen=True, slots=True)
class Stored:
    """A file in a store: its `size` in bytes, when it was put (seconds since the epoch), its labels."""

    name: str
    size: int
    stored_at: float
    labels: Mapping[str, str] = field(default_factory=dict)


class Store(Protocol):
    """Every method raises StoreError, for a name that is none too."""

    @property
    def label(self) -> str:
        """What people call it; redacted."""

    async def get(self, name: str) -> Stored | None:
        """What is known of a file, None where it isn't there; counts as a use of it."""

    def read(self, stored: Stored) -> AsyncGenerator[bytes, None]:
        """Its bytes, in pieces of at most `PIECE`.  Raises Vanished before the first of them."""

    async def local(self, stored: Stored) -> Path | None:
        """A file that may be opened or sent, but not written; None where there is none: then `read`."""

    async def put(
        self,
        name: str,
        source: Path | bytes,
        *,
        labels: Mapping[str, str] | None = None,
        mutable: bool = False,
    ) -> None:
        """Store a file.  A `source` path (best within `spool`) is used up, but is there after an error."""

    async def relabel(self, name: str, labels: Mapping[str, str]) -> None:
        """Replace the labels of a file; nothing happens where it isn't there."""

    async def delete(self, name: str) -> None:
        """Remove a file and its labels, if it is there."""

    def names(self, prefix: str = "", *, labels: bool = True) -> AsyncGenerator[Stored, None]:
        """Every file whose name starts with `prefix`; `labels=False` leaves theirs empty: cheaper."""

    async def prune(self, max_size: int) -> tuple[int, int]:
        """Remove immutable files, least recently used first, until all take `max_size` bytes at most.

        Returns how many files and bytes were removed.  Labels are not counted.
        """

    def spool(self) -> Path:
        """A directory for temporary files, where there can be one on the same file system."""

    async def close(self) -> None:
        """Let go of connections and temporary files."""


def check_name(name: str) -> None:
    """Raises StoreError for a name that isn't a plain relative path of printable components."""
    wrong = _wrong_name(name)
    if wrong:
        raise StoreError("unknown", f"not a name for the module store: {name[:200]!a}: {wrong}")


def check_prefix(prefix: str) -> None:
    """Raises StoreError for a prefix with which no name can start."""
    if prefix:
        check_name(prefix.removesuffix("/") if len(prefix) > 1 else prefix)


def _wrong_name(name: str) -> str:
    """What is wrong with it, in words; "" if nothing is."""
    parts = name.split("/")
    if not name or name.startswith("/"):
        return "want a relative path"
    if any(part in ("", ".", "..") for part in parts):
        return "it has an empty component, '.' or '..'"
    if parts[0] == OWN:
        return f"{OWN} is the store's own"
    if "\\" in name or not name.isprintable():
        return "it has a backslash or a control character"
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return "it isn't UTF-8"
    if max(sizes) > _COMPONENT_LIMIT or sizes[-1] > _LAST_LIMIT or len(name) > _NAME_LIMIT:
        return "it is too long"
    return ""


# --- labels as a file ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Note:
    """What a store writes beside a file: its labels, whether it is mutable, and which file is meant."""

    labels: Mapping[str, str] = field(default_factory=dict)
    mutable: bool = False
    of: str = ""  # tells a file from another of the same name; "" where nothing has to

    def encode(self) -> bytes:
        """As JSON.  Raises StoreError for labels that aren't small."""
        data = json.dumps(
            {"labels": dict(self.labels), "mutable": self.mutable, "of": self.of}, separators=(",", ":")
        ).encode()
        if len(data) > _LABELS_LIMIT:
            raise StoreError("unknown", f"labels of {len(data)} bytes, {_LABELS_LIMIT} is the limit")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Note:
        """What `encode` wrote; an empty one for anything else (a machine that crashed in between)."""
        try:
            found = json.loads(data)
            labels = {str(key): str(value) for key, value in found["labels"].items()}
            return cls(labels, found["mutable"] is True, str(found["of"]))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return cls()


async def read_all(store: Store, stored: Stored) -> bytes:
    """The whole of a small file.  Raises Vanished, StoreError."""
    pieces: AsyncIterator[bytes] = store.read(stored)
    return b"".join([piece async for piece in pieces])
