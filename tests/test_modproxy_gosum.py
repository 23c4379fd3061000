"""go.sum, and where go takes it from."""

from __future__ import annotations

from pathlib import Path

import pytest

from gotunnel.modproxy.gosum import GoSum, merge, read_go_sums

TEXT = """\
rsc.io/quote v1.5.2 h1:w5fcysjrx7yqtD/aO+QwRjYZOKnaM9Uh2b40tElTs3Y=
rsc.io/quote v1.5.2/go.mod h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0=

x.example/y v1.0.0+incompatible h2:something-new=
x.example/y v1.0.0+incompatible h1:one=\r
x.example/y v1.0.0+incompatible h1:two=
x.example/empty v1.0.0/go.mod h1:G7mAYYxgmS0lVkHyy2hEOLQCFB0DlQFTMLWggykrydY=
"""


def test_what_go_reads() -> None:
    sums = GoSum.parse(TEXT)
    assert sums.get("rsc.io/quote", "v1.5.2") == "h1:w5fcysjrx7yqtD/aO+QwRjYZOKnaM9Uh2b40tElTs3Y="
    assert sums.get_mod("rsc.io/quote", "v1.5.2") == "h1:LzX7hefJvL54yjefDEDHNONDjII0t9xZLPXsUe+TKr0="
    assert sums.get("x.example/y", "v1.0.0+incompatible") == "h1:one="  # the first decides, as in go
    assert sums.get_mod("x.example/empty", "v1.0.0") is None  # written by old go for a file it hadn't read
    assert sums.get("rsc.io/quote", "v1.5.1") is None
    assert len(sums) == 3
    assert len(GoSum.parse("")) == 0


def test_a_wrong_line_is_named() -> None:
    with pytest.raises(ValueError, match=r"go\.sum:2: want MODULE VERSION SUM, found 1 words"):
        GoSum.parse("a v1 h1:x\n<<<<<<<\n")


def line(module: str, sum_: str = "h1:x=") -> str:
    return f"{module} v1.0.0 {sum_}\n"


def test_of_two_the_first_decides() -> None:
    both = merge([GoSum.parse(line("a")), GoSum.parse(line("a", "h1:y=") + line("b"))])
    assert (both.get("a", "v1.0.0"), both.get("b", "v1.0.0")) == ("h1:x=", "h1:x=")


def test_a_module_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOWORK", raising=False)
    inner = tmp_path / "m" / "cmd" / "tool"
    inner.mkdir(parents=True)
    (tmp_path / "m" / "go.mod").write_text("module m\n")
    assert len(read_go_sums(inner)) == 0
    (tmp_path / "m" / "go.sum").write_text(line("a"))
    (tmp_path / "m" / "other.sum").write_text(line("b"))
    assert list(read_go_sums(inner).sums) == [("a", "v1.0.0")]
    assert list(read_go_sums(tmp_path / "m", modfile="other.mod").sums) == [("b", "v1.0.0")]


def test_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOWORK", raising=False)
    for name in ("one", "two", "three", "not used"):
        (tmp_path / "w" / name).mkdir(parents=True)
        (tmp_path / "w" / name / "go.mod").write_text("module m\n")
        (tmp_path / "w" / name / "go.sum").write_text(line(name.replace(" ", "-")))
    (tmp_path / "w" / "go.work").write_text(
        'go 1.22\nuse ./one // the first\n\nuse (\n\t"./two"\n\t// ./none\n\t`./three`\n\t./gone\n)\n'
    )
    (tmp_path / "w" / "go.work.sum").write_text(line("work"))
    place = tmp_path / "w" / "one"
    names = {module for module, _ in read_go_sums(place).sums}
    assert names == {"one", "two", "three", "work"}
    assert read_go_sums(place, gowork=str(tmp_path / "w" / "go.work")) == read_go_sums(place)
    assert {module for module, _ in read_go_sums(place, gowork="off").sums} == {"one"}
    assert {module for module, _ in read_go_sums(tmp_path / "w" / "not used", gowork="").sums} == {"not-used"}
