"""Addresses: a target is parsed once, into a `HostPort`; secrets are masked in one place.

Rules:
- IPv6 literals stand in brackets in text and without them in `HostPort.host`.
- A host is never lower-cased here: ssh aliases keep their case.
- Control characters, spaces and NUL are refused: a target is written into protocols and logs.
"""

from __future__ import annotations

import ipaddress
import re

from gotunnel.dataclass import dataclass

_BAD = re.compile(r"[\x00-\x20\x7f-\xa0/@\\?#]")
_USERINFO = re.compile(r"://(?P<user>[^\s/@:]{0,1000}):[^\s/]{0,4000}@")  # bounded: text may be anybody's
_LOCAL_PATH = re.compile(r"(?P<base>http://127\.0\.0\.1:\d+/)(?P<secret>[A-Za-z0-9_-]{20,})")


@dataclass(frozen=True, slots=True)
class HostPort:
    """A target: `host` a name or an IP literal without brackets, `port` 1 to 65535."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> HostPort:
        """Parse `host:port`, `[v6]:port` or, with `default_port`, a bare host.

        Raises ValueError with one line that says what is wrong.
        """
        if text.startswith("["):
            host, bracket, rest = text[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise ValueError(f"{text!r}: want [IPv6]:PORT")
            port_text = rest[1:] if rest else ""
            try:
                ipaddress.IPv6Address(host.partition("%")[0])
            except ValueError:
                raise ValueError(f"{text!r}: {host!r} is no IPv6 address") from None
        elif text.count(":") > 1:
            raise ValueError(f"{text!r}: an IPv6 address stands in brackets: [{text}]")
        else:
            host, _, port_text = text.partition(":")
        if not host or len(host) > 255 or _BAD.search(host):
            raise ValueError(f"{text!r}: want HOST:PORT")
        if not port_text:
            if default_port is None:
                raise ValueError(f"{text!r}: the port is missing")
            return cls(host, default_port)
        port_text = port_text.lstrip("0") or "0"
        if not (port_text.isascii() and port_text.isdigit() and 1 <= int(port_text[:6]) <= 65535):
            raise ValueError(f"{text!r}: {port_text!r} is no port (1 to 65535)")
        return cls(host, int(port_text))

    @property
    def is_loopback(self) -> bool:
        """True for localhost and loopback literals; names are never resolved for it."""
        name = self.host.rstrip(".").lower()
        if name == "localhost" or name.endswith(".localhost"):
            return True
        address = self.ip
        return address is not None and address.is_loopback

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The address if `host` is a literal, else None."""
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def redact(text: str) -> str:
    """Mask passwords in URLs, and the secret path prefix of our own module proxy."""
    text = _USERINFO.sub(lambda m: f"://{m['user']}:***@", text)
    return _LOCAL_PATH.sub(lambda m: f"{m['base']}***", text)


def one_line(text: str, limit: int = 500) -> str:
    """`text` without control characters, at most `limit` characters: fit for a log or a status line."""
    flat = "".join(c if c.isprintable() else " " for c in text).strip()
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
