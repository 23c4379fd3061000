"""What a service does beside serving: it keeps its store within bounds, and knows what a reload leaves.

Rules:
- A directory is held within `cache.max_size`; a bucket only where that is configured, since a team may keep
  its own rules for it.
- What was used last stays longest; a file that goes while it is read is fetched anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gotunnel.config.model import KEYS, Config
from gotunnel.storage.store import Store, StoreError

FIRST = 60.0  # seconds after the start
EVERY = 3600.0
# what is read when the service starts, and never again
_AT_START = ("listen.", "alert.", "cache.url", "cache.offline", "go.mirrors", "log.format")


async def keep_small(store: Store, config: Callable[[], Config], tell: Callable[[str], None]) -> None:
    """Remove old files now and then, for ever."""
    await asyncio.sleep(FIRST)
    while True:
        cache = config().cache
        if not cache.url or cache.url.startswith("file:") or cache.max_size != KEYS["cache.max_size"].default:
            try:
                files, count = await store.prune(cache.max_size)
            except StoreError as error:
                tell(f"the module store can't be kept within cache.max_size: {error}")
            else:
                if files:
                    tell(f"module store: {files} old files removed ({count / 1e6:.0f} MB): cache.max_size")
        await asyncio.sleep(EVERY)


def left_as_it_was(old: Config, new: Config) -> list[str]:
    """The keys that differ and that only a restart takes."""
    return [name for name in KEYS if name.startswith(_AT_START) and _value(old, name) != _value(new, name)]


def _value(config: Config, name: str) -> object:
    found: object = config
    for part in name.split("."):
        found = getattr(found, part)
    return found
