"""Does the resolver lie?  Pure, over what was seen of one need directly and by each way.

Rules:
- Only a failure is explained so: where the certificate was right, or a module's answer came, the address was
  right too, however odd it looks (split horizon, Clash's fake addresses, content networks that differ).
- An independent resolver (DNS over HTTPS, the far end of a way out) that gives an address of the same network
  clears the resolver.
- Without an independent answer: an address that no public name can have (unspecified, loopback, bogon, a
  known block page) is a lie; a private one only for names that are known to be public: companies give
  their own names private addresses.
- With a differing one: a lie where the right certificate is found at the other address, or the certificate
  found at ours is for other names.  One that has expired belongs to the name; one for the name from an issuer
  that nobody trusts is as well an interceptor's on the line, whatever address the resolver gives.
- A private need, a name that no public resolver can know, and the names of this machine are never judged.
"""

from __future__ import annotations

from collections.abc import Sequence

from gotunnel.dataclass import dataclass
from gotunnel.doctor.blockpages import PUBLIC, is_public_name, same_network, why_odd
from gotunnel.doctor.model import Seen

_IMPOSSIBLE = frozenset(("unspecified", "loopback", "bogon", "blockpage", "fake"))
_AFTER_NAME = ("tcp.", "net.unreachable", "tls.", "http.", "unknown")


@dataclass(frozen=True, slots=True)
class Lie:
    """Why the resolver isn't believed, in words, and what others say."""

    words: str
    others: tuple[str, ...] = ()


def lie(seen: Seen, every: Sequence[Seen]) -> Lie | None:
    """The lie that explains what `seen`, a direct look, found; None where there is none.

    `every` are all looks at the same need, `seen` among them.
    """
    host = seen.need.host
    if seen.need.private or seen.notes.get("names") != "here" or not is_public_name(host):
        return None
    if not (seen.finding or "").startswith(_AFTER_NAME) or not seen.addresses:
        return None
    if seen.certificate is not None and seen.certificate.trusted:
        return None
    others = independent(every)
    if any(same_network(ours, other) for ours in seen.addresses for other in others):
        return None
    odd = {address: why_odd(address) for address in seen.addresses}
    shown = ", ".join(f"{address} ({why})" if why else address for address, why in odd.items())
    impossible = all(why in _IMPOSSIBLE for why in odd.values())
    if others:
        said = ", ".join(others[:3])
        if (
            impossible
            or seen.notes.get("doh_verified")
            or _of_another(seen)
            or (all(odd.values()) and host.lower() in PUBLIC)
        ):
            return Lie(f"{host} is {shown} here, and {said} elsewhere", others)
        return None
    if impossible or (all(odd.values()) and host.lower() in PUBLIC):
        return Lie(f"{host} is {shown} here, which no public name can be")
    return None


def _of_another(seen: Seen) -> bool:
    """Was a certificate shown that doesn't even claim the name?"""
    if seen.certificate is None:
        return False
    names = seen.certificate.names or (seen.certificate.subject,)
    return not any(_covers(name, seen.need.host) for name in names)


def _covers(pattern: str, host: str) -> bool:
    """A certificate's name, which may begin with `*.` (RFC 6125 §6.4.3)."""
    pattern, host = pattern.lower(), host.lower().rstrip(".")
    if pattern.startswith("*."):
        return host.partition(".")[2] == pattern[2:]
    return pattern == host


def independent(every: Sequence[Seen]) -> tuple[str, ...]:
    """The addresses that public resolvers gave, directly or from the far end of a way out."""
    return tuple(
        dict.fromkeys(
            address
            for seen in every
            for answer in seen.resolvers
            if answer.server.startswith(("doh:", "far:"))
            for address in answer.addresses
        )
    )
