"""Every section and key of the configuration, described once (contract §4).

Rules:
- The field of a dataclass is the description: its kind of value, default and meaning.  TOML,
  `GOTUNNEL_SECTION_KEY`, flags, `config show` and every error text come from `KEYS` and nothing else.
- All is frozen and parsed: durations are float seconds, sizes are bytes.
- What may hold a secret is kept out of `repr` and is shown through its kind's `show` only.
- An upstream keeps the text of its CHAIN, already checked by `upstream.spec.parse_chain`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from gotunnel.config import values
from gotunnel.config.values import Auth, Endpoint, Filter, Kind, Span
from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError
from gotunnel.pattern import Pattern

T = TypeVar("T")

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # compiled when first used, as the next
_SRV = r"srv://_[A-Za-z0-9-]+\._(?:tcp|udp)\.[A-Za-z0-9.-]+"
RESERVED = ("pool", "direct", "reject")
HOUR, DAY = 3600.0, 86400.0


def setting(kind: Kind[T], default: object, doc: str, *, flag: str = "", secret: bool = False) -> T:
    """A key of a section; `flag` is the option that sets it on the command line."""
    meta = {"kind": kind, "doc": doc, "flag": flag}
    return dataclasses.field(default=kind.parse(default), repr=not secret, metadata=meta)


def wanted(kind: Kind[T], doc: str, *, secret: bool = False) -> T:
    """A key without a default, of one `[[upstream]]` or `[[route]]`."""
    return cast(T, dataclasses.field(repr=not secret, metadata={"kind": kind, "doc": doc, "flag": ""}))


def _name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        raise ValueError(f"{values.quote(text)} is no name; want letters, digits, dots, dashes, underscores")
    if text in RESERVED:
        raise ValueError(f'"{text}" has a meaning of its own in routes; take another name')
    return text


def chain_text(value: object) -> str:
    """A CHAIN, a list of hops, or srv://…, as the text of a CHAIN.  Raises ValueError."""
    from gotunnel.upstream.spec import parse_chain

    if isinstance(value, list | tuple):
        if not value or not all(isinstance(hop, str) for hop in value):
            raise ValueError('want a CHAIN or a list of hops, such as ["http://proxy:3128", "ssh://bastion"]')
        if any("," in hop for hop in value):
            raise ValueError("a hop of the list holds a comma; make two hops of it, or write it as %2C")
        value = ",".join(value)
    if not isinstance(value, str):
        raise ValueError(f'{values.quote(value)} is wrong; want a CHAIN such as "ssh://bastion"')
    if value.startswith("srv://"):
        if not re.fullmatch(_SRV, value):
            raise ValueError(f"{values.quote(value)}: want srv://_SERVICE._tcp.DOMAIN, alone")
        return value
    try:
        parse_chain(value)
    except ConfigError as error:
        raise ValueError(str(error)) from None
    return value


def _word(text: str) -> str:
    if not text or any(c.isspace() or c in ",|" for c in text):
        raise ValueError(
            f"{values.quote(text)} holds a space, comma or bar, or nothing; make items of its parts"
        )
    return text


_mirror_url = values.url("https", "http", "file", bare=("direct", "off"))


def _pattern(text: str) -> str:
    Pattern.parse(text)
    return text.strip()


def _required(kind: Kind[tuple[str, ...]]) -> Kind[tuple[str, ...]]:
    def parse(value: object) -> tuple[str, ...]:
        if found := kind.parse(value):
            return found
        raise ValueError("the list is empty; want at least one")

    return dataclasses.replace(kind, parse=parse)


def _to(value: object) -> str:
    if value in RESERVED:
        return str(value)
    if isinstance(value, str) and re.fullmatch(_NAME, value):
        return value
    raise ValueError(
        f'{values.quote(value)} is wrong; want an upstream\'s name, a tag, "pool", "direct" or "reject"'
    )


def _one(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{values.quote(value)} is wrong; want a name in quotes")
    return _name(value)


def shown_chain(text: str) -> str:
    """The CHAIN of an upstream without its secrets."""
    from gotunnel.upstream.spec import parse_chain

    return text if text.startswith("srv://") else str(parse_chain(text))


@dataclass(frozen=True, slots=True)
class Upstream:
    """A configured way out; `via` is the text of its CHAIN (which may hold a password)."""

    name: str = wanted(Kind(_one, str, str), "what routes and reports call it")
    via: str = wanted(Kind(chain_text, str, shown_chain), "a CHAIN, a list of hops, or srv://…", secret=True)
    tags: tuple[str, ...] = setting(values.words("tags", _name), [], "names that several upstreams may share")


@dataclass(frozen=True, slots=True)
class Route:
    """Where targets go that `match` means; the first route that matches is taken."""

    match: tuple[str, ...] = wanted(
        _required(values.words('patterns such as "git.corp.example", "*.internal", "10.0.0.0/8"', _pattern)),
        "names, *.names, addresses and CIDRs (literal addresses only)",
    )
    to: str = wanted(Kind(_to, str, str), "an upstream's name, a tag, pool, direct or reject")

    def patterns(self) -> tuple[Pattern, ...]:
        """`match`, parsed."""
        return tuple(map(Pattern.parse, self.match))


@dataclass(frozen=True, slots=True)
class Probe:
    """The active health check."""

    url: str = setting(
        values.one_url("https", "http"), "", "what is asked for; empty: the first GOPROXY source", secret=True
    )
    every: float = setting(values.seconds(1, DAY), "30s", "time between two probes")
    timeout: float = setting(values.seconds(0.1, HOUR), "5s", "a probe that takes longer has failed")


@dataclass(frozen=True, slots=True)
class Pool:
    """How one of several ways out is picked."""

    strategy: str = setting(
        values.choice("ordered", "fastest", "round-robin"), "ordered", "order of the candidates"
    )
    hedge: float | str = setting(
        values.hedge(0.001, 60), "auto", "delay of a second attempt; auto: about the p95 dial"
    )
    probe: Probe = Probe()
    stall: float = setting(values.seconds(0.1, HOUR), "5s", "a body that brings nothing for so long is dead")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS of the local endpoint, for a shared team proxy."""

    cert: str = setting(values.path(), "", "certificate chain, PEM")
    key: str = setting(values.path(), "", "its private key, PEM")
    client_ca: str = setting(values.path(), "", "clients must show a certificate of this CA, PEM")


@dataclass(frozen=True, slots=True)
class Listen:
    """The addresses to listen on; port 0 means a free one."""

    proxy: Endpoint = setting(values.endpoint(), "127.0.0.1:0", "HTTP CONNECT, absolute-form and SOCKS5")
    modproxy: Endpoint = setting(values.endpoint(), "127.0.0.1:0", "the module proxy")
    admin: Endpoint = setting(values.endpoint(), "127.0.0.1:0", "status page, /metrics, /healthz, /readyz")
    auth: Auth = setting(values.auth(), "auto", "auto: a secret of each run's own; off only on loopback")
    tls: Tls = Tls()


@dataclass(frozen=True, slots=True)
class Go:
    """What the go command is told."""

    mirrors: tuple[str, ...] = setting(
        values.words("URLs", lambda text: _mirror_url(_word(text))),
        [],
        "module sources; empty: what `go env GOPROXY` lists",
        secret=True,
    )
    private: tuple[str, ...] = setting(values.words("globs of module paths", _word), [], "added to GOPRIVATE")
    filter: tuple[Filter, ...] = setting(values.filters(), [], "modules that are denied or allowed")


@dataclass(frozen=True, slots=True)
class Cache:
    """The module store."""

    url: str = setting(
        values.one_url("file", "s3", "gs", "az"),
        "",
        "where it is; empty: the user's cache directory",
        secret=True,
    )
    max_size: int = setting(values.bytes_size(10**6, 10**15), "20GB", "older files are removed beyond it")
    list_ttl: float = setting(
        values.seconds(0, 365 * DAY), "60s", "age at which lists and @latest are asked anew"
    )
    offline: bool = setting(values.switch(), False, "serve from the store only", flag="--offline")


@dataclass(frozen=True, slots=True)
class Limits:
    """What the local endpoint takes on at most."""

    connections: int = setting(values.count(1, 1_000_000), 4096, "connections at once")
    per_client: int = setting(values.count(1, 1_000_000), 1024, "connections at once from one address")
    head: int = setting(values.bytes_size(1000, 16 * 1024**2), "64KB", "size of a request's head")


@dataclass(frozen=True, slots=True)
class Retry:
    """Repeats of CMD after a network failure."""

    attempts: int = setting(values.count(0, 100), 3, "repeats at most", flag="--retries")
    backoff: Span = setting(values.span(0.001, HOUR), "500ms..10s", "first and last delay between repeats")


@dataclass(frozen=True, slots=True)
class Log:
    """What gotunnel writes about itself."""

    format: str = setting(
        values.choice("text", "json"), "text", "json: Elastic Common Schema", flag="--log-format"
    )
    level: str = setting(
        values.choice("error", "warning", "info", "debug"), "info", "least severity", flag="--log-level"
    )


@dataclass(frozen=True, slots=True)
class Alert:
    """When an alert is raised, and where it is sent."""

    sigma: float = setting(
        values.number(0.1, 100), 3.0, "deviation of request or failure rate that raises one"
    )
    webhook: str = setting(
        values.one_url("https", "http", hide_path=True), "", "URL that gets alerts", secret=True
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration."""

    upstreams: tuple[Upstream, ...] = ()
    routes: tuple[Route, ...] = ()
    pool: Pool = Pool()
    listen: Listen = Listen()
    go: Go = Go()
    cache: Cache = Cache()
    limits: Limits = Limits()
    retry: Retry = Retry()
    log: Log = Log()
    alert: Alert = Alert()


@dataclass(frozen=True, slots=True)
class Key:
    """One row of the table; `name` is dotted: "pool.probe.url"."""

    name: str
    kind: Kind[Any]
    default: object
    doc: str
    flag: str

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable(self.name)


def variable(name: str) -> str:
    """The environment variable of a dotted name."""
    return "GOTUNNEL_" + name.upper().replace(".", "_")


def rows(section: type, prefix: str = "") -> dict[str, Key]:
    """The keys of a dataclass, those of the tables in it included, by dotted name."""
    found: dict[str, Key] = {}
    for field in dataclasses.fields(section):
        name = prefix + field.name
        if "kind" in field.metadata:
            meta = field.metadata
            found[name] = Key(name, meta["kind"], field.default, meta["doc"], meta["flag"])
        elif dataclasses.is_dataclass(field.default):
            found |= rows(type(field.default), name + ".")
    return found


KEYS: Mapping[str, Key] = rows(Config)
"""Every key of a plain section by its dotted name."""

LISTS: Mapping[str, type] = {"upstream": Upstream, "route": Route}
"""The sections that are lists of tables."""

TABLES = frozenset(name.rpartition(".")[0] for name in KEYS)
"""The names of tables: "pool", "pool.probe", …"""

SECTIONS = (*LISTS, *dict.fromkeys(name.partition(".")[0] for name in KEYS))


def build(given: Mapping[str, object], upstreams: tuple[Upstream, ...], routes: tuple[Route, ...]) -> Config:
    """A Config of parsed values by dotted name; what is not given keeps its default."""

    def fill(default: Any, prefix: str) -> Any:
        changes: dict[str, object] = {}
        for field in dataclasses.fields(default):
            name = prefix + field.name
            if name in given:
                changes[field.name] = given[name]
            elif name in TABLES:
                changes[field.name] = fill(getattr(default, field.name), name + ".")
        return dataclasses.replace(default, **changes)

    whole = fill(Config(), "")
    assert isinstance(whole, Config)
    return dataclasses.replace(whole, upstreams=upstreams, routes=routes)
