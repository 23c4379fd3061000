"""A bundle: a project's closure in one file, to be carried to a machine without network.

    _gotunnel/manifest.json       first: format, project, and every file with size, SHA-256 and h1
    _gotunnel/go.sum              what the project vouches for
    sumdb/NAME/…                  lookups, tiles and one tree head that prove the public modules
    MODULE/@v/VERSION.mod …       the modules, as in go's own cache/download

Rules:
- It is a tar in one pass (`tarform`): the list comes first, so each file is judged as it comes.
- By hand it works too: `tar -xf FILE -C DIR`, then `GOPROXY=file://DIR`, checksum database included.
- A name says what the file is and how large it may be (`limit_of`); one that says nothing is refused.
- The same project gives the same bytes.

packing.py writes one, unpacking.py reads one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from gotunnel.dataclass import dataclass
from gotunnel.errors import GotunnelError
from gotunnel.modproxy import target
from gotunnel.modproxy.closure import Item
from gotunnel.modproxy.gosum import GoSum

MANIFEST = "_gotunnel/manifest.json"
GO_SUM = "_gotunnel/go.sum"
FORMAT = 1
MANIFEST_LIMIT = 64 << 20  # bytes
_FILES = 500_000
_MIB = 1 << 20
# cmd/go/internal/modfetch/codehost (MaxGoMod, MaxZipFile)
_LIMITS: Mapping[str, int] = {"mod": 16 * _MIB, "info": _MIB, "zip": 500 * _MIB}
_SHA256 = re.compile("[0-9a-f]{64}")
_H1 = re.compile("h1:[A-Za-z0-9+/]{43}=")


class BundleError(GotunnelError):
    """A bundle is broken, or holds what doesn't belong into one; one line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: `size` in bytes, `sha256` in hexadecimal digits, `h1` of a zip or mod."""

    name: str
    size: int
    sha256: str
    h1: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle holds, in its order; `database` is the name of the checksum database, "" without one."""

    projects: tuple[str, ...]
    database: str
    entries: tuple[Entry, ...]

    def encode(self) -> bytes:
        """As JSON."""
        files = [
            {"name": e.name, "size": e.size, "sha256": e.sha256} | ({"h1": e.h1} if e.h1 else {})
            for e in self.entries
        ]
        head = {"gotunnel-bundle": FORMAT, "projects": list(self.projects), "sumdb": self.database}
        return json.dumps(head | {"files": files}, indent=1).encode() + b"\n"

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Raises BundleError for anything that isn't one, and for a newer format."""
        try:
            told = json.loads(data)
            version = told["gotunnel-bundle"]
            if version != FORMAT:
                raise BundleError(
                    f"the bundle has format {version!r}, this gotunnel reads {FORMAT}: use a newer one"
                )
            projects = tuple(_text(name) for name in _list(told["projects"]))
            entries = tuple(_entry(each) for each in _list(told["files"]))
            names = {entry.name for entry in entries}
            if len(names) != len(entries) or len(entries) > _FILES:
                raise ValueError("names that stand twice, or too many of them")
            return cls(projects, _text(told["sumdb"]), entries)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise BundleError(f"the bundle's list of files is broken: {error!r:.200}") from None


def _list(value: object) -> Sequence[Mapping[str, object]]:
    if not isinstance(value, list):
        raise ValueError("want a list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError("want a text")
    return value


def _entry(told: Mapping[str, object]) -> Entry:
    name, size, sha, h1 = _text(told["name"]), told["size"], _text(told["sha256"]), _text(told.get("h1", ""))
    most = limit_of(name)
    if most is None:
        raise BundleError(f"the bundle lists {name[:200]!a}, which isn't the name of a module's file")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= most:
        raise BundleError(f"the bundle lists {name[:200]!a} with {size!r:.50} bytes; {most} are the limit")
    if not _SHA256.fullmatch(sha) or not (
        _H1.fullmatch(h1) or (not h1 and not name.endswith((".mod", ".zip")))
    ):
        raise ValueError(f"{name}: a malformed sum")
    return Entry(name, size, sha, h1)


def limit_of(name: str) -> int | None:
    """How many bytes a file of this name may have; None for a name that has no place in a bundle."""
    if name == GO_SUM:
        return 64 * _MIB
    item = Item.parse(name)
    if item is not None:
        return _LIMITS[item.kind]
    try:
        found = target.parse(name)
    except ValueError:
        return None
    # decoded it would be another name: `%2e%2e` stays out
    return 256 << 10 if found.kind == "sumdb" and found.name == name else None


def sumdb_name(database: str, rest: str) -> str:
    """Where a record lies; `rest` as go asks for it below the database's URL."""
    return f"sumdb/{database}/{rest}"


def go_sum_text(go_sum: GoSum) -> bytes:
    """As go writes it: sorted by module and version."""
    return "".join(f"{m} {v} {h1}\n" for (m, v), h1 in sorted(go_sum.sums.items())).encode()


def check_info(data: bytes, version: str) -> None:
    """Raises ValueError for what isn't the `.info` of this version."""
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("no JSON") from None
    if not isinstance(told, dict) or told.get("Version") != version:
        raise ValueError(f"it tells of another version than {version}")
