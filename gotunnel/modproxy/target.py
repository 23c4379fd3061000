"""What go asks of a module proxy, parsed once.

Rules:
- `parse` is pure; what isn't a question of the protocol is a ValueError with one line, never a guess.
- Paths are decoded once.  `..`, empty elements, an encoded `/`, `\\` or NUL, names that Windows reserves,
  capitals (go escapes them as `!x`) and whatever go itself refuses never become the name of a file.
- `name` is the escaped path, the same however it was encoded: the key of the store and of flights.

Sources: https://go.dev/ref/mod#goproxy-protocol, golang.org/x/mod/module (CheckPath,
EscapePath, EscapeVersion).
"""

from __future__ import annotations

import re
from typing import Literal

from gotunnel.dataclass import dataclass
from gotunnel.modproxy.dirhash import escape, unescape
from gotunnel.modproxy.version import fits, is_canonical

Kind = Literal["list", "latest", "info", "mod", "zip", "query", "sumdb"]

LONGEST = 4096  # bytes of a path
_ELEMENT = 250  # bytes of a file name; a store adds to it
_PATH_CHARS = re.compile(r"[-._~0-9A-Za-z]+")
_HOST_CHARS = re.compile(r"[-.0-9a-z]+")
_VERSION_CHARS = re.compile(r"[-0-9A-Za-z._~+=,@()&$#%\[\]^{} ]+")  # what go takes in a file name, but `!`
_SUMDB_CHARS = re.compile(r"[-0-9A-Za-z._~+=,@!]+")
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?|.*~[0-9]+(?:\..*)?", re.I)
_HEX = re.compile(r"%([0-9A-Fa-f]{2})?")
_SUMDB_ASKS = ("supported", "latest", "lookup", "tile")


@dataclass(frozen=True, slots=True)
class Target:
    """One question.

    `module` and `version` are unescaped; for a checksum database `module` is its name and `rest` what is
    asked of it ("latest", "lookup/M@V", "tile/…").  `query` is the `.info` of what is no canonical version.
    """

    kind: Kind
    module: str
    version: str
    name: str
    rest: str = ""

    @property
    def immutable(self) -> bool:
        """Whether the answer is the same for ever."""
        return self.kind in ("info", "mod", "zip")

    def __str__(self) -> str:
        if self.kind == "sumdb":
            return f"{self.module}/{self.rest}"
        if self.kind in ("list", "latest"):
            return f"{self.module}@{self.kind}"
        return f"{self.module}@{self.version}"


def parse(path: str) -> Target:
    """The question that `path` (still %-encoded, with or without its first slash) asks.

    Raises ValueError where it is none.
    """
    if len(path) > LONGEST:
        raise ValueError(f"the path is longer than {LONGEST} bytes")
    text = _decode(path.removeprefix("/"))
    if text.startswith("sumdb/"):
        return _sumdb(text)
    if text.endswith("/@latest"):
        return Target("latest", _module(text.removesuffix("/@latest")), "", text)
    place, middle, file = text.rpartition("/@v/")
    if not middle:
        raise ValueError(
            f"{_shown(text)}: want MODULE/@v/list, MODULE/@v/VERSION.info, .mod, .zip or MODULE/@latest"
        )
    module = _module(place)
    if file == "list":
        return Target("list", module, "", text)
    return _file(module, file)


def of(module: str, version: str, kind: Literal["info", "mod", "zip"]) -> Target:
    """The question for a file of a canonical version.  Raises ValueError for what go couldn't ask."""
    return _file(_module(escape(module)), f"{escape(version)}.{kind}")


def _file(module: str, file: str) -> Target:
    escaped, dot, ending = file.rpartition(".")
    if not dot or len(file) > _ELEMENT or ending not in ("info", "mod", "zip"):
        raise ValueError(f"{_shown(file)}: want list, VERSION.info, VERSION.mod or VERSION.zip")
    version = unescape(escaped)
    if not _VERSION_CHARS.fullmatch(version) or version.endswith(".") or _RESERVED.fullmatch(version):
        raise ValueError(f"{_shown(version)}: no version")
    name = f"{escape(module)}/@v/{file}"
    if ending == "info":
        stands = is_canonical(version) and fits(module, version)
        return Target("info" if stands else "query", module, version, name)
    if not is_canonical(version):
        raise ValueError(f"{_shown(version)}: a .{ending} is asked by its canonical version, such as v1.2.3")
    return Target("mod" if ending == "mod" else "zip", module, version, name)


def _module(escaped: str) -> str:
    module = unescape(escaped)
    first, *more = module.split("/")
    if not _HOST_CHARS.fullmatch(first) or "." not in first or first.startswith("-"):
        raise ValueError(f"{_shown(module)}: a module path begins with a host name")
    for element in (first, *more):
        if (
            not _PATH_CHARS.fullmatch(element)
            or element.startswith(".")
            or element.endswith(".")
            or len(escape(element)) > _ELEMENT
            or _RESERVED.fullmatch(element)
        ):
            raise ValueError(f"{_shown(module)}: no module path: element {_shown(element)}")
    return module


def _sumdb(text: str) -> Target:
    _, *parts = text.split("/")
    if any(not _SUMDB_CHARS.fullmatch(p) or p.startswith(".") or p.endswith(".") for p in parts):
        raise ValueError(f"{_shown(text)}: want sumdb/NAME/supported, latest, lookup/… or tile/…")
    at = next((i for i, part in enumerate(parts) if i and part in _SUMDB_ASKS), 0)
    if not at or (parts[at] in ("supported", "latest")) != (len(parts) == at + 1):
        raise ValueError(f"{_shown(text)}: want sumdb/NAME/supported, latest, lookup/… or tile/…")
    rest = "/".join(parts[at:])
    if rest.startswith("lookup/"):
        module, sign, version = rest.removeprefix("lookup/").partition("@")
        if not sign or not is_canonical(unescape(version)):
            raise ValueError(f"{_shown(rest)}: want lookup/MODULE@VERSION")
        _module(module)
    return Target("sumdb", "/".join(parts[:at]), "", text, rest)


def _decode(path: str) -> str:
    def plain(found: re.Match[str]) -> str:
        code = int(found[1], 16) if found[1] else 0
        char = chr(code)
        if not 0x20 <= code < 0x7F or char in "/\\":
            raise ValueError(f"{_shown(path)}: {found[0]!r} has no place in a path")
        return char

    if not path.isascii() or not path.isprintable() or any(c in path for c in "\\?#"):
        raise ValueError(f"{_shown(path)}: no path of a module proxy")
    return _HEX.sub(plain, path)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else text[:199] + "…")
