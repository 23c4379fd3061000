"""Patterns of routes, and NO_PROXY as the go command reads it.

Rules:
- A pattern is a name ("git.corp.example": that name alone), "*.NAME" (every name below it), "*"
  (everything), an IP literal or a CIDR; all but a CIDR may end in ":PORT".
- A CIDR and an IP literal match literal targets only: names are never resolved for a route.
- Names are compared without case, without a trailing dot, and in their ASCII (punycode) form.
- NO_PROXY is read as golang.org/x/net/http/httpproxy reads it: "foo.com" covers its subdomains,
  ".foo.com" and "*.foo.com" only these, "*" alone is everything, an entry that can't match is skipped.
"""

from __future__ import annotations

import ipaddress
import re

from gotunnel.dataclass import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAME = r"(?:\*\.)?[^\s/@:*?#\[\],]+"  # compiled when first used


@dataclass(frozen=True, slots=True)
class Pattern:
    """One parsed pattern: a network, or a name with `below` for "*."; port 0 means any."""

    name: str = ""
    below: bool = False
    network: Network | None = None
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Parse one pattern.  Raises ValueError with one line that says what is wrong."""
        text = text.strip()
        if "/" in text:
            return cls(network=_cidr(text))
        host, port = _split_port(text)
        if (address := _ip(host)) is not None:
            return cls(network=ipaddress.ip_network(address), port=port)
        if host == "*":
            return cls(below=True, port=port)
        if not re.fullmatch(_NAME, host) or host.startswith(".") or ".." in host:
            hint = f'; want "*{host}" for the names below it' if re.fullmatch(r"\.[\w.-]+", host) else ""
            raise ValueError(f'"{text}" is no pattern{hint or "; want NAME, *.NAME, an address or a CIDR"}')
        below = host.startswith("*.")
        return cls(name=_ascii(host.removeprefix("*.")), below=below, port=port)

    def matches(self, host: str, port: int) -> bool:
        """True where the target `host`:`port` is meant; `host` without brackets."""
        if self.port not in (0, port):
            return False
        if self.network is not None:
            address = _ip(host)
            return address is not None and address.version == self.network.version and address in self.network
        if self.below:
            return not self.name or _ascii(host).endswith("." + self.name)
        return _ascii(host) == self.name


def no_proxy_patterns(text: str) -> tuple[str, ...]:
    """The value of NO_PROXY as patterns; what can't match anything is left out."""
    found: list[str] = []
    for entry in (part.strip().lower() for part in text.split(",")):
        if entry == "*":
            return ("*",)
        try:
            if "/" in entry:
                _cidr(entry)
                found.append(entry)
                continue
            host, port = _split_port(entry)
            end = f":{port}" if port else ""
            if (address := _ip(host)) is not None:
                found.append((f"[{address}]" if end and address.version == 6 else str(address)) + end)
                continue
            name = host.removeprefix("*").removeprefix(".")
            both = [f"*.{name}{end}"] if host.startswith(("*.", ".")) else [name + end, f"*.{name}{end}"]
            for pattern in both:
                Pattern.parse(pattern)
            found += both
        except ValueError:
            continue  # as httpproxy does: an entry that can't match is no error
    return tuple(dict.fromkeys(found))


def _cidr(text: str) -> Network:
    base, _, bits = text.partition("/")
    # ip_network also takes netmasks (10.0.0.0/255.0.0.0), which no other tool here does
    if bits.isascii() and bits.isdigit() and "%" not in base:
        try:
            return ipaddress.ip_network(text, strict=False)
        except ValueError:
            pass
    raise ValueError(f'"{text}" is no CIDR; want one such as 10.0.0.0/8 or fd00::/8')


def _split_port(text: str) -> tuple[str, int]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or _ip(host) is None or (rest and not rest.startswith(":")):
            raise ValueError(f'"{text}" is no address; want [IPv6] or [IPv6]:PORT')
        digits = rest[1:]
    elif text.count(":") > 1:
        return text, 0
    else:
        host, colon, digits = text.partition(":")
        if not colon:
            return text, 0
    if not digits and text.startswith("["):
        return host, 0
    if not re.fullmatch(r"[0-9]{1,5}", digits) or not 1 <= int(digits) <= 65535:
        raise ValueError(f'"{text}": "{digits[:20]}" is no port (1 to 65535)')
    return host, int(digits)


def _ip(host: str) -> Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    # as in Go, ::ffff:10.0.0.1 is 10.0.0.1
    return getattr(address, "ipv4_mapped", None) or address


def _ascii(name: str) -> str:
    name = name.lower().removesuffix(".")
    if name.isascii():
        return name
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError:
        return name
