"""Faults of ways out: jump hosts, HTTP proxies, SOCKS servers."""

from __future__ import annotations

from collections.abc import Callable

from tests.faults.case import Case, Scene
from tests.faults.places import HOPS
from tests.lab.netns import Filter

_JUMP = "ssh://root@jump.corp.example"
_PROXY = "proxy.corp.example"


def _via(way: str) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        scene.via.append(way)

    return make


def _refused(scene: Scene) -> None:
    scene.via.append(_JUMP)
    scene.undo.enter_context(scene.world.refuse(HOPS, 22))


def _dropped(scene: Scene) -> None:
    scene.via.append(_JUMP)
    words = f"ip daddr {HOPS} tcp dport 22 drop"
    body = f"chain in {{ type filter hook input priority 0; {words}; }}"
    scene.undo.enter_context(Filter(scene.world.hops, body))


def _key_refused(scene: Scene) -> None:
    scene.via.append(_JUMP)
    scene.world.take_key(scene.home / ".ssh", scene.world.stranger)


def _key_locked(scene: Scene) -> None:
    scene.via.append(f"{_JUMP}?identity={scene.home}/.ssh/id_ed25519")
    scene.sh(f"ssh-keygen -q -p -N lab-password -f {scene.home}/.ssh/id_ed25519")


def _host_unknown(scene: Scene) -> None:
    scene.via.append(_JUMP)
    (scene.home / ".ssh" / "known_hosts").write_text("")


def _host_changed(scene: Scene) -> None:
    scene.via.append(_JUMP)
    kind, key = scene.world.stranger.public.split()[:2]
    (scene.home / ".ssh" / "known_hosts").write_text(f"jump.corp.example,{HOPS} {kind} {key}\n")


def _restricted(words: str) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        scene.via.append(_JUMP)
        scene.world.take_key(scene.home / ".ssh", scene.world.restricted[words])

    return make


def _by_variable(scene: Scene) -> None:
    scene.env["HTTPS_PROXY"] = f"http://{_PROXY}:8889"


_OTHER = "--via OTHER"
_USE_OTHER = "gotunnel run --via http://proxy.corp.example:8888 -- go mod download"
CASES = (
    Case("tcp.refused", "ssh", "the jump host refuses the port", _refused, _OTHER, hand=_USE_OTHER),
    Case("tcp.timeout", "ssh", "the jump host's packets are dropped", _dropped, _OTHER, hand=_USE_OTHER),
    Case("ssh.handshake", "", "the jump host sends no banner", _via("ssh://root@jump.corp.example:3004"),
         "ssh -v", hand=_USE_OTHER),
    Case("ssh.auth-failed", "", "the jump host refuses the key", _key_refused, "gotunnel run -i"),
    Case(
        "ssh.key-unusable", "", "the key file has a passphrase that nobody types", _key_locked, "ssh-add",
        hand="ssh-keygen -q -p -P lab-password -N '' -f $HOME/.ssh/id_ed25519",
    ),
    Case("ssh.host-key-unknown", "", "the jump host's key isn't known", _host_unknown, "ssh-keyscan"),
    Case("ssh.host-key-changed", "", "the jump host's key is another", _host_changed, "ssh-keyscan",
         hand="ssh-keygen -f $HOME/.ssh/known_hosts -R jump.corp.example;"
              " ssh-keyscan jump.corp.example >> $HOME/.ssh/known_hosts"),
    Case("ssh.forwarding-denied", "all", "the jump host forbids forwarding",
         _restricted("no-port-forwarding"), _OTHER, hand=_USE_OTHER),
    Case("ssh.forwarding-denied", "permitopen", "PermitOpen leaves the target out",
         _restricted('permitopen="10.9.9.9:1"'), _OTHER, hand=_USE_OTHER),
    Case("proxy.auth-required", "basic", "407 with Basic", _via(f"http://{_PROXY}:8889"), "password_file",
         evidence=("Basic",)),
    Case("proxy.auth-required", "negotiate", "407 with Negotiate", _via(f"http://{_PROXY}:3001"),
         "kinit", hand=_USE_OTHER, evidence=("Negotiate",)),
    Case("proxy.auth-required", "variable", "407 of the proxy in HTTPS_PROXY", _by_variable,
         "unset HTTPS_PROXY"),
    Case("proxy.denied", "", "the proxy refuses the target", _via(f"http://{_PROXY}:3002"), "ask who runs",
         hand=_USE_OTHER),
    Case("proxy.bad-gateway", "", "the proxy can't reach the target", _via(f"http://{_PROXY}:3006"),
         "gotunnel probe", hand=_USE_OTHER),
    Case("proxy.not-a-proxy", "", "a web server in a proxy's place", _via(f"http://{_PROXY}:3003"),
         "check scheme", hand=_USE_OTHER),
    Case("proxy.not-a-proxy", "socks", "a web server taken for a SOCKS server",
         _via(f"socks5h://{_PROXY}:3003"), "check scheme", hand=_USE_OTHER),
    Case("hop.stalled", "", "the proxy takes connections and carries nothing",
         _via(f"http://{_PROXY}:3004"), _OTHER, hand=_USE_OTHER),
    Case("socks.denied", "", "the SOCKS server refuses the target", _via(f"socks5h://{_PROXY}:3005"),
         "ask who runs", hand=_USE_OTHER),
    Case("socks.auth-failed", "", "the SOCKS server wants a password", _via(f"socks5h://{_PROXY}:1081"),
         "password_file"),
)  # fmt: skip
