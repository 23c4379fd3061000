"""How long a look may take, and what it may use: plain values, which tests replace."""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path

from gotunnel.address import HostPort
from gotunnel.dataclass import dataclass
from gotunnel.doctor import look_vcs
from gotunnel.doctor.look_name import DOH, DohServer
from gotunnel.modproxy.credentials import NONE, Credentials
from gotunnel.upstream.tls import client_context


def system_trust() -> ssl.SSLContext:
    """What go trusts here; read once for each setting, since that takes tens of milliseconds."""
    return _read_trust(os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", ""))


@functools.cache
def _read_trust(file: str, directory: str) -> ssl.SSLContext:
    return client_context()


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds.  `hops`: for the whole dial through a way out; `compare`: what is asked after a failure."""

    total: float = 8.0
    name: float = 3.0
    connect: float = 3.0
    hops: float = 7.5  # longer than a dial's own limit (direct.CONNECT_TIMEOUT), whose error is exact
    tls: float = 3.0
    answer: float = 3.0
    compare: float = 2.5


@dataclass(frozen=True, slots=True)
class Means:
    """What a look may use; tests put their own in."""

    limits: Limits = Limits()
    trust: Callable[[], ssl.SSLContext] = system_trust
    doh: tuple[DohServer, ...] = DOH
    doh_trust: Callable[[], ssl.SSLContext] = system_trust
    resolvers: tuple[HostPort, ...] | None = None  # None: those of resolv.conf
    resolv_conf: Path = Path("/etc/resolv.conf")
    credentials: Credentials = NONE
    ssh_elsewhere: Mapping[str, HostPort] = field(default_factory=lambda: look_vcs.ELSEWHERE)
