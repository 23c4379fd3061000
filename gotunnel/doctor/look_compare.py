"""What is asked after a failure, all at once: would it work otherwise, and what do others say?

Rules:
- Each comparison is bounded (`Limits.compare`), and none raises for the network.
- Public resolvers are asked by the same way, of public names of needs that aren't private.
- Without verification nothing is sent but the bare question.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable

from gotunnel.address import HostPort, one_line
from gotunnel.dataclass import dataclass
from gotunnel.doctor import look_vcs
from gotunnel.doctor.blockpages import is_public_name, same_network
from gotunnel.doctor.look_http import Request, fetch
from gotunnel.doctor.look_means import Means
from gotunnel.doctor.look_name import ask_doh
from gotunnel.doctor.look_tcp import SMALL_MSS, connect
from gotunnel.doctor.look_tls import certificate_of, is_name_filtered, unverified
from gotunnel.doctor.model import Need, Seen
from gotunnel.errors import Blame, DialError, GotunnelError
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.upstream.direct import DirectDialer
from gotunnel.upstream.tls import start_tls

_CERTIFICATE = ("tls.intercepted", "tls.expired", "tls.wrong-name", "tls.clock-skew")
_BROKEN = ("tls.timeout", "tcp.reset", "http.timeout", "http.truncated", "hop.closed")
_GIT_PORTS = ("vcs-ssh", "vcs-git")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One failed look; `open` makes another connection like its own (0, or the largest segment in bytes)."""

    need: Need
    seen: Seen
    through: Dialer | None
    means: Means
    open: Callable[[int], Awaitable[Stream]]
    trusted: Callable[[], ssl.SSLContext]
    ask: Callable[[Stream], Awaitable[None]]

    async def all(self) -> None:
        """Everything that may explain the failure; what it finds is in `seen`."""
        finding, stood = self.seen.finding or "", self.seen.connect_ms is not None
        jobs = [self._ask_public()] if self._may_ask_public() else []
        if finding in _CERTIFICATE:
            jobs.append(self._look_without_trust())
        if stood and finding in _BROKEN and self.need.kind not in _GIT_PORTS:
            if self.need.tls and self.seen.tls_ms is None:
                jobs.append(self._try_other_names())
            if self.through is None:
                jobs.append(self._try_small_segments())
        if self.need.kind in _GIT_PORTS and self.seen.error is not None and not self._of_hop():
            jobs.append(self._try_other_ports())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._limit + 0.5), asyncio.TaskGroup() as group:
                for number, job in enumerate(jobs):
                    group.create_task(job, name=f"compare {number}")

    @property
    def _limit(self) -> float:
        return self.means.limits.compare

    def _of_hop(self) -> bool:
        error = self.seen.error
        return isinstance(error, DialError) and error.blame is not Blame.TARGET

    def _may_ask_public(self) -> bool:
        if self.need.private or not is_public_name(self.need.host) or self._of_hop():
            return False
        return bool(self.means.doh)

    async def _ask_public(self) -> None:
        """Public resolvers; then whether the right server is at the addresses that they give."""
        dialer = self.through or DirectDialer(timeout=self.means.limits.connect)
        trust = self.means.doh_trust()
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(
                    ask_doh(
                        server,
                        self.need.host,
                        dialer=dialer,
                        label=f"far:{self.seen.via}/{server.name}" if self.through else f"doh:{server.name}",
                        trust=trust,
                        timeout=0.6 * self._limit,
                    )
                )
                for server in self.means.doh
            ]
        answers = [job.result() for job in asked]
        self.seen.resolvers += tuple(answer for answer in answers if answer.rcode)
        ours = self.seen.addresses
        others = [
            a for answer in answers for a in answer.addresses if not any(same_network(a, b) for b in ours)
        ]
        if self.through is None and self.need.tls and others and ours:
            async with asyncio.TaskGroup() as group:
                for address in list(dict.fromkeys(others))[:2]:
                    group.create_task(self._try_address(address))

    async def _try_address(self, address: str) -> None:
        timeout = 0.2 * self._limit
        with contextlib.suppress(GotunnelError):
            stream = await connect(address, self.need.port, timeout)
            stream = await start_tls(stream, self.trusted(), self.need.host, 2 * timeout)
            stream.abort()
            self.seen.notes.setdefault("doh_verified", []).append(address)

    async def _look_without_trust(self) -> None:
        words = one_line(str(self.seen.error), 200)
        with contextlib.suppress(GotunnelError):
            stream = await self.open(0)
            stream = await start_tls(stream, unverified(), self.need.host, self._limit)
            try:
                self.seen.certificate = certificate_of(stream, trusted=False, error=words)
                self.seen.notes["unverified"] = True
                await self.ask(stream)
            finally:
                stream.abort()

    async def _try_other_names(self) -> None:
        timeout = min(self.means.limits.tls, self._limit)
        self.seen.notes["other_names"] = await is_name_filtered(lambda: self.open(0), timeout)

    async def _try_small_segments(self) -> None:
        worked = False
        with contextlib.suppress(GotunnelError):
            stream = await self.open(SMALL_MSS)
            try:
                if self.need.tls:
                    stream = await start_tls(stream, unverified(), self.need.host, self._limit)
                host = str(HostPort(self.need.host, self.need.port))
                request = Request(
                    host.removesuffix(":443" if self.need.tls else ":80"), self.need.path or "/", padded=True
                )
                answer = await fetch(stream, request, label="", seconds=self._limit)
                worked = answer.end not in ("stalled", "truncated")
            finally:
                stream.abort()
        self.seen.notes["small_segments"] = worked

    async def _try_other_ports(self) -> None:
        dialer = self.through or DirectDialer(timeout=self._limit)
        self.seen.notes |= await look_vcs.other_ports(
            self.need, dialer, self._limit, self.means.ssh_elsewhere
        )
