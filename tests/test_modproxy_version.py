"""Versions, against what golang.org/x/mod says of them (seen in a run of semver and module)."""

from __future__ import annotations

import random

import pytest

from gotunnel.modproxy.version import fits, is_canonical, is_valid, key

ORDERED = [
    "v0.0.0-20200101000000-abcdefabcdef", "v0.0.1-alpha", "v0.0.1-alpha.1", "v0.0.1-alpha.beta",
    "v0.0.1-beta.2",
    "v0.0.1-beta.11", "v0.0.1-rc.1", "v0.0.1", "v0.1.0", "v1.2.3", "v1.10.0", "v2.0.0+incompatible",
]  # fmt: skip


def test_order() -> None:
    shuffled = random.Random(3).sample(ORDERED, len(ORDERED))
    assert sorted(shuffled, key=key) == ORDERED
    assert key("v1") == key("v1.0.0") == key("v1.0.0+build")
    with pytest.raises(ValueError, match="no version"):
        key("1.0.0")


def test_canonical() -> None:
    assert all(is_canonical(version) for version in ORDERED)
    for other in (
        "v1",
        "v1.2",
        "1.2.3",
        "v01.2.3",
        "v1.2.3-01",
        "v1.2.3+meta",
        "v1.2.3-",
        "master",
        "v1.2.3\n",
        "",
    ):
        assert not is_canonical(other)
    assert is_valid("v1.2")
    assert not is_valid("v1.2-pre")


@pytest.mark.parametrize(
    ("module", "version", "does"),
    [
        ("a.example/b", "v1.0.0", True), ("a.example/b", "v2.0.0", False), ("a.example/b",
        "v2.0.0+incompatible", True),
        ("a.example/b/v2", "v2.3.4", True), ("a.example/b/v2", "v1.0.0", False), ("a.example/b/v2",
        "v0.1.0", False),
        ("gopkg.in/yaml.v3", "v3.0.0", True), ("gopkg.in/yaml.v3", "v2.0.0", False),
        ("gopkg.in/x.v1-unstable", "v1.0.0", True),
        ("gopkg.in/x.v1", "v0.0.0-20200101000000-abcdefabcdef", True), ("a.example/v20", "v20.0.0", True),
    ],
)  # fmt: skip
def test_major_in_the_path(module: str, version: str, does: bool) -> None:
    assert fits(module, version) == does
