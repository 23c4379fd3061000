"""The user's own GOPROXY list, read as go reads it, and the list that CMD gets in its place.

Rules:
- After a source that ends in `,` go takes the next on 404 and 410 only, after `|` on any error.
- `direct` and `off` end the list and stay with go itself.
- Mirrors (the public presets, and those given by --mirror or [go] mirrors) that follow each other after `|`
  are equal: who answers best is asked first.  Nothing else changes its place, for the name of a corporate
  module must not reach a public mirror before the source that the user put first.

Source: cmd/go/internal/modfetch/proxy.go (proxyList, TryProxies).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal
from urllib.parse import urlsplit

from gotunnel.address import redact
from gotunnel.dataclass import dataclass
from gotunnel.errors import ModuleError
from gotunnel.modproxy.fetch import Source

PROXY_GOLANG = "https://proxy.golang.org"
GOPROXY_CN = "https://goproxy.cn"
GOPROXY_IO = "https://goproxy.io"
PRESETS = (PROXY_GOLANG, GOPROXY_CN, GOPROXY_IO)

Separator = Literal[",", "|", ""]


@dataclass(frozen=True, slots=True)
class SourceList:
    """`entries` are sources with the separator that follows each; `ending` is what go does after them."""

    entries: tuple[tuple[Source, Separator], ...]
    ending: Literal["direct", "off", ""] = ""
    mirrors: frozenset[str] = frozenset(PRESETS)

    def groups(self) -> tuple[tuple[tuple[Source, Separator], ...], ...]:
        """The entries in order; those that are equal to each other stand together."""
        found: list[list[tuple[Source, Separator]]] = []
        for entry in self.entries:
            last = found[-1][-1] if found else None
            together = last and last[1] == "|" and {last[0].url, entry[0].url} <= self.mirrors
            if together:
                found[-1].append(entry)
            else:
                found.append([entry])
        return tuple(tuple(group) for group in found)


def parse_list(goproxy: str, mirrors: Iterable[str] = ()) -> SourceList:
    """The value of GOPROXY.  `mirrors` are the URLs in it that count as equal, beside the presets.

    Raises ValueError with one line for what go refuses.
    """
    entries: list[tuple[Source, Separator]] = []
    ending: Literal["direct", "off", ""] = ""
    for text, separator in re.findall(r"([^,|]*)([,|]?)", goproxy):
        word = text.strip()
        if word in ("direct", "off"):
            ending = "direct" if word == "direct" else "off"
            break
        if word:
            entries.append((_source(word), separator))
    if not entries and not ending:
        raise ValueError("GOPROXY names no source")
    equal = frozenset(url.rstrip("/") for url in mirrors) | frozenset(PRESETS)
    return SourceList(tuple(entries), ending, equal)


def _source(word: str) -> Source:
    if any(c in word for c in ".:/") and ":/" not in word and not word.startswith("/"):
        word = "https://" + word
    shown = redact(word)
    try:
        parts = urlsplit(word)
        _ = parts.port
    except ValueError as error:
        raise ValueError(f"GOPROXY: {shown!r} is no URL: {error}") from None
    if parts.scheme not in ("http", "https", "file"):
        raise ValueError(f"GOPROXY: {shown!r}: want http, https or file, direct or off")
    if parts.scheme == "file" and (parts.netloc or parts.query or parts.fragment or not parts.path):
        raise ValueError(f"GOPROXY: {shown!r}: want file:///DIRECTORY")
    if parts.scheme != "file" and not parts.hostname:
        raise ValueError(f"GOPROXY: {shown!r} names no host")
    return Source(word.rstrip("/"), shown.rstrip("/"))


def after_error(separator: Separator, error: ModuleError) -> bool:
    """Whether go goes on to what follows `separator` after a source failed so."""
    return separator == "|" or error.http_status in (404, 410)


def child_goproxy(sources: SourceList, url: str, *, filtered: bool = False, offline: bool = False) -> str:
    """GOPROXY of CMD: our `url` in place of the sources, and the user's own ending behind it.

    With a filter a comma stands between, so that nothing denied is walked round; `offline` ends in `off`.
    """
    if offline:
        return f"{url},off"
    if not sources.entries:
        return sources.ending
    if not sources.ending:
        return url
    separator = "," if filtered else sources.entries[-1][1] or ","
    return f"{url}{separator}{sources.ending}"
