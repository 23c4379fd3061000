"""Faults of names, connections and TLS on the machine's own network."""

from __future__ import annotations

from tests.faults.case import Case, Scene
from tests.faults.places import BLOCK_PAGE, BOGON, LIAR, LIB, OTHER, PLACES, PRIVATE, STRANGE
from tests.faults.world import need
from tests.lab.netns import Filter

_SOURCE = PLACES["proxy.golang.org"]
_V6 = "2606:4700:8::10"


def _no_name(scene: Scene) -> None:
    scene.names(proxy_golang_org="NXDOMAIN")


def _misspelt(scene: Scene) -> None:
    scene.env["GOPROXY"] = "https://proxy.golang.orgg"


def _no_private_name(scene: Scene) -> None:
    scene.goenv("GOPRIVATE=*.corp.example")
    need(scene, LIB)
    scene.names(git_corp_example="NXDOMAIN")


def _silent_resolver(scene: Scene) -> None:
    scene.undo.enter_context(scene.world.black_hole(LIAR, 53, "udp"))


def _refusing(scene: Scene) -> None:
    scene.names(proxy_golang_org="REFUSED")


def _failing(scene: Scene) -> None:
    scene.names(proxy_golang_org="SERVFAIL")


def _nobody(scene: Scene) -> None:
    words = f"ip daddr {LIAR} udp dport 53 reject with icmpx type port-unreachable"
    body = f"chain in {{ type filter hook input priority 0; {words}; }}"
    scene.undo.enter_context(Filter(scene.world.world, body))


def _lie_private(scene: Scene) -> None:
    scene.names(proxy_golang_org=[PRIVATE])


def _lie_bogon(scene: Scene) -> None:
    scene.names(proxy_golang_org=[BOGON])


def _lie_block_page(scene: Scene) -> None:
    scene.names(proxy_golang_org=[BLOCK_PAGE])


def _lie_other(scene: Scene) -> None:
    scene.names(proxy_golang_org=[OTHER])


def _refused(scene: Scene) -> None:
    scene.undo.enter_context(scene.world.refuse(_SOURCE, 443))


def _dropped(scene: Scene) -> None:
    scene.undo.enter_context(scene.world.black_hole(_SOURCE, 443))


def _sni(scene: Scene) -> None:
    scene.names(proxy_golang_org=[STRANGE["sni"]])


def _unreachable(scene: Scene) -> None:
    route = f"{_SOURCE}/32"
    scene.world.client.add_route("unreachable", route)
    scene.undo.callback(scene.world.client.ip, "route", "del", "unreachable", route)


def _host_unreachable(scene: Scene) -> None:
    own = f'iifname "{scene.world.link.device_b}"'
    words = f"{own} ip daddr {_SOURCE} tcp dport 443 reject with icmpx type host-unreachable"
    body = f"chain in {{ type filter hook input priority 0; {words}; }}"
    scene.undo.enter_context(Filter(scene.world.world, body))


def _ipv6(scene: Scene) -> None:
    client, device = scene.world.client, scene.world.link.device_a
    client.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0"])
    client.ip("address", "add", "2606:4700:9::1/64", "dev", device, "nodad")
    client.ip("-6", "route", "add", "default", "via", "2606:4700:9::2", "dev", device)
    # a neighbour that takes the packets, or the kernel itself would say "unreachable" soon
    client.ip("-6", "neigh", "add", "2606:4700:9::2", "lladdr", "02:00:00:00:00:01", "dev", device)
    scene.names(proxy_golang_org=[_SOURCE, _V6])

    def mend() -> None:
        client.run(["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0"])
        client.ip("-6", "address", "flush", "dev", device, "scope", "global")
        client.ip("-6", "route", "flush", "default")

    scene.undo.callback(mend)


def _mtu(scene: Scene) -> None:
    """A tunnel on the way takes 1300 bytes, and a firewall eats the ICMP that would say so."""
    world = scene.world
    scene.names(proxy_golang_org=[STRANGE["fat"]])
    for hook in ("input", "output"):
        body = f"chain c {{ type filter hook {hook} priority 0; meta length > 1300 meta l4proto tcp drop; }}"
        side = "iif" if hook == "input" else "oif"
        body = body.replace("meta length", f'{side}name "{world.link.device_b}" meta length')
        scene.undo.enter_context(Filter(world.world, body))
    scene.undo.callback(world.client.ip, "link", "set", "dev", world.link.device_a, "mtu", "1500")


def _intercepted(scene: Scene) -> None:
    scene.names(proxy_golang_org=[STRANGE["intercepted"]])
    both = scene.world.ca.read_text() + scene.world.other_authority.cert.read_text()
    (scene.home / "CA.pem").write_text(both)


def _expired(scene: Scene) -> None:
    scene.names(proxy_golang_org=[STRANGE["expired"]])


def _wrong_name(scene: Scene) -> None:
    scene.names(proxy_golang_org=[STRANGE["wrong-name"]])


def _clock(scene: Scene) -> None:
    scene.names(proxy_golang_org=[STRANGE["clock"]])


def _clock_ahead(scene: Scene) -> None:
    scene.names(proxy_golang_org=[STRANGE["clock-ahead"]])


def _not_tls(scene: Scene) -> None:
    scene.names(proxy_golang_org=[STRANGE["plain"]])


def _tls_silent(scene: Scene) -> None:
    scene.names(proxy_golang_org=[STRANGE["silent"]])


CASES = (
    Case("dns.not-found", "", "the resolver denies the name", _no_name, evidence=("others know it",)),
    Case("dns.not-found", "misspelt", "the name is misspelt", _misspelt, "check the spelling",
         hand="export GOPROXY=https://proxy.golang.org"),
    Case("dns.not-found", "private", "the resolver denies a private name", _no_private_name),
    Case("dns.timeout", "", "the resolver is silent", _silent_resolver),
    Case("dns.refused", "", "the resolver answers REFUSED", _refusing),
    Case("dns.refused", "servfail", "the resolver answers SERVFAIL", _failing),
    Case("dns.refused", "port", "nobody listens at the resolver's port", _nobody),
    Case("dns.hijacked", "private", "a false answer in a private range", _lie_private,
         evidence=(_SOURCE,)),
    Case("dns.hijacked", "bogon", "a false answer in a bogon range", _lie_bogon),
    Case("dns.hijacked", "block-page", "a false answer: a known block page", _lie_block_page),
    Case("dns.hijacked", "other", "a false answer: a foreign server of another network", _lie_other),
    Case("tcp.refused", "", "the port is refused", _refused),
    Case("tcp.timeout", "", "packets are dropped", _dropped),
    Case("tcp.reset", "sni", "reset after the client hello (SNI filtering)", _sni,
         evidence=("SNI filtering",)),
    Case("net.unreachable", "", "no route to the host", _unreachable),
    Case("net.unreachable", "host", "a router says that the host can't be reached", _host_unreachable),
    Case("ipv6.broken", "", "IPv6 swallows packets while IPv4 works", _ipv6, "disable_ipv6=1",
         severity="warning", go="works"),
    Case("net.mtu", "", "large packets are lost, silently", _mtu, "ip link set dev"),
    Case("tls.intercepted", "", "an interceptor with its own CA", _intercepted, "export SSL_CERT_FILE=",
         evidence=("Corp Inspection CA",)),
    Case("tls.expired", "", "an expired certificate", _expired),
    Case("tls.wrong-name", "", "a certificate for another name", _wrong_name,
         evidence=("www.example.net",)),
    Case("tls.clock-skew", "", "this clock is 10 days behind", _clock, "timedatectl",
         undone="the lab has no clock to set", evidence=("10 days behind",)),
    Case("tls.clock-skew", "ahead", "this clock is 40 days ahead", _clock_ahead, "timedatectl",
         undone="the lab has no clock to set", evidence=("40 days ahead",)),
    Case("tls.not-tls", "", "the port doesn't speak TLS", _not_tls),
    Case("tls.timeout", "", "the TLS handshake gets no answer", _tls_silent),
)  # fmt: skip
