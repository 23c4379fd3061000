"""Lists of algorithms, cut down to what is known."""

from __future__ import annotations

import pytest

from gotunnel.upstream.ssh_algorithms import usable

KNOWN = [b"aes128-ctr", b"aes256-ctr", b"chacha20-poly1305@openssh.com"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("", ""),
        ("aes128-ctr", "aes128-ctr"),
        ("new, aes128-ctr,other", "aes128-ctr"),
        ("+new,aes256-ctr", "+aes256-ctr"),
        ("-aes*,*-cbc", "-aes*"),
        ("^new", ""),
        ("+new", ""),
        ("aes???-ctr", "aes???-ctr"),
    ],
)
def test_what_is_left(text: str, left: str) -> None:
    assert usable("Ciphers", text, KNOWN) == left


def test_a_list_of_strangers_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="MACs new,other of ssh_config"):
        usable("MACs", "new,other", KNOWN)
