"""asyncssh's errors, in our tree: the one place that reads what an SSH server says when it says no."""

from __future__ import annotations

from collections.abc import Sequence

from gotunnel.address import HostPort, one_line
from gotunnel.errors import Blame, DialError, StreamLost
from gotunnel.upstream.direct import translate
from gotunnel.upstream.host_keys import HostKeyCheck
from gotunnel.upstream.ssh_plan import SshPlan

# the words of sshd's connect(2) and getaddrinfo(3) -> finding
_TARGET_WORDS = (
    ("refused", "tcp.refused"),
    ("timed out", "tcp.timeout"),
    ("timeout", "tcp.timeout"),
    ("no route", "net.unreachable"),
    ("unreachable", "net.unreachable"),
    ("reset", "tcp.reset"),
    ("not known", "dns.not-found"),
    ("no address", "dns.not-found"),
    ("no such host", "dns.not-found"),
    ("temporary failure", "dns.timeout"),
    ("name resolution", "dns.timeout"),
)

# RFC 4254 §5.1 reason codes -> (finding, whom to blame); 2 is read further by its words
CHANNEL_CODES: dict[int, tuple[str, Blame]] = {
    1: ("ssh.forwarding-denied", Blame.POLICY),
    2: ("tcp.refused", Blame.TARGET),
    3: ("ssh.forwarding-denied", Blame.HOP),
    4: ("hop.closed", Blame.HOP),
}


def channel_error(code: int, reason: str, label: str, target: HostPort) -> DialError:
    """Why a channel could not be opened."""
    words = one_line(reason, 200)
    if reason.startswith("SSH connection closed"):  # asyncssh's own: the connection went meanwhile
        return DialError("hop.closed", f"{label}: the connection was lost", blame=Blame.HOP, hop=label)
    finding, blame = CHANNEL_CODES.get(code, ("unknown", Blame.TARGET))
    lowered = words.lower()
    if code == 2 or (code == 1 and "connect failed" in lowered):
        finding = next((f for word, f in _TARGET_WORDS if word in lowered), "tcp.refused")
        return DialError(finding, f"{target}: {words} (seen from {label})", blame=Blame.TARGET)
    if finding == "ssh.forwarding-denied":
        words = f"forwarding to {target} is forbidden ({words}); see AllowTcpForwarding, PermitOpen there"
    return DialError(finding, f"{label}: {words}", blame=blame, hop=label)


def handshake_error(
    error: BaseException,
    label: str,
    address: HostPort,
    plan: SshPlan,
    check: HostKeyCheck,
    unusable: list[str],
    timeout: float,
    refused_wait: float,
    offers: Sequence[str] = (),
    typed: bool = False,
) -> DialError:
    """Why a connection to a jump host could not be opened.

    `offers`: the methods of logging in that the server would have taken; `typed`: a person answered, in vain.
    """
    import asyncssh

    if isinstance(error, TimeoutError):
        return DialError(
            "hop.stalled",
            f"{label}: accepted the connection but did not finish the SSH handshake in {timeout:.0f} s",
            blame=Blame.HOP,
            hop=label,
        )
    if isinstance(error, asyncssh.HostKeyNotVerifiable):
        finding, words = check.refusal(address)
        if " is revoked" in str(error):
            finding, words = "ssh.host-key-changed", f"the host key of {check.entry} is marked @revoked"
        elif check.offered is None:  # a certificate: expired, of another name, of an unknown authority
            words += f" ({one_line(str(error), 150)})"
        return DialError(
            finding, f"{label}: {words}", blame=Blame.CREDENTIALS, hop=label, retry_after=refused_wait
        )
    if isinstance(error, asyncssh.PermissionDenied):
        return _denied(label, plan, unusable, refused_wait, offers, typed)
    if isinstance(error, asyncssh.KeyImportError | asyncssh.KeyEncryptionError):
        return DialError(
            "ssh.key-unusable",
            f"{label}: {one_line(str(error), 200)}",
            blame=Blame.CREDENTIALS,
            hop=label,
            retry_after=refused_wait,
        )
    if isinstance(error, OSError) and not isinstance(error, asyncssh.Error):
        told = translate(error, address)
        return DialError(told.finding, f"{label}: {told.detail}", blame=Blame.HOP, hop=label)
    words = one_line(str(error) or type(error).__name__, 200)
    if isinstance(error, StreamLost):
        return DialError("hop.closed", f"{label}: {words}", blame=Blame.HOP, hop=label)
    if isinstance(error, asyncssh.DisconnectError) and "too many authentication" in words.lower():
        why = [] if typed else [*unusable, "too many keys were offered; name one with -i"]
        return _denied(label, plan, why, refused_wait, offers, typed)
    if isinstance(error, asyncssh.ConnectionLost):
        words = f"closed the connection during the SSH handshake ({words})"
        return DialError("hop.closed", f"{label}: {words}", blame=Blame.HOP, hop=label)
    return DialError("ssh.handshake", f"{label}: {words}", blame=Blame.HOP, hop=label)


def _denied(
    label: str,
    plan: SshPlan,
    unusable: list[str],
    refused_wait: float,
    offers: Sequence[str],
    typed: bool,
) -> DialError:
    if unusable and not typed:
        finding, words = "ssh.key-unusable", "; ".join(unusable)
    else:
        finding = "ssh.auth-failed"
        what = "neither our keys nor what was typed" if typed else "none of our keys"
        others = [method for method in offers if method != "publickey"]
        offer = f" (it offers: {', '.join(others)})" if others else ""
        words = f"the server accepts {what} for user {plan.user}{offer}; try: ssh -v {label}"
    return DialError(
        finding, f"{label}: {words}", blame=Blame.CREDENTIALS, hop=label, retry_after=refused_wait
    )
