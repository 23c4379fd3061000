"""`gotunnel env`'s words, as the shells themselves read them."""

from __future__ import annotations

import json
import subprocess
import zlib

import pytest

from gotunnel.cli.env import BEFORE, in_words, restored, undo

NASTY = {"A": 'it\'s "quoted" $HOME `id` \\ \n two lines', "B": "", "GONE": None, "C": "-n x;y|z&"}


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_what_a_shell_gets_is_what_was_meant(shell: str) -> None:
    script = in_words(NASTY, "sh") + "env -0"
    env = {"PATH": "/usr/bin:/bin", "GONE": "here"}
    ran = subprocess.run([shell, "-c", script], env=env, capture_output=True, text=True, check=True)
    got = dict(item.split("=", 1) for item in ran.stdout.split("\0") if item)
    assert {name: got.get(name) for name in NASTY} == NASTY


def test_fish_powershell_and_json_have_words_of_their_own() -> None:
    assert in_words({"A": "it's \\ $x", "B": None}, "fish") == "set -gx A 'it\\'s \\\\ $x'\nset -e B\n"
    assert in_words({"A": "it's $x", "B": None}, "powershell") == (
        "$Env:A = 'it''s $x'\nRemove-Item Env:B -ErrorAction SilentlyContinue\n"
    )
    assert json.loads(in_words(NASTY, "json")) == NASTY


def test_unset_restores_what_was_there_before() -> None:
    assert restored({BEFORE: json.dumps({"GOPROXY": "mine", "HTTPS_PROXY": None})}) == {
        "GOPROXY": "mine", "HTTPS_PROXY": None, BEFORE: None
    }  # fmt: skip
    assert restored({}) == {}
    assert restored({BEFORE: "nonsense"}) == {}
    assert in_words(restored({}), "sh") == ""


def test_undo_keeps_what_was_set_since() -> None:
    sums = {
        "GOPROXY": zlib.crc32(b"http://127.0.0.1:1/s"),
        "NO_PROXY": zlib.crc32(b"localhost"),
        "GONOPROXY": 0,
    }
    before = {"GOPROXY": "mine", "NO_PROXY": None, "GONOPROXY": "corp", "": sums}
    environ = {"GOPROXY": "http://127.0.0.1:1/s", "NO_PROXY": "localhost", BEFORE: json.dumps(before)}
    undone = dict(environ)
    undo(undone)
    assert undone == {"GOPROXY": "mine", "GONOPROXY": "corp"}
    undone = environ | {"GOPROXY": "newer"}
    undo(undone)
    assert undone == {"GOPROXY": "newer", "GONOPROXY": "corp"}
    assert "" not in restored(environ)
