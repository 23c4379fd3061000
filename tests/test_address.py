"""Targets as text, and what is masked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotunnel.address import HostPort, one_line, redact


@pytest.mark.parametrize(
    ("text", "host", "port", "shown"),
    [
        ("example.com:443", "example.com", 443, "example.com:443"),
        ("Bastion:22", "Bastion", 22, "Bastion:22"),
        ("[::1]:8080", "::1", 8080, "[::1]:8080"),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1, "[fe80::1%eth0]:1"),
        ("h:0443", "h", 443, "h:443"),
        ("h", "h", 80, "h:80"),
        ("h:", "h", 80, "h:80"),
        ("[::1]", "::1", 80, "[::1]:80"),
    ],
)
def test_a_target_is_parsed_once(text: str, host: str, port: int, shown: str) -> None:
    parsed = HostPort.parse(text, 80)
    assert (parsed.host, parsed.port, str(parsed)) == (host, port, shown)


@pytest.mark.parametrize(
    "text",
    ["", ":80", "h", "h:", "h:0", "h:65536", "h:00443000", "h:99999999999999999999", "h:-1", "h:٣", "h:8 0",
     "::1:80", "[::1:80", "[::1]80", "[h]:80", "a b:80", "a\0b:80", "a\r\nb:80", "u@h:80", "h/p:80", "h?:80",
     "x" * 256 + ":80", "\u00a0h:80"],
)  # fmt: skip
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match=r"want|missing|no port|no IPv6|brackets") as caught:
        HostPort.parse(text)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_whatever_parses_is_safe_to_write_into_a_protocol(text: str) -> None:
    try:
        parsed = HostPort.parse(text)
    except ValueError:
        return
    assert 1 <= parsed.port <= 65535
    assert not any(c in str(parsed) for c in "\0\r\n @/")
    assert HostPort.parse(str(parsed)) == parsed


def test_loopback_is_told_by_name_and_literal() -> None:
    loopback = ["localhost", "LOCALHOST.", "a.localhost", "127.9.9.9", "::1"]
    assert all(HostPort(host, 1).is_loopback for host in loopback)
    assert not any(HostPort(host, 1).is_loopback for host in ("10.0.0.1", "localhost.example.com", "::2"))


def test_passwords_are_masked_wherever_the_url_stands() -> None:
    assert redact('Get "http://u:s3cret@h:1/x": EOF') == 'Get "http://u:***@h:1/x": EOF'
    assert redact("socks5h://u:p@ss@h,http://v:q@i") == "socks5h://u:***@h,http://v:***@i"
    assert (
        redact("http://127.0.0.1:8080/AbCdEfGhIjKlMnOpQrSt-_/m/@v/list")
        == "http://127.0.0.1:8080/***/m/@v/list"
    )
    assert (
        redact("ssh://dev@bastion:22 and http://proxy:3128/") == "ssh://dev@bastion:22 and http://proxy:3128/"
    )


def test_one_line_is_fit_for_a_log() -> None:
    assert one_line("a\r\nb\x1b[31m\0\u2028c\udcff") == "a  b [31m  c"
    assert one_line("x" * 600) == "x" * 499 + "…"
