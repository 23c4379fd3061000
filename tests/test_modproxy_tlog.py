"""The log: against the plain one of the lab, for trees of every size; and parsers that meet anything."""

from __future__ import annotations

import contextlib
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gotunnel.modproxy.note import NoteError
from gotunnel.modproxy.tlog import (
    EMPTY,
    FULL,
    MAX_RECORD,
    Record,
    Tile,
    TilesError,
    Tree,
    authenticate,
    parse_record,
    parse_tree,
    peaks,
    plan,
    root,
)
from tests.lab.sumdb import Log

EXAMPLES = int(os.environ.get("GOTUNNEL_FUZZ", "300"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 300,
    suppress_health_check=list(HealthCheck),
)
COUNT = 66_000  # three levels of tiles
LOG = Log([f"m{n}.example v1.0.0 h1:x\n" for n in range(COUNT)], "log.example", bytes(32))


def tree_of(size: int) -> Tree:
    return parse_tree(LOG.note(size).rpartition("\n\n")[0] + "\n")


def content(tiles: list[Tile], size: int) -> dict[Tile, bytes]:
    """The tiles as a server of such a log has them."""
    data = {}
    for tile in tiles:
        assert tile.within(size)
        found = LOG.tile(tile.level, tile.place, tile.width, size)
        assert found is not None
        data[tile] = found
    return data


SIZES = [1, 2, 3, 7, 255, 256, 257, 511, 512, 700, 65_535, 65_536, 65_537, COUNT]


@pytest.mark.parametrize("size", SIZES)
def test_records_and_older_trees_are_proved(size: int) -> None:
    tree = tree_of(size)
    for number in sorted({0, size // 3, size // 2, size - 1}):
        tiles = plan(size, [(0, number)])
        data = content(tiles, size)
        authenticate(tree, tiles, data)
        tile = Tile.of((0, number), size)
        assert tile.hash_of((0, number), data[tile]) == Record(number, LOG.records[number].encode()).leaf
    for older in [each for each in SIZES if each <= size]:
        nodes = peaks(older)
        tiles = plan(size, nodes)
        assert len(tiles) == len(set(tiles)) <= 8
        data = content(tiles, size)
        authenticate(tree, tiles, data)
        hashes = [Tile.of(node, size).hash_of(node, data[Tile.of(node, size)]) for node in nodes]
        assert root(hashes) == tree_of(older).hash


@pytest.mark.parametrize("size", [3, 257, 700, COUNT])
def test_a_wrong_byte_in_any_tile_is_seen(size: int) -> None:
    tree = tree_of(size)
    tiles = plan(size, [(0, 0), (0, size // 2)])
    good = content(tiles, size)
    authenticate(tree, tiles, good)
    for tile in tiles:
        for at in (0, tile.size - 1):
            wrong = bytearray(good[tile])
            wrong[at] ^= 1
            with pytest.raises(TilesError, match=f"tree of {size} records"):
                authenticate(tree, tiles, {**good, tile: bytes(wrong)})
    with pytest.raises(TilesError):
        authenticate(Tree(size, bytes(32)), tiles, good)


def test_the_empty_tree() -> None:
    authenticate(EMPTY, plan(0, []), {})
    with pytest.raises(TilesError):
        authenticate(Tree(0, bytes(32)), [], {})
    with pytest.raises(ValueError, match="has no node"):
        plan(0, [(0, 0)])
    with pytest.raises(ValueError, match="has no node"):
        plan(700, [(8, 2)])


def test_tile_names() -> None:
    for tile, path in (
        (Tile(0, 0), "tile/8/0/000"),
        (Tile(1, 792, 97), "tile/8/1/792.p/97"),
        (Tile(0, 1_234_067, 1), "tile/8/0/x001/x234/067.p/1"),
        (Tile(3, 1000), "tile/8/3/x001/000"),
    ):
        assert tile.path == path
        assert Tile.parse(path) == tile
    for path in (
        *("tile/8/0/0", "tile/8/0/000.p/256", "tile/8/0/000.p/0", "tile/8/0/000.p/01", "tile/8/8/000"),
        *("tile/7/0/000", "tile/8/data/000", "tile/8/0/x000/001", "tile/8/0/x001", "tile/8/00/001", "x", ""),
        *("tile/8/0/٠٠٠", "tile/8/0/000/", "tile/8/0/001\n"),
    ):
        with pytest.raises(ValueError, match="no tile"):
            Tile.parse(path)


HASH = "A" * 43 + "="


@pytest.mark.parametrize("text", [
    "", "go.sum database tree\n", f"go.sum database tree\n1\n{HASH}", f"go.sum database tree v2\n1\n{HASH}\n",
    f"go.sum database tree\n01\n{HASH}\n", f"go.sum database tree\n-1\n{HASH}\n",
    f"go.sum database tree\n9999999999999999999\n{HASH}\n", "go.sum database tree\n1\nAAAA\n",
    f"go.sum database tree\n1\n{HASH[:-1]}\n", f"go.sum database tree\n१\n{HASH}\n",
])  # fmt: skip
def test_tree_heads_that_are_wrong(text: str) -> None:
    with pytest.raises(NoteError, match="malformed tree head"):
        parse_tree(text)
    assert parse_tree(f"go.sum database tree\n7\n{HASH}\nsomething of the future\n") == Tree(7, bytes(32))


@pytest.mark.parametrize("data", [
    b"", b"1", b"1\n", b"1\n\n", b"1\n\n\n", b"1\ntext\n", b"x\ntext\n\n", b"-1\ntext\n\n", b"1\nt\xff\n\n",
    b"1\nt\r\n\n", b"1\n\ntext\n\n", b"9223372036854775808\ntext\n\n", b"\xd9\xa1\ntext\n\n",
    b"1\n" + b"x" * MAX_RECORD + b"\n\n",
])  # fmt: skip
def test_records_that_are_wrong(data: bytes) -> None:
    with pytest.raises(NoteError, match="record") as caught:
        parse_record(data)
    assert "\n" not in str(caught.value)
    assert parse_record(b"12\na\nb\n\nnote\n\nx") == (Record(12, b"a\nb\n"), b"note\n\nx")


@fuzz
@given(
    st.lists(st.sampled_from([b"1", b"\n", b"\n\n", b"text\n", b"-"]) | st.binary(max_size=9)).map(b"".join)
)
def test_any_record(data: bytes) -> None:
    with contextlib.suppress(NoteError):
        record, rest = parse_record(data)
        assert data.endswith(record.text + b"\n" + rest)
        assert record.text.endswith(b"\n")
        assert b"\n\n" not in record.text


@fuzz
@given(
    st.lists(
        st.sampled_from(["go.sum database tree", "\n", "7", "0", HASH, "9" * 19, "=", "+"])
        | st.text(max_size=5)
    ).map("".join)
)
def test_any_tree_head(text: str) -> None:
    for each in (text, f"go.sum database tree\n{text}", f"go.sum database tree\n3\n{text}"):
        with contextlib.suppress(NoteError):
            assert 0 <= parse_tree(each).size < 1 << 63


@fuzz
@given(
    st.lists(
        st.sampled_from(["tile/8/", "0/", "x", "001", ".p/", "1", "256", "/", ".."]) | st.text(max_size=4)
    ).map("".join)
)
def test_any_tile_name(text: str) -> None:
    for each in (text, f"tile/8/{text}", f"tile/8/0/{text}"):
        try:
            tile = Tile.parse(each)
        except ValueError:
            continue
        assert tile.path == each
        assert 1 <= tile.width <= FULL


@fuzz
@given(st.integers(1, (1 << 63) - 1), st.integers(0, 1 << 63))
def test_plans_of_the_largest_trees_are_small(size: int, number: int) -> None:
    tiles = plan(size, [(0, number % size), *peaks(number % size)])
    assert len(tiles) <= 24
    for tile in tiles:
        assert tile.within(size)
        if tile.level < 8:
            assert Tile.parse(tile.path) == tile
