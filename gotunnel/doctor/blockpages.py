"""What kind of address an answer holds: pure tables for those who ask whether a resolver lies.

Rules:
- `why_odd` says in one word why a public name shouldn't have this address; "" for an ordinary public one.
- An odd address alone proves nothing: companies give public names private addresses (split horizon), and
  proxies such as Clash answer from 198.18.0.0/15 and carry the traffic all the same.  Judge by what followed.
- `PUBLIC` are names that go uses by default: nobody but an interceptor has them at a private address.

Sources: RFC 6890 and the IANA special-purpose registries; the addresses that national and vendors' filters
are known to answer with (OONI's and Citizen Lab's published lists, OpenDNS's and CleanBrowsing's pages).
"""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

PUBLIC = frozenset(
    (
        "proxy.golang.org", "sum.golang.org", "sum.golang.google.cn", "goproxy.cn", "goproxy.io", "go.dev",
        "golang.org", "google.golang.org", "gopkg.in", "storage.googleapis.com", "dl.google.com",
        "mirrors.aliyun.com", "github.com", "codeload.github.com", "gitlab.com", "bitbucket.org",
        "codeberg.org", "go.googlesource.com", "gitee.com",
    )
)  # fmt: skip

# ends of names that no public resolver knows (RFC 6761, RFC 6762, RFC 8375, ICANN's reserved ones)
_LOCAL_ENDS = (
    "localhost", "local", "internal", "intranet", "lan", "home", "corp", "private", "home.arpa",
    "localdomain", "test", "invalid", "example", "onion", "alt",
)  # fmt: skip

_ODD: tuple[tuple[str, str], ...] = (
    # the addresses that filters answer with
    ("146.112.61.104/29", "blockpage"),  # OpenDNS, Cisco Umbrella
    ("185.228.168.10/32", "blockpage"),  # CleanBrowsing
    ("208.69.32.0/21", "blockpage"),  # OpenDNS
    ("10.10.34.32/29", "blockpage"),  # Iran
    ("195.175.254.2/32", "blockpage"),  # Türkiye
    ("175.139.142.25/32", "blockpage"),  # Malaysia
    ("36.86.63.185/32", "blockpage"),  # Indonesia
    ("118.97.116.27/32", "blockpage"),  # Indonesia
    ("110.50.243.6/32", "blockpage"),  # Russia and others by their operators
    ("188.186.157.49/32", "blockpage"),
    ("94.140.14.35/32", "blockpage"),  # AdGuard
    ("127.0.0.0/8", "loopback"),
    ("::1/128", "loopback"),
    ("0.0.0.0/8", "unspecified"),
    ("::/128", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("172.16.0.0/12", "private"),
    ("192.168.0.0/16", "private"),
    ("fc00::/7", "private"),
    ("100.64.0.0/10", "private"),
    ("169.254.0.0/16", "link-local"),
    ("fe80::/10", "link-local"),
    ("198.18.0.0/15", "fake"),  # benchmarks (RFC 2544); the "fake-ip" of Clash and its kin
    ("192.0.2.0/24", "bogon"),
    ("198.51.100.0/24", "bogon"),
    ("203.0.113.0/24", "bogon"),
    ("192.0.0.0/24", "bogon"),
    ("2001:db8::/32", "bogon"),
    ("3fff::/20", "bogon"),
    ("100::/64", "bogon"),
    ("224.0.0.0/4", "bogon"),
    ("ff00::/8", "bogon"),
    ("240.0.0.0/4", "bogon"),
)
_NETWORKS = tuple((ipaddress.ip_network(text), word) for text, word in _ODD)


def why_odd(address: str) -> str:
    """blockpage, loopback, unspecified, private, link-local, fake or bogon; "" for an ordinary address."""
    parsed = parse(address)
    if parsed is None:
        return ""
    for network, word in _NETWORKS:
        if parsed.version == network.version and parsed in network:
            return word
    return ""


def parse(address: str) -> Address | None:
    """The address, an IPv4-mapped one as IPv4, without a zone; None where it is none."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def is_public_name(name: str) -> bool:
    """Could a public resolver know this name?  Only such names are asked of one."""
    name = name.rstrip(".").lower()
    if "." not in name or parse(name) is not None:
        return False
    return not any(name == end or name.endswith("." + end) for end in _LOCAL_ENDS)


def same_network(one: str, other: str) -> bool:
    """Are two addresses so near that one operator likely has both (/16, or /32 for IPv6)?"""
    a, b = parse(one), parse(other)
    if a is None or b is None or a.version != b.version:
        return False
    bits = 16 if a.version == 4 else 32
    return b in ipaddress.ip_network((a, bits), strict=False)
