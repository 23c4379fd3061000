"""One root cause from what was seen: tables of looks, no network."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from gotunnel.doctor.blockpages import is_public_name, same_network, why_odd
from gotunnel.doctor.facts import Facts
from gotunnel.doctor.judge import judge, judge_all
from gotunnel.doctor.model import Certificate, Need, NeedKind, ResolverAnswer, Seen
from gotunnel.errors import Blame, DialError

NOW = time.time()
DAY = 86400.0


def need(host: str = "proxy.golang.org", kind: NeedKind = "source", *, private: bool = False) -> Need:
    path = "/golang.org/x/text/@v/list"
    return Need(kind, f"https://{host}{path}", host, 443, True, "a test", private=private, path=path)


def certificate(name: str, *, trusted: bool, issuer: str = "Some CA") -> Certificate:
    return Certificate(issuer, name, (name,), NOW - 30 * DAY, NOW + 30 * DAY, trusted)


def seen(
    wanted: Need,
    finding: str | None,
    *addresses: str,
    doh: tuple[str, ...] = (),
    shown: Certificate | None = None,
    via: str = "",
    **notes: Any,
) -> Seen:
    error = None
    if finding and not finding.startswith("http."):
        error = DialError(finding, f"{wanted.host}: {finding}", blame=Blame.TARGET)
    resolvers: tuple[ResolverAnswer, ...] = (ResolverAnswer("system", addresses),)
    if doh:
        resolvers += (ResolverAnswer("doh:dns.google", doh, "NOERROR"),)
    return Seen(
        wanted, via, addresses=addresses, resolvers=resolvers, certificate=shown, error=error,
        finding=finding, detail=f"{wanted.host}: {finding}", at=NOW,
        notes={"names": "far" if via else "here", **notes},
    )  # fmt: skip


def ids(*looks: Seen, facts: Facts | None = None) -> list[str]:
    return [one.id for one in judge(looks, facts)]


OWN, OTHER, NOBODY = "proxy.golang.org", "block.example", "Nobody CA"

# what the system answers, what others answer, what was found there -> is the resolver lying?
HONEST: list[tuple[str, str, str | None, str, str]] = [
    (OWN, "another network of the same CDN, right certificate", None, "142.250.1.1", "172.217.9.9"),
    (OWN, "another network, and that node is down", "tcp.timeout", "142.250.1.1", "172.217.9.9"),
    (OWN, "another network, that node resets", "tcp.reset", "142.250.1.1", "172.217.9.9"),
    (OWN, "another network, interceptor on the line", "tls.intercepted", "142.250.1.1", "172.217.9.9"),
    (OWN, "the same network, interceptor on the line", "tls.intercepted", "142.250.1.1", "142.250.9.9"),
    (OWN, "nobody to ask, interceptor on the line", "tls.intercepted", "142.250.1.1", ""),
    (OWN, "Clash answers and carries", None, "198.18.0.7", "142.250.1.1"),
    ("go.corp.com", "split horizon, all well", None, "10.1.2.3", "203.1.2.3"),
    ("go.corp.com", "split horizon, the server is down", "tcp.refused", "10.1.2.3", "203.1.2.3"),
    ("go.corp.com", "split horizon, certificate has expired", "tls.expired", "10.1.2.3", "5.6.7.8"),
    ("go.corp.com", "inside only, its own CA", "tls.intercepted", "10.1.2.3", ""),
    ("modules.lab.example", "no public name", "tls.intercepted", "10.1.2.3", "5.6.7.8"),
]
FALSE: list[tuple[str, str, str | None, str, str]] = [
    (OWN, "a private address", "tcp.timeout", "10.1.2.3", ""),
    (OWN, "a private address, others know better", "tcp.refused", "192.168.1.1", "142.250.1.1"),
    (OWN, "a sink", "tcp.refused", "0.0.0.0", ""),
    (OWN, "a sink, IPv6", "tcp.refused", "::", ""),
    ("lib.somewhere.net", "this machine", "tcp.refused", "127.0.0.1", ""),
    ("lib.somewhere.net", "a known block page", "tls.wrong-name", "146.112.61.106", ""),
    ("lib.somewhere.net", "a bogon", "tcp.timeout", "192.0.2.9", ""),
    ("lib.somewhere.net", "elsewhere, of another name", "tls.wrong-name", "31.13.94.7", "5.6.7.8"),
]
CASES = [(*case, False) for case in HONEST] + [(*case, True) for case in FALSE]


@pytest.mark.parametrize(("host", "case", "finding", "ours", "others", "lies"), CASES)
def test_resolvers_honest_and_false(
    host: str, case: str, finding: str | None, ours: str, others: str, lies: bool
) -> None:
    shown = None
    if finding is None:
        shown = certificate(host, trusted=True)
    elif finding.startswith("tls."):
        shown = certificate(OTHER if finding == "tls.wrong-name" else host, trusted=False, issuer=NOBODY)
    look = seen(need(host), finding, ours, doh=(others,) if others else (), shown=shown)
    assert ids(look) == (["dns.hijacked"] if lies else [finding] if finding else []), case
    private = replace(look, need=need(host, private=True))
    assert "dns.hijacked" not in ids(private), "a private need is never held against public resolvers"


def test_the_right_certificate_elsewhere_proves_the_lie_and_the_far_end_counts() -> None:
    direct = seen(need("lib.net"), "tcp.timeout", "31.13.94.7", doh=("5.6.7.8",), doh_verified=["5.6.7.8"])
    assert ids(direct) == ["dns.hijacked"]
    direct = seen(need("lib.net"), "tls.wrong-name", "31.13.94.7", shown=certificate(OTHER, trusted=False))
    far = seen(need("lib.net"), None, via="ssh://jump")
    far.resolvers = (ResolverAnswer("far:ssh://jump/dns.google", ("5.6.7.8",), "NOERROR"),)
    (found,) = judge([direct, far])
    assert found.id == "dns.hijacked"
    assert found.fix[0] == "gotunnel run --via ssh://jump -- go …"  # known to work: first


def test_a_name_that_only_this_resolver_denies() -> None:
    (found,) = judge([seen(need(), "dns.not-found", doh=("142.250.1.1",))])
    assert found.id == "dns.not-found"
    assert "others know it" in found.summary


@pytest.mark.parametrize(
    ("finding", "notes", "wanted", "words"),
    [
        ("tls.timeout", {"other_names": {"other": "answered", "none": "tls.timeout"}}, "tls.timeout", "SNI"),
        ("tcp.reset", {"other_names": {"other": "tcp.reset", "none": "answered"}}, "tcp.reset", "SNI"),
        (
            "tls.timeout",
            {"other_names": {"other": "tls.timeout"}, "small_segments": True},
            "net.mtu",
            "large",
        ),
        ("http.timeout", {"small_segments": True}, "net.mtu", "large packets"),
        ("http.timeout", {"small_segments": False}, "http.timeout", ""),
        ("tls.timeout", {"small_segments": False}, "tls.timeout", ""),
    ],
)
def test_what_breaks_for_its_name_or_its_size(
    finding: str, notes: dict[str, Any], wanted: str, words: str
) -> None:
    (found,) = judge([seen(need(), finding, "142.250.1.1", interface="wg0", **notes)])
    assert found.id == wanted
    assert words in found.summary
    if wanted == "net.mtu":
        assert found.fix[0] == "ip link set dev wg0 mtu 1280"


def test_the_clock_is_judged_by_all_servers() -> None:
    late = certificate("a.net", trusted=False)
    late = replace(late, not_before=NOW - 300 * DAY, not_after=NOW - 10 * DAY)
    expired = seen(need("a.net"), "tls.expired", "5.6.7.8", shown=late, skew=0)
    honest = [seen(need(f"{n}.net"), None, "5.6.7.8", skew=40 * DAY) for n in "xyz"]
    found = judge_all([[expired], *([look] for look in honest)])
    assert [one.id for one in found] == ["tls.clock-skew"]
    assert found[0].fix[0] == "timedatectl set-ntp true"
    assert [one.id for one in judge_all([[expired]])] == ["tls.expired"]


def test_a_broken_ipv6_is_a_warning_and_a_missing_one_nothing() -> None:
    look = seen(need(), None, "142.250.1.1", "2a00::1", shown=certificate(OWN, trusted=True))
    look.families = {"ipv4": "ok", "ipv6": "tcp.timeout"}
    (found,) = judge([look])
    assert (found.id, found.severity) == ("ipv6.broken", "warning")
    look.families = {"ipv4": "ok"}
    assert judge([look]) == []


def test_the_checksum_database_alone_and_with_everything_else() -> None:
    sumdb = seen(need("sum.golang.org", "sumdb"), "tcp.timeout", "142.250.1.1")
    source = seen(need(), None, "142.250.1.2", shown=certificate(OWN, trusted=True))
    (found,) = judge_all([[sumdb], [source]])
    assert (found.id, found.evidence["cause"]) == ("gosumdb.unreachable", "tcp.timeout")
    down = seen(need(), "net.unreachable", "142.250.1.2")
    sumdb = seen(need("sum.golang.org", "sumdb"), "net.unreachable", "142.250.1.1")
    (found,) = judge_all([[down], [sumdb]])  # told once
    assert found.id == "net.unreachable"
    assert found.evidence["also"] == [sumdb.need.url]


def test_git_and_credentials_by_what_is_known_of_this_machine() -> None:
    refused = seen(need("git.corp.com", "vcs-https", private=True), "vcs.credentials", "10.1.2.3")
    refused.error, refused.status = None, 401
    assert ids(refused, facts=Facts(go="/go", git="/git")) == ["vcs.credentials"]
    assert ids(refused, facts=Facts(go="/go", git="/git", netrc_hosts=frozenset({"git.corp.com"}))) == []
    assert ids(refused, facts=Facts(go="/go")) == ["vcs.missing"]


def test_odd_addresses_and_public_names() -> None:
    odd = {"10.1.1.1": "private", "::ffff:127.0.0.1": "loopback", "fe80::1%eth0": "link-local", "8.8.8.8": ""}
    assert {address: why_odd(address) for address in odd} == odd
    assert not any(map(is_public_name, ("git", "git.corp.internal", "1.2.3.4", "::1", "nas.local")))
    assert is_public_name("Proxy.Golang.Org.")
    assert same_network("142.250.1.1", "142.250.200.9")
    assert not same_network("142.250.1.1", "2a00::1")
