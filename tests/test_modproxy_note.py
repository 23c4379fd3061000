"""Signed notes: one that the world agrees on, and everything that isn't exactly right."""

from __future__ import annotations

import base64
import contextlib
import os

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gotunnel.modproxy.note import MAX_NOTE, NoteError, Verifier, key_hash, open_note

EXAMPLES = int(os.environ.get("GOTUNNEL_FUZZ", "300"))
# the example of golang.org/x/mod/sumdb/note
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
SIGNED = (
    f"{TEXT}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6"
    "KE6RyyBwJnAM=\n"
)

SECRET = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = b"\x01" + SECRET.public_key().public_bytes_raw()
KEY = f"me.example+{key_hash('me.example', PUBLIC).hex()}+{base64.b64encode(PUBLIC).decode()}"


def line(text: str, name: str = "me.example", tail: bytes = b"") -> str:
    """A signature line for `text`."""
    raw = key_hash("me.example", PUBLIC) + SECRET.sign(text.encode()) + tail
    return f"— {name} {base64.b64encode(raw).decode()}\n"


def test_a_published_note() -> None:
    verifier = Verifier.parse(PETER)
    assert (verifier.name, verifier.hash.hex()) == ("PeterNeumann", "c74f20a3")
    assert open_note(SIGNED.encode(), verifier) == TEXT


def test_signatures_of_others_are_passed_over() -> None:
    others = "— other.example AAAAAAAA\n— me.example AAAAAAAA\n"
    note = f"hello\n\nworld\n\n{others}{line('hello' + chr(10) * 2 + 'world' + chr(10))}{others}"
    assert open_note(note.encode(), Verifier.parse(KEY)) == "hello\n\nworld\n"


@pytest.mark.parametrize(("note", "words"), [
    ("", "malformed"),
    ("a\n", "malformed"),
    ("a\n\n", "malformed"),
    ("a\n\n" + line("a\n")[:-1], "malformed"),
    ("a\n\n" + line("a\n") + "x\n", "signature lines"),
    ("a\n\n" + line("a\n").replace("— ", "- "), "signature lines"),
    ("a\n\n— me.example\n", "signature lines"),
    ("a\n\n— me.example AAA\n", "signature lines"),
    ("a\n\n— me.example AAAA\n", "signature lines"),
    ("a\n\n— a+b AAAAAAAA\n", "signature lines"),
    ("a\r\n\n" + line("a\r\n"), "malformed"),
    ("b\n\n" + line("a\n"), "is wrong"),
    ("a\n\n" + line("a\n", tail=b"x"), "is wrong"),
    ("a\n\n" + line("a\n", name="you.example"), "isn't signed by me.example"),
    ("a\n\n" + line("a\n") * 101, "more than 100"),
    ("a" * MAX_NOTE + "\n\n" + line("a\n"), "more than 64 KiB"),
    ("<!DOCTYPE html>\n<html>log in</html>\n", "malformed"),
])  # fmt: skip
def test_what_is_not_exactly_right(note: str, words: str) -> None:
    with pytest.raises(NoteError, match=words) as caught:
        open_note(note.encode(), Verifier.parse(KEY))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", [
    "", "a", "a+b", "a+b+c", KEY[:-4], KEY.replace("me.", "my."), KEY + "=", KEY.replace("+", " ", 1),
    "+" + KEY,
    f"n+{key_hash('n', b'x' * 33).hex()}+{base64.b64encode(b'x' * 33).decode()}",
    f"n+{key_hash('n', PUBLIC[:-1]).hex()}+{base64.b64encode(PUBLIC[:-1]).decode()}",
])  # fmt: skip
def test_keys_that_are_wrong(key: str) -> None:
    with pytest.raises(NoteError):
        Verifier.parse(key)


WORDS = st.sampled_from(
    [
        b"a\n",
        b"\n\n",
        b"\n",
        line("a\n").encode(),
        "— me.example ".encode(),
        b"AAAAAAAA",
        b"=",
        b"\xe2\x80",
        b"+",
        b" ",
    ]
)


@settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=EXAMPLES <= 300,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(st.lists(WORDS | st.binary(max_size=20), max_size=12).map(b"".join), st.text(max_size=30))
def test_any_bytes(data: bytes, key: str) -> None:
    verifier = Verifier.parse(KEY)
    for note in (data, b"a\n\n" + data + line("a\n").encode()):
        with contextlib.suppress(NoteError):
            text = open_note(note, verifier)
            assert verifier.verify(text.encode(), SECRET.sign(text.encode()))
            assert line(text).encode() in note
    for words in (key, f"{KEY}{key}", f"{key}+{key_hash(key, PUBLIC).hex()}+{key}"):
        with contextlib.suppress(NoteError):
            Verifier.parse(words)
