"""The configuration of a command: the file that is found, then the environment, then flags over it.

Rules:
- First found wins: `--config`, GOTUNNEL_CONFIG, the user's file, the system's.  A file that was named
  must exist; one that exists must be readable.
- Each layer is read whole and parsed; a later one replaces single values.
- `load` raises the first problem; `examine` gives them all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from gotunnel.address import one_line
from gotunnel.config.model import KEYS, RESERVED, Config, build
from gotunnel.config.sources import (
    DEFAULT,
    Layer,
    Origin,
    Problem,
    nearest,
    read_environment,
    read_flags,
    read_toml,
)
from gotunnel.config.upstreams import WaysOut, resolve_upstreams
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError

__all__ = ["Loaded", "WaysOut", "examine", "find", "load", "resolve_upstreams", "search_list"]

SYSTEM_FILE = "/etc/gotunnel/config.toml"
_MOST = 4 * 1024**2  # bytes of a configuration file; more is some other file


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where each value came from.

    `origins` has an entry for each dotted name ("pool.stall") and, for the lists, "upstream.0",
    "upstream.0.via", …, numbered as in `config.upstreams` and `config.routes`.
    """

    config: Config
    origins: Mapping[str, Origin]
    path: str | None


def search_list(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The files that are looked for when none is named."""
    base = environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(base):  # the XDG specification: a relative one is ignored
        base = os.path.join(environ.get("HOME") or os.path.expanduser("~"), ".config")
    return (os.path.join(base, "gotunnel", "config.toml"), SYSTEM_FILE)


def find(environ: Mapping[str, str], path: str | None) -> str | None:
    """The file in use, or None.  Raises ConfigError where one was named that doesn't exist."""
    for named, where in ((path, "--config"), (environ.get("GOTUNNEL_CONFIG"), "GOTUNNEL_CONFIG")):
        if named is None or (not named and where != "--config"):
            continue
        file = os.path.expanduser(named)
        if not os.path.exists(file):
            raise ConfigError(
                one_line(f"{where}: {named or '(empty)'}: no such file; name one that exists, or none")
            )
        return file
    return next((file for file in search_list(environ) if os.path.exists(file)), None)


def load(flags: Mapping[str, object], environ: Mapping[str, str], *, path: str | None = None) -> Loaded:
    """The effective configuration; `flags` by dotted name (`sources.flags_of`), `path` is `--config`.

    Raises ConfigError with the first problem: what, where, what to do.
    """
    loaded, problems = examine(flags, environ, path=path)
    if problems:
        raise ConfigError(str(problems[0]))
    return loaded


def examine(
    flags: Mapping[str, object], environ: Mapping[str, str], *, path: str | None = None
) -> tuple[Loaded, tuple[Problem, ...]]:
    """The configuration as far as it can be read, and everything that is wrong with it.

    Raises ConfigError only where the file itself can't be read.
    """
    file = find(environ, path)
    first = read_toml(_text(file), file) if file else Layer()
    layers = (first, read_environment(environ), read_flags(flags))
    given: dict[str, object] = {}
    origins = dict.fromkeys(KEYS, DEFAULT)
    problems: list[Problem] = []
    for layer in layers:
        given |= layer.values
        origins |= layer.origins
        problems += layer.problems
    config = build(given, tuple(first.upstreams), tuple(first.routes))
    problems += sorted(_together(config, origins, first.declared), key=lambda problem: problem.origin.line)
    return Loaded(config, origins, file), tuple(problems)


def _text(file: str) -> str:
    try:
        with open(file, "rb") as opened:
            data = opened.read(_MOST + 1)
    except OSError as error:
        raise ConfigError(one_line(f"{file}: {error.strerror}; want a readable TOML file")) from error
    if len(data) > _MOST:
        raise ConfigError(one_line(f"{file}: too large for a configuration; want a TOML file"))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(one_line(f"{file}:{line}: no UTF-8; save the file as UTF-8")) from error


def _together(config: Config, origins: Mapping[str, Origin], declared: set[str]) -> Iterator[Problem]:
    """What is wrong only in view of more than one key."""
    yield from _names(config, origins)
    yield from _routes(config, origins, declared)
    yield from _listen(config, origins)


def _names(config: Config, origins: Mapping[str, Origin]) -> Iterator[Problem]:
    seen: dict[str, Origin] = {}
    for number, upstream in enumerate(config.upstreams):
        origin = origins[f"upstream.{number}.name"]
        if upstream.name in seen:
            first = seen[upstream.name]
            yield Problem(origin, f'[[upstream]] name: "{upstream.name}" is taken by {first}; take another')
        seen.setdefault(upstream.name, origin)
    for number, upstream in enumerate(config.upstreams):
        for tag in upstream.tags:
            if tag in seen:
                origin = origins[f"upstream.{number}.tags"]
                yield Problem(origin, f'[[upstream]] tags: "{tag}" is an upstream\'s name too; rename one')


def _routes(config: Config, origins: Mapping[str, Origin], declared: set[str]) -> Iterator[Problem]:
    known = declared.union(RESERVED)
    for number, route in enumerate(config.routes):
        if route.to not in known:
            near = nearest(route.to, known)
            hint = f'did you mean "{near}"?' if near else f"known: {', '.join(sorted(known))}"
            yield Problem(
                origins[f"route.{number}.to"], f'[[route]] to: no upstream or tag "{route.to}"; {hint}'
            )


def _listen(config: Config, origins: Mapping[str, Origin]) -> Iterator[Problem]:
    listen, tls = config.listen, config.listen.tls
    for name in ("proxy", "modproxy", "admin"):
        endpoint = getattr(listen, name)
        if listen.auth.mode == "off" and not endpoint.is_loopback:
            yield Problem(
                origins[f"listen.{name}"],
                f'[listen] {name}: "{endpoint}" is open to others while auth is "off" '
                f'({origins["listen.auth"]}); set auth = "auto", or listen on 127.0.0.1',
            )
    for one, other in (("cert", "key"), ("key", "cert"), ("client_ca", "cert")):
        if getattr(tls, one) and not getattr(tls, other):
            yield Problem(
                origins[f"listen.tls.{one}"], f"[listen.tls] {one} wants {other} beside it; set both"
            )
