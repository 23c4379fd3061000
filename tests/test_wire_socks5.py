"""SOCKS5, server side: dialogues as bytes."""

from __future__ import annotations

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import Blame, DialError, NoWayOut
from gotunnel.wire.socks5 import Event, Refusal, Request, Send, Socks5Server, reply, reply_code

OPEN = b"\x05\x01\x00"
LOGIN = b"\x05\x01\x02" + b"\x01\x02me\x03key"
NAME = b"\x05\x01\x00\x03\x0bexample.com\x01\xbb"


def server(*, secret: bool = False) -> Socks5Server:
    return Socks5Server((lambda user, password: (user, password) == (b"me", b"key")) if secret else None)


def say(data: bytes, machine: Socks5Server | None = None, *, secret: bool = False) -> list[Event]:
    return (machine or server(secret=secret)).feed(data)


def asked(request: bytes) -> Event:
    """What becomes of a request after an open greeting."""
    greeted, answer = say(OPEN + request)
    assert greeted == Send(b"\x05\x00")
    return answer


def test_open_listener_asks_for_nothing() -> None:
    machine = server()
    assert say(OPEN, machine) == [Send(b"\x05\x00")]
    assert say(NAME + b"first bytes", machine) == [Request(HostPort("example.com", 443))]
    assert machine.trailing == b"first bytes"


def test_secret_is_asked_for_and_checked() -> None:
    assert say(LOGIN + NAME, secret=True) == [
        Send(b"\x05\x02"), Send(b"\x01\x00"), Request(HostPort("example.com", 443)),
    ]  # fmt: skip
    asked, refusal = say(b"\x05\x02\x00\x02" + b"\x01\x02me\x03kez" + NAME, secret=True)
    assert asked == Send(b"\x05\x02")
    assert refusal == Refusal(b"\x01\x01", "wrong user or password")


def test_no_acceptable_method() -> None:
    for greeting in (OPEN, b"\x05\x00", b"\x05\x01\x01"):
        (refusal,) = say(greeting, secret=True)
        assert isinstance(refusal, Refusal)
        assert refusal.data == b"\x05\xff"


def test_open_listener_takes_any_password_of_a_client_that_insists() -> None:
    assert say(LOGIN + NAME)[-1] == Request(HostPort("example.com", 443))
    assert say(b"\x05\x02\x00\x02")[-1] == Send(b"\x05\x00")


@pytest.mark.parametrize(
    "whole", [LOGIN + NAME + b"rest", LOGIN + b"\x05\x01\x00\x04" + bytes(15) + b"\x01\0P"]
)
def test_any_split_says_the_same(whole: bytes) -> None:
    at_once = say(whole, secret=True)
    assert isinstance(at_once[-1], Request)
    for cut in range(1, len(whole)):
        machine = server(secret=True)
        assert say(whole[:cut], machine) + say(whole[cut:], machine) == at_once
    machine = server(secret=True)
    assert [event for byte in whole for event in say(bytes([byte]), machine)] == at_once


@pytest.mark.parametrize(
    ("address", "target"),
    [
        (b"\x01\x0a\x00\x00\x01\x00\x50", HostPort("10.0.0.1", 80)),
        (b"\x04" + bytes(15) + b"\x01\x01\xbb", HostPort("::1", 443)),
        (b"\x03\x04Host\xff\xff", HostPort("Host", 65535)),
        (b"\x03\x03::1\x00\x50", HostPort("::1", 80)),
        (b"\x03\x05[::1]\x00\x50", HostPort("::1", 80)),
    ],
)
def test_targets(address: bytes, target: HostPort) -> None:
    assert asked(b"\x05\x01\x00" + address) == Request(target)


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x50", 7),  # BIND
        (b"\x05\x03\x00\x03\x01a\x00\x50", 7),  # UDP
        (b"\x05\x01\x00\x02\x0a\x00\x00\x01\x00\x50", 8),
        (b"\x04\x01\x00\x01\x0a\x00\x00\x01\x00\x50", 1),
        (b"\x05\x01\x00\x03\x00\x00\x50", 1),  # no name
        (b"\x05\x01\x00\x03\x03a\0b\x00\x50", 1),
        (b"\x05\x01\x00\x03\x03a\nb\x00\x50", 1),
        (b"\x05\x01\x00\x03\x03a b\x00\x50", 1),
        (b"\x05\x01\x00\x03\x03a:b\x00\x50", 1),
        (b"\x05\x01\x00\x03\x02\xc3\xbc\x00\x50", 1),
        (b"\x05\x01\x00\x03\x01a\x00\x00", 1),  # port 0
    ],
)
def test_what_is_not_served_gets_its_code(request_: bytes, code: int) -> None:
    refusal = asked(request_)
    assert isinstance(refusal, Refusal)
    assert refusal.data == reply(code)
    assert "\n" not in refusal.words


def test_after_a_refusal_nothing_is_heard() -> None:
    machine = server(secret=True)
    assert len(say(OPEN, machine)) == 1
    assert say(LOGIN + NAME, machine) == []


@pytest.mark.parametrize(
    ("finding", "blame", "code"),
    [
        ("tcp.refused", Blame.TARGET, 5),
        ("net.unreachable", Blame.TARGET, 3),
        ("tcp.timeout", Blame.TARGET, 6),
        ("hop.stalled", Blame.HOP, 6),
        ("dns.not-found", Blame.TARGET, 4),
        ("socks.denied", Blame.POLICY, 2),
        ("ssh.forwarding-denied", Blame.POLICY, 2),
        ("ssh.auth-failed", Blame.CREDENTIALS, 1),
        ("proxy.bad-gateway", Blame.TARGET, 1),
    ],
)
def test_reply_codes(finding: str, blame: Blame, code: int) -> None:
    error = DialError(finding, "words", blame=blame)
    assert reply_code(error) == code
    assert reply_code(NoWayOut("example.com:443", [("one", error)])) == code
