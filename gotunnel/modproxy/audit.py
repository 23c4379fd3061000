"""Reads a whole store again and judges each file by what is known of it.

Rules:
- A zip or mod is hashed anew: its sum has to be that of its labels, and that of the checksum database's
  record where the store has one.  A file that was changed behind the store's back has lost its labels: with
  no record it counts as not verified, which it is until a project's go.sum or the database is asked.
- A record has to be proved in the tree head that the store keeps, as far as the tiles are there: nobody is
  asked.  Records of a database that this machine doesn't trust are left out.
- What has no sum (an `.info`, a list) has to be of the right form.
- Nothing is removed here.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

from gotunnel.dataclass import dataclass
from gotunnel.errors import ModuleError
from gotunnel.modproxy import bundle, target
from gotunnel.modproxy.closure import Item
from gotunnel.modproxy.packing import measure
from gotunnel.modproxy.records import lookup
from gotunnel.modproxy.sumdb import SumDB, SumDBSetting
from gotunnel.modproxy.tlog import Tile
from gotunnel.storage import Store, Stored, Vanished
from gotunnel.tasks import in_thread


@dataclass(frozen=True, slots=True)
class Verdict:
    """One file: `problem` in one line, "" where all is well; `vouched` by what, "" where by nothing."""

    stored: Stored
    problem: str = ""
    vouched: str = ""


async def audit(store: Store, setting: SumDBSetting | None) -> AsyncGenerator[Verdict, None]:
    """A verdict for each file of the store; what vanishes meanwhile is left out.  Raises StoreError."""
    database = None if setting is None else SumDB(setting, _nobody, store)
    try:
        async for stored in store.names():
            try:
                yield await _judge(store, stored, database)
            except (Vanished, FileNotFoundError):
                continue
    finally:
        if database is not None:
            await database.close()


async def _nobody(rest: str) -> bytes:
    # only what doesn't stand up to its proof is asked for anew
    raise ModuleError("net.unreachable", f"what the store has as {rest} isn't proved", http_status=503)


async def _judge(store: Store, stored: Stored, database: SumDB | None) -> Verdict:
    item = Item.parse(stored.name)
    if item is None:
        return Verdict(stored, await _record(stored, database))
    told, by = stored.labels.get("h1", ""), stored.labels.get("by", "")
    try:
        h1 = await _h1(store, stored, item)
    except ValueError as error:
        return Verdict(stored, str(error))
    if item.kind == "info":
        return Verdict(stored, vouched="form")
    if told and told != h1:
        return Verdict(stored, f"its sum is {h1}, it was {told} when it was stored ({by or 'not verified'})")
    if database is not None and (wanted := await _recorded(store, database, item)) not in ("", h1):
        return Verdict(stored, f"its sum is {h1}, but {database.name} says {wanted}")
    return Verdict(stored, vouched=by if told else "")


async def _recorded(store: Store, database: SumDB, item: Item) -> str:
    """The sum that the database's record in the store has for a file, "" without one."""
    if await store.get(bundle.sumdb_name(database.name, lookup(item.module, item.version))) is None:
        return ""
    try:
        known = await database.lookup(item.module, item.version)
    except ModuleError:
        return ""  # the record's own verdict says so
    return known.get(item.version if item.kind == "zip" else f"{item.version}/go.mod", "")


async def _h1(store: Store, stored: Stored, item: Item) -> str:
    path = await store.local(stored)
    if path is not None:
        return (await in_thread("audit", lambda: measure(item, path, own=True))).entry.h1
    descriptor, name = tempfile.mkstemp(dir=store.spool())
    try:
        try:
            async for piece in store.read(stored):
                os.write(descriptor, piece)
        finally:
            os.close(descriptor)
        return (await in_thread("audit", lambda: measure(item, Path(name), own=True))).entry.h1
    finally:
        os.unlink(name)


async def _record(stored: Stored, database: SumDB | None) -> str:
    """What is wrong with a file that is none of a module's."""
    try:
        found = target.parse(stored.name)
    except ValueError:
        return ""  # somebody else's file
    if found.kind != "sumdb" or database is None or found.module != database.name:
        return ""
    try:
        if found.rest.startswith("tile/"):
            size = Tile.parse(found.rest).size
            return "" if stored.size == size else f"a tile of {stored.size} bytes, {size} are wanted"
        if found.rest.startswith("lookup/"):
            await database.answer(found.rest)
    except ValueError as error:
        return str(error)
    except ModuleError as error:
        return error.detail
    return ""
