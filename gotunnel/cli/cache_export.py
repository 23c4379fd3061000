"""`gotunnel cache export FILE [DIR]`: a project's closure as one file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gotunnel.cli.cache_jobs import setting_of, size
from gotunnel.cli.cache_work import Project, Work, ensure, fetch, name_missing, read_project, working
from gotunnel.cli.console import tell
from gotunnel.errors import UsageError
from gotunnel.tasks import in_thread

if TYPE_CHECKING:
    from gotunnel.modproxy.closure import Item
    from gotunnel.modproxy.packing import Part
    from gotunnel.modproxy.records import Gathered
    from gotunnel.storage import Store

_EXPORTED = "exported"  # below sumdb/NAME in the store: the sizes of the heads of the bundles made here
_HEADS = 32  # of them are remembered
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}


async def export(args: argparse.Namespace) -> int:
    """Write a project's bundle; returns the exit status.  Raises GotunnelError."""
    from gotunnel.modproxy import packing

    args.file = "-" if args.file == "/dev/stdout" else args.file
    if args.file != "-" and not await in_thread("file", Path(args.file).parent.is_dir):
        raise UsageError(f"{args.file}: there is no such directory to write it to")
    project = await in_thread("project", lambda: read_project(args.directory, os.environ))
    items = _wanted(args, project)
    async with working(args, project, offline=args.offline) as work:
        store = work.store
        spool = await in_thread(
            "spool", lambda: tempfile.TemporaryDirectory(prefix="export-", dir=store.spool())
        )
        with spool as place:
            found = await _find(work, project, items, Path(place), offline=args.offline)
            database, gathered = await _records(work, project, items)
            sums = project.files.sums
            manifest, parts = packing.assemble(project.names, sums, database, gathered, found)
            work.progress(f"writing {len(parts)} files")
            if args.file == "-":
                written = await in_thread("write", lambda: packing.write(sys.stdout.buffer, manifest, parts))
            else:
                written = await packing.write_file(Path(args.file), manifest, parts)
    modules = sum(item.kind == "zip" for item in items)
    # standard output may be the bundle
    out = sys.stderr if args.file == "-" else sys.stdout
    if not args.quiet:
        words = f"{modules} modules for {', '.join(project.names)}: {len(parts)} files, {size(written)}"
        print(f"{words}; there: gotunnel cache import {args.file}", file=out)
    _warn(project, gathered.unproved)
    return 0


def _wanted(args: argparse.Namespace, project: Project) -> Sequence[Item]:
    from gotunnel.modproxy.closure import toolchain

    closure = project.closure
    for words in closure.local:
        tell(f"a directory stands in for a module, take it along yourself: {words}")
    required = sum(len(main.require) for main in project.files.mains)
    if not project.files.sums and required > len(closure.local):
        raise UsageError(f"{args.directory}: no go.sum, which says what is needed; first: go mod tidy")
    if not args.toolchain:
        return closure.items
    where = args.platform or _platform()
    if not re.fullmatch("[a-z0-9]+-[a-z0-9]+", where):
        raise UsageError(f"--platform {where}: want OS-ARCH, such as linux-amd64")
    item = toolchain(project.files.mains, where)
    if item is None:
        raise UsageError("--toolchain: go.mod names no toolchain, and its go line needs none (before 1.21)")
    return (*closure.items, item)


def _platform() -> str:
    machine = platform.machine()
    return f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"


async def _find(
    work: Work, project: Project, items: Sequence[Item], spool: Path, *, offline: bool
) -> Sequence[Part]:
    from gotunnel.modproxy.gomodcache import GoModCache, directory_of
    from gotunnel.modproxy.packing import Finder, Incomplete

    modcache = project.found.gomodcache or directory_of(os.environ)
    online = work.opened.proxy is not None and not offline
    if online:
        await fetch(work, project, modcache=modcache)
    count = 0

    def one_more(item: Item) -> None:
        nonlocal count
        count += 1
        work.progress(f"{count} of {len(items)} files verified")

    finder = Finder(
        work.store,
        GoModCache(modcache),
        work.verifier.check,
        spool=spool,
        ensure=(lambda item: ensure(work, item)) if online else None,
        found=one_more,
    )
    try:
        return await finder.find(items)
    except Incomplete as error:
        name_missing(error.missing)
        raise


async def _records(work: Work, project: Project, items: Sequence[Item]) -> tuple[str, Gathered]:
    """(name of the database, what it says of the public modules)."""
    from gotunnel.modproxy.bundle import sumdb_name
    from gotunnel.modproxy.filter import matches
    from gotunnel.modproxy.records import Gathered, gather

    setting = setting_of(project.found)
    opened = work.opened.project
    if setting is None or opened is None or opened.sumdb is None:
        return "", Gathered({}, {})
    hidden = ",".join(filter(None, [work.unsummed, opened.private]))
    modules = {(item.module, item.version) for item in items if not matches(hidden, item.module)}
    work.progress(f"asking {setting.name} about {len(modules)} modules")
    heads = await _heads(work.store, setting.name)
    gathered = await gather(opened.sumdb.answer, modules, setting.verifier, heads)
    if gathered.head and gathered.head not in heads:
        kept = json.dumps([*heads, gathered.head][-_HEADS:]).encode()
        await work.store.put(sumdb_name(setting.name, _EXPORTED), kept, mutable=True)
    return setting.name, gathered


async def _heads(store: Store, database: str) -> list[int]:
    """The tree heads of earlier bundles, which their readers may have."""
    from gotunnel.modproxy.bundle import sumdb_name
    from gotunnel.storage import read_all

    stored = await store.get(sumdb_name(database, _EXPORTED))
    try:
        told = json.loads(await read_all(store, stored)) if stored is not None else []
        return [size for size in told if isinstance(size, int) and size > 0]
    except (ValueError, TypeError):
        return []


def _warn(project: Project, unproved: Mapping[str, str]) -> None:
    if unproved:
        first = next(iter(unproved))
        tell(
            f"no record of a checksum database for {len(unproved)} modules, for which go.sum vouches alone: "
            f"{first}: {unproved[first]}"
        )
