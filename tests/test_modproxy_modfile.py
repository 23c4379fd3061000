"""go.mod and go.work: read as go reads them, by go's own word."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotunnel.modproxy.modfile import ModFile, ModFileError, Replace, Version, parse_mod, parse_work
from tests.lab.gotool import can_run_go, find_go, go_env

RUNS, WHY = can_run_go()
needs_go = pytest.mark.skipif(not RUNS, reason=WHY)

MODS = {
    "plain": "module example.com/m\n\ngo 1.22\n\nrequire example.com/a v1.0.0 // indirect\n",
    "empty": "",
    "only comments": "// nothing\n\n// here\n",
    "no newline at the end": "module m\ngo 1.21",
    "crlf": "module example.com/m\r\n\r\nrequire (\r\n\texample.com/a v1.0.0 // indirect\r\n)\r\n",
    "lone cr is space": "module\rexample.com/m\n",
    "quoted": 'module "e.com/m"\nrequire "e.com/a" "v1.0.0"\nrequire (\n "e.com/b" v1.2.3\n)\n',
    "escapes": 'module "ex\\x61mple.com/\\155/\\u0061\\U00000062"\ntool "a\\tb\\"c\\\\"\n',
    "unicode": 'module m\nignore ./größe\nignore "./日 本"\n',
    "toolchain": "module m\ngo 1.21.3\ntoolchain go1.22.1-custom\n",
    "toolchain default": "module m\ngo 1.23rc1\ntoolchain default\n",
    "godebug": "module m\ngodebug asynctimerchan=0\ngodebug (\n\tdefault=go1.21\n\tpanicnil=1=2\n)\n",
    "tools and ignore": "module m\ntool (\n\ta.b/x\n\ta.b/y\n)\ntool c.d/e\nignore (\n\t./x\n\ty/z\n)\n",
    "indirect marks": (
        "module m\nrequire (\n\ta.b/c v1.0.0 // indirect\n\ta.b/d v1.0.0 //indirect\n"
        "\ta.b/e v1.0.0 // indirect; was there\n\ta.b/f v1.0.0 // not indirect\n"
        "\ta.b/g v1.0.0 // indirectly\n\ta.b/h v1.0.0//indirect\n\ta.b/i v1.0.0 //   indirect  \n)\n"
    ),
    "pseudo and incompatible": (
        "module m\nrequire (\n\ta.b/c v0.0.0-20200102030405-0123456789ab\n\ta.b/d v2.0.0+incompatible\n"
        "\tgopkg.in/yaml.v3 v3.0.1\n\ta.b/e/v2 v2.1.0-rc.1\n)\n"
    ),
    "replace": (
        "module m\nreplace a.b/c => ../c\nreplace a.b/d v1.0.0 => ./d\nreplace a.b/e => x.y/e v1.2.3\n"
        'replace (\n\ta.b/f v1.0.0 => x.y/f v1.0.1\n\ta.b/g => /g\n\t"h" => "../h h"\n)\n'
    ),
    "exclude": "module m\nexclude a.b/c v1.0.0\nexclude (\n\ta.b/c v1.0.1 // bad\n\ta.b/d v1.1.0\n)\n",
    "retract": "module m\nretract v1.0.0 // no\nretract [v1.1.0, v1.2.0]\nretract (\n\t[v1.3.0,v1.4.0]\n)\n",
    "comments everywhere": (
        "// top\nmodule m // the module\n\n// before\ngo 1.22 // after\nrequire ( // open\n\t// lone\n\n"
        "\ta.b/c v1.0.0 // why // indirect\n\t// last\n) // closed\n// end"
    ),
    "empty blocks": "module m\nrequire ()\nrequire (\n)\nexclude ( )\nreplace ( // nothing\n)\n",
    "module block": "module (\n\tm.n/o\n)\n",
    "slashes in words": "module m\nrequire a.b/c v1.0.0//comment\n",
    "no space before brackets": "module m\nrequire(\na.b/c v1.0.0\n)\nretract[v1.0.0,v1.0.1]\n",
    "odd whitespace": "\n\n  module \t m\n\t\trequire\ta.b/c\tv1.0.0   \n",
}
WORKS = {
    "plain": "go 1.22\n\nuse ./a\nuse (\n\t./b\n\t../c // note\n)\n",
    "replace": "go 1.22.1\nuse .\nreplace a.b/c v1.0.0 => ./c\nreplace (\n\td => e v1.0.0\n)\n",
    "godebug": "go 1.23\ngodebug default=go1.21\n",
    "quoted": 'use "./with space"\nuse "."\n',
    "empty": "",
}
BAD = {
    "unterminated block": ("module m\n\nrequire (\n\ta.b/c v1.0.0\n", 3),
    "unterminated string": ('module m\nrequire "a.b/c v1.0.0\n', 2),
    "c comment": ("module m\n/* no */\n", 2),
    "c comment in a word": ("module m\nrequire a.b/*c v1.0.0\n", 2),
    "control character": ("module m\nrequire a.b/\x01c v1.0.0\n", 2),
    "no-break space": ("module\u00a0m\n", 1),
    "byte order mark": ("\ufeffmodule m\n", 1),
    "two modules": ("module m\nmodule n\n", 2),
    "two go lines": ("module m\ngo 1.20\ngo 1.21\n", 3),
    "go of what": ("module m\ngo latest\n", 2),
    "go 1": ("module m\ngo 1\n", 2),
    "toolchain": ("module m\ntoolchain 1.22\n", 2),
    "module twice on a line": ("module m n\n", 1),
    "require without version": ("module m\nrequire a.b/c\n", 2),
    "require in block without version": ("module m\nrequire (\n\ta.b/d v1.0.0\n\ta.b/c\n)\n", 4),
    "replace without arrow": ("module m\nreplace a.b/c ../c\n", 2),
    "replace by module without version": ("module m\nreplace a.b/c => x.y/z\n", 2),
    "directory with version": ("module m\nreplace a.b/c => ../c v1.0.0\n", 2),
    "quote within": ("module m\nrequire a'b v1.0.0\n", 2),
    "bad escape": ('module "m\\q"\n', 1),
    "surrogate": ('module "m\\ud800"\n', 1),
    "big octal": ('module "m\\777"\n', 1),
    "text after a block": ("module m\nrequire (\n) x\n", 3),
    "godebug": ("module m\ngodebug a\n", 2),
    "open interval": ("module m\nretract [v1.0.0\n", 2),
    "retract of nothing": ("module m\nretract\n", 2),
}


def as_go_says(found: ModFile, *, work: bool) -> dict[str, Any]:
    """The JSON of `go mod edit -json`, lists that are empty left out."""

    def version(one: Version) -> dict[str, str]:
        return {"Path": one.path, **({"Version": one.version} if one.version else {})}

    lists: dict[str, Any] = {
        "Replace": [{"Old": version(r.old), "New": version(r.new)} for r in found.replace],
    }
    if work:
        lists["Use"] = [{"DiskPath": use} for use in found.use]
    else:
        lists["Module"] = {"Path": found.module}
        lists["GoDebug"] = [{"Key": key, "Value": value} for key, value in found.godebug]
        lists["Require"] = [
            {"Path": r.path, "Version": r.version, **({"Indirect": True} if r.indirect else {})}
            for r in found.require
        ]
        lists["Exclude"] = [version(one) for one in found.exclude]
        lists["Retract"] = [{"Low": low, "High": high} for low, high in found.retract]
        lists["Tool"] = [{"Path": path} for path in found.tool]
        lists["Ignore"] = [{"Path": path} for path in found.ignore]
        lists["Toolchain"] = found.toolchain
    lists["Go"] = found.go
    return {key: value for key, value in lists.items() if value}


def go_reads(directory: Path, text: str, *, work: bool) -> dict[str, Any] | None:
    """What the go command makes of it; None where it refuses."""
    directory.mkdir(exist_ok=True)
    file = directory / ("go.work" if work else "go.mod")
    file.write_bytes(text.encode())
    done = subprocess.run(
        [find_go() or "go", "work" if work else "mod", "edit", "-json", str(file)],
        env=go_env(directory) | {"GOWORK": "off"},
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return None
    answer: dict[str, Any] = json.loads(done.stdout)
    for retract in answer.get("Retract") or ():
        retract.pop("Rationale", None)
    if work:
        answer.pop("Toolchain", None)  # go prints it from 1.25 on only
    return {key: value for key, value in answer.items() if value}


@needs_go
@pytest.mark.parametrize("name", MODS)
def test_go_mod_is_read_as_go_reads_it(tmp_path: Path, name: str) -> None:
    theirs = go_reads(tmp_path / "go", MODS[name], work=False)
    assert theirs is not None, "go refuses this example"
    assert as_go_says(parse_mod(MODS[name].encode()), work=False) == theirs


@needs_go
@pytest.mark.parametrize("name", WORKS)
def test_go_work_is_read_as_go_reads_it(tmp_path: Path, name: str) -> None:
    theirs = go_reads(tmp_path / "go", WORKS[name], work=True)
    assert theirs is not None, "go refuses this example"
    assert as_go_says(parse_work(WORKS[name]), work=True) == theirs


@needs_go
@pytest.mark.parametrize("name", BAD)
def test_what_go_refuses_is_refused_with_its_line(tmp_path: Path, name: str) -> None:
    text, line = BAD[name]
    with pytest.raises(ModFileError) as caught:
        parse_mod(text, "dir/go.mod")
    assert str(caught.value).startswith(f"dir/go.mod:{line}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.finding == "modfile.invalid"
    assert go_reads(tmp_path / "go", text, work=False) is None


def test_a_newer_gos_directives_are_skipped_blocks_and_all() -> None:
    found = parse_mod(
        "module m\nnovelty x y\nnovelty (\n\trequire z\n)\na b (\n\tc\n)\nnew ()\nrequire a.b/c v1.0.0\n"
    )
    assert (found.module, len(found.require)) == ("m", 1)
    assert parse_work("novelty x\nuse ./a\nrequire a.b/c v1\n").use == ("./a",)


def test_versions_stay_as_written_and_raw_strings_are_strings() -> None:
    found = parse_mod("module `m/n`\nrequire a.b/c master\nreplace a.b/c => `../c d`\n")
    assert found.module == "m/n"
    assert found.require[0].version == "master"
    assert found.replace == (Replace(Version("a.b/c"), Version("../c d")),)


def test_a_dependencys_file_is_read_loosely() -> None:
    text = "module m\ngo v1.22.x\nreplace nonsense\nretract [v1.0.0, )\nrequire a.b/c v1.0.0\n"
    found = parse_mod(text, lax=True)
    assert (found.go, found.require[0].path, found.replace, found.retract) == ("1.22", "a.b/c", (), ())
    with pytest.raises(ModFileError, match=r"^go\.mod:2: "):
        parse_mod(text)


WORDS = ("module", "go", "require", "replace", "retract", "use", "v1.0.0", "1.22", "a.b/c", "../x", "=>", "=")
MARKS = (
    "(",
    ")",
    "[",
    "]",
    ",",
    "{",
    '"',
    "`",
    "'",
    "\\",
    "\\x4",
    "//",
    "/*",
    "\n",
    " ",
    "\t",
    "\r",
    "\ufeff",
)
PIECES = st.sampled_from(WORDS + MARKS)


def wrong(parse: Callable[[str | bytes], ModFile], text: str | bytes) -> ModFileError | None:
    """The error of ours, None where the text is right; any other comes through."""
    try:
        parse(text)
    except ModFileError as error:
        return error
    return None


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(
        st.lists(PIECES, max_size=60).map(" ".join), st.lists(PIECES, max_size=60).map("".join), st.text()
    )
)
def test_nothing_but_our_own_error_comes_of_any_text(text: str) -> None:
    for parse in (parse_mod, parse_work, partial(parse_mod, lax=True)):
        if error := wrong(parse, text):
            assert str(error).startswith(("go.mod:", "go.work:"))
            assert 1 <= error.line <= text.count("\n") + 1


@given(st.binary(max_size=200))
def test_bytes_that_are_no_text_are_no_fault_of_ours(data: bytes) -> None:
    if error := wrong(parse_mod, b"module m\n" + data):
        assert "\n" not in str(error)
