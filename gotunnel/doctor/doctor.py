"""The examination: facts, settings, needs, looks directly and by every way out, one report.

Rules:
- All looks run at once, at most AT_ONCE; the examination ends within about LIMIT seconds, whatever the
  network does: what wasn't seen by then counts as timed out.
- What go asks in turn is asked in turn: a module of the next source only where the one before says 404, the
  checksum database itself only where no source speaks for it.
- A second round asks what the first made known: the repository behind a page of an import path, git itself
  where every source failed, the addresses of hosts whose modules no source knows.
- Ways out are the caller's: nothing is opened that wasn't given, nothing closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, replace
from typing import Any
from urllib.parse import urlsplit

from gotunnel.address import HostPort
from gotunnel.dataclass import dataclass
from gotunnel.doctor import checks_config, checks_local
from gotunnel.doctor.blockpages import is_public_name
from gotunnel.doctor.checks_config import sources_of
from gotunnel.doctor.facts import Facts, gather
from gotunnel.doctor.model import Need, Seen
from gotunnel.doctor.needs import MOST, git_need, module_needs, needs, repository_needs, sumdb_itself
from gotunnel.doctor.weigh import GIT_PROXY, Looked, ProxyPort, weigh
from gotunnel.errors import Blame, DialError
from gotunnel.findings.catalogue import Finding, report
from gotunnel.modproxy.credentials import NONE, Credentials, read_credentials
from gotunnel.tasks import in_thread
from gotunnel.upstream.dialer import Dialer
from gotunnel.upstream.direct import DirectDialer

LIMIT = 11.0  # seconds for all looks
AT_ONCE = 24
_PORT_LIMIT = 4.0  # seconds for the port of a proxy
_GO_IMPORT = re.compile(
    rb"""<meta\s[^>]*name=["']?go-import["']?\s[^>]*content=["']([^"']+)["']""", re.IGNORECASE
)
_PROXY_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080, "socks4": 1080, "socks4a": 1080}


@dataclass(frozen=True, slots=True)
class Way:
    """A way out to look by.  `name` is safe to show.

    `variable` is the proxy variable that it comes from, "" where it was named by --via or a configuration;
    `spelled`: its name is what --via takes.
    """

    name: str
    dialer: Dialer
    variable: str = ""
    spelled: bool = True


@dataclass(slots=True)
class Diagnosis:
    """What came out.  `seconds` is how long it took."""

    facts: Facts
    findings: list[Finding]
    looks: list[Looked] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Exactly the object of contract §7."""
        return report(self.findings)


async def examine(
    environ: Mapping[str, str],
    cwd: str,
    *,
    subjects: Sequence[str] = (),
    ways: Sequence[Way] = (),
    direct: Callable[[HostPort], bool] = lambda target: False,
    limit: float = LIMIT,
) -> Diagnosis:
    """Examine.  `direct` tells which targets a route sends past the ways out.  Raises UsageError."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    facts = await in_thread("facts", lambda: gather(environ, cwd))
    goauth = facts.value("GOAUTH")
    credentials, _ = await in_thread("netrc", lambda: read_credentials(environ, goauth))
    job = _Examination(facts, ways, direct, credentials, deadline=clock() + limit)
    job.plan(subjects)
    await job.first_round()
    await job.second_round()
    settled = [] if subjects else checks_local.check(facts)
    if not subjects or job.of_modules:
        settled = [*checks_config.check(facts), *settled]
    findings = weigh(
        facts,
        settled,
        job.looks,
        job.told(),
        proxies=job.proxies,
        addresses=job.addresses,
        named=job.named,
        variables={way.name: way.variable for way in ways if way.variable},
    )
    return Diagnosis(facts, [_spelled(f, ways) for f in findings], job.looks, clock() - begun)


def _spelled(finding: Finding, ways: Sequence[Way]) -> Finding:
    """A configured way out isn't named by --via: `gotunnel run` takes it anyway."""
    fix = finding.fix
    for way in ways:
        if not way.spelled:
            fix = tuple(line.replace(f"run --via {way.name} --", "run --") for line in fix)
    return replace(finding, fix=tuple(dict.fromkeys(fix)))


class _Examination:
    def __init__(
        self,
        facts: Facts,
        ways: Sequence[Way],
        direct: Callable[[HostPort], bool],
        credentials: Credentials = NONE,
        *,
        deadline: float,
    ) -> None:
        self.facts = facts
        self.looks: list[Looked] = []
        self.proxies: list[ProxyPort] = []
        self.addresses: dict[str, Sequence[str]] = {}
        self.named = any(not way.variable for way in ways)
        self._ways = {way.name: way for way in ways}
        self._direct = direct
        self._credentials = credentials
        self._deadline = deadline  # by the loop's clock
        self._gate = asyncio.Semaphore(AT_ONCE)
        self.of_modules = False  # does a SUBJECT name a module?
        self._needs: list[Need] = []
        self._by_proxy: set[str] = set()  # the proxies that some need goes by
        self._modules: list[tuple[str, str]] = []

    def plan(self, subjects: Sequence[str]) -> None:
        """What to look at.  Raises UsageError."""
        self._needs = needs(self.facts, subjects)
        self._by_proxy = {
            self.facts.proxy_for(need.host, need.port, tls=need.tls)
            for need in self._needs
            if need.kind not in ("vcs-ssh", "vcs-git")
        }
        if not subjects:
            self._modules = list(_unknown_modules(self.facts))
        else:
            named_modules = [
                (path, version)
                for path, _, version in (subject.partition("@") for subject in subjects)
                if "://" not in path and "/" in path
            ]
            self.of_modules = bool(named_modules)
            self._modules = [module for module in named_modules if not self.facts.is_private(module[0])]
        # a question that is asked for a module's sake isn't asked twice
        asked = [module_needs(self.facts, module) for module in self._modules]
        urls = {need.url for group in asked for need in (group if subjects else group[:1])}
        self._needs = [need for need in self._needs if need.url not in urls]

    async def first_round(self) -> None:
        """Everything that is known to be needed."""
        jobs: list[Any] = [self._look_at(need) for need in self._needs]
        jobs += [self._ask_for(module) for module in self._modules]
        jobs += [self._port(name, value) for name, value in self._variables()]
        await self._all(jobs)

    async def second_round(self) -> None:
        """What the first round made known."""
        jobs: list[Any] = []
        itself = sumdb_itself(self.facts) if _only_gone(self.looks, "sumdb") else None
        if itself is not None and itself not in self._needs:
            jobs.append(self._look_at(itself))
        jobs += [self._look_at(need) for need in self._repositories()]
        jobs += [self._look_at(need, behind=True) for need in self._behind()]
        hosts = {k.module[0].partition("/")[0] for k in self.looks if k.module and k.refusal}
        jobs += [self._resolve(host) for host in hosts if is_public_name(host)]
        await self._all(jobs)

    def told(self) -> list[Finding]:
        """What the judge says, and the hops' own: a fault once for its way, a refusal for its target."""
        from gotunnel.doctor.hops import hop_finding, is_of_hop
        from gotunnel.doctor.judge import judge_all

        hops: dict[tuple[str, ...], Finding] = {}
        for seen in (seen for look in self.looks for seen in look.seens if seen.via):
            error = seen.error
            if isinstance(error, DialError) and is_of_hop(error):
                target = f"{seen.need.host}:{seen.need.port}"
                key = (seen.via, error.hop, error.finding, "" if error.charges_hop else target)
                if key not in hops:
                    hops[key] = hop_finding(error, via=seen.via, target=target)
        return [*hops.values(), *judge_all([look.seens for look in self.looks], self.facts)]

    async def _all(self, jobs: Iterable[Any]) -> None:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                group.create_task(job)

    # --- looks ---------------------------------------------------------------------------------

    async def _look_at(
        self, need: Need, *, module: tuple[str, str] | None = None, behind: bool = False
    ) -> Looked:
        goes = self._goes(need)
        names = ["", *(way.name for way in self._ways.values() if not way.variable or way.name in goes)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._look(need, name)) for name in names]
        looked = Looked(need, tuple(task.result() for task in tasks), goes, module, behind)
        self.looks.append(looked)
        return looked

    async def _look(self, need: Need, name: str) -> Seen:
        from gotunnel.doctor.look import Limits, Means, look

        through = self._ways[name].dialer if name else None
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout_at(self._deadline), self._gate:
                # what a look knows when its own time is over is more than that it was cut off
                total = max(0.1, min(Limits().total, self._deadline - clock() - 0.2))
                means = Means(limits=Limits(total=total), credentials=self._credentials)
                seen = await look(need, through=through, means=means)
        except TimeoutError:
            words = f"{need.host}: not seen in time"
            error = DialError("http.timeout", words, blame=Blame.TARGET)
            seen = Seen(need, error=error, finding=error.finding, detail=words)
        seen.via = name
        return seen

    async def _ask_for(self, module: tuple[str, str]) -> None:
        """One source after the other, as long as they don't know it."""
        for need in module_needs(self.facts, module):
            looked = await self._look_at(need, module=module)
            if looked.refusal not in (404, 410):
                return

    def _goes(self, need: Need) -> tuple[str, ...]:
        """The ways that go takes: the named ones, else the proxy of the environment, else directly."""
        target = HostPort(need.host, need.port)
        if self.named:
            if target.is_loopback or self._direct(target):
                return ("",)
            return tuple(way.name for way in self._ways.values() if not way.variable)
        if need.kind in ("vcs-ssh", "vcs-git"):
            return ("",)
        value = self.facts.proxy_for(need.host, need.port, tls=need.tls)
        variable, _ = self.facts.proxy_variable(tls=need.tls)
        if not value:
            return ("",)
        return tuple(way.name for way in self._ways.values() if way.variable == variable) or ("",)

    # --- proxies of the environment --------------------------------------------------------------

    def _variables(self) -> list[tuple[str, str]]:
        names = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
        given = [(name, self.facts.proxies[name]) for name in names if self.facts.proxies.get(name)]
        given += [
            (GIT_PROXY, value) for name, value in self.facts.git_proxies if name == "http.proxy" and value
        ]
        upper = {value: name for name, value in reversed(given)}
        return [(name, value) for name, value in given if upper[value] == name]

    async def _port(self, name: str, value: str) -> None:
        read = self.facts.proxy_variable(tls=name.upper() == "HTTPS_PROXY")[0]
        by_git = any(need.kind in ("vcs-https", "meta") for need in self._needs)
        used = (by_git if name == GIT_PROXY else name == read and value in self._by_proxy) and not self.named
        try:
            address = proxy_address(value)
        except ValueError:
            self.proxies.append(ProxyPort(name, None, used=used))
            return
        error = None
        try:
            (await DirectDialer(timeout=_PORT_LIMIT).dial(address)).abort()
        except DialError as failure:
            error = failure
        self.proxies.append(ProxyPort(name, address, error, used))

    # --- the second round ------------------------------------------------------------------------

    def _repositories(self) -> list[Need]:
        """Where the pages of import paths say that the repositories are."""
        known = {(k.need.kind, k.need.host, k.need.port) for k in self.looks}
        found: list[Need] = []
        for look in self.looks:
            body = next((s.body for s in look.seens if look.works_by(s.via) and s.body), b"")
            if look.need.kind != "meta" or not (tag := _GO_IMPORT.search(body)):
                continue
            words = tag[1].decode("utf-8", "replace").split()
            if len(words) < 3 or words[1] != "git":
                continue
            why = look.need.why.replace("import path of", "repository of")
            need = git_need(self.facts, words[2].removesuffix("/"), why, private=look.need.private)
            if need and (place := (need.kind, need.host, need.port)) not in known and len(found) < MOST:
                known.add(place)
                found.append(need)
        return found

    def _behind(self) -> list[Need]:
        """What go falls back to where each source failed and `|direct` stands behind the last."""
        sources = sources_of(self.facts)
        asked = [k for k in self.looks if k.need.kind == "source"]
        if not sources or not sources.entries or sources.ending != "direct" or not asked:
            return []
        if any(k.works for k in asked) or any(separator != "|" for _, separator in sources.entries):
            return []
        first = next(
            (m for m, _ in self.facts.requirements() if not self.facts.is_private(m)), "golang.org/x/text"
        )
        return repository_needs(self.facts, first)

    async def _resolve(self, host: str) -> None:
        def ask() -> list[str]:
            return [str(info[4][0]) for info in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)]

        with contextlib.suppress(OSError, TimeoutError, UnicodeError):
            async with asyncio.timeout(2.0):
                self.addresses[host] = await in_thread("resolve", ask)


def proxy_address(value: str) -> HostPort:
    """Where a proxy variable points, as go reads it.  Raises ValueError."""
    text = value.strip()
    parts = urlsplit(text if "://" in text else f"http://{text}")
    if parts.scheme.lower() not in _PROXY_PORTS:
        raise ValueError("no scheme of a proxy")
    return HostPort.parse(parts.netloc.rpartition("@")[2], _PROXY_PORTS[parts.scheme.lower()])


def _only_gone(looks: Sequence[Looked], kind: str) -> bool:
    """Were needs of this kind answered, and only by 404 or 410?"""
    found = [look for look in looks if look.need.kind == kind and look.works]
    return bool(found) and all(look.statuses <= {404, 410} for look in found)


def _unknown_modules(facts: Facts) -> list[tuple[str, str]]:
    """Required modules that go hasn't got yet, one of each owner: is any of them not known to the sources?"""
    owners: dict[str, tuple[str, str]] = {}
    for module, version in facts.requirements():
        if not facts.is_private(module) and (module, version) not in facts.cached:
            parts = module.split("/")
            owner = "/".join(parts[:2]) if is_public_name(parts[0]) else parts[0]
            owners.setdefault(owner, (module, version))
    # those that are no names of the public internet first
    return sorted(owners.values(), key=lambda item: is_public_name(item[0].partition("/")[0]))[:MOST]
