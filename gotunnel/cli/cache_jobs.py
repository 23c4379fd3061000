"""`gotunnel cache info`, `verify`, `prune` and `import`: what needs no way out."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from gotunnel.cli.console import tell
from gotunnel.errors import ConfigError, GotunnelError, UsageError

if TYPE_CHECKING:
    from gotunnel.config.load import Loaded
    from gotunnel.goenv import Found
    from gotunnel.modproxy.sumdb import SumDBSetting

_WHO = {"gosum": "a project's go.sum", "none": "nobody", "": "nobody yet"}


def who(by: str) -> str:
    """What the label `by` says, for people."""
    return _WHO.get(by, by.removeprefix("sumdb:"))


def files(count: int) -> str:
    """`1 file`, `2 files`."""
    return f"{count} file" if count == 1 else f"{count} files"


def size(count: float) -> str:
    """Bytes for people: 12.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def setting_of(found: Found) -> SumDBSetting | None:
    """The checksum database that GOSUMDB names.  Raises ConfigError."""
    from gotunnel.modproxy.sumdb import parse_gosumdb

    try:
        return parse_gosumdb(found.gosumdb)
    except ValueError as error:
        raise ConfigError(f"{error}; go env -u GOSUMDB restores the default") from None


async def info(args: argparse.Namespace, loaded: Loaded) -> int:
    """What the store holds."""
    from gotunnel.assemble.modules import opened_store
    from gotunnel.modproxy.closure import Item

    number = count = 0
    modules: set[tuple[str, str]] = set()
    by: Counter[str] = Counter()
    since: list[float] = []
    async with opened_store(loaded.config) as store:
        async for stored in store.names():
            number += 1
            count += stored.size
            since.append(stored.stored_at)
            item = Item.parse(stored.name)
            if item is not None and item.kind != "info":
                by[stored.labels.get("by", "")] += 1
                if item.kind == "zip":
                    modules.add((item.module, item.version))
        label = store.label
    told = {who(name): times for name, times in sorted(by.items())}
    if args.json:
        oldest, newest = (min(since), max(since)) if since else (None, None)
        data = {"store": label, "modules": len(modules), "files": number, "bytes": count}
        print(json.dumps({**data, "verified_by": told, "oldest": oldest, "newest": newest}, indent=2))
        return 0
    print(f"store     {label}")
    print(f"holds     {len(modules)} modules; {files(number)}, {size(count)}")
    if told:
        print(f"verified  {', '.join(f'{times} by {name}' for name, times in told.items())}")
    if since:
        print(f"from      {_day(min(since))} to {_day(max(since))}")
    return 0


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


async def verify(args: argparse.Namespace, loaded: Loaded) -> int:
    """Read everything again."""
    from gotunnel.assemble.modules import opened_store
    from gotunnel.goenv import read
    from gotunnel.modproxy.audit import audit
    from gotunnel.tasks import in_thread

    setting = setting_of(await in_thread("go env", lambda: read(os.environ)))
    good = bad = unknown = 0
    async with opened_store(loaded.config) as store, contextlib.aclosing(audit(store, setting)) as verdicts:
        async for verdict in verdicts:
            if verdict.problem:
                bad += 1
                print(f"{verdict.stored.name}: {verdict.problem}{'; removed' if args.remove else ''}")
                if args.remove:
                    await store.delete(verdict.stored.name)
            else:
                good += 1
                unknown += verdict.stored.name.endswith((".zip", ".mod")) and not verdict.vouched
    if bad and not args.remove:
        tell("bad files are not passed to go, but fetched anew; gotunnel cache verify --remove removes them")
    words = f" ({unknown} of them verified by nobody yet)" if unknown else ""
    print(f"good: {files(good)}{words}; bad: {files(bad)}")
    return 1 if bad else 0


async def prune(args: argparse.Namespace, loaded: Loaded) -> int:
    """Remove what was not used for longest."""
    from gotunnel.assemble.modules import opened_store
    from gotunnel.config.values import bytes_size

    most = loaded.config.cache.max_size
    if args.max_size is not None:
        try:
            most = bytes_size(0, 10**15).parse(args.max_size)
        except ValueError as error:
            raise UsageError(f"--max-size: {error}") from None
    async with opened_store(loaded.config) as store:
        removed, count = await store.prune(most)
    print(f"removed {files(removed)}, {size(count)}; at most {size(most)} are kept")
    return 0


async def take_in(args: argparse.Namespace, loaded: Loaded) -> int:
    """Take a bundle into the store."""
    from gotunnel.assemble.modules import opened_store
    from gotunnel.goenv import read
    from gotunnel.modproxy.filter import matches
    from gotunnel.modproxy.unpacking import Taken, Trust, take
    from gotunnel.tasks import in_thread

    found = await in_thread("go env", lambda: read(os.environ))
    excused = ",".join(filter(None, [found.no_sumdb_globs, *loaded.config.go.private]))
    trust = Trust(setting_of(found), lambda module: matches(excused, module))
    taken = Taken()
    with contextlib.ExitStack() as stack:
        if args.file == "-":
            stream = sys.stdin.buffer
        else:
            try:
                stream = stack.enter_context(open(args.file, "rb", buffering=1 << 20))  # noqa: ASYNC230
            except OSError as error:
                raise UsageError(f"{args.file}: {error.strerror}") from None
        async with opened_store(loaded.config) as store:
            label = store.label
            try:
                await take(stream, store, trust, taken=taken)
            except GotunnelError as error:
                if taken.files:
                    tell(f"verified before that, and in the store: {files(taken.files)}")
                raise GotunnelError(f"{args.file}: {error}") from None
    what = f" for {', '.join(taken.projects)}" if taken.projects else ""
    here = f" ({files(taken.already)} there already)" if taken.already else ""
    print(f"{len(taken.modules)} modules{what}: {files(taken.files)}, {size(taken.bytes)}, in {label}{here}")
    verified = ", ".join(f"{number} by {who(by)}" for by, number in sorted(taken.by.items()))
    print(f"verified: {verified or 'nothing to verify'}")
    if taken.untrusted:
        tell(f"records of {taken.untrusted} were left out: this machine's GOSUMDB names another database")
    if taken.head:
        tell(f"go.sum is needed for what is new: {taken.head}")
    print("use it: gotunnel run --offline -- go build ./...")
    return 0
