"""Patterns, and NO_PROXY against the table of golang.org/x/net/http/httpproxy's own test."""

from __future__ import annotations

import pytest

from gotunnel.pattern import Pattern, no_proxy_patterns


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (
            "git.corp.example",
            [
                "git.corp.example",
                "GIT.corp.example.",
            ],
            ["x.git.corp.example", "corp.example"],
        ),
        ("*.internal", ["a.internal", "a.b.internal"], ["internal", "xinternal"]),
        ("*", ["anything", "10.0.0.1", "::1"], []),
        ("10.0.0.0/8", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.1", "ten.example", "fd00::1"]),
        ("fd00::/8", ["fd00::1"], ["10.0.0.1", "fe80::1"]),
        ("192.0.2.1", ["192.0.2.1"], ["192.0.2.2", "192.0.2.1.example"]),
        ("[2001:db8::1]", ["2001:db8::1", "2001:DB8:0::1"], ["2001:db8::2"]),
        ("bücher.example", ["xn--bcher-kva.example", "BÜCHER.example"], ["bucher.example"]),
    ],
)
def test_what_a_pattern_means(pattern: str, yes: list[str], no: list[str]) -> None:
    parsed = Pattern.parse(pattern)
    assert [host for host in yes if not parsed.matches(host, 443)] == []
    assert [host for host in no if parsed.matches(host, 443)] == []


def test_a_port_narrows_a_pattern() -> None:
    assert Pattern.parse("*.corp:22").matches("git.corp", 22)
    assert not Pattern.parse("*.corp:22").matches("git.corp", 443)
    assert Pattern.parse("[fd00::1]:22").matches("fd00::1", 22)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "10.0.0.0/33",
        "10.0.0.0/255.0.0.0",
        "a/8",
        "http://h",
        ".corp",
        "a*.b",
        "a..b",
        "h:0",
        "h:99999",
        "[::1",
        "a b",
    ],
)
def test_no_pattern(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        Pattern.parse(wrong)


GO_NO_PROXY = (
    "foo.com, .barbaz.net, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80, 10.0.0.0/30, 2001:db8::52:0:1, "
    "[2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80, 2002:db8:a::45/64, *.star.com"
)


@pytest.mark.parametrize(
    ("host", "direct"),
    [
        ("192.168.1.1", True), ("192.168.1.2", False), ("192.168.1.3", True), ("192.168.1.4", False),
        ("10.0.0.2", True), ("10.0.0.4", False),
        ("2001:db8::52:0:1", True), ("2001:db8::52:0:2", False), ("2001:db8::52:0:3", True),
        ("2002:db8:a::123", True), ("fe80::424b:c8be:1643:a1b6", False),
        ("barbaz.net", False), ("www.barbaz.net", True), ("foobarbaz.net", False),
        ("foo.com", True), ("www.foo.com", True), ("foofoo.com", False), ("foo.com.evil.com", False),
        ("star.com", False), ("www.star.com", True), ("FOO.com", True),
    ],
)  # fmt: skip
def test_no_proxy_as_go_reads_it(host: str, direct: bool) -> None:
    patterns = [Pattern.parse(text) for text in no_proxy_patterns(GO_NO_PROXY)]
    assert any(pattern.matches(host, 80) for pattern in patterns) is direct


def test_no_proxy_of_odd_entries() -> None:
    assert no_proxy_patterns("a.b, *, c") == ("*",)
    assert no_proxy_patterns("") == ()
    assert no_proxy_patterns("http://h, 10.0.0.0/99, :80, a b, [::1, ,h:x") == ()
    assert no_proxy_patterns("h:8080") == ("h:8080", "*.h:8080")
