"""Jump hosts from DNS: `srv://_gotunnel-ssh._tcp.corp.example` stands for the hosts of its SRV records.

Rules (RFC 2782):
- The lowest priority comes first; among equals each host's chance to come before the others is by its weight.
  The order is drawn once for a set of hosts: it changes only when they do.
- An answer is asked for anew after its TTL, 5 s to an hour.  A resolver that fails changes nothing: the last
  good answer stays until there is another.
- What DNS says is not trusted: a name that is no host name is left out, host keys are checked as ever.
- The target "." says that there is no such service.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from gotunnel.dataclass import dataclass
from gotunnel.errors import Blame, DialError
from gotunnel.tasks import Backoff

TTL_LEAST, TTL_MOST = 5.0, 3600.0  # seconds
TIMEOUT = 10.0  # seconds for one answer, over all name servers
RETRY = (5.0, 60.0)  # seconds between two questions to a resolver that fails
MOST = 64  # hosts of an answer
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_NAME = re.compile(r"srv://(_[A-Za-z0-9-]+\._(?:tcp|udp)\.[A-Za-z0-9.-]+)")
_log = logging.getLogger("gotunnel.srv")


class Target(NamedTuple):
    """One SRV record; `host` without the dot at its end."""

    host: str
    port: int
    priority: int
    weight: int


@dataclass(frozen=True, slots=True)
class Answer:
    """All records, in a fixed order; `ttl` in seconds, as the resolver gave it."""

    targets: tuple[Target, ...]
    ttl: float


def name_of(via: str) -> str | None:
    """The name in `srv://NAME`; None for another way out."""
    match = _NAME.fullmatch(via)
    return match[1].rstrip(".") if match else None


def ordered(targets: Sequence[Target], rng: random.Random) -> tuple[Target, ...]:
    """By priority, and within one by a draw with the weights: RFC 2782, "Usage rules"."""
    order: list[Target] = []
    for priority in sorted({target.priority for target in targets}):
        # those of weight 0 first, which gives them a very small chance to be drawn before others
        left = sorted((t for t in targets if t.priority == priority), key=lambda t: (t.weight > 0, t))
        while left:
            drawn = rng.randint(0, sum(t.weight for t in left))
            for target in left:
                drawn -= target.weight
                if drawn <= 0:
                    break
            left.remove(target)
            order.append(target)
    return tuple(order)


def chains(targets: Sequence[Target]) -> tuple[str, ...]:
    """The CHAIN of each target, in the order given."""
    return tuple(dict.fromkeys(f"ssh://{target.host}:{target.port}" for target in targets))


async def resolve(name: str, *, nameservers: Sequence[str] = (), port: int = 53) -> Answer:
    """Ask DNS; `nameservers` (addresses) and `port` in place of the system's.  Raises DialError."""
    import dns.asyncresolver
    import dns.exception
    import dns.resolver

    def failed(finding: str, words: str) -> DialError:
        return DialError(finding, f"{name}: {words}", blame=Blame.HOP, hop=f"srv://{name}")

    try:
        resolver = dns.asyncresolver.Resolver(configure=not nameservers)
        if nameservers:
            resolver.nameservers, resolver.port = list(nameservers), port
        answer = await resolver.resolve(name, "SRV", search=False, lifetime=TIMEOUT)
    except dns.resolver.NXDOMAIN as error:
        raise failed("dns.not-found", "the name doesn't exist for this resolver") from error
    except dns.resolver.NoAnswer as error:
        raise failed("dns.not-found", "the name has no SRV records") from error
    except dns.exception.Timeout as error:
        raise failed("dns.timeout", f"no name server answered in {TIMEOUT:.0f} s") from error
    except dns.resolver.NoNameservers as error:
        raise failed("dns.refused", "every name server failed or refused to answer") from error
    except (dns.exception.DNSException, OSError) as error:
        raise failed("dns.refused", f"the answer can't be had: {type(error).__name__}") from error
    found = []
    for record in answer:
        host = record.target.to_text(omit_final_dot=True)
        if _HOST.fullmatch(host) and 1 <= record.port <= 65535:
            found.append(Target(host, record.port, record.priority, record.weight))
        elif host != ".":
            _log.warning("%s: a record is left out: %s is no host name, or its port is 0", name, ascii(host))
    if not found:
        raise failed("dns.not-found", "the service is not offered: no SRV record names a host")
    return Answer(
        tuple(sorted(set(found))[:MOST]), float(answer.rrset.ttl if answer.rrset is not None else 0)
    )


class Discovery:
    """Keeps the hosts of one name.  `resolve` is the function of this file, or one like it.

    `on_change` hears the CHAINs in their order whenever the set has changed, the first time too.
    """

    def __init__(
        self,
        name: str,
        on_change: Callable[[tuple[str, ...]], None],
        *,
        resolve: Callable[[str], Awaitable[Answer]] = resolve,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.name = name
        self.targets: tuple[Target, ...] = ()  # in their order
        self.error: DialError | None = None  # of the last question
        self._on_change = on_change
        self._resolve, self._sleep = resolve, sleep
        self._rng = rng or random.Random()  # noqa: S311 - to spread load
        self._retry = Backoff(*RETRY, self._rng)

    @property
    def chains(self) -> tuple[str, ...]:
        """The CHAINs in their order; none before the first good answer."""
        return chains(self.targets)

    async def ask(self) -> float:
        """Ask once; seconds until it is to be asked again.  Raises DialError, which changes nothing."""
        try:
            answer = await self._resolve(self.name)
        except DialError as error:
            self.error = error
            raise
        self.error = None
        self._retry.reset()
        if set(answer.targets) != set(self.targets):
            self.targets = ordered(answer.targets, self._rng)
            self._on_change(self.chains)
        return min(max(answer.ttl, TTL_LEAST), TTL_MOST)

    async def run(self, first: float = 0.0) -> None:
        """Ask for ever, `first` seconds from now and then by the TTL; runs until it is cancelled."""
        wait = first
        while True:
            await self._sleep(wait)
            wait = self._retry.delay()
            with contextlib.suppress(DialError):
                wait = await self.ask()
            if self.error is not None:
                _log.warning("%s; %d known hosts stay", self.error, len(self.targets))
