"""The records of a checksum database that prove a set of modules with no network, gathered and judged.

Rules:
- One tree head for all: a record is proved by any later tree, so each lookup's answer is written with the
  newest head that was seen.  Who reads them needs no proof that one head follows from another, and go and
  we need the same tiles (`tlog.plan`).
- What was gathered is judged at once, by the same `prove` that judges it where it is imported.
- The key is the reader's own; records never bring one.
- A machine that has seen another head before wants to see that this one follows from it: so the tiles that
  lead on from `heads`, those of earlier bundles, go with it.  With a head from elsewhere go.sum decides, as
  it does wherever it has the sum.
- No tile is taken that isn't proved, and nothing that isn't a lookup, a tile or the head.

Sources: golang.org/x/mod/sumdb (Client.Lookup, mergeLatest), golang.org/x/mod/sumdb/tlog.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from gotunnel.dataclass import dataclass
from gotunnel.errors import ModuleError
from gotunnel.modproxy.dirhash import escape, unescape
from gotunnel.modproxy.note import NoteError, Verifier, open_note
from gotunnel.modproxy.tlog import (
    HEIGHT,
    Record,
    Tile,
    TilesError,
    Tree,
    authenticate,
    parse_record,
    parse_tree,
    peaks,
    plan,
)

Ask = Callable[[str], Awaitable[bytes]]
Sums = Mapping[tuple[str, str], str]
_WIDTH = 32  # questions at once


class RecordsError(ValueError):
    """The records don't prove what they are for; one line."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """`files` by what is asked below the database's URL ("lookup/M@V", "tile/8/0/001", "latest"); for each
    module in `unproved` (`M@V`) a line that says why."""

    files: Mapping[str, bytes]
    unproved: Mapping[str, str]
    head: int = 0  # the size of its tree


def lookup(module: str, version: str) -> str:
    """How a database is asked for a module."""
    return f"lookup/{escape(module)}@{escape(version)}"


async def gather(
    ask: Ask, modules: Iterable[tuple[str, str]], verifier: Verifier, heads: Collection[int] = ()
) -> Gathered:
    """What proves `modules` to someone with this key, as far as `ask` (which raises ModuleError) gets it.

    `heads` are the sizes of trees from which its head is to be shown to follow.
    """
    limit = asyncio.Semaphore(_WIDTH)
    found: dict[str, tuple[Record, Tree, bytes]] = {}
    unproved: dict[str, str] = {}

    async def one(module: str, version: str) -> None:
        path = lookup(module, version)
        try:
            async with limit:
                record, note = parse_record(await ask(path))
            found[path] = record, parse_tree(open_note(note, verifier)), note
        except (ModuleError, NoteError) as error:
            unproved[f"{module}@{version}"] = str(error)

    async with asyncio.TaskGroup() as group:
        for module, version in sorted(set(modules)):
            group.create_task(one(module, version))
    if not found:
        return Gathered({}, unproved)
    _, tree, head = max(found.values(), key=lambda each: each[1].size)
    try:
        files = await _with_tiles(ask, found, tree, head, heads, limit)
        prove(files, verifier)
    except (ModuleError, RecordsError, ValueError) as error:
        lost = {path.removeprefix("lookup/"): str(error) for path in found}
        return Gathered({}, unproved | {unescape(path): why for path, why in lost.items()})
    return Gathered(files, unproved, tree.size)


async def _with_tiles(
    ask: Ask,
    found: Mapping[str, tuple[Record, Tree, bytes]],
    tree: Tree,
    head: bytes,
    heads: Collection[int],
    limit: asyncio.Semaphore,
) -> dict[str, bytes]:
    async def tile_of(tile: Tile) -> bytes:
        async with limit:
            try:
                return await ask(tile.path)
            except ModuleError:
                if tile.path == (full := Tile(tile.level, tile.place)).path:
                    raise
                # a partial tile may be gone once the whole one is there
                return (await ask(full.path))[: tile.size]

    nodes = [(0, record.id) for record, _, _ in found.values()]
    nodes += [peak for size in heads if size < tree.size for peak in peaks(size)]
    tiles = plan(tree.size, nodes)
    files: dict[str, bytes] = {}
    for tile, content in zip(
        tiles, await asyncio.gather(*map(tile_of, tiles), return_exceptions=True), strict=True
    ):
        if isinstance(content, BaseException):
            raise content
        files[tile.path] = content
    for path, (record, _, _) in found.items():
        files[path] = b"%d\n%b\n%b" % (record.id, record.text, head)
    # what go asks a file:// source before anything else; our proxy answers it by itself
    return files | {"latest": head, "supported": b""}


def prove(files: Mapping[str, bytes], verifier: Verifier) -> Sums:
    """The sums that the records hold, by (module, version) and (module, "VERSION/go.mod").

    Raises RecordsError where a signature, a proof or the form of anything is wrong.
    """
    try:
        tree = parse_tree(open_note(files["latest"], verifier))
        records = {path: parse_record(data) for path, data in files.items() if path.startswith("lookup/")}
        brought = [Tile.parse(path) for path in files if path.startswith("tile/")]
        nodes = [(0, record.id) for record, _ in records.values()]
        # of each tile its first hash, so that all are of the plan, and proved
        nodes += [(HEIGHT * tile.level, tile.place << HEIGHT) for tile in brought]
        tiles = plan(tree.size, nodes)
        if (odd := len(files) - len(records) - len(tiles)) != len({"latest", "supported"} & files.keys()):
            raise TilesError(f"{odd} files that prove nothing")
        data = {tile: files[tile.path] for tile in tiles}
        if files.get("supported") or any(len(content) != tile.size for tile, content in data.items()):
            raise TilesError("a tile of the wrong size")
        authenticate(tree, tiles, data)
    except KeyError as error:
        raise RecordsError(f"{verifier.name}: {error.args[0]} is missing") from None
    except ValueError as error:  # NoteError, TilesError too
        raise RecordsError(f"{verifier.name}: {error}") from None
    sums: dict[tuple[str, str], str] = {}
    for path, (record, note) in records.items():
        tile = Tile.of((0, record.id), tree.size)
        if note != files["latest"] or tile.hash_of((0, record.id), data[tile]) != record.leaf:
            raise RecordsError(f"{verifier.name}: {path} isn't in its tree of {tree.size} records")
        module, _, version = unescape(path.removeprefix("lookup/")).partition("@")
        for line in record.text.decode().splitlines():
            words = line.split(" ")
            if len(words) == 3 and words[0] == module and words[1] in (version, f"{version}/go.mod"):
                sums[module, words[1]] = words[2]
    return sums
