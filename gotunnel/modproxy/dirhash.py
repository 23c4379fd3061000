"""h1 sums and escaped paths, as go computes them.

Rules:
- h1 covers names and content, not compression: two mirrors' zips of one module may differ in bytes.
- Names are bytes, as they stand in the zip, and are sorted as such.
- Nothing is unpacked to memory whole: a zip may have 500 MB.
- Escaping is of ASCII capitals only, and an escaped text with a capital in it is wrong.

Sources: golang.org/x/mod/sumdb/dirhash (Hash1, HashZip), golang.org/x/mod/module (EscapePath).
"""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterable
from typing import IO

_PIECE = 1 << 18  # bytes


def h1(digests: Iterable[tuple[bytes, bytes]]) -> str:
    """The h1 sum of files given as (name, SHA-256 of the content).

    Raises ValueError for a name with a newline, which would make the sum ambiguous.
    """
    whole = hashlib.sha256()
    for name, digest in sorted(digests):
        if b"\n" in name:
            raise ValueError(f"file name with a newline: {name!r}")
        whole.update(digest.hex().encode() + b"  " + name + b"\n")
    return "h1:" + base64.b64encode(whole.digest()).decode()


def h1_of_zip(file: str | IO[bytes]) -> str:
    """The sum of a module zip, as it stands in go.sum under `MODULE VERSION`.

    `file` is a path or a seekable stream.  Raises ValueError where it is no zip or a broken one, OSError
    where it can't be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return h1((_name(info), _digest(archive, info)) for info in archive.infolist())
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ValueError(f"not a valid module zip: {error}") from error


def h1_of_go_mod(data: bytes) -> str:
    """The sum of a go.mod alone, as it stands in go.sum under `MODULE VERSION/go.mod`."""
    return h1([(b"go.mod", hashlib.sha256(data).digest())])


def _name(info: zipfile.ZipInfo) -> bytes:
    """The name as in the zip: without the UTF-8 flag zipfile has read it as cp437, go takes the bytes."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")


def _digest(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    digest = hashlib.sha256()
    with archive.open(info) as content:
        while piece := content.read(_PIECE):
            digest.update(piece)
    return digest.digest()


def escape(text: str) -> str:
    """A module path or version as it stands in a GOPROXY URL or in the module cache: `A` is `!a`.

    Raises ValueError for what can't be escaped: `!` and what isn't ASCII.
    """
    if "!" in text or not text.isascii():
        raise ValueError(f"{text!r}: no module path or version")
    return re.sub("[A-Z]", lambda m: "!" + m[0].lower(), text)


def unescape(text: str) -> str:
    """The reverse of `escape`.  Raises ValueError for what `escape` never gives."""
    if not text.isascii() or re.search(r"[A-Z]|!(?![a-z])", text):
        raise ValueError(f"{text!r}: not an escaped module path or version")
    return re.sub("!([a-z])", lambda m: m[1].upper(), text)
