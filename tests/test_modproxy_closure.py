"""What a project needs, against what the go command asks for."""

from __future__ import annotations

import pytest

from gotunnel.modproxy.closure import Item, closure, toolchain
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.modfile import parse_mod, parse_work

SUM = "h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0="


def sums(*lines: str) -> GoSum:
    return GoSum.parse("".join(f"{line} {SUM}\n" for line in lines))


def files(*names: str) -> list[str]:
    return sorted(names)


def all_of(name: str) -> tuple[str, str, str]:
    return f"{name}.mod", f"{name}.zip", f"{name}.info"


LINES = (
    "a.example/x v1.0.0", "a.example/x v1.0.0/go.mod", "a.example/x v1.10.0", "a.example/x v1.10.0/go.mod",
    "a.example/x v1.9.0", "b.example/Y v0.1.0/go.mod", "b.example/Y v0.1.0", "c.example/z v1.0.0/go.mod",
)  # fmt: skip


def test_from_go_1_17_on_go_mod_says_which_zips() -> None:
    mod = parse_mod("module m\ngo 1.17\nrequire a.example/x v1.9.0\nrequire b.example/Y v0.1.0 // indirect\n")
    found = closure([mod], sums(*LINES))
    assert [item.name for item in found.items if item.module == "a.example/x"] == [
        "a.example/x/@v/v1.0.0.mod", "a.example/x/@v/v1.10.0.mod", "a.example/x/@v/v1.9.0.mod",
        "a.example/x/@v/v1.9.0.zip", "a.example/x/@v/v1.9.0.info",
    ]  # fmt: skip
    rest = sorted(item.name for item in found.items if item.module != "a.example/x")
    assert rest == files(*all_of("b.example/!y/@v/v0.1.0"), "c.example/z/@v/v1.0.0.mod")


@pytest.mark.parametrize("go", ["", "go 1.16\n"])
def test_before_that_it_is_the_highest_that_go_sum_has(go: str) -> None:
    found = closure([parse_mod(f"module m\n{go}require a.example/x v1.0.0\n")], sums(*LINES))
    zips = [str(item) for item in found.items if item.kind == "zip"]
    assert zips == ["a.example/x@v1.0.0 (zip)", "a.example/x@v1.10.0 (zip)", "b.example/Y@v0.1.0 (zip)"]


def test_what_replaces_is_wanted_and_what_is_replaced_is_not() -> None:
    mod = parse_mod(
        "module m\ngo 1.21\nrequire a.example/x v1.9.0\nrequire b.example/Y v0.1.0\n"
        "require nodot/z v1.0.0\nrequire m2 v0.0.0\n"
        "replace b.example/Y => ../y\nreplace a.example/x v1.9.0 => fork.example/x v1.0.0\n"
    )
    found = closure([mod, parse_mod("module m2\ngo 1.21\n")], sums())
    assert sorted(item.name for item in found.items) == files(*all_of("fork.example/x/@v/v1.0.0"))
    assert found.local == ("b.example/Y => ../y",)
    work = parse_work("go 1.21\nreplace b.example/Y => z.example/y v0.2.0\n")
    found = closure([mod], sums("z.example/y v0.2.0"), replaces=work.replace, workspace=True)
    assert {item.module for item in found.items} == {"z.example/y"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("go 1.20\n", None),
        ("go 1.21\n", "go1.21.0"),
        ("go 1.22.3\n", "go1.22.3"),
        ("go 1.21\ntoolchain go1.9.2\n", "go1.21.0"),
        ("go 1.21\ntoolchain go1.23.1\n", "go1.23.1"),
        ("go 1.21.4\ntoolchain default\n", "go1.21.4"),
    ],
)
def test_the_toolchain(text: str, wanted: str | None) -> None:
    found = toolchain([parse_mod(f"module m\n{text}")], "linux-arm64")
    name = None if found is None else found.name
    assert name == (wanted and f"golang.org/toolchain/@v/v0.0.1-{wanted}.linux-arm64.zip")


@pytest.mark.parametrize(
    "name",
    ["a.example/x/@v/list", "a.example/x/@latest", "a.example/X/@v/v1.0.0.zip", "a.example/%78/@v/v1.0.0.zip",
     "a.example/x/@v/master.info", "a.example/../x/@v/v1.0.0.zip", "x", "sumdb/n.example/latest"],
)  # fmt: skip
def test_a_name_that_is_no_file_of_a_version(name: str) -> None:
    assert Item.parse(name) is None
    good = Item("a.example/X", "v1.0.0-RC.1", "zip")
    assert Item.parse(good.name) == good
