"""What the doctor's parts hand each other: a Need, and what was Seen of it over one way.

Rules:
- A Need is something that `go` as it is set up here would ask of the network; `private` ones are asked of
  no public resolver, source or database.
- Times are milliseconds, None for a phase that didn't happen.
- `via` is the way out's label, "" for the machine's own network.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from gotunnel.dataclass import dataclass
from gotunnel.errors import GotunnelError

__all__ = ["Certificate", "Need", "NeedKind", "ResolverAnswer", "Seen"]

NeedKind = Literal["source", "sumdb", "vcs-https", "vcs-ssh", "vcs-git", "meta", "toolchain", "url"]


@dataclass(frozen=True, slots=True)
class Need:
    """One thing to reach.

    `url` is the whole question (`https://proxy.golang.org/golang.org/x/text/@v/list`; `ssh://git@host:22/`
    and `git://host:9418/` for git), `host` without brackets, `path` with its query, `why` a few words for a
    person ("GOPROXY source", "private module git.corp.example/lib").
    """

    kind: NeedKind
    url: str
    host: str
    port: int
    tls: bool
    why: str
    private: bool = False
    path: str = "/"
    h1: str = ""  # what go.sum says of the go.mod that is asked for


@dataclass(frozen=True, slots=True)
class ResolverAnswer:
    """What one resolver said of a name; `server` is its address, "system", "doh:NAME" or "far:WAY"."""

    server: str
    addresses: tuple[str, ...] = ()
    rcode: str = ""  # "NOERROR", "NXDOMAIN", "SERVFAIL", "REFUSED", …; "" where nothing was answered
    ms: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Certificate:
    """The leaf that the server showed; dates are POSIX seconds, `error` the verification's words."""

    issuer: str
    subject: str
    names: tuple[str, ...]
    not_before: float
    not_after: float
    trusted: bool
    error: str = ""


@dataclass(slots=True)
class Seen:
    """Everything that was seen of one need over one way; `finding` is an id of contract §7, None if all well.

    `families` is "ipv4"/"ipv6" -> "ok" or the id of what went wrong.
    """

    need: Need
    via: str = ""
    name_ms: float | None = None
    connect_ms: float | None = None
    tls_ms: float | None = None
    first_byte_ms: float | None = None
    addresses: tuple[str, ...] = ()
    resolvers: tuple[ResolverAnswer, ...] = ()
    families: dict[str, str] = field(default_factory=dict)
    certificate: Certificate | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""  # the first 4 KiB
    error: GotunnelError | None = None
    finding: str | None = None
    detail: str = ""
    at: float = 0.0  # POSIX seconds of this machine's clock at the end of the look
    notes: dict[str, Any] = field(default_factory=dict)  # further evidence, JSON-ready (look.py: NOTES)
