"""What a finding of the network shows as evidence, and the commands that mend it: pure.

Rules:
- A way out that was seen to work comes first among the fixes: it is known to help.
- A command holds the host, port and issuer of the case; what can't be known stands in capitals.
"""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from gotunnel.doctor.model import Certificate, Seen
from gotunnel.findings.catalogue import harmless

_MIRROR = "gotunnel run --mirror https://goproxy.cn -- go …"
_CONFIGURED = ("tcp.", "net.", "dns.", "tls.", "http.", "hop.", "proxy.", "socks.", "ssh.", "unknown")
_SAFE_MTU = 1280  # the least that IPv6 demands of every link (RFC 8200 §5)


def evidence(seen: Seen, **more: Any) -> dict[str, Any]:
    """Everything of a look that a person would want to see, JSON-ready; what is empty is left out."""
    certificate = seen.certificate
    found: dict[str, Any] = {
        "detail": seen.detail,
        "why": seen.need.why,
        "addresses": list(seen.addresses),
        "families": dict(seen.families),
        "resolvers": {
            answer.server: list(answer.addresses) or answer.rcode or answer.error for answer in seen.resolvers
        },
        "certificate": _certificate(certificate) if certificate else None,
        "status": seen.status,
        "ms": {
            name: round(value, 1)
            for name in ("name_ms", "connect_ms", "tls_ms", "first_byte_ms")
            if (value := getattr(seen, name)) is not None
        },
        **{key: value for key, value in seen.notes.items() if key not in ("names",)},
        **more,
    }
    return {key: value for key, value in found.items() if value not in (None, "", [], {}, ())}


def _certificate(certificate: Certificate) -> dict[str, Any]:
    return {
        "issuer": certificate.issuer,
        "subject": certificate.subject,
        "names": list(certificate.names),
        "not_before": day(certificate.not_before),
        "not_after": day(certificate.not_after),
        "trusted": certificate.trusted,
        "self_signed": certificate.issuer == certificate.subject,
    }


def day(seconds: float) -> str:
    """POSIX seconds as a date and time of UTC."""
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return "?"


def working_ways(every: Sequence[Seen]) -> tuple[str, ...]:
    """The labels of the ways out that reached the need."""
    return tuple(seen.via for seen in every if seen.via and seen.finding is None)


def fixes(id: str, seen: Seen, ways: Sequence[str] = ()) -> tuple[str, ...] | None:
    """The commands for finding `id` of this look; None: those of the catalogue."""
    host, port = seen.need.host, seen.need.port
    if not harmless(host):
        return None
    url = shlex.quote(seen.need.url)
    at = f"{host}:{port}"
    known = tuple(f"gotunnel run --via {shlex.quote(way)} -- go …" for way in ways[:2])
    via = known or ("gotunnel run --via ssh://USER@JUMPHOST -- go …",)
    mirror = (_MIRROR,) if seen.need.kind == "source" else ()
    interface = str(seen.notes.get("interface") or "INTERFACE")
    table: dict[str, tuple[str, ...]] = {
        "dns.not-found": (f"check the spelling of {host}: dig {host}", *via),
        "dns.timeout": ("put a name server that answers into /etc/resolv.conf: nameserver 1.1.1.1", *via),
        "dns.refused": ("put a name server that answers into /etc/resolv.conf: nameserver 1.1.1.1", *via),
        "dns.hijacked": (*via, f"dig {host} @1.1.1.1   # an honest name server for /etc/resolv.conf"),
        "tcp.refused": (*via, f"gotunnel probe {url}", *mirror),
        "tcp.timeout": (*via, *mirror, f"ask for port {port} to {host} to be opened"),
        "tcp.reset": (*via, *mirror),
        "net.unreachable": (f"ip route get {(seen.addresses or (host,))[0]}", *via),
        "net.mtu": (
            f"ip link set dev {interface} mtu {_SAFE_MTU}", "sysctl -w net.ipv4.tcp_mtu_probing=1", *via
        ),
        "ipv6.broken": (
            "sysctl -w net.ipv6.conf.all.disable_ipv6=1   # until IPv6 is mended", *known
        ),
        "tls.intercepted": (
            f"openssl s_client -showcerts -connect {at} -servername {host} </dev/null   # who is it?",
            "export SSL_CERT_FILE=CA.pem   # if it is your company's own inspection; for git: GIT_SSL_CAINFO",
            *via,
        ),
        "tls.expired": ("date -u   # is the clock right?", *via, *mirror),
        "tls.wrong-name": (f"gotunnel probe {url}", *via, *mirror),
        "tls.clock-skew": ("timedatectl set-ntp true", "date -u   # compare it with another clock"),
        "tls.timeout": (*via, *mirror),
        "sum.mismatch": (*mirror, *via, "if others give it too, ask the author: was the version moved?"),
        "http.captive-portal": (f"open {portal(seen)} in a browser and log in", *via),
        "http.unauthorized": (
            f"add to ~/.netrc: machine {host} login USER password TOKEN", "go help goauth",
        ),
        "vcs.credentials": (
            f"add to ~/.netrc: machine {host} login USER password TOKEN",
            f"git config --global url.ssh://git@{host}/.insteadOf https://{host}/",
        ),
        "vcs.ssh-refused": _ssh_round(seen, via),
        "vcs.port-blocked": (
            f"git config --global url.https://{host}/.insteadOf git://{host}/", *via
        ),
    }  # fmt: skip
    lines = table.get(id)
    if lines is None and known and id.startswith(_CONFIGURED):
        return known
    return lines


def portal(seen: Seen) -> str:
    """The page on which to log in, as far as it is known."""
    location = seen.headers.get("location", "")
    return location[:200] if location.startswith(("http://", "https://")) else f"http://{seen.need.host}/"


def _ssh_round(seen: Seen, via: Sequence[str]) -> tuple[str, ...]:
    host = seen.need.host
    lines: list[str] = []
    other = str(seen.notes.get("ssh_443") or "")
    if other:
        # of ssh, not an insteadOf of git: that wouldn't apply where another one has written the URL already
        there, _, port = other.rpartition(":")
        block = f"Host {host}\\n  HostName {there}\\n  Port {port}\\n"
        lines.append(f"printf '{block}' >> ~/.ssh/config")
    if seen.notes.get("https"):
        user = urlsplit(seen.need.url).username or ""
        user = user if harmless(user) else "git"  # a page of an import path may have named it
        lines.append(f"git config --global url.https://{host}/.insteadOf ssh://{user}@{host}/")
    return (*lines, *via)
