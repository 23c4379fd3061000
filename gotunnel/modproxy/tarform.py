"""The tar form of a bundle: what `tar` unpacks, and the strict part of it that is read back.

Rules:
- One pass each way: a bundle may come from a pipe and be larger than the memory or the disk's free half.
- Only regular files, with their size before them: what else a tar can hold (links, devices, directories,
  sparse files) is refused by its header, before anything is written.
- The same files give the same bytes: no times, owners or modes of this machine.
- Nothing is skipped over: a byte that isn't where it has to be ends the reading.

Tar and not zip: a zip's list stands at its end, so it can't be checked while it comes in; and the modules
in it are compressed already.  Source: POSIX.1-2024, pax (ustar interchange format, `x` headers).
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from gotunnel.dataclass import dataclass

BLOCK = 512
PIECE = 1 << 18  # bytes
_PAX_LIMIT = 8192  # bytes; a longer name is none of ours
_ZERO = bytes(BLOCK)


class TarError(ValueError):
    """What comes is no bundle, or a broken one; one line."""


@dataclass(frozen=True, slots=True)
class Header:
    """A file that follows: its `name` as it stands there and its `size` in bytes."""

    name: str
    size: int


def header(name: str, size: int) -> bytes:
    """The blocks before a file's bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(format=tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """The bytes after a file of `size` bytes."""
    return bytes(-size % BLOCK)


END = _ZERO * 2


class Reader:
    """A bundle that comes by `stream`: `headers()`, and for each `pieces()` before the next."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = 0  # bytes of the file at hand that nobody has read
        self._pad = 0

    def next(self) -> Header | None:
        """The next file, None at the end.  Raises TarError, OSError."""
        if self._left:
            raise TarError("the file before was not read")
        self._exactly(self._pad)
        self._pad = 0
        name = ""
        while True:
            block = self._exactly(BLOCK)
            if block == _ZERO:
                self._end(name)
                return None
            kind, field, size = _parse(block)
            if kind == b"x" and not name:
                name = self._pax(size)
                continue
            if kind != b"0":
                raise TarError(f"{(name or field)[:200]!a} is no regular file (tar type {kind!a})")
            self._left, self._pad = size, -size % BLOCK
            return Header(name or field, size)

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the file at hand.  Raises TarError where the bundle ends before, OSError."""
        while self._left:
            piece = self._stream.read(min(PIECE, self._left))
            if not piece:
                raise TarError("it ends in the middle of a file")
            self._left -= len(piece)
            yield piece

    def _end(self, name: str) -> None:
        if name or self._exactly(BLOCK) != _ZERO:
            raise TarError("its end is broken")
        while piece := self._stream.read(PIECE):  # tar pads to records of 10 KiB
            if piece.strip(b"\0"):
                raise TarError("something follows its end")

    def _pax(self, size: int) -> str:
        if not 0 < size <= _PAX_LIMIT:
            raise TarError("an extended header of odd size")
        data = self._exactly(size)
        self._exactly(-size % BLOCK)
        length, _, rest = data.partition(b" ")
        # one record and no other: `LENGTH path=NAME\n`
        if not length.isdigit() or int(length) != size or not rest.startswith(b"path=") or rest[-1:] != b"\n":
            raise TarError("an extended header that holds more than a name")
        return _text(rest[5:-1])

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._stream.read(count - len(data))
            if not piece:
                raise TarError("it ends too early")
            data += piece
        return data


def _parse(block: bytes) -> tuple[bytes, str, int]:
    """(type, name, size) of a ustar header."""
    if block[257:263] not in (b"ustar\0", b"ustar "):
        raise TarError("not a tar file")
    told = _octal(block[148:156])
    if told != sum(block[:148]) + 8 * 32 + sum(block[156:]):
        raise TarError("the checksum of a header is wrong")
    prefix, name = _field(block[345:500]), _field(block[:100])
    return block[156:157], _text(prefix + b"/" + name if prefix else name), _octal(block[124:136])


def _field(data: bytes) -> bytes:
    return data.partition(b"\0")[0]


def _octal(data: bytes) -> int:
    digits = data.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise TarError("a number in a header is none")
    return int(digits, 8)


def _text(data: bytes) -> str:
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise TarError(f"{data[:200]!a}: not a name") from None
    if not text or not text.isprintable():
        raise TarError(f"{text[:200]!a}: not a name")
    return text
