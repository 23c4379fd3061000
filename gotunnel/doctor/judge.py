"""What is wrong, from what was seen: pure.  One root cause for each look, never its consequences.

Rules, in the order in which a cause is looked for:
- A hop's own fault is told once for its way (hops.py), not for every need behind it.
- The name: a resolver that lies explains everything after it (judge_name.py).
- The clock: a certificate that the server's own time says is valid is not at fault (tls.clock-skew); one that
  isn't valid yet while our clock is right counts as tls.expired, as go says it.
- A portal is named before the certificate it shows.
- What works with small segments and not otherwise is net.mtu; what works with another server name is
  filtered, which stays tcp.reset or tls.timeout, with words that say so.
- goproxy.unreachable is for a source that is an address or localhost, since there the setting is wrong (a
  dead port); for a name the concrete finding of the network is the cause: that is what has to be mended.
- gosumdb.unreachable where only the checksum database can't be reached while a source can.
- git's own findings (vcs.*) tell of git's ports; what keeps the whole machine from the host is told as such.
- ipv6.broken and a silent first resolver are warnings beside a look that went well.
- A refusal (401, 403) of a host for which netrc or GOAUTH has credentials that weren't tried is no finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from gotunnel.address import HostPort
from gotunnel.dataclass import dataclass
from gotunnel.doctor.facts import Facts
from gotunnel.doctor.hops import is_of_hop
from gotunnel.doctor.judge_fix import day, evidence, fixes, working_ways
from gotunnel.doctor.judge_http import is_portal
from gotunnel.doctor.judge_name import independent, lie
from gotunnel.doctor.model import Seen
from gotunnel.errors import DialError
from gotunnel.findings.catalogue import Finding, Severity, finding

CLOCK_OFF = 300.0  # seconds; less is told by no certificate
_UNREACHED = ("tcp.refused", "tcp.timeout", "tcp.reset", "net.unreachable", "tls.timeout", "hop.closed")
_SLOW_NAME = 2000.0  # ms: a resolver was waited for in vain
# told once for all hosts that have it
_GENERAL = frozenset(("net.unreachable", "dns.timeout", "dns.refused", "ipv6.broken", "net.mtu",
                      "tls.clock-skew", "tls.intercepted", "http.captive-portal", "vcs.missing"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Cause:
    id: str
    words: str
    more: dict[str, Any]
    severity: Severity | None = None


def clock_skew(looks: Iterable[Seen]) -> float | None:
    """Seconds that this clock is ahead, by the middle of all servers' Dates; None without any."""
    by_host = {look.need.host: float(look.notes["skew"]) for look in looks if "skew" in look.notes}
    return median(by_host.values()) if by_host else None


def judge_all(groups: Sequence[Sequence[Seen]], facts: Facts | None = None) -> list[Finding]:
    """The findings of every need; each group holds the looks at one need, directly and by each way.

    What several hosts have in common is told once, with the others as evidence.
    """
    skew = clock_skew(look for group in groups for look in group)
    ways_with_source = {
        look.via for group in groups for look in group if look.need.kind == "source" and look.finding is None
    }
    found: list[Finding] = []
    for group in groups:
        found += judge(group, facts, skew=skew, sources_work=frozenset(ways_with_source))
    return _together(found)


def judge(
    looks: Sequence[Seen],
    facts: Facts | None = None,
    *,
    skew: float | None = None,
    sources_work: frozenset[str] = frozenset(),
) -> list[Finding]:
    """What is wrong with one need: at most one cause and some warnings for each way that was tried.

    `skew` is `clock_skew` of all looks; `sources_work` the ways ("" directly) over which a source answers.
    """
    ways = working_ways(looks)
    found: list[Finding] = []
    for seen in looks:
        if skew is None:
            skew = clock_skew(looks)
        cause = _cause(seen, looks, facts, skew)
        if cause is not None:
            cause = _of_setting(cause, seen, seen.via in sources_work)
            found.append(_finding(cause, seen, ways))
        found += [_finding(warning, seen, ways) for warning in _warnings(seen)]
    return found


def _finding(cause: _Cause, seen: Seen, ways: Sequence[str]) -> Finding:
    known_fix = fixes(cause.id, seen, ways if not seen.via else ())
    return finding(
        cause.id,
        subject=seen.need.url,
        via=seen.via,
        summary=cause.words,
        severity=cause.severity,
        evidence=evidence(seen, **cause.more),
        fix=known_fix,
        host=seen.need.host,
        port=str(seen.need.port),
    )


def _cause(seen: Seen, looks: Sequence[Seen], facts: Facts | None, skew: float | None) -> _Cause | None:
    if seen.need.kind.startswith("vcs-") and facts is not None and facts.go and not facts.git:
        return _Cause("vcs.missing", f"git isn't installed; {seen.need.why} needs it", {})
    if seen.finding is None:
        return None
    if isinstance(seen.error, DialError) and is_of_hop(seen.error):
        return None
    if (false := lie(seen, looks)) is not None:
        return _Cause("dns.hijacked", f"the resolver lies: {false.words}", {"elsewhere": list(false.others)})
    if seen.finding == "dns.not-found":
        return _not_found(seen, looks)
    if _portal(seen):
        return _Cause("http.captive-portal", _portal_words(seen), {})
    if seen.finding.startswith("tls."):
        return _tls(seen, skew)
    if seen.finding in ("tcp.reset", "http.timeout", "http.truncated"):
        return _broken(seen)
    if seen.finding in ("http.unauthorized", "http.forbidden", "vcs.credentials") and _untried(seen, facts):
        return None
    schemes = ", ".join(seen.notes.get("schemes", []))
    words = f"{seen.detail} (it asks for {schemes})" if schemes else seen.detail
    return _Cause(seen.finding, words, {})


def _not_found(seen: Seen, looks: Sequence[Seen]) -> _Cause:
    others = independent(looks)
    if not others:
        return _Cause("dns.not-found", seen.detail, {})
    words = f"{seen.need.host}: this resolver denies the name, others know it"
    return _Cause("dns.not-found", words, {"elsewhere": list(others)})


def _portal(seen: Seen) -> bool:
    return seen.finding == "http.captive-portal" or (seen.status is not None and is_portal(seen))


def _portal_words(seen: Seen) -> str:
    words = f"{seen.need.host}: a log-in page came in place of the module's answer"
    if location := seen.headers.get("location", ""):
        words += f" (it leads to {location[:100]})"
    return words


def _tls(seen: Seen, skew: float | None) -> _Cause:
    id, certificate = seen.finding or "", seen.certificate
    if id == "tls.timeout":
        return _broken(seen)
    if certificate is None:
        return _Cause(id, seen.detail, {})
    if id in ("tls.expired", "tls.clock-skew"):
        return _dates(seen, skew)
    if id == "tls.wrong-name":
        names = ", ".join(certificate.names[:4]) or certificate.subject
        words = f"{seen.need.host}: the certificate is for {names}"
        return _Cause(id, words, {"issuer": certificate.issuer})
    if id == "tls.intercepted":
        itself = certificate.issuer == certificate.subject
        who = "nobody but itself (self-signed)" if itself else certificate.issuer
        words = f"{seen.need.host}: the certificate was issued by {who}, whom this machine doesn't trust"
        return _Cause(id, words, {"issuer": certificate.issuer, "self_signed": itself})
    return _Cause(id, seen.detail, {})


def _dates(seen: Seen, skew: float | None) -> _Cause:
    """Is it the certificate or the clock?  By the clocks of all servers, else by this one's own Date."""
    certificate = seen.certificate
    assert certificate is not None
    ahead = skew if skew is not None else seen.notes.get("skew")
    span = f"{day(certificate.not_before)} to {day(certificate.not_after)}"
    if ahead is not None and abs(ahead) > CLOCK_OFF:
        theirs = seen.at - ahead
        if certificate.not_before <= theirs <= certificate.not_after:
            side = "ahead" if ahead > 0 else "behind"
            words = f"this machine's clock is {_span(abs(ahead))} {side}"
            return _Cause("tls.clock-skew", words, {"skew_seconds": round(ahead)})
    if seen.finding == "tls.clock-skew" and ahead is None:  # nobody to compare with: the likely one
        return _Cause("tls.clock-skew", f"{seen.need.host}: the certificate is valid from {span} only", {})
    state = "isn't valid yet" if seen.at < certificate.not_before else "has expired"
    return _Cause("tls.expired", f"{seen.need.host}: the certificate {state} (valid {span})", {})


def _span(seconds: float) -> str:
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}s"
    return f"{seconds:.0f} seconds"


def _broken(seen: Seen) -> _Cause:
    """A handshake or an answer that doesn't come, or breaks: for its name, for its size, or for itself."""
    id, names = seen.finding or "", seen.notes.get("other_names", {})
    if "answered" in names.values() and id in ("tcp.reset", "tls.timeout"):
        does = "is reset" if id == "tcp.reset" else "gets no answer"
        words = f"{seen.need.host}: the handshake {does} once this name is said (SNI filtering)"
        return _Cause(id, words, {"sni_filtered": True})
    if seen.notes.get("small_segments") and id != "tcp.reset":
        words = f"{seen.need.host}: large packets are lost: with small ones it answers"
        return _Cause("net.mtu", words, {})
    return _Cause(id, seen.detail, {})


def _untried(seen: Seen, facts: Facts | None) -> bool:
    """Has go credentials for this host that the look couldn't use?"""
    if facts is None or seen.notes.get("credentials") == "sent":
        return False
    auth = facts.value("GOAUTH")
    by_program = bool(auth) and auth not in ("netrc", "off")
    return seen.need.tls and (by_program or seen.need.host.lower() in facts.netrc_hosts)


def _of_setting(cause: _Cause, seen: Seen, source_works: bool) -> _Cause:
    """The same cause as the fault of a setting, or of git's port, where that is what has to be changed."""
    need = seen.need
    more = {**cause.more, "cause": cause.id}
    if need.kind == "source" and cause.id in _UNREACHED:
        target = HostPort(need.host, need.port)
        if target.is_loopback or target.ip is not None:
            return _Cause("goproxy.unreachable", f"nothing answers at the source: {cause.words}", more)
    reaching = cause.id.startswith(("tcp.", "net.", "dns.")) or cause.id in ("tls.timeout", "http.timeout")
    if need.kind == "sumdb" and source_works and reaching:
        words = f"the checksum database can't be reached: {cause.words}"
        return _Cause("gosumdb.unreachable", words, more)
    if need.kind == "vcs-ssh" and (cause.id in _UNREACHED or cause.id == "ssh.handshake"):
        round_ = seen.notes.get("ssh_443") or ("https" if seen.notes.get("https") else "")
        hint = f"; {round_} works" if round_ else ""
        return _Cause("vcs.ssh-refused", f"git over SSH can't reach {need.host}: {cause.words}{hint}", more)
    if need.kind == "vcs-git" and cause.id in _UNREACHED:
        hint = "; https works" if seen.notes.get("https") else ""
        return _Cause("vcs.port-blocked", f"git:// (port {need.port}) is blocked: {cause.words}{hint}", more)
    return cause


def _warnings(seen: Seen) -> list[_Cause]:
    found: list[_Cause] = []
    families = seen.families
    if families.get("ipv4") == "ok" and families.get("ipv6", "ok") not in ("ok", "tcp.refused"):
        words = f"{seen.need.host}: IPv6 doesn't work ({families['ipv6']}), IPv4 does"
        found.append(_Cause("ipv6.broken", words, {}, "warning"))
    silent = [a.server for a in seen.resolvers if a.error == "no answer" and ":" not in a.server[:4]]
    if seen.finding is None and silent and (seen.name_ms or 0) >= _SLOW_NAME:
        words = f"the name server {silent[0]} doesn't answer; each look-up waits for it"
        found.append(_Cause("dns.timeout", words, {}, "warning"))
    return found


def _together(found: Sequence[Finding]) -> list[Finding]:
    """What several hosts have in common, once; everything else once for each subject."""
    kept: dict[tuple[str, ...], Finding] = {}
    for one in found:
        issuer = str(one.evidence.get("issuer", "")) if one.id == "tls.intercepted" else ""
        general = one.id in _GENERAL
        key = (one.id, one.via, one.severity, issuer if general else one.subject)
        if key not in kept:
            kept[key] = one
        elif general and one.subject != kept[key].subject:
            also = [*kept[key].evidence.get("also", []), one.subject]
            kept[key] = replace(kept[key], evidence={**kept[key].evidence, "also": also})
    return list(kept.values())
