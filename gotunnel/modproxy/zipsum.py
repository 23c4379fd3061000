"""The h1 sum of a module zip, of one that streams by too; and the rules for what may be in one.

Rules:
- `ZipSum` reads the local headers in order, and in the end holds the central directory against them: what
  another reader could see otherwise (gaps, other names, sizes, double or hidden entries, anything behind the
  end) is refused.  Python's zipfile reads over much at which go's reader gives up: a zip of the right sum by
  the one could be useless to the other, for ever where it is stored.
- Memory is bounded: one piece of content, a digest and a name for each entry.
- Names, sizes and collisions are judged as go does before it unpacks; letters of Unicode versions newer
  than Python's are let through to it.
- Whatever is odd is a ValueError of one line.

Sources: APPNOTE.TXT 6.3.9 (PKWARE); golang.org/x/mod/zip (checkZip), golang.org/x/mod/module (CheckFilePath).
"""

from __future__ import annotations

import hashlib
import posixpath
import re
import struct
import unicodedata
import zlib
from collections.abc import Generator
from pathlib import Path

from gotunnel.modproxy.dirhash import h1

MAX_ZIP = 500 << 20  # bytes, packed and unpacked
MAX_SMALL = 16 << 20  # bytes of go.mod, of LICENSE
_MAX_ENTRIES = 1 << 18
_MAX_NAMES = 64 << 20  # bytes
_PIECE = 64 << 10
_STORED, _DEFLATED = 0, 8
_ENCRYPTED, _DESCRIPTOR = 0x2041, 0x8  # flag bits; the first also with what else hides content
_LOCAL, _CENTRAL, _DATA = b"PK\x03\x04", b"PK\x01\x02", b"PK\x07\x08"
_END, _END64, _LOCATOR = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_32 = 0xFFFFFFFF
_NEWEST = 63  # version of the format, times ten

Reading = Generator[None, None, bytes]


class _Entry:
    """What a local header said, and what came."""

    def __init__(self, name: bytes, flags: int, method: int, crc: int, packed: int, size: int) -> None:
        self.name, self.flags, self.method = name, flags, method
        self.crc, self.packed, self.size = crc, packed, size
        self.large = False  # its sizes have eight bytes
        self.seen_crc = self.seen_packed = self.seen = 0
        self.digest = hashlib.sha256()

    def add(self, data: bytes, packed: int) -> None:
        """Content, and how many bytes it took in the zip."""
        self.digest.update(data)
        self.seen_crc = zlib.crc32(data, self.seen_crc)
        self.seen += len(data)
        self.seen_packed += packed

    @property
    def fits(self) -> bool:
        """Whether what came is what was said."""
        return (self.crc, self.packed, self.size) == (self.seen_crc, self.seen_packed, self.seen)


class ZipSum:
    """The h1 sum of a zip that is fed piece by piece.

    With `module` and `version` the names in it are judged too, as by go.  Every method raises ValueError for
    what isn't a plain module zip, and from then on always.
    """

    def __init__(self, module: str = "", version: str = "") -> None:
        self._names = _Names(module, version) if module else None
        self._buffer = bytearray()
        self._at = 0  # bytes of the zip that were taken from the buffer
        self._directory: int | None = None  # where it begins
        self._unpacked = 0
        self._ended = False
        self._sum = ""
        self._reading = self._read()

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        self._buffer += data
        if self._at + len(self._buffer) > MAX_ZIP:
            raise ValueError(f"not a valid module zip: larger than {MAX_ZIP >> 20} MiB")
        self._go_on()

    @property
    def content(self) -> int:
        """How many bytes from the front are known to be no part of its directory: they alone are no zip."""
        return self._at if self._directory is None else self._directory

    def finish(self) -> str:
        """The sum, once all was fed."""
        self._ended = True
        self._go_on()
        return self._sum

    def _go_on(self) -> None:
        try:
            next(self._reading)
        except StopIteration:
            if not self._sum:
                raise ValueError("not a valid module zip") from None
        except (zlib.error, struct.error) as error:
            raise ValueError(f"not a valid module zip: {error}") from error

    # --- the parser; it yields where it wants more -----------------------------------------------

    def _read(self) -> Generator[None, None, None]:
        entries: dict[int, _Entry] = {}
        digests: list[tuple[bytes, bytes]] = []
        seen: set[bytes] = set()
        length = 0
        start, mark = self._at, (yield from self._take(4))
        while mark == _LOCAL:
            entry = yield from self._entry()
            length += len(entry.name)
            if entry.name in seen:
                raise _odd(f"two entries {entry.name[:200]!a}")
            if len(entries) >= _MAX_ENTRIES or length > _MAX_NAMES:
                raise _odd("too many entries")
            seen.add(entry.name)
            entries[start] = entry
            digests.append((entry.name, entry.digest.digest()))
            del entry.digest
            if self._names is not None:
                self._names.add(entry.name, entry.seen)
            start, mark = self._at, (yield from self._take(4))
        count = len(entries)
        self._directory = directory = start
        while mark == _CENTRAL:
            yield from self._central(entries)
            start, mark = self._at, (yield from self._take(4))
        if entries:
            raise _odd("entries that its directory doesn't name")
        yield from self._end(mark, count, directory, start - directory)
        while not self._ended:
            if self._buffer:
                break
            yield
        if self._buffer:
            raise _odd("something behind its end")
        self._sum = h1(digests)

    def _take(self, count: int) -> Reading:
        while len(self._buffer) < count:
            if self._ended:
                raise _odd("it ends too early")
            yield
        data = bytes(self._buffer[:count])
        self._drop(count)
        return data

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._at += count

    def _entry(self) -> Generator[None, None, _Entry]:
        head = struct.unpack("<HHHHHLLLHH", (yield from self._take(26)))
        _, flags, method, _, _, crc, packed, size, name_length, extra_length = head
        name = yield from self._take(name_length)
        extra = yield from self._take(extra_length)
        entry = _Entry(name, flags, method, crc, packed, size)
        if (large := _large(extra)) is not None:
            entry.large = True
            entry.size, entry.packed = _replace(large, size, packed)
        if flags & _ENCRYPTED:
            raise _odd(f"{name[:200]!a} is encrypted")
        if method == _DEFLATED:
            yield from self._inflate(entry)
        elif method != _STORED:
            raise _odd(f"{name[:200]!a} is packed in a way (method {method}) that go doesn't know")
        elif flags & _DESCRIPTOR:
            yield from self._copy_to_descriptor(entry)
            return entry
        else:
            yield from self._copy(entry)
        if flags & _DESCRIPTOR:
            yield from self._descriptor(entry)
        if not entry.fits:
            raise _odd(f"{name[:200]!a} isn't what its header says")
        return entry

    def _add(self, entry: _Entry, data: bytes, packed: int) -> None:
        entry.add(data, packed)
        self._unpacked += len(data)
        if self._unpacked > MAX_ZIP:
            raise _odd(f"more than {MAX_ZIP >> 20} MiB unpacked")

    def _copy(self, entry: _Entry) -> Generator[None, None, None]:
        while entry.seen < entry.packed:
            yield from self._wait(1)
            data = bytes(self._buffer[: min(_PIECE, entry.packed - entry.seen)])
            self._drop(len(data))
            self._add(entry, data, len(data))

    def _inflate(self, entry: _Entry) -> Generator[None, None, None]:
        stream = zlib.decompressobj(-zlib.MAX_WBITS)
        while not stream.eof:
            yield from self._wait(1)
            piece = bytes(self._buffer[:_PIECE])
            rest, data = piece, b"-"
            while data and not stream.eof:
                data = stream.decompress(rest, _PIECE)
                rest = stream.unconsumed_tail
                self._add(entry, data, 0)
            taken = len(piece) - len(stream.unused_data if stream.eof else rest)
            self._drop(taken)
            entry.add(b"", taken)

    def _wait(self, count: int) -> Generator[None, None, None]:
        while len(self._buffer) < count:
            if self._ended:
                raise _odd("it ends too early")
            yield

    def _descriptor(self, entry: _Entry) -> Generator[None, None, None]:
        first = yield from self._take(4)
        if first == _DATA:
            first = yield from self._take(4)
        form = "<QQ" if entry.large else "<LL"
        (entry.crc,) = struct.unpack("<L", first)
        entry.packed, entry.size = struct.unpack(form, (yield from self._take(struct.calcsize(form))))

    def _copy_to_descriptor(self, entry: _Entry) -> Generator[None, None, None]:
        """Content of a length that is told only behind it: up to a descriptor that fits."""
        form = "<LQQ" if entry.large else "<LLL"
        whole = 4 + struct.calcsize(form)
        while True:
            yield from self._wait(whole)
            at = self._buffer.find(_DATA)
            count = at if at >= 0 else len(self._buffer) - len(_DATA) + 1
            self._add(entry, bytes(self._buffer[:count]), count)
            self._drop(count)
            if at < 0:
                continue
            yield from self._wait(whole)
            told = struct.unpack(form, self._buffer[4:whole])
            if told == (entry.seen_crc, entry.seen_packed, entry.seen):
                entry.crc, entry.packed, entry.size = told
                self._drop(whole)
                return
            self._add(entry, bytes(self._buffer[:1]), 1)
            self._drop(1)

    def _central(self, entries: dict[int, _Entry]) -> Generator[None, None, None]:
        head = struct.unpack("<HHHHHHLLLHHHHHLL", (yield from self._take(42)))
        flags, method, crc, packed, size = head[2], head[3], head[6], head[7], head[8]
        name_length, extra_length, comment_length, offset = head[9], head[10], head[11], head[15]
        name = yield from self._take(name_length)
        extra = yield from self._take(extra_length)
        yield from self._take(comment_length)
        if (large := _large(extra)) is not None:
            size, packed, offset = _replace(large, size, packed, offset)
        if head[1] & 0xFF > _NEWEST:
            raise _odd(f"{name[:200]!a} wants a newer unzip than there is")
        entry = entries.pop(offset, None)
        if entry is None or (name, method, crc, packed, size) != (
            entry.name, entry.method, entry.crc, entry.packed, entry.size
        ) or (flags ^ entry.flags) & ~_DESCRIPTOR & 0xFFF9:  # fmt: skip
            raise _odd(f"its directory and its content differ in {name[:200]!a}")

    def _end(self, mark: bytes, count: int, start: int, size: int) -> Generator[None, None, None]:
        if mark == _END64:
            at = self._at - 4
            (length,) = struct.unpack("<Q", (yield from self._take(8)))
            if not 44 <= length <= _PIECE:
                raise _odd("a wrong end")
            told = struct.unpack_from("<HHLLQQQQ", (yield from self._take(length)))[4:]
            if told != (count, count, size, start):
                raise _odd("its end doesn't fit its directory")
            locator = yield from self._take(20)
            if locator[:4] != _LOCATOR or struct.unpack("<LQL", locator[4:]) != (0, at, 1):
                raise _odd("a wrong end")
            mark = yield from self._take(4)
        if mark != _END:
            raise _odd("something that is no entry")
        disk, first, here, total, length, offset, comment = struct.unpack(
            "<HHHHLLH", (yield from self._take(18))
        )
        told = (here, total, length, offset)
        wanted = (count, count, size, start)
        if (disk, first) != (0, 0) or any(
            a not in (b, 0xFFFF if at < 2 else _32)
            for at, (a, b) in enumerate(zip(told, wanted, strict=True))
        ):
            raise _odd("its end doesn't fit its directory")
        yield from self._take(comment)


def _odd(what: str) -> ValueError:
    return ValueError(f"not a valid module zip: {what}")


def _large(extra: bytes) -> bytes | None:
    """The zip64 field among the extra ones."""
    while len(extra) >= 4:
        kind, length = struct.unpack("<HH", extra[:4])
        if kind == 1:
            return extra[4 : 4 + length]
        extra = extra[4 + length :]
    return None


def _replace(large: bytes, *values: int) -> tuple[int, ...]:
    """The values, those that had no room taken from the zip64 field."""
    found, at = [], 0
    for value in values:
        if value == _32:
            (value,) = struct.unpack_from("<Q", large, at)
            at += 8
        found.append(value)
    return tuple(found)


# --- what may be in a module zip ------------------------------------------------------------------------

_WINDOWS = re.compile(r"(?:con|prn|aux|nul|com[1-9]|lpt[1-9])(?:\..*)?", re.IGNORECASE | re.ASCII | re.DOTALL)
_LETTERS = ("Lu", "Ll", "Lt", "Lm", "Lo", "Cn")  # Cn: not known to this Python
_PLAIN = re.compile(r"[A-Za-z0-9!#$%&()+,.=@\[\]^_{}~ /-]+")


def sum_of(path: Path, module: str = "", version: str = "") -> str:
    """The h1 sum of the zip at `path`, looked at as by `ZipSum`.  Blocks.

    Raises ValueError with one line, OSError where the file can't be read.
    """
    summing = ZipSum(module, version)
    with path.open("rb") as file:
        while data := file.read(4 * _PIECE):
            summing.feed(data)
    return summing.finish()


class _Names:
    """The names so far, and how much they unpack to."""

    def __init__(self, module: str, version: str) -> None:
        self._prefix = f"{module}@{version}/"
        self._seen: dict[str, tuple[str, bool]] = {}
        self._total = 0

    def add(self, raw: bytes, size: int) -> None:
        """One more.  Raises ValueError."""
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise _odd(f"{raw[:200]!a} isn't UTF-8") from None
        if not name.startswith(self._prefix):
            raise _odd(f"{name[:200]!a} isn't below {self._prefix}")
        name = name.removeprefix(self._prefix)
        if not name:
            return
        is_directory = name.endswith("/")
        name = name.removesuffix("/")
        if problem := _wrong(name):
            raise _odd(f"{name[:200]!a} {problem}")
        self._collide(name, is_directory)
        if is_directory:
            return
        if posixpath.basename(name).lower() == "go.mod" and name != "go.mod":
            raise _odd(f"{name[:200]!a}: a go.mod stands at the top, in lower case")
        if name in ("go.mod", "LICENSE") and size > MAX_SMALL:
            raise _odd(f"{name} is larger than {MAX_SMALL >> 20} MiB")
        self._total += size
        if self._total > MAX_ZIP:
            raise _odd(f"more than {MAX_ZIP >> 20} MiB unpacked")

    def _collide(self, name: str, is_directory: bool) -> None:
        while name:
            folded = name.lower() if name.isascii() else "".join(map(_fold, name))
            other = self._seen.get(folded)
            if other is None:
                self._seen[folded] = (name, is_directory)
            elif other[0] != name:
                raise _odd(f"{other[0][:200]!a} and {name[:200]!a} differ in case only")
            elif other[1] != is_directory:
                raise _odd(f"{name[:200]!a} is a file and a directory")
            elif not is_directory:
                raise _odd(f"two entries {name[:200]!a}")
            name, is_directory = posixpath.dirname(name), True


def _fold(char: str) -> str:
    """One character without case, as strings.EqualFold: never two for one."""
    return next((each for each in (char.casefold(), char.lower()) if len(each) == 1), char)


def _wrong(name: str) -> str:
    """What is wrong with the path of a file, in words; "" if nothing is."""
    if name.startswith("/") or "//" in name or not name:
        return "is no clean relative path"
    for element in name.split("/"):
        if element.endswith("."):
            return "has an element that ends in a dot"
        if _WINDOWS.fullmatch(element):
            return "has a name that Windows keeps for itself"
    if not _PLAIN.fullmatch(name):
        for char in name:
            letter = ord(char) > 127 and unicodedata.category(char) in _LETTERS
            if not (letter or _PLAIN.fullmatch(char)):
                return f"has the character {char!a}"
    return ""
