"""What the looks come to for go as it is set up here: pure.

Rules:
- An error is what makes go fail by the way that it takes here.  The same fault on a way that it doesn't take,
  or that another way heals, is a warning; directly it isn't told at all where go goes by a working proxy.
- GOPROXY counts as go reads it: the first source decides, the next one after `,` on 404 and 410 only, after
  `|` on any error.
- A setting is the root cause only where the setting is at fault: a source or a proxy that was written down
  here and where nothing answers; else the network's own finding stands first.
- One fault of one host is told once, however many needs meet it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from gotunnel.address import HostPort, redact
from gotunnel.dataclass import dataclass
from gotunnel.doctor.blockpages import is_public_name, why_odd
from gotunnel.doctor.checks_config import DEFAULT_GOPROXY, DEFAULT_GOSUMDB, PUBLIC_SAMPLES, sources_of
from gotunnel.doctor.facts import Facts
from gotunnel.doctor.fixes import set_command, unset_command
from gotunnel.doctor.model import Need, Seen
from gotunnel.errors import DialError
from gotunnel.findings.catalogue import Finding, finding
from gotunnel.modproxy.sources import SourceList

GIT_PROXY = "git config http.proxy"  # in the place of a proxy variable: git goes by it before all others
_GONE = (404, 410)
_REFUSED = (400, 403, 404, 410, 451)  # what sources say of a module that isn't theirs to give
_RANK = {"error": 0, "warning": 1, "info": 2}
_PUBLIC_HOSTS = {sample.partition("/")[0] for sample in PUBLIC_SAMPLES}


@dataclass(frozen=True, slots=True)
class Looked:
    """One need with all that was seen of it; `goes` are the ways that go would take, "" for directly.

    `module` is the (module, version) that was asked for, where it was one; `behind`: asked only to know
    whether go could go on to git itself when no source answers.
    """

    need: Need
    seens: tuple[Seen, ...]
    goes: tuple[str, ...] = ("",)
    module: tuple[str, str] | None = None
    behind: bool = False

    def works_by(self, via: str) -> bool:
        """Did `via` bring an answer that go could use?"""
        return any(seen.via == via and seen.finding is None and seen.error is None for seen in self.seens)

    @property
    def works(self) -> bool:
        """Does it work for go?"""
        return any(self.works_by(via) for via in self.goes)

    @property
    def statuses(self) -> set[int | None]:
        """What was answered by the ways that go takes."""
        return {seen.status for seen in self.seens if seen.via in self.goes and self.works_by(seen.via)}

    @property
    def refusal(self) -> int:
        """The status by which a source said that it hasn't the module, or doesn't give it; 0 for none."""
        for seen in self.seens:
            said = seen.finding in (None, "http.forbidden") and seen.error is None
            if seen.via in self.goes and said and seen.status in _REFUSED:
                return seen.status
        return 0

    @property
    def failed(self) -> str:
        """The id of the first failure by the ways that go takes, "" for none."""
        return next((seen.finding or "" for seen in self.seens if seen.via in self.goes and seen.finding), "")


@dataclass(frozen=True, slots=True)
class ProxyPort:
    """A proxy variable, and whether anything listens where it points; `used`: go goes by it."""

    name: str
    address: HostPort | None  # None: the value is no address
    error: DialError | None = None
    used: bool = True


def weigh(
    facts: Facts,
    settled: Sequence[Finding],
    looks: Sequence[Looked],
    told: Sequence[Finding],
    *,
    proxies: Sequence[ProxyPort] = (),
    addresses: Mapping[str, Sequence[str]] | None = None,
    named: bool = False,
    variables: Mapping[str, str] | None = None,
) -> list[Finding]:
    """All findings: `settled` (settings and machine), `told` (the judge's and the hops'), and what they mean.

    `addresses` are those of the hosts of modules that no source knows; `named`: ways out were named;
    `variables` has the proxy variable of a way out that comes from one.
    """
    sources = sources_of(facts)
    order = _sources_in_order(sources, looks)
    found = [*_proxies(proxies), *_no_fallback(facts, sources, order)]
    unknown = list(_modules(facts, sources, looks, addresses or {}))
    found += unknown
    private = {item.subject for item in unknown if item.id == "goprivate.missing"}
    found += _toolchain(facts, looks)
    unreached = {str(proxy.address) for proxy in proxies if proxy.error is not None}
    for item in told:
        about = _about(item, looks)
        if _proxy_place(item.via) in unreached:
            continue  # the proxy variable's own finding says it
        if about and all(_by_dead_source(k, item.via, order) for k in about):
            continue  # the source's own finding says it
        if about and all(k.module and "@".join(filter(None, k.module)) in private for k in about):
            continue  # a private module's refusal
        item = _without_proxy(_mended_setting(facts, item), about, variables or {})
        weighed = [
            _weighed(item, k, fatal=_is_fatal(facts, k, sources, order, looks), named=named) for k in about
        ]
        kept = [one for one in weighed if one is not None]
        if kept or not about:
            found.append(min(kept, key=lambda one: _RANK[one.severity], default=item))
    return _once([*_raised(settled, looks, proxies), *found])


def _about(item: Finding, looks: Sequence[Looked]) -> list[Looked]:
    """The needs that a finding speaks of; a hop's own concerns all that go by its way."""
    subjects = {item.subject, *item.evidence.get("also", ())}
    named = [look for look in looks if look.need.url in subjects and _has(look, item.via)]
    if named or not item.via:
        return named
    target = item.evidence.get("target", "")
    return [k for k in looks if _has(k, item.via) and target in ("", f"{k.need.host}:{k.need.port}")]


def _by_dead_source(look: Looked, via: str, order: Sequence[Looked | None]) -> bool:
    """Does this ask for the checksum database by a source that doesn't answer at all?"""
    place = (look.need.host, look.need.port)
    return look.need.kind == "sumdb" and any(
        k is not None and not k.works_by(via) and (k.need.host, k.need.port) == place for k in order
    )


def _mended_setting(facts: Facts, item: Finding) -> Finding:
    """Where a setting is at fault, what takes it back comes first."""
    name, default = {
        "goproxy.unreachable": ("GOPROXY", DEFAULT_GOPROXY),
        "gosumdb.unreachable": ("GOSUMDB", DEFAULT_GOSUMDB),
    }.get(item.id, ("", ""))
    if not name or facts.origin(name) == "default":
        return item
    return replace(item, fix=(unset_command(facts, name, default), *item.fix))


def _without_proxy(item: Finding, about: Sequence[Looked], variables: Mapping[str, str]) -> Finding:
    """Where all works without the proxy of the environment, leaving it out comes first."""
    variable = variables.get(item.via, "")
    if not variable or not about or not all(look.works_by("") for look in about):
        return item
    return replace(item, fix=(f"unset {variable.upper()} {variable.lower()}", *item.fix))


def _has(look: Looked, via: str) -> bool:
    return any(seen.via == via for seen in look.seens)


def _proxy_place(via: str) -> str:
    return via.partition("://")[2].rpartition("@")[2]


def _weighed(told: Finding, look: Looked, *, fatal: bool, named: bool) -> Finding | None:
    if look.behind:
        return None
    if told.severity != "error":
        # what go doesn't go by is not worth a line where all works
        return told if told.via in look.goes or not look.works else None
    if told.via in look.goes and not look.works:
        return told if fatal else replace(told, severity="warning")
    if told.via == "" and look.works and not named:
        return None
    return replace(told, severity="warning")


def _sources_in_order(sources: SourceList | None, looks: Sequence[Looked]) -> list[Looked | None]:
    """The look at each entry of GOPROXY: the one that asked it first."""
    found: list[Looked | None] = []
    for source, _ in sources.entries if sources else ():
        found.append(
            next(
                (k for k in looks if k.need.kind == "source" and k.need.url.startswith(source.url + "/")),
                None,
            )
        )
    return found


def _first_that_counts(sources: SourceList, order: Sequence[Looked | None]) -> int:
    """The entry where go ends: one that works, or one that fails with a comma behind it."""
    for index, look in enumerate(order):
        if look is None or look.works or sources.entries[index][1] != "|":
            return index
    return len(order)


def _is_fatal(
    facts: Facts,
    look: Looked,
    sources: SourceList | None,
    order: Sequence[Looked | None],
    looks: Sequence[Looked],
) -> bool:
    """Does go fail when this need isn't met?"""
    if look.need.kind == "sumdb" and _all_vouched(facts):
        return False
    if look.need.kind not in ("source", "sumdb") or sources is None:
        return True
    index = next(
        (i for i, (s, _) in enumerate(sources.entries) if look.need.url.startswith(s.url + "/")), None
    )
    if index is None:
        return True  # asked for by name, or the database itself
    ends = _first_that_counts(sources, order)
    if ends == len(order):  # all failed, each with | behind it: only git itself is left
        return not any(other.works for other in looks if other.behind)
    return index == ends


def _all_vouched(facts: Facts) -> bool:
    """Does go.sum know every module that go.mod requires, so that no checksum is looked up?"""
    required = facts.requirements()
    return bool(required) and all(
        facts.sums.get(module, version) or facts.sums.get_mod(module, version) for module, version in required
    )


def _no_fallback(
    facts: Facts, sources: SourceList | None, order: Sequence[Looked | None]
) -> Iterator[Finding]:
    if sources is None or not order:
        return
    own = facts.origin("GOPROXY") != "default"
    at = _first_that_counts(sources, order)
    look = order[at] if at < len(order) else None
    if look is None or look.works:
        return
    behind = [other for other in order[at + 1 :] if other is not None]
    works = any(other.works for other in behind)
    if not (works or (own and sources.ending == "direct")):
        return
    yield finding(
        "goproxy.no-fallback",
        sources.entries[at][0].label,
        # go fails here only for the comma: what stands behind it would have answered
        severity="error",
        evidence={"GOPROXY": redact(facts.value("GOPROXY")), "failed": look.failed},
        fix=(set_command(facts, "GOPROXY", redact(facts.value("GOPROXY")).replace(",", "|")),),
    )


def _modules(
    facts: Facts,
    sources: SourceList | None,
    looks: Sequence[Looked],
    addresses: Mapping[str, Sequence[str]],
) -> Iterator[Finding]:
    """Modules that no source knows: private ones asked of a public source, or ones that don't exist."""
    asked: dict[tuple[str, str], list[Looked]] = {}
    for look in looks:
        if look.module and look.need.kind == "source":
            asked.setdefault(look.module, []).append(look)
    for (module, version), group in asked.items():
        if not all(look.refusal for look in group):
            continue
        named = "@".join(filter(None, (module, version)))
        vouched = facts.sums.get(module, version) and facts.sums.get_mod(module, version)
        direct = sources is not None and sources.ending == "direct"
        gone = all(look.refusal in _GONE for look in group)
        why = why_private(facts, module, version, addresses.get(module.partition("/")[0], ()), gone=gone)
        source = redact(group[0].need.url.partition(f"/{module.partition('/')[0]}")[0])
        evidence = {"source": source, "status": group[0].refusal}
        if why:
            pattern = ",".join(filter(None, (facts.value("GOPRIVATE"), private_pattern(module))))
            yield finding(
                "goprivate.missing",
                named,
                severity="warning" if vouched and direct else None,
                evidence={**evidence, "private_because": why},
                fix=(set_command(facts, "GOPRIVATE", pattern),),
            )
        elif gone:
            yield finding("module.not-found", named, evidence=evidence, module=module, version=version)


def why_private(
    facts: Facts, module: str, version: str, addresses: Iterable[str], *, gone: bool = True
) -> str:
    """What speaks for it that `module` is private, "" where nothing does.

    `gone`: the sources don't know it; a source that forbids it (403) may have other reasons.
    """
    host = module.partition("/")[0]
    if not is_public_name(host):
        return f"{host} is no name of the public internet"
    places = list(addresses)
    if places and all(why_odd(address) in ("private", "loopback") for address in places):
        return f"{host} has a private address here"
    if any(prefix and f"https://{module}".startswith(prefix) for _, prefix in facts.instead_of):
        return f"git is told to write https://{host} another way (insteadOf)"
    if host in facts.netrc_hosts:
        return f"netrc has credentials for {host}"
    if gone and facts.sums.get_mod(module, version):
        return "go.sum knows it, so somebody could fetch it"
    return ""


def private_pattern(module: str) -> str:
    """A pattern for GOPRIVATE that covers `module` and its likes: its host, or its owner on a public host."""
    parts = module.split("/")
    return "/".join([*parts[:2], "*"]) if parts[0] in _PUBLIC_HOSTS and len(parts) > 2 else f"{parts[0]}/*"


def _toolchain(facts: Facts, looks: Sequence[Looked]) -> Iterator[Finding]:
    for look in looks:
        if look.need.kind == "toolchain" and look.works and look.statuses <= set(_GONE):
            yield finding(
                "gotoolchain.unavailable",
                look.need.why.removeprefix("toolchain "),
                evidence={"GOTOOLCHAIN": facts.value("GOTOOLCHAIN"), "source": redact(look.need.url)},
                fix=(
                    set_command(facts, "GOTOOLCHAIN", "local"),
                    "correct the go and toolchain lines of go.mod",
                ),
            )


def _proxies(proxies: Sequence[ProxyPort]) -> Iterator[Finding]:
    for proxy in proxies:
        if proxy.address is not None and proxy.error is None:
            continue
        where = str(proxy.address) if proxy.address else proxy.name
        words = "can't be reached" if proxy.address else "has no address that go can read"
        yield finding(
            "proxy-env.unreachable",
            where,
            severity=None if proxy.used else "warning",
            summary=f"the proxy named by {proxy.name} {words}",
            evidence={
                "variable": proxy.name,
                "failed": proxy.error.finding if proxy.error else "",
                "detail": redact(proxy.error.detail) if proxy.error else "",
            },
            fix=(
                "git config --global --unset http.proxy"
                if proxy.name == GIT_PROXY
                else f"unset {proxy.name.upper()} {proxy.name.lower()}",
                f"correct the address of the proxy: {where}",
            ),
        )


def _raised(
    settled: Sequence[Finding], looks: Sequence[Looked], proxies: Sequence[ProxyPort]
) -> Iterator[Finding]:
    """Warnings about settings that turn out to be why go fails."""
    alive = {p.name for p in proxies if p.error is None and p.address}
    dead = {p.name for p in proxies if p.error is not None and p.used}
    fails = {k.need.host for k in looks if k.need.private and not k.works and k.seens}
    for item in settled:
        half_dead = item.subject in dead and item.subject.lower() in alive
        too_wide = item.id == "goprivate.too-wide" and fails & _PUBLIC_HOSTS
        if item.id == "proxy-env.conflict" and half_dead:
            mend = f'export {item.subject}="${item.subject.lower()}"'
            yield replace(item, severity="error", fix=(mend, f"unset {item.subject}"))
        elif too_wide:
            yield replace(item, severity="error")
        elif item.id == "gosumdb.off" and any(k.need.kind == "toolchain" for k in looks):
            yield replace(item, severity="error", summary="GOSUMDB=off: go takes no toolchain unverified")
        else:
            yield item


def _once(findings: Sequence[Finding]) -> list[Finding]:
    """The first of those that say the same of the same host by the same way."""
    seen: dict[tuple[str, str, str], Finding] = {}
    for item in findings:
        key = (item.id, item.via, _host_of(item.subject))
        if key not in seen or _RANK[item.severity] < _RANK[seen[key].severity]:
            seen[key] = item
    return list(seen.values())


def _host_of(subject: str) -> str:
    """The host and port of a URL; any other subject as it stands."""
    scheme, slashes, rest = subject.partition("://")
    if not slashes:
        return subject
    place = rest.partition("/")[0].rpartition("@")[2]
    default = {"https": ":443", "http": ":80"}.get(scheme, "")
    return place if ":" in place.rpartition("]")[2] else place + default
