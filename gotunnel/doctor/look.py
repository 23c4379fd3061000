"""Everything that can be seen of one need over one way: name, connection, TLS, answer.

Rules:
- A look ends within `Limits.total` seconds, whatever the network does; each step has a bound of its own.
- A healthy need costs what go itself would pay: one look-up, one connection per family, one handshake, one
  request.  Only where something fails are comparisons made, at once and bounded: public resolvers, other
  server names, small segments, the certificate without verification.
- Credentials go over verified TLS only, and only after a refusal, as with go.
- Nothing is raised: what went wrong is `Seen.error`, and `Seen.finding` its id.
- A private need, or a name that no public resolver could know, is asked of no public resolver.

NOTES, the keys of `Seen.notes`: `names` (here, far, none) · `address` (that the connection stood to) ·
`interface`, `kernel` (TCP_INFO) · `other_names` (handshakes with another server name, and none) ·
`small_segments` (did the same succeed with small ones) · `doh_verified` (addresses of public resolvers where
the certificate is right) · `skew` (seconds that this clock is ahead of the server's) · `schemes` (of
WWW-Authenticate) · `body` (end, size) · `redirects` · `final` (url, status, type, html, error after them) ·
`credentials` (sent) · `go_import` · `unverified` (the answer came over TLS that isn't trusted) · `banner` ·
`https` (443 of a git server) · `ssh_443` · `h1` (of a go.mod that isn't what go.sum vouches for).
"""

from __future__ import annotations

import asyncio
import email.utils
import re
import ssl
import time
from urllib.parse import urljoin, urlsplit

from gotunnel.address import HostPort, one_line, redact
from gotunnel.doctor import look_vcs
from gotunnel.doctor.judge_http import is_html, verdict
from gotunnel.doctor.look_compare import Comparison
from gotunnel.doctor.look_http import KEPT, Answer, Request, fetch
from gotunnel.doctor.look_means import Limits, Means
from gotunnel.doctor.look_name import ask_server, ask_system, nameservers
from gotunnel.doctor.look_tcp import Race, Reached, connect, interface_of, kernel_evidence
from gotunnel.doctor.look_tls import certificate_of
from gotunnel.doctor.model import Need, ResolverAnswer, Seen
from gotunnel.errors import Blame, DialError, GotunnelError
from gotunnel.modproxy.dirhash import h1_of_go_mod
from gotunnel.tasks import Tasks
from gotunnel.upstream.dialer import Dialer, Stream
from gotunnel.upstream.direct import DirectDialer
from gotunnel.upstream.tls import start_tls

__all__ = ["Limits", "Means", "look"]

_MAYBE_PADDING = (400, 403, 413, 431)  # a strict server's word about a long head
_BODY_KEPT = 4096
_PAGE_KEPT = 256 * 1024  # of a page whose tags say where the repository is
_GO_IMPORT = re.compile(rb"<meta[^>]+name=[\"']?go-import", re.IGNORECASE)


async def look(need: Need, *, through: Dialer | None = None, means: Means | None = None) -> Seen:
    """What is seen of `need` by `through`, or directly.  Never raises for the network."""
    job = _Look(need, through, means or Means())
    try:
        async with asyncio.timeout(job.limits.total):
            await job.run()
    except TimeoutError:
        job.fail(DialError("http.timeout", f"{need.host}: not done in time", blame=Blame.TARGET))
    finally:
        await job.close()
    seen = job.seen
    seen.at = time.time()
    if seen.error is None and (told := verdict(seen)) is not None:
        seen.finding, seen.detail = told
    return seen


class _Look:
    def __init__(self, need: Need, through: Dialer | None, means: Means) -> None:
        self.need = need
        self.limits = means.limits
        self.seen = Seen(need, redact(through.label) if through else "")
        self._through = through
        self._means = means
        self._target = HostPort(need.host, need.port)
        self._tasks = Tasks("doctor-look")
        self._servers: list[asyncio.Task[ResolverAnswer]] = []
        self._race: Race | None = None
        self._address = ""
        self._trust: ssl.SSLContext | None = None

    async def close(self) -> None:
        await self._tasks.close()
        if self._race is not None:
            await self._race.close()

    def fail(self, error: GotunnelError) -> None:
        """The first failure stays: what comes after follows from it."""
        if self.seen.error is None:
            self.seen.error = error
            self.seen.finding = error.finding if isinstance(error, DialError) else "unknown"
            self.seen.detail = one_line(redact(str(error)), 300)

    async def run(self) -> None:
        stream: Stream | None = None
        try:
            await self._name()
            stream = await self._connect()
            if self.need.kind in ("vcs-ssh", "vcs-git"):
                await self._greet(stream)
            else:
                await self._ask(stream)
        except GotunnelError as error:
            if stream is not None and (evidence := kernel_evidence(stream)):
                self.seen.notes["kernel"] = evidence
                self.seen.notes["interface"] = interface_of(stream)
            self.fail(error)
        finally:
            if stream is not None:
                stream.abort()
        if self.seen.error is None and self._body_end == "stalled":
            words = f"{self._target}: the answer stopped {self.seen.notes['body']['detail']}"
            self.fail(DialError("http.timeout", words, blame=Blame.TARGET))
        if self.seen.error is not None or verdict(self.seen) is not None:
            await self._compare_with().all()
        await self._settle()

    @property
    def _body_end(self) -> str:
        return str(self.seen.notes.get("body", {}).get("end", ""))

    # --- name --------------------------------------------------------------------------------

    async def _name(self) -> None:
        seen = self.seen
        if self._target.ip is not None:
            seen.notes["names"], seen.addresses = "none", (self.need.host,)
            return
        if self._through is not None:
            seen.notes["names"] = "far"
            return
        seen.notes["names"] = "here"
        if not self._target.is_loopback:
            servers = self._means.resolvers
            for server in nameservers(self._means.resolv_conf) if servers is None else servers:
                job = ask_server(server, self.need.host, self.limits.name)
                self._servers.append(self._tasks.spawn(f"ask {server}", job))
        system, failure = await ask_system(self._target, self.limits.name)
        seen.name_ms, seen.addresses, seen.resolvers = system.ms, system.addresses, (system,)
        if failure is None:
            return
        if self._servers:
            await asyncio.wait(self._servers)
        self._note_servers()
        told = next((answer for answer in self._asked() if answer.addresses), None)
        if failure.finding == "dns.timeout" and told is not None:
            seen.addresses = told.addresses  # the first is silent, another knows: go would get there
            return
        raise self._better(failure)

    def _better(self, failure: DialError) -> DialError:
        """glibc says "temporary failure" of silence and of refusal alike; the resolvers are exact."""
        if failure.finding != "dns.timeout":
            return failure
        rcodes = [answer.rcode for answer in self._asked() if answer.rcode]
        if rcodes and set(rcodes) == {"NXDOMAIN"}:
            return DialError("dns.not-found", f"{self.need.host}: no such host", blame=Blame.TARGET)
        said = rcodes or [answer.error for answer in self._asked() if "refused" in answer.error]
        if not said:
            return failure
        words = f"{self.need.host}: the resolver answers {said[0]}"
        return DialError("dns.refused", words, blame=Blame.TARGET)

    def _asked(self) -> list[ResolverAnswer]:
        return [answer for answer in self.seen.resolvers if answer.server != "system"]

    def _note_servers(self) -> None:
        known = {answer.server for answer in self.seen.resolvers}
        found = [job.result() for job in self._servers if job.done() and not job.cancelled()]
        self.seen.resolvers += tuple(answer for answer in found if answer.server not in known)

    # --- connection --------------------------------------------------------------------------

    async def _connect(self) -> Stream:
        seen, limits = self.seen, self.limits
        started = time.monotonic()
        if self._through is not None:
            stream = await self._open(0)
            seen.connect_ms = 1000 * (time.monotonic() - started)
            return stream
        self._race = Race(seen.addresses, self.need.port, limits.connect)
        reached: Reached = await self._race.first()
        seen.families = reached.families
        if reached.stream is None:
            assert reached.error is not None
            raise reached.error
        seen.connect_ms, self._address = reached.ms, reached.address
        seen.notes["address"] = reached.address
        return reached.stream

    async def _open(self, mss: int) -> Stream:
        """Another connection of the same kind: to the same address, or by the same way.  Raises DialError."""
        if self._through is None:
            address = self._address or self.seen.addresses[0]
            return await connect(address, self.need.port, self.limits.connect, mss)
        try:
            async with asyncio.timeout(self.limits.hops):
                return await self._through.dial(self._target)
        except TimeoutError:
            raise self._stalled(self._through) from None

    def _stalled(self, through: Dialer) -> DialError:
        """A way out that took longer than we wait: an SSH server that never let us in, or any hop."""
        from gotunnel.upstream.ssh import SshDialer

        seconds = f"in {self.limits.hops:.0f} s"
        if isinstance(through, SshDialer) and not through.links:
            words = f"{through.label}: the SSH handshake isn't done {seconds}"
            return DialError("ssh.handshake", words, blame=Blame.HOP, hop=through.label)
        words = f"{through.label}: no connection to {self._target} {seconds}"
        return DialError("hop.stalled", words, blame=Blame.HOP, hop=through.label)

    async def _greet(self, stream: Stream) -> None:
        """What a git server says first, on 22 or 9418."""
        started = time.monotonic()
        greet = look_vcs.ssh_banner if self.need.kind == "vcs-ssh" else look_vcs.git_greeting
        self.seen.notes["banner"] = await greet(stream, self.need, self.limits.answer)
        self.seen.first_byte_ms = 1000 * (time.monotonic() - started)

    # --- TLS and the answer ------------------------------------------------------------------

    def _trusted(self) -> ssl.SSLContext:
        if self._trust is None:
            self._trust = self._means.trust()
        return self._trust

    async def _ask(self, stream: Stream) -> None:
        seen = self.seen
        if self.need.tls:
            started = time.monotonic()
            stream = await start_tls(stream, self._trusted(), self.need.host, self.limits.tls)
            seen.tls_ms = 1000 * (time.monotonic() - started)
            seen.certificate = certificate_of(stream, trusted=True)
        try:
            self._note(await self._fetch(stream, padded=self._through is None))
            if self._through is None and self.seen.status in _MAYBE_PADDING:
                await self._again("")
            await self._with_credentials()
            await self._follow()
        finally:
            stream.abort()

    def _request(self, authorization: str = "", *, padded: bool = False) -> Request:
        host = str(self._target).removesuffix(":443" if self.need.tls else ":80")
        headers = (("Authorization", authorization),) if authorization else ()
        return Request(host, self.need.path or "/", headers=headers, padded=padded)

    async def _fetch(self, stream: Stream, authorization: str = "", *, padded: bool = False) -> Answer:
        request = self._request(authorization, padded=padded)
        return await fetch(stream, request, label=str(self._target), seconds=self.limits.answer)

    def _note(self, answer: Answer) -> None:
        seen = self.seen
        seen.status, seen.headers = answer.status, answer.headers
        seen.body = answer.body[: _PAGE_KEPT if self.need.kind == "meta" else _BODY_KEPT]
        seen.first_byte_ms = answer.first_byte_ms
        seen.notes["body"] = {"end": answer.end, "size": answer.size, "detail": answer.detail}
        if self.need.h1 and answer.status == 200 and answer.end == "whole" and answer.size <= KEPT:
            h1 = h1_of_go_mod(answer.body)
            seen.notes |= {"h1": h1} if h1 != self.need.h1 else {}
        if answer.offered:
            seen.notes["schemes"] = list(answer.offered)
        if self.need.kind == "meta":
            seen.notes["go_import"] = bool(_GO_IMPORT.search(answer.body))
        if (served := _served(answer.headers)) is not None:
            seen.notes["skew"] = round(time.time() - served)

    async def _with_credentials(self) -> None:
        """go asks again with what netrc knows, after any refusal over https."""
        if not self.need.tls or self.seen.status not in (401, 403, 404):
            return
        userinfo = urlsplit(self.need.url).netloc.rpartition("@")[0]
        authorization = self._means.credentials.authorization(self.need.host, self.need.port, userinfo)
        if not authorization:
            return
        await self._again(authorization)
        self.seen.notes["credentials"] = "sent"

    async def _again(self, authorization: str) -> None:
        """The same question, as plain as it can be, over a connection of its own."""
        stream = await self._open(0)
        try:
            if self.need.tls:
                stream = await start_tls(stream, self._trusted(), self.need.host, self.limits.tls)
            self._note(await self._fetch(stream, authorization))
        finally:
            stream.abort()

    async def _follow(self) -> None:
        """Where a redirect leads, as far as three of them."""
        url, status, headers = self.need.url, self.seen.status, self.seen.headers
        dialer = self._through or DirectDialer(timeout=self.limits.connect)
        passed: list[str] = []
        while status in (301, 302, 303, 307, 308) and "location" in headers and len(passed) < 3:
            url = urljoin(url, headers["location"])
            passed.append(one_line(redact(url), 200))
            self.seen.notes["redirects"] = passed
            final: dict[str, object] = {"url": passed[-1], "status": None, "type": "", "error": ""}
            self.seen.notes["final"] = final
            try:
                answer = await self._get(url, dialer)
            except (GotunnelError, ValueError) as error:
                final["error"] = error.finding if isinstance(error, DialError) else one_line(str(error), 100)
                return
            status, headers = answer.status, answer.headers
            final |= {
                "status": status,
                "type": headers.get("content-type", ""),
                "html": is_html(headers.get("content-type", ""), answer.body),
            }
            if self.need.kind == "meta":
                self.seen.body = answer.body[:_PAGE_KEPT]
                self.seen.notes["go_import"] = bool(_GO_IMPORT.search(answer.body))

    async def _get(self, url: str, dialer: Dialer) -> Answer:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("no http URL")
        if self.need.tls and parts.scheme == "http":
            raise ValueError("from https to http: go doesn't follow that")
        tls = parts.scheme == "https"
        target = HostPort(parts.hostname, parts.port or (443 if tls else 80))
        stream = await dialer.dial(target)
        try:
            if tls:
                stream = await start_tls(stream, self._trusted(), target.host, self.limits.tls)
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            host = str(target).removesuffix(":443" if tls else ":80")
            return await fetch(stream, Request(host, path), label=str(target), seconds=self.limits.answer)
        finally:
            stream.abort()

    def _compare_with(self) -> Comparison:
        return Comparison(
            self.need, self.seen, self._through, self._means, self._open, self._trusted, self._ask_once
        )

    async def _ask_once(self, stream: Stream) -> None:
        self._note(await self._fetch(stream))

    async def _settle(self) -> None:
        """Collect what was asked on the side; a healthy look doesn't wait long for it."""
        if self._race is not None:
            working = self.seen.error is None
            self.seen.families = await self._race.rest(self.limits.connect if working else 0.5)
        if self._servers:
            await asyncio.wait(self._servers, timeout=0.3)
            self._note_servers()


def _served(headers: dict[str, str]) -> float | None:
    """When the answer was sent by the server's clock (POSIX seconds): its Date, and its Age in caches."""
    try:
        date = email.utils.parsedate_to_datetime(headers["date"]).timestamp()
        return date + max(0, int(headers.get("age", "0").split(",")[0]))
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
