"""Edits of go.work and go.mod as text: what somebody wrote stays as it is, byte for byte."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotunnel.errors import ConfigError, UsageError
from gotunnel.modproxy import gowork
from gotunnel.modproxy.gowork import Standin
from gotunnel.modproxy.modfile import Version, parse_mod, parse_work

LIB = Version("example.com/lib")
WORK = """// our workspace
go 1.23.0 // not\u2028later

use (
	./app // the program
	./tools
)

// by hand
replace example.com/old v1.0.0 => ../old
"""


@pytest.mark.parametrize("text", [WORK, WORK.replace("\n", "\r\n"), "go 1.23\n", "go 1.23\n\nuse .\n"])
def test_added_and_dropped_leaves_the_same_bytes(text: str) -> None:
    once = gowork.add(text, LIB, "../lib")
    twice = gowork.add(once, Version("example.com/two", "v1.2.3"), "../a dir/two")
    assert once.startswith(text)
    assert parse_work(twice).replace[-1].new.path == "../a dir/two"
    assert ("\r\n" in text) == ("\n" not in twice.replace("\r\n", ""))
    back = gowork.drop(gowork.drop(twice, LIB), Version("example.com/two"))
    assert back == text


def test_a_second_stand_in_for_the_same_takes_the_line_of_the_first() -> None:
    once = gowork.add(gowork.add(WORK, LIB, "../lib"), Version("example.com/two"), "../two")
    again = gowork.add(once, LIB, "../elsewhere")
    assert again == once.replace("=> ../lib ", "=> ../elsewhere ")


def test_what_was_written_by_hand_is_neither_changed_nor_dropped() -> None:
    old = Version("example.com/old", "v1.0.0")
    with pytest.raises(ConfigError, match=r"go.work:10: example.com/old@v1.0.0 is replaced here already"):
        gowork.add(WORK, old, "../other")
    with pytest.raises(UsageError, match="by hand"):
        gowork.drop(WORK, Version("example.com/old"))
    with pytest.raises(UsageError, match=r"nothing stands in for example.com/lib"):
        gowork.drop(WORK, LIB)


def test_ours_is_left_over_only_while_nobody_else_wrote_into_it() -> None:
    made = gowork.new_work("1.25.1", owns_sums=True)
    assert parse_work(made).go == "1.25.1"
    back = gowork.drop(gowork.add(made, LIB, "../lib"), LIB)
    assert back == made
    assert gowork.is_left_over(made)
    assert not gowork.is_left_over(made + "use ../second\n")
    assert not gowork.is_left_over(made + "// a note\n")
    assert not gowork.is_left_over("go 1.25.1\n\nuse .\n")
    assert gowork.new_work("1.13", owns_sums=True).split()[-3:-2] == ["1.18"]


def test_the_go_line_is_raised_in_a_file_of_ours_only() -> None:
    made = gowork.new_work("1.21", owns_sums=False)
    assert parse_work(gowork.raise_go(made, "1.24rc1")).go == "1.24rc1"
    assert gowork.raise_go(made, "1.20") == made
    assert gowork.raise_go(WORK, "1.99") == WORK


@pytest.mark.parametrize(
    ("less", "more"),
    [("1.21", "1.21rc1"), ("1.21rc1", "1.21.0"), ("1.9", "1.10"), ("1.21.3", "1.21.10"), ("", "1.1")],
)
def test_versions_of_the_language_are_compared_as_go_does(less: str, more: str) -> None:
    assert gowork.at_least(less, more) == gowork.at_least(more, less) == more


@pytest.mark.parametrize("text", ["", "a b", "-x", "/abs", "../up", "m@master", "m@v1.2", "a//b", "a\x1b[1m"])
def test_what_is_no_module_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as told:
        gowork.read_old(text)
    assert "\n" not in str(told.value)
    assert "\x1b" not in str(told.value)


@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=40))
def test_any_path_that_can_be_printed_is_read_back_as_it_was(name: str) -> None:
    if not name.isprintable():
        return
    path = "./" + name
    assert gowork.standins(gowork.add(WORK, LIB, path))[-1] == Standin(LIB, path, 12, True)


MOD = """module example.com/app

go 1.23

require (
	example.com/lib v1.0.0
	example.com/old v1.0.0 // indirect
)

replace (
	example.com/other => ../zzz // why
	example.com/lib v1.0.0 => ../yyy // mine
)

replace example.com/lib v1.1.0 => example.com/fork v1.1.0
"""


def test_a_go_mod_carries_the_stand_ins_and_comes_back_as_it_was() -> None:
    work = gowork.standins(gowork.add(WORK, LIB, "../lib"))
    text = gowork.carried(MOD, work, Path("/src/work"))
    replaces = {one.old: one.new for one in parse_mod(text).replace}
    assert replaces == {
        Version("example.com/other"): Version("../zzz"),
        Version("example.com/lib", "v1.0.0"): Version("/src/lib"),  # go.work's comes before all of go.mod's
        Version("example.com/lib", "v1.1.0"): Version("/src/lib"),
        LIB: Version("/src/lib"),
    }
    assert gowork.without(text) == MOD
    versioned = gowork.standins(gowork.add(WORK, Version("example.com/lib", "v1.1.0"), "../lib"))
    text = gowork.carried(MOD, versioned, Path("/src/work"))
    assert text.count("/src/lib") == 1
    assert gowork.without(text) == MOD


def test_go_sum_loses_no_line_and_stays_in_order() -> None:
    before = "a.com/x v1.9.0 h1:a=\na.com/x v1.9.0/go.mod h1:b=\nb.com/y v1.0.0 h1:c=\n"
    after = "a.com/x v1.10.0 h1:d=\na.com/x v1.10.0/go.mod h1:e=\nb.com/y v1.0.0 h1:c=\n"
    merged = gowork.merged_sums(before, after).splitlines()
    assert merged == [*before.splitlines()[:2], *after.splitlines()]
    assert gowork.merged_sums(before, before) == before
    assert gowork.merged_sums("", after) == after


def test_a_file_is_written_whole_with_its_mode_and_through_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "real" / "go.work", tmp_path / "go.work"
    file.parent.mkdir()
    file.write_text("old")
    file.chmod(0o640)
    link.symlink_to(file)
    gowork.write_whole(link, b"new")
    assert link.is_symlink()
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert [path.name for path in file.parent.iterdir()] == ["go.work"]
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE) as reader:
        gowork.write_whole(tmp_path / "pipe", b"new", mode=0o600)
        assert reader.communicate()[0] == b"new"
    assert (tmp_path / "pipe").is_fifo()
    gowork.write_whole(tmp_path / "secret", b"", mode=0o600)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
