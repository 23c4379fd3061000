"""Names and notes: nothing leaves the store, and what can't be read says nothing."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotunnel.storage.store import Note, StoreError, check_name, check_prefix


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "relative"), ("/a", "relative"), ("a/", "empty"), ("a//b", "empty"), ("../a", "'..'"),
        ("a/./b", "'.'"),
        (".gotunnel/labels/a.json", "own"), ("a\\b", "backslash"), ("a\0", "control"), ("a\x7fb", "control"),
        ("a/\ud800", "control"), ("a" * 256 + "/b", "long"), ("a/" + "b" * 251, "long"), ("é" * 126, "long"),
        ("a/" * 1100 + "b", "long"),
    ],
)  # fmt: skip
def test_what_is_no_name(name: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason) as caught:
        check_name(name)
    assert caught.value.finding == "unknown"
    assert str(caught.value).isprintable()


@given(st.text())
def test_a_name_that_passes_stays_within(name: str) -> None:
    try:
        check_name(name)
    except StoreError:
        return
    path = os.path.normpath(os.path.join("/store", name))
    assert path == f"/store/{name}"
    assert not path.startswith("/store/.gotunnel/")


def test_a_prefix_may_end_anywhere() -> None:
    for prefix in ("", "a", "a/", "a/b", "sumdb/"):
        check_prefix(prefix)
    for prefix in ("/", "../", "a//", ".gotunnel/"):
        with pytest.raises(StoreError):
            check_prefix(prefix)


@given(
    st.dictionaries(st.text(max_size=10), st.text(max_size=10), max_size=4),
    st.booleans(),
    st.text(max_size=20),
)
def test_a_note_comes_back(labels: dict[str, str], mutable: bool, of: str) -> None:
    note = Note(labels, mutable, of)
    assert Note.decode(note.encode()) == note


@given(st.binary() | st.sampled_from([b"[]", b'{"labels":[]}', b'{"labels":{},"mutable":1}', b"[" * 100000]))
def test_a_note_that_is_none_says_nothing(data: bytes) -> None:
    assert Note.decode(data) == Note()
