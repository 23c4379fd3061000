"""Which ways out a command has (contract §3, "With no --via…").

Rules:
- The first that is there wins, whole: `--via`, the configuration's upstreams, GOTUNNEL_VIA, the proxy
  that HTTPS_PROXY or https_proxy names, `direct:`.  They are never mixed.
- A proxy variable is read as the go command reads it: upper case first, an empty one is not set, a
  bare host:port is http, socks5 means socks5h, everything after the port is ignored.
- Our own endpoint (the one in GOTUNNEL_PROXY) is no upstream.
- The text of a key or of known hosts is passed on in memory, never written, never in a `repr`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field

from gotunnel.config.model import Config, Route, Upstream, chain_text, shown_chain
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError
from gotunnel.pattern import no_proxy_patterns

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h", "socks4", "socks4a")


@dataclass(frozen=True, slots=True)
class WaysOut:
    """The ways out of one command.

    `pool` holds them in order of preference; `others` are configured upstreams that only routes name.
    `source` says where the pool came from: "--via", a file, a variable, or "default" (`direct:`, since
    nothing was configured).  `nested`: the proxy variables hold our own endpoint, that is, this is a
    gotunnel inside a gotunnel.
    """

    pool: tuple[Upstream, ...]
    routes: tuple[Route, ...]
    source: str
    others: tuple[Upstream, ...] = ()
    nested: bool = False
    ssh_key: str = field(default="", repr=False)
    ssh_known_hosts: str = field(default="", repr=False)

    @property
    def configured(self) -> bool:
        """True where somebody named a way out."""
        return self.source != "default"


def resolve_upstreams(
    config: Config, environ: Mapping[str, str], *, via: Sequence[str] = (), file: str | None = None
) -> WaysOut:
    """The ways out by the rules of this file; `via` are CHAINs of the command line, `file` the config's.

    Raises ConfigError that names the option or variable whose CHAIN is wrong.
    """
    nested = any(_is_own(environ.get(name, ""), environ) for name in ("HTTPS_PROXY", "https_proxy"))
    if via:
        pool = _chains(via, "--via")
        return WaysOut(pool, config.routes, "--via", others=config.upstreams, nested=nested)
    if config.upstreams:
        return WaysOut(config.upstreams, config.routes, file or "configuration", nested=nested)
    if chains := environ.get("GOTUNNEL_VIA", "").split():
        return WaysOut(
            _chains(chains, "GOTUNNEL_VIA"),
            config.routes,
            "GOTUNNEL_VIA",
            nested=nested,
            ssh_key=environ.get("GOTUNNEL_SSH_KEY", ""),
            ssh_known_hosts=environ.get("GOTUNNEL_SSH_KNOWN_HOSTS", ""),
        )
    for name in ("HTTPS_PROXY", "https_proxy"):
        value = environ.get(name, "").strip()
        if value and not _is_own(value, environ):
            pool = _proxy_upstream(name, value)
            return WaysOut(pool, config.routes + _no_proxy_routes(environ), name, nested=nested)
    return WaysOut((Upstream("direct:", "direct:"),), config.routes, "default", nested=nested)


def _chains(texts: Sequence[str], where: str) -> tuple[Upstream, ...]:
    """Each CHAIN once, named by its redacted text; two that differ in secrets only get a number."""
    found: dict[str, Upstream] = {}
    for text in dict.fromkeys(texts):
        try:
            name = shown_chain(chain_text(text))
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from None
        unique, number = name, 1
        while unique in found:
            number += 1
            unique = f"{name} #{number}"
        found[unique] = Upstream(unique, text)
    return tuple(found.values())


def _proxy_upstream(name: str, value: str) -> tuple[Upstream, ...]:
    try:
        chain = chain_text(proxy_chain(value))
    except ValueError as error:
        raise ConfigError(f"{name}: {error}; want such as http://proxy:3128, or unset {name}") from None
    return (Upstream(shown_chain(chain), chain),)


def proxy_chain(value: str) -> str:
    """The CHAIN of a proxy variable's value.  Raises ValueError, which never repeats the value."""
    match = _SCHEME.fullmatch(value)
    scheme, rest = (match[1].lower(), match[2]) if match else ("http", value)
    if scheme not in _PROXY_SCHEMES:
        raise ValueError(f"unknown scheme of a proxy: {scheme[:20]}")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in rest and "@" not in authority:
        raise ValueError('the user or password holds a "/", "?" or "#"; write it as %2F, %3F or %23')
    userinfo, at, where = authority.rpartition("@")
    if not where or "," in where or any(c.isspace() for c in where):
        raise ValueError("the value is no proxy's address")
    # a comma would part two hops, and of two @ the last one counts
    userinfo = userinfo.replace(",", "%2C").replace("@", "%40")
    return f"{'socks5h' if scheme == 'socks5' else scheme}://{userinfo}{at}{where}"


def _is_own(value: str, environ: Mapping[str, str]) -> bool:
    own = _address(environ.get("GOTUNNEL_PROXY", ""))
    return bool(own) and _address(value) == own


def _address(value: str) -> str:
    """host:port of a proxy URL."""
    match = _SCHEME.fullmatch(value.strip())
    authority = re.split(r"[/?#]", match[2] if match else value.strip(), maxsplit=1)[0]
    return authority.rpartition("@")[2].lower()


def _no_proxy_routes(environ: Mapping[str, str]) -> tuple[Route, ...]:
    patterns = no_proxy_patterns(environ.get("NO_PROXY") or environ.get("no_proxy") or "")
    return (Route(patterns, "direct"),) if patterns else ()
