"""What an SSH server says when it says no, and what we make of it."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import asyncssh
import pytest

from gotunnel.address import HostPort
from gotunnel.errors import Blame, DialError, StreamLost
from gotunnel.upstream.host_keys import HostKeyCheck
from gotunnel.upstream.ssh_errors import CHANNEL_CODES, channel_error, handshake_error
from gotunnel.upstream.ssh_plan import SshPlan
from tests.lab.keys import new_key

TARGET = HostPort("git.example", 443)
PLAN = SshPlan(host="jump", hostname="jump.example", port=2222, user="dev", named=False)


@pytest.mark.parametrize(
    ("code", "reason", "finding", "blame"),
    [
        (1, "open failed", "ssh.forwarding-denied", Blame.POLICY),
        (1, "Connect failed: Connection refused", "tcp.refused", Blame.TARGET),
        (2, "Connection refused", "tcp.refused", Blame.TARGET),
        (2, "Connection timed out", "tcp.timeout", Blame.TARGET),
        (2, "No route to host", "net.unreachable", Blame.TARGET),
        (2, "Network is unreachable", "net.unreachable", Blame.TARGET),
        (2, "Connection reset by peer", "tcp.reset", Blame.TARGET),
        (2, "Name or service not known", "dns.not-found", Blame.TARGET),
        (2, "[Errno -5] No address associated with hostname", "dns.not-found", Blame.TARGET),
        (2, "dial tcp: lookup x: no such host", "dns.not-found", Blame.TARGET),
        (2, "Temporary failure in name resolution", "dns.timeout", Blame.TARGET),
        (2, "unknown\nwords", "tcp.refused", Blame.TARGET),
        (2, "SSH connection closed", "hop.closed", Blame.HOP),
        (3, "unknown channel type", "ssh.forwarding-denied", Blame.HOP),
        (4, "resource shortage", "hop.closed", Blame.HOP),
        (99, "?", "unknown", Blame.TARGET),
    ],
)
def test_why_a_channel_could_not_be_opened(code: int, reason: str, finding: str, blame: Blame) -> None:
    error = channel_error(code, reason, "ssh://jump", TARGET)
    assert (error.finding, error.blame) == (finding, blame)
    assert error.hop == ("" if blame is Blame.TARGET and code != 99 else "ssh://jump")
    assert "ssh://jump" in str(error)
    assert str(error).isprintable()


def test_every_reason_code_of_the_rfc_is_known() -> None:
    assert set(CHANNEL_CODES) == {
        asyncssh.OPEN_ADMINISTRATIVELY_PROHIBITED, asyncssh.OPEN_CONNECT_FAILED,
        asyncssh.OPEN_UNKNOWN_CHANNEL_TYPE, asyncssh.OPEN_RESOURCE_SHORTAGE,
    }  # fmt: skip


def judged(
    error: BaseException, *, unusable: list[str] | None = None, check: HostKeyCheck | None = None
) -> DialError:
    check = check or HostKeyCheck("jump.example", 2222, "yes", ["/k/known_hosts"])
    told = handshake_error(
        error, "ssh://jump", HostPort("jump.example", 2222), PLAN, check, unusable or [], 10.0, 60.0
    )
    assert str(told).startswith("ssh://jump: ")
    assert str(told).isprintable()
    assert told.hop == "ssh://jump"
    return told


@pytest.mark.parametrize(
    ("error", "finding", "blame", "wait"),
    [
        (TimeoutError(), "hop.stalled", Blame.HOP, 0),
        (asyncssh.PermissionDenied("Permission denied"), "ssh.auth-failed", Blame.CREDENTIALS, 60),
        (
            asyncssh.ProtocolError("Too many authentication failures"),
            "ssh.key-unusable",
            Blame.CREDENTIALS,
            60,
        ),
        (asyncssh.KeyImportError("bad\nkey"), "ssh.key-unusable", Blame.CREDENTIALS, 60),
        (asyncssh.KeyExchangeFailed("No matching cipher"), "ssh.handshake", Blame.HOP, 0),
        (asyncssh.ProtocolError("Bad\r\npacket"), "ssh.handshake", Blame.HOP, 0),
        (asyncssh.ConnectionLost("Connection lost"), "hop.closed", Blame.HOP, 0),
        (StreamLost("closed"), "hop.closed", Blame.HOP, 0),
        (ConnectionResetError(errno.ECONNRESET, "x"), "tcp.reset", Blame.HOP, 0),
        (OSError(errno.ECONNREFUSED, "x"), "tcp.refused", Blame.HOP, 0),
        (socket.gaierror(socket.EAI_NONAME, "x"), "dns.not-found", Blame.HOP, 0),
        (ValueError("bogus is not a valid encryption algorithm"), "ssh.handshake", Blame.HOP, 0),
        (AssertionError(), "ssh.handshake", Blame.HOP, 0),
    ],
)
def test_why_a_connection_could_not_be_opened(
    error: Exception, finding: str, blame: Blame, wait: int
) -> None:
    told = judged(error)
    assert (told.finding, told.blame, told.retry_after) == (finding, blame, wait)


def test_a_refused_key_says_how_to_find_out_more() -> None:
    assert "for user dev; try: ssh -v ssh://jump" in str(judged(asyncssh.PermissionDenied("x")))
    told = judged(asyncssh.PermissionDenied("x"), unusable=["/k: wrong passphrase"])
    assert (told.finding, str(told)) == ("ssh.key-unusable", "ssh://jump: /k: wrong passphrase")


def test_an_unknown_and_a_changed_host_key(tmp_path: Path) -> None:
    key = asyncssh.read_public_key(str(new_key(tmp_path / "key").private) + ".pub")
    check = HostKeyCheck("jump.example", 2222, "yes", ["/k/known hosts"])
    untrusted = asyncssh.HostKeyNotVerifiable("Host key is not trusted for host revoked.example")
    check.offered = key
    told = judged(untrusted, check=check)
    assert (told.finding, told.blame, told.retry_after) == ("ssh.host-key-unknown", Blame.CREDENTIALS, 60)
    assert "ssh-keyscan -p 2222 jump.example >> '/k/known hosts'" in str(told)
    assert str(key.get_fingerprint()) in str(told)
    check.known = [asyncssh.generate_private_key("ssh-ed25519")]
    told = judged(untrusted, check=check)
    assert told.finding == "ssh.host-key-changed"
    assert "ssh-keygen -R '[jump.example]:2222' -f '/k/known hosts'" in str(told)


def test_a_revoked_host_key_and_a_certificate_that_is_not_valid() -> None:
    told = judged(asyncssh.HostKeyNotVerifiable("Host key is revoked for host jump.example"))
    assert (told.finding, "@revoked" in str(told)) == ("ssh.host-key-changed", True)
    told = judged(asyncssh.HostKeyNotVerifiable("Certificate has expired for host revoked.example"))
    assert (told.finding, "expired" in str(told)) == ("ssh.host-key-unknown", True)


def test_a_host_under_an_alias_is_added_under_it(tmp_path: Path) -> None:
    check = HostKeyCheck("alias", 22, "yes", ["/k"])
    check.offered = asyncssh.read_public_key(str(new_key(tmp_path / "key").private) + ".pub")
    _, words = check.refusal(HostPort("jump.example", 2222))
    assert "ssh-keyscan -p 2222 jump.example | sed 's/^[^ #]*/alias/' >> /k" in words
