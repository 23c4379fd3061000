"""What is wrong on the machine itself: facts in, findings out."""

from __future__ import annotations

import itertools

import pytest

from gotunnel.doctor.checks_local import check, switch_to, version_key
from gotunnel.doctor.facts import Facts, Setting
from gotunnel.doctor.project import Contradiction, Space
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.modfile import parse_mod

FINE = Facts(go="/go", goversion="go1.26.8", git="/git")


def facts_of(mod: str = "", **more: object) -> Facts:
    values: dict[str, object] = {"go": "/go", "goversion": "go1.26.8", "git": "/git", **more}
    if mod:
        values |= {"mod": parse_mod(f"module a.example/x\n{mod}\n"), "gomod": "/p/go.mod"}
    return Facts(**values)  # type: ignore[arg-type]


def ids(facts: Facts) -> list[tuple[str, str]]:
    return [(found.id, found.severity) for found in check(facts)]


def env(**values: str) -> dict[str, Setting]:
    return {name: Setting(value, "file") for name, value in values.items()}


def test_a_machine_in_order_gives_no_finding() -> None:
    space = Space("GOCACHE", "/c", free=10**10)
    assert ids(facts_of("go 1.22", spaces=(space,))) == []


def test_go_versions_are_sorted_as_go_sorts_them() -> None:
    right = [
        "go1.20",
        "go1.20.1",
        "1.21",
        "1.21rc1",
        "1.21rc2",
        "1.21.0",
        "go1.21.9",
        "1.22",
        "1.22.0",
        "1.30",
    ]
    assert all(version_key(a) < version_key(b) for a, b in itertools.pairwise(right))


@pytest.mark.parametrize(
    ("setting", "mod", "finding", "toolchain"),
    [
        ("auto", "go 1.22", "", ""),
        ("auto", "go 1.30", "", "go1.30.0"),
        ("auto", "go 1.22\ntoolchain go1.27.1", "", "go1.27.1"),
        ("local", "go 1.30", "go.too-old", ""),
        ("path", "go 1.30", "go.too-old", ""),
        ("go1.31.0", "go 1.30", "", "go1.31.0"),
        ("go1.27.0", "go 1.30", "go.too-old", "go1.27.0"),
        ("go1.27.0+auto", "go 1.30", "", "go1.30.0"),
    ],
)
def test_an_older_go_is_at_fault_only_where_no_newer_may_be_fetched(
    setting: str, mod: str, finding: str, toolchain: str
) -> None:
    facts = facts_of(mod, env=env(GOTOOLCHAIN=setting))
    assert [found.id for found in check(facts)] == ([finding] if finding else [])
    assert switch_to(facts) == toolchain


def test_programs_that_are_missing_are_told_where_they_are_needed() -> None:
    assert ids(Facts(git="/git")) == [("go.missing", "error")]
    mod = "require git.corp.example/lib v1.0.0"
    sums = GoSum({("git.corp.example/lib", "v1.0.0"): "h1:x"})
    assert ids(facts_of(mod, git="", sums=sums)) == []
    private = facts_of(mod, git="", sums=sums, env=env(GOPRIVATE="git.corp.example"))
    assert ids(private) == [("vcs.missing", "error")]


def test_a_full_disk_and_a_closed_cache_are_told_once_each() -> None:
    spaces = (
        Space("GOMODCACHE", "/m", free=0),
        Space("GOMODCACHE", "/m/cache", free=0),
        Space("GOCACHE", "/c", free=10**10, problem="/c can't be written by this user"),
        Space("TMPDIR", "/t", free=100 << 20),
    )
    found = check(facts_of(spaces=spaces))
    assert [(f.id, f.severity, f.subject) for f in found] == [
        ("disk.full", "error", "/m"),
        ("cache.permission", "error", "/c"),
        ("disk.full", "warning", "/t"),
    ]


def test_a_go_mod_that_can_not_be_read_is_told_with_its_line() -> None:
    (found,) = check(facts_of(mod_errors=(("/p/go.mod", "/p/go.mod:3: what is this"),)))
    assert (found.id, found.summary) == ("modfile.invalid", "/p/go.mod:3: what is this")


MOD = "require (\n b.example/y v1.0.0\n c.example/z v1.0.0 // indirect\n)"


@pytest.mark.parametrize(
    ("known", "more", "wanted"),
    [
        ((), {}, [("sum.missing", "warning")]),  # nobody has run `go mod tidy` yet
        (("c.example/z",), {}, [("sum.missing", "error")]),
        (("b.example/y",), {}, [("sum.missing", "warning")]),
        (("b.example/y", "c.example/z"), {}, []),
        (("c.example/z",), {"vendored": True}, []),
        (("c.example/z",), {"env": env(GOFLAGS="-v -mod=mod")}, []),
    ],
)
def test_what_go_sum_lacks_counts_by_who_needs_it(
    known: tuple[str, ...], more: dict[str, object], wanted: list[tuple[str, str]]
) -> None:
    sums = GoSum({(module, "v1.0.0/go.mod"): "h1:x" for module in known})
    assert ids(facts_of(MOD, sums=sums, **more)) == wanted


def test_a_cache_that_contradicts_go_sum_is_told_with_both_sums() -> None:
    wrong = Contradiction("b.example/y", "v1.0.0", "/m/y.ziphash", "h1:one", "h1:two")
    (found,) = check(facts_of(contradictions=(wrong,)))
    assert (found.id, found.severity, found.subject) == ("sum.mismatch", "error", "b.example/y@v1.0.0")
    assert (found.evidence["go.sum"], found.evidence["cache"]) == ("h1:one", "h1:two")


def test_go_that_may_not_write_its_build_cache_says_nothing_else() -> None:
    """go env of Go 1.27 fails so in a HOME that isn't writable."""
    said = "failed to initialize build cache at /h/.cache/go-build: mkdir /h/.cache: permission denied"
    (found,) = check(facts_of(goversion="", go_error=said))
    assert (found.id, found.subject) == ("cache.permission", "/h/.cache")
    assert found.fix == ("ls -ld /h", "export GOCACHE=/PATH/TO/CACHE")
