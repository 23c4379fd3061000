"""GOPROXY lists as go reads them."""

from __future__ import annotations

import pytest

from gotunnel.errors import ModuleError
from gotunnel.modproxy.sources import after_error, child_goproxy, parse_list

OURS = "http://127.0.0.1:4000/secret"


@pytest.mark.parametrize(
    ("text", "entries", "ending"),
    [
        ("https://proxy.golang.org,direct", [("https://proxy.golang.org", ",")], "direct"),
        ("https://a.example|b.example/go/,off", [("https://a.example", "|"), ("https://b.example/go",
        ",")], "off"),
        (" https://a.example , , https://b.example ", [("https://a.example", ","), ("https://b.example",
        "")], ""),
        ("https://a.example,direct,https://never.example", [("https://a.example", ",")], "direct"),
        ("file:///srv/mods|direct", [("file:///srv/mods", "|")], "direct"),
        ("direct", [], "direct"),
        ("off,https://a.example", [], "off"),
    ],
)  # fmt: skip
def test_lists(text: str, entries: list[tuple[str, str]], ending: str) -> None:
    found = parse_list(text)
    assert [(source.url, separator) for source, separator in found.entries] == entries
    assert found.ending == ending


@pytest.mark.parametrize("text", ["", " , ", "ftp://a.example", "/srv/mods", "word", "file://host/x",
"https://",
                                  "https://a.example:x"])  # fmt: skip
def test_what_go_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"GOPROXY[^\n]*"):
        parse_list(text)


def test_secrets_stay_out_of_labels() -> None:
    ((source, _),) = parse_list("https://user:hunter2@a.example/go").entries
    assert "hunter2" in source.url
    assert "hunter2" not in source.label
    with pytest.raises(ValueError, match="GOPROXY") as caught:
        parse_list("ftp://user:hunter2@a.example/go")
    assert "hunter2" not in str(caught.value)


def test_only_mirrors_after_a_bar_are_equal() -> None:
    text = "https://corp.example|https://m.example|https://goproxy.cn,https://goproxy.io|direct"
    groups = parse_list(text, ["https://m.example/"]).groups()
    assert [[source.url for source, _ in group] for group in groups] == [
        ["https://corp.example"], ["https://m.example", "https://goproxy.cn"], ["https://goproxy.io"],
    ]  # fmt: skip


def test_what_follows_an_error() -> None:
    missing, broken = ModuleError("module.not-found", "x", http_status=410), ModuleError("tcp.refused", "x")
    assert after_error(",", missing)
    assert not after_error(",", broken)
    assert after_error("|", broken)


@pytest.mark.parametrize(
    ("text", "plain", "filtered"),
    [
        ("https://a.example,direct", f"{OURS},direct", f"{OURS},direct"),
        ("https://a.example|direct", f"{OURS}|direct", f"{OURS},direct"),
        ("https://a.example,https://b.example|off", f"{OURS}|off", f"{OURS},off"),
        ("https://a.example", OURS, OURS),
        ("direct", "direct", "direct"),
    ],
)
def test_the_childs_list(text: str, plain: str, filtered: str) -> None:
    found = parse_list(text)
    assert child_goproxy(found, OURS) == plain
    assert child_goproxy(found, OURS, filtered=True) == filtered
    assert child_goproxy(found, OURS, offline=True) == f"{OURS},off"
