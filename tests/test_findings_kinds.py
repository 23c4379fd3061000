"""The table holds exactly contract §7's ids, and every fix can be shown."""

from __future__ import annotations

import string

import pytest

from gotunnel.findings.kinds import KINDS

CONTRACT = {
    "config": "goproxy.off goproxy.malformed goproxy.unreachable gosumdb.off gosumdb.unreachable "
    "goprivate.missing proxy-env.conflict proxy-env.unreachable replace.local gotoolchain.unavailable "
    "goprivate.too-wide goproxy.no-fallback go111module.off",
    "name": "dns.not-found dns.timeout dns.hijacked dns.refused",
    "connect": "tcp.refused tcp.timeout tcp.reset net.unreachable net.mtu ipv6.broken",
    "hop": "ssh.auth-failed ssh.host-key-unknown ssh.host-key-changed ssh.forwarding-denied ssh.handshake "
    "ssh.key-unusable proxy.auth-required proxy.denied proxy.bad-gateway proxy.not-a-proxy socks.denied "
    "socks.auth-failed hop.stalled hop.closed",
    "tls": "tls.intercepted tls.expired tls.wrong-name tls.timeout tls.not-tls tls.clock-skew",
    "http": "http.unauthorized http.forbidden http.rate-limited http.server-error http.captive-portal "
    "http.truncated http.endless http.timeout",
    "resolve download verify": "module.not-found module.bad-zip sum.mismatch sum.unverifiable sum.missing",
    "vcs": "vcs.missing vcs.credentials vcs.ssh-refused vcs.port-blocked vcs.denied import.no-meta",
    "build": "build.failed",
    "local": "go.missing go.too-old disk.full cache.permission modfile.invalid unknown",
}
IDS = {id: stages for stages, ids in CONTRACT.items() for id in ids.split()}


def test_the_table_is_the_contracts() -> None:
    assert set(KINDS) == set(IDS)
    assert {id: kind.stage for id, kind in KINDS.items() if kind.stage not in IDS[id].split()} == {}


@pytest.mark.parametrize("id", sorted(IDS))
def test_a_kind_has_one_line_and_a_fix(id: str) -> None:
    kind = KINDS[id]
    assert kind.id == id
    assert kind.summary
    assert "\n" not in kind.summary
    assert len(kind.summary) <= 100
    assert kind.fix
    names = {name for line in kind.fix for _, name, _, _ in string.Formatter().parse(line) if name}
    assert names <= {"host", "port", "hop", "module", "version", "path"}


NOT_MENDABLE = """
    proxy.auth-required socks.auth-failed http.unauthorized module.not-found import.no-meta vcs.credentials
    ssh.auth-failed ssh.host-key-changed ssh.host-key-unknown sum.missing goproxy.off goproxy.malformed
    gotoolchain.unavailable build.failed unknown
"""


@pytest.mark.parametrize("id", NOT_MENDABLE.split())
def test_what_no_other_way_mends(id: str) -> None:
    assert not KINDS[id].another_way
