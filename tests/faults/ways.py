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


def _key_broken(scene: Scene) -> None:
    key = scene.home / ".ssh" / "id_ed25519"
    scene.via.append(f"{_JUMP}?identity={key}")
    scene.env["SAVED"] = str(key.rename(scene.home / "saved"))
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")


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


def _allowed(scene: Scene) -> None:
    """Who runs the jump host allows forwarding."""
    scene.undo.callback(scene.world.admit)
    scene.world.admit(restricted=False)


def _by_variable(scene: Scene) -> None:
    scene.env["HTTPS_PROXY"] = f"http://{_PROXY}:8889"


_OTHER = "run --via OTHER"
# an agent of his own, and a person who types the passphrase
_AGENT = """eval "$(ssh-agent)" >/dev/null; trap 'ssh-agent -k >/dev/null' EXIT
printf '#!/bin/sh\\necho lab-password\\n' > $HOME/bin/typist; chmod +x $HOME/bin/typist
export DISPLAY=:0 SSH_ASKPASS=$HOME/bin/typist SSH_ASKPASS_REQUIRE=force
FIX"""
CASES = (
    Case("tcp.refused", "ssh", "the jump host refuses the port", _refused, _OTHER),
    Case("tcp.refused", "proxy", "nobody listens at the proxy's port", _via(f"http://{_PROXY}:9"), _OTHER),
    Case("tcp.timeout", "ssh", "the jump host's packets are dropped", _dropped, _OTHER),
    Case("dns.not-found", "way", "the jump host's name is misspelt", _via("ssh://root@jmp.corp.example"),
         "check the spelling", hand=f"gotunnel run --via {_JUMP} -- go mod download"),
    Case("ssh.handshake", "", "the jump host sends no banner", _via("ssh://root@jump.corp.example:3004"),
         _OTHER),
    Case("ssh.auth-failed", "", "the jump host refuses the key", _key_refused, "gotunnel run -i"),
    Case("ssh.key-unusable", "", "the key file has a passphrase that nobody types", _key_locked, "ssh-add",
         hand=_AGENT),
    Case("ssh.key-unusable", "broken", "the key file is cut off", _key_broken, "ssh-keygen -y -f",
         hand="cp $SAVED $HOME/.ssh/id_ed25519"),
    Case("ssh.host-key-unknown", "", "the jump host's key isn't known", _host_unknown, "ssh-keyscan"),
    Case("ssh.host-key-changed", "", "the jump host's key is another", _host_changed, "ssh-keyscan",
         hand="ssh-keygen -f $HOME/.ssh/known_hosts -R jump.corp.example; FIX"),
    Case("ssh.forwarding-denied", "all", "the jump host forbids forwarding",
         _restricted("no-port-forwarding"), "in sshd_config of", person=_allowed),
    Case("ssh.forwarding-denied", "permitopen", "PermitOpen leaves the target out",
         _restricted('permitopen="10.9.9.9:1"'), _OTHER),
    Case("proxy.auth-required", "basic", "407 with Basic", _via(f"http://{_PROXY}:8889"), "password_file",
         evidence=("Basic",)),
    Case("proxy.auth-required", "negotiate", "407 with Negotiate", _via(f"http://{_PROXY}:3001"),
         "kinit", undone="the lab has no Kerberos", evidence=("Negotiate",)),
    Case("proxy.auth-required", "variable", "407 of the proxy in HTTPS_PROXY", _by_variable,
         "unset HTTPS_PROXY"),
    Case("proxy.denied", "", "the proxy refuses the target", _via(f"http://{_PROXY}:3002"), _OTHER),
    Case("proxy.bad-gateway", "", "the proxy can't reach the target", _via(f"http://{_PROXY}:3006"), _OTHER),
    Case("proxy.not-a-proxy", "", "a web server in a proxy's place", _via(f"http://{_PROXY}:3003"), _OTHER),
    Case("proxy.not-a-proxy", "socks", "a web server taken for a SOCKS server",
         _via(f"socks5h://{_PROXY}:3003"), _OTHER),
    Case("proxy.not-a-proxy", "kind", "a SOCKS server taken for an HTTP proxy", _via(f"http://{_PROXY}:1080"),
         "if it is another kind", hand=f"gotunnel run --via socks5h://{_PROXY}:1080 -- go mod download"),
    Case("hop.stalled", "", "the proxy takes connections and carries nothing",
         _via(f"http://{_PROXY}:3004"), _OTHER),
    Case("hop.closed", "", "the proxy closes each connection", _via(f"http://{_PROXY}:3007"), _OTHER),
    Case("hop.closed", "ssh", "the jump host closes before its banner",
         _via("ssh://root@jump.corp.example:3007"), _OTHER),
    Case("socks.denied", "", "the SOCKS server refuses the target", _via(f"socks5h://{_PROXY}:3005"), _OTHER),
    Case("socks.auth-failed", "", "the SOCKS server wants a password", _via(f"socks5h://{_PROXY}:1081"),
         "password_file"),
)  # fmt: skip
