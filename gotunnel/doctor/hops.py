"""A way out's own state, as findings: read from the DialErrors of the looks that went through it.

Rules:
- A hop at fault is told once for its way, whatever number of needs is behind it; what a hop refuses for one
  target only (its policy) is told with that target.
- What the target does wrong behind a working way is not here (judge.py).
- The subject is the hop's label; the fix names that hop, with the commands that ssh and its kin understand.
"""

from __future__ import annotations

import os
import re
import shlex
from urllib.parse import urlsplit

from gotunnel.address import redact
from gotunnel.dataclass import dataclass
from gotunnel.errors import Blame, DialError
from gotunnel.findings.catalogue import Finding, finding

_OTHER = "gotunnel run --via OTHER -- go …   # another way out"
_HOPS_OWN = ("ssh.", "proxy.", "socks.", "hop.")
_THEN = re.compile(r"then: (?P<command>ssh-key(?:scan|gen) .+)$")
_PATH = re.compile(r"(?P<path>(?:~|/)[^\s:;,'\"]*)")
_SCHEMES = ("Negotiate", "NTLM", "Digest", "Basic")
_DEFAULT_PORTS = {"ssh": 22, "http": 80, "https": 443}


def is_of_hop(error: DialError) -> bool:
    """Is it the way out that failed, or refused, and not the target behind it?"""
    if error.charges_hop or error.blame is Blame.POLICY:
        return True
    return bool(error.hop) and error.finding.startswith(_HOPS_OWN)


def hop_finding(error: DialError, *, via: str, target: str = "") -> Finding:
    """The finding of one failed dial through the way `via`; `target` is what was to be reached by it."""
    hop = _Hop.of(redact(error.hop or via))
    target = target or _target(error.detail)
    asked = schemes(error.detail) if error.finding == "proxy.auth-required" else ()
    facts: dict[str, object] = {"hop": hop.label, "detail": redact(error.detail)}
    if asked:
        facts["schemes"] = list(asked)
    if not error.charges_hop:
        facts["target"] = target
    if error.retry_after:
        facts["retry_after_seconds"] = error.retry_after
    return finding(
        error.finding,
        subject=hop.label,
        via=via,
        summary=redact(error.detail),
        stage="hop",
        evidence=facts,
        fix=_fix(error, hop, target, asked) or None,
        host=hop.host,
        port=str(hop.port),
        hop=hop.label,
    )


def _target(detail: str) -> str:
    """HOST:PORT that the words of a refusal name."""
    found = re.search(r"(?:forwarding to|CONNECT|: )\s*(\[[0-9a-fA-F:]+\]:\d+|[\w.-]+:\d+)(?=[ :])", detail)
    return found[1] if found else "HOST:PORT"


def schemes(detail: str) -> tuple[str, ...]:
    """The schemes of a 407 that a DialError's words name."""
    return tuple(name for name in _SCHEMES if re.search(rf"\b{name}\b", detail, re.IGNORECASE))


@dataclass(frozen=True, slots=True)
class _Hop:
    """A hop's label, taken apart; `login` is USER@HOST as ssh takes it."""

    label: str
    scheme: str
    host: str
    port: int
    user: str

    @classmethod
    def of(cls, label: str) -> _Hop:
        try:
            parts = urlsplit(label if "://" in label else f"ssh://{label}")
            # a host of ssh keeps its case: it may be an alias
            netloc = parts.netloc.rpartition("@")
            host = netloc[2].rpartition(":")[0] if parts.port else netloc[2]
            port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 1080)
            return cls(label, parts.scheme, host.strip("[]") or label, port, netloc[0].partition(":")[0])
        except ValueError:
            return cls(label, "", label, 0, "")

    @property
    def login(self) -> str:
        return shlex.quote(f"{self.user}@{self.host}" if self.user else self.host)

    @property
    def p(self) -> str:
        """ssh's -p, where it is needed."""
        return f"-p {self.port} " if self.scheme == "ssh" and self.port != 22 else ""

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _fix(error: DialError, hop: _Hop, target: str, asked: tuple[str, ...]) -> tuple[str, ...]:
    id = error.finding
    if id.startswith("ssh."):
        return _ssh_fix(id, error.detail, hop, target)
    if id.startswith("proxy."):
        return _proxy_fix(id, hop, target, asked)
    if id.startswith("socks."):
        return _socks_fix(id, hop, target)
    if id.startswith("dns."):
        return (f"check the spelling of the way out's host: {hop.host}", _OTHER)
    if id.startswith(("tcp.", "net.", "hop.")):
        trial = f"ssh -v {hop.p}{hop.login}" if hop.scheme == "ssh" else f"curl -v telnet://{hop.address}"
        if id == "tcp.refused":
            return (f"start the server at {hop.address}, or correct its port", trial, _OTHER)
        return (trial, _OTHER)
    return ()


def _ssh_fix(id: str, detail: str, hop: _Hop, target: str) -> tuple[str, ...]:
    trial = f"ssh -v {hop.p}{hop.login}"
    command = found["command"] if (found := _THEN.search(detail)) else ""
    if id == "ssh.host-key-unknown":
        return (_at_home(command) or _keyscan(hop),)
    if id == "ssh.host-key-changed":
        remove = command or f"ssh-keygen -R {shlex.quote(hop.host if hop.port == 22 else f'[{hop.address}]')}"
        return (f"ask who runs {hop.host} whether its key was changed; if so: {remove}", _keyscan(hop))
    if id == "ssh.auth-failed":
        jump = shlex.quote(f"{hop.user}@{hop.address}" if hop.user else hop.address)
        return (
            f"ssh-copy-id {hop.p}{hop.login}",
            f"gotunnel run -i PATH/TO/KEY -J {jump} -- go …",
            trial,
        )
    if id == "ssh.key-unusable":
        path = shlex.quote(found["path"]) if (found := _PATH.search(_after_label(detail, hop))) else "KEYFILE"
        trial = f"ssh-keygen -y -f {path}   # can ssh itself read it?"
        if any(word in detail.lower() for word in ("passphrase", "encrypted")):
            return (f"ssh-add {path}", trial)
        return (f"chmod 600 {path}", trial) if "permission" in detail.lower() else (trial,)
    if id == "ssh.forwarding-denied":
        return (
            f"in sshd_config of {hop.host}: AllowTcpForwarding yes, and PermitOpen any or with {target}",
            _OTHER,
        )
    return (trial, _OTHER)


def _after_label(detail: str, hop: _Hop) -> str:
    return detail.removeprefix(hop.label)


def _keyscan(hop: _Hop) -> str:
    return f"ssh-keyscan {hop.p}{shlex.quote(hop.host)} >> ~/.ssh/known_hosts   # compare the fingerprint"


def _at_home(command: str) -> str:
    """The command with `~` for the home directory, as people write it."""
    home = os.path.expanduser("~/.ssh/known_hosts")
    return command.replace(f">> {home}", ">> ~/.ssh/known_hosts") if home != "~/.ssh/known_hosts" else command


def _proxy_fix(id: str, hop: _Hop, target: str, asked: tuple[str, ...]) -> tuple[str, ...]:
    if id == "proxy.auth-required":
        login = f"gotunnel run --via '{hop.scheme or 'http'}://USER@{hop.address}?password_file=FILE' -- go …"
        if asked and not {"Basic", "Digest"} & set(asked):
            ticket = ("pip install 'gotunnel[kerberos]'", "kinit") if "Negotiate" in asked else ()
            return ("pip install 'gotunnel[ntlm]'   # for a password", login, *ticket)
        return (login,)
    if id == "proxy.denied":
        return (f"ask who runs {hop.label} to allow CONNECT to {target}", _OTHER)
    if id == "proxy.not-a-proxy":
        other = "http" if hop.scheme.startswith("socks") else "socks5h"
        return (
            f"check scheme, host and port: what answers at {hop.address} is no proxy of this kind",
            f"if it is another kind: gotunnel run --via {other}://{hop.address} -- go …",
            _OTHER,
        )
    return (f"gotunnel probe --via {shlex.quote(hop.label)} https://{target}", _OTHER)


def _socks_fix(id: str, hop: _Hop, target: str) -> tuple[str, ...]:
    if id == "socks.auth-failed":
        scheme = hop.scheme or "socks5h"
        return (f"gotunnel run --via '{scheme}://USER@{hop.address}?password_file=FILE' -- go …",)
    return (f"ask who runs {hop.label} to allow {target}", _OTHER)
