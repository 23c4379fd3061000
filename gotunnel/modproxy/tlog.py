"""A transparency log, as the checksum database is one: records, trees and tiles.

Rules:
- Everything here is pure: what is needed is told (`plan`), what was fetched is judged (`authenticate`).
- A node (level, n) is the hash over the records n<<level to (n+1)<<level; a tree of any size is its peaks,
  the largest whole subtrees from left to right.
- A tile (level L, place N, width W) has W of the 256 hashes of level 8*L from N*256 on.  A tile that isn't
  full is the last of its level, and has a peak in it; a full one is proved by the tile above it.
- No hash of a tile is used before the tile is proved to be of the signed tree.

Sources: golang.org/x/mod/sumdb/tlog; RFC 6962, section 2.1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Mapping

from gotunnel.dataclass import dataclass
from gotunnel.modproxy.note import NoteError, decode64

HEIGHT = 8
FULL = 1 << HEIGHT  # hashes in a full tile
HASH = 32  # bytes
MAX_RECORD = 64 << 10  # bytes
_LARGEST = (1 << 63) - 1

Node = tuple[int, int]  # level, n


class TilesError(ValueError):
    """Tiles that don't fit the tree they are to belong to."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree head: how many records, and the hash over all of them."""

    size: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its place in the log, and its lines as they were hashed."""

    id: int
    text: bytes

    @property
    def leaf(self) -> bytes:
        """Its hash in the log."""
        return hashlib.sha256(b"\x00" + self.text).digest()


EMPTY = Tree(0, hashlib.sha256(b"").digest())


def parse_tree(text: str) -> Tree:
    """The tree head in a note's text; further lines are for the future.  Raises NoteError."""
    lines = text.split("\n", 3)
    digest = decode64(lines[2]) if len(lines) == 4 else b""
    if (
        lines[0] != "go.sum database tree"
        or len(digest) != HASH
        or not re.fullmatch("0|[1-9][0-9]{0,18}", lines[1])
    ):
        raise NoteError("malformed tree head")
    size = int(lines[1])
    if size > _LARGEST:
        raise NoteError("malformed tree head: a size beyond all bounds")
    return Tree(size, digest)


def parse_record(data: bytes) -> tuple[Record, bytes]:
    """The record at the start of a lookup's answer, and the signed tree head after it.  Raises NoteError."""
    if len(data) > MAX_RECORD:
        raise NoteError(f"a record of more than {MAX_RECORD >> 10} KiB")
    number, _, rest = data.partition(b"\n")
    text, blank, note = rest.partition(b"\n\n")
    if not re.fullmatch(rb"[0-9]{1,19}", number) or not blank or not text or text.startswith(b"\n"):
        raise NoteError("malformed record: want a number, lines and a blank line")
    if int(number) > _LARGEST:
        raise NoteError("malformed record: a number beyond all bounds")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        raise NoteError("malformed record: not UTF-8") from None
    if re.search(rb"[\x00-\x09\x0b-\x1f]", text):
        raise NoteError("malformed record: control characters")
    return Record(int(number), text + b"\n"), note


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the node above two."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def peaks(size: int) -> list[Node]:
    """The largest whole subtrees of a tree of `size` records, from left to right."""
    found, start = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            found.append((level, start >> level))
            start += 1 << level
    return found


def root(hashes: Iterable[bytes]) -> bytes:
    """The hash of the tree whose peaks have these hashes."""
    last: bytes | None = None
    for each in reversed(list(hashes)):
        last = each if last is None else node_hash(each, last)
    return EMPTY.hash if last is None else last


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile's coordinates; `width` 1 to 256 hashes."""

    level: int
    place: int
    width: int = FULL

    @property
    def path(self) -> str:
        """Its name below the database's URL: `tile/8/L/N`, `tile/8/L/xNNN/NNN.p/W`."""
        place, text = self.place, f"{self.place % 1000:03}"
        while place >= 1000:
            place //= 1000
            text = f"x{place % 1000:03}/{text}"
        return f"tile/{HEIGHT}/{self.level}/{text}" + (f".p/{self.width}" if self.width < FULL else "")

    @property
    def size(self) -> int:
        """Bytes."""
        return self.width * HASH

    def within(self, size: int) -> bool:
        """Whether a tree of `size` records has all of its hashes."""
        return ((self.place << HEIGHT) + self.width) << (HEIGHT * self.level) <= size

    @classmethod
    def parse(cls, path: str) -> Tile:
        """Read such a name.  Raises ValueError for anything else, tiles of record data included."""
        found = re.fullmatch(
            r"tile/8/([0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?", path, re.ASCII
        )
        if found:
            level, place, width = int(found[1]), int(re.sub("[x/]", "", found[2])), int(found[3] or FULL)
            tile = cls(level, place, width)
            if level < 8 and 0 < width <= FULL and tile.path == path:
                return tile
        raise ValueError(f"{path[:80]!r}: no tile of a checksum database")

    @classmethod
    def of(cls, node: Node, size: int) -> Tile:
        """The tile that has `node` in a tree of `size` records, as wide as that tree has it."""
        level, n = node[0] // HEIGHT, node[1]
        return cls.at(level, n >> (HEIGHT - node[0] % HEIGHT), size)

    @classmethod
    def at(cls, level: int, place: int, size: int) -> Tile:
        """The tile of this place, as wide as a tree of `size` records has it."""
        return cls(level, place, min(FULL, (size >> (HEIGHT * level)) - (place << HEIGHT)))

    def hash_of(self, node: Node, data: bytes) -> bytes:
        """The hash of a node that is in this tile, whose content is `data`."""
        within = node[0] % HEIGHT
        first = (node[1] << within) - (self.place << HEIGHT)
        return _fold(data[first * HASH : (first + (1 << within)) * HASH])


def _fold(data: bytes) -> bytes:
    hashes = [data[at : at + HASH] for at in range(0, len(data), HASH)]
    while len(hashes) > 1:
        hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
    return hashes[0]


def plan(size: int, nodes: Iterable[Node]) -> list[Tile]:
    """The tiles that prove `nodes` to be of a tree of `size` records, each after the one that proves it.

    Raises ValueError for a node that such a tree doesn't have.
    """
    tiles = dict.fromkeys(Tile.of(peak, size) for peak in peaks(size))
    for node in nodes:
        if (node[1] + 1) << node[0] > size:
            raise ValueError(f"a tree of {size} records has no node {node}")
        below = []
        tile = Tile.of(node, size)
        while tile not in tiles:
            below.append(tile)
            tile = Tile.at(tile.level + 1, tile.place >> HEIGHT, size)
        tiles.update(dict.fromkeys(reversed(below)))
    return list(tiles)


def authenticate(
    tree: Tree, tiles: Iterable[Tile], data: Mapping[Tile, bytes], known: Collection[Tile] = ()
) -> None:
    """Prove the content of the tiles of a `plan`, but for those `known` to be of this tree already.

    Raises TilesError where they don't fit: it can't be told which of them is wrong.
    """
    tops = {peak: Tile.of(peak, tree.size) for peak in peaks(tree.size)}
    proved = bool(tops) and all(top in known for top in tops.values())
    if not proved and root(top.hash_of(peak, data[top]) for peak, top in tops.items()) != tree.hash:
        raise TilesError(f"its tiles don't fit its tree of {tree.size} records")
    for tile in tiles:
        if tile in known or tile in tops.values():
            continue
        above = Tile.at(tile.level + 1, tile.place >> HEIGHT, tree.size)
        if above.hash_of((HEIGHT * (tile.level + 1), tile.place), data[above]) != _fold(data[tile]):
            raise TilesError(f"its {tile.path} doesn't fit its tree of {tree.size} records")
