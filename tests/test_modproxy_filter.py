"""Globs as go reads GOPRIVATE, and the rules of a filter."""

from __future__ import annotations

import pytest

from gotunnel.modproxy.filter import Filter, matches


@pytest.mark.parametrize(
    ("globs", "module", "does"),
    [
        # golang.org/x/mod/module, TestMatchPrefixPatterns
        ("", "rsc.io/quote", False), ("/", "rsc.io/quote", False), ("*/quote", "rsc.io/quote", True),
        ("*/quo", "rsc.io/quote", False), ("*/quo??", "rsc.io/quote", True), ("*/quo*", "rsc.io/quote", True),
        ("*quo*", "rsc.io/quote", False), ("rsc.io", "rsc.io/quote", True), ("*.io", "rsc.io/quote", True),
        ("rsc.io/", "rsc.io/quote", True), ("rsc", "rsc.io/quote", False), ("rsc*", "rsc.io/quote", True),
        ("rsc.io", "rsc.io", True), ("*", "rsc.io", True), ("example.com,rsc.io", "rsc.io/quote", True),
        ("/*,rsc.io", "rsc.io/quote", True), ("*/quote/v3", "rsc.io/quote", False), ("rsc.io/quote/v3",
        "rsc.io/quote/v3/x", True),
        # path.Match
        ("[a-r]sc.io", "rsc.io/x", True), ("[^a-q]sc.io", "rsc.io", True), ("[^r]sc.io", "rsc.io", False),
        ("r[", "rsc.io", False), ("r[]sc.io", "rsc.io", False), (r"rsc\.io", "rsc.io", True), ("r.c.io",
        "rsc.io", False),
    ],
)  # fmt: skip
def test_globs(globs: str, module: str, does: bool) -> None:
    assert matches(globs, module) == does


def test_first_rule_decides() -> None:
    rules = Filter.parse(
        [{"module": "a.example/good", "action": "allow"}, {"module": "a.example", "action": "deny"}]
    )
    assert not rules.denies("a.example/good/x", "v1.0.0")
    assert "a.example" in rules.denies("a.example/bad")
    assert not rules.denies("b.example/x")
    assert not Filter().denies("a.example/bad")


def test_versions() -> None:
    rules = Filter.parse([{"module": "a.example/b", "action": "deny", "versions": ">=v1.2.0 <v1.3.0"}])
    assert not rules.denies("a.example/b", "v1.1.9")
    assert rules.denies("a.example/b", "v1.2.5")
    assert not rules.denies("a.example/b", "v1.3.0")
    assert not rules.denies("a.example/b")  # a question that names none
    assert not rules.denies("a.example/b", "master")
    assert (
        rules.without_denied("a.example/b", b"v1.1.0\nv1.2.0\n\nv1.3.0 2020\n") == b"v1.1.0\n\nv1.3.0 2020\n"
    )


def test_on_the_way_to_what_is_allowed() -> None:
    rules = Filter.parse(
        [{"module": "github.com/good/*", "action": "allow"}, {"module": "*", "action": "deny"}]
    )
    assert rules.leads_to_allowed("github.com")
    assert rules.leads_to_allowed("github.com/good")
    assert not rules.leads_to_allowed("github.com/other")


@pytest.mark.parametrize(
    "record",
    [
        {}, {"module": "a.example"}, {"module": "a.example", "action": "block"}, {"module": "[",
        "action": "deny"},
        {"module": "a", "action": "deny", "versions": "1.0"}, {"module": "a", "action": "deny",
        "colour": "red"},
    ],
)  # fmt: skip
def test_nonsense(record: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\Ago\.filter: [^\n]+\Z"):
        Filter.parse([record])
