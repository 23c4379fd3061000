"""The settings that get in go's way: facts in, findings out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gotunnel.doctor.checks_config import check
from gotunnel.doctor.facts import Facts, Setting
from gotunnel.doctor.project import read_project
from gotunnel.findings.catalogue import Finding
from gotunnel.modproxy.modfile import parse_mod


def facts_of(mod: str = "", env: Mapping[str, str] | None = None, **proxies: str) -> Facts:
    """Facts with go variables as if they were written by `go env -w`, and proxy variables."""
    return Facts(
        go="/go",
        goversion="go1.26.0",
        env={name: Setting(value, "file") for name, value in (env or {}).items()},
        proxies=proxies,
        mod=parse_mod(f"module a.example/x\n{mod}") if mod else None,
        gomod="/p/go.mod" if mod else "",
    )


def ids(facts: Facts) -> list[tuple[str, str]]:
    return [(found.id, found.severity) for found in check(facts)]


def test_go_as_it_comes_gives_no_finding() -> None:
    assert ids(Facts(go="/go", goversion="go1.26.0")) == []
    assert ids(facts_of("require github.com/pkg/errors v0.9.1")) == []


REQUIRE = "require git.corp.example/lib v1.0.0"


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        ({"GOPROXY": "off"}, ("goproxy.off", "error")),
        ({"GOPROXY": ","}, ("goproxy.malformed", "error")),
        ({"GOPROXY": "ftp://mirror.example"}, ("goproxy.malformed", "error")),
        ({"GOPROXY": "http://me:word@mirror.example"}, ("goproxy.malformed", "error")),
        ({"GOPROXY": "file:///nowhere/at/all"}, ("goproxy.unreachable", "error")),
        ({"GOSUMDB": "off"}, ("gosumdb.off", "warning")),
        ({"GOSUMDB": "sums.example"}, ("gosumdb.off", "error")),
        ({"GONOSUMDB": "*"}, ("gosumdb.off", "warning")),
        ({"GO111MODULE": "off"}, ("go111module.off", "error")),
        ({"GO111MODULE": "yes"}, ("go111module.off", "error")),
        ({"GOPRIVATE": "*"}, ("goprivate.too-wide", "warning")),
        ({"GONOPROXY": "github.com"}, ("goprivate.too-wide", "warning")),
        ({"GOINSECURE": "*"}, ("goprivate.too-wide", "warning")),
        ({"GOPRIVATE": "git.corp.example", "GONOPROXY": "x.example"}, ("goprivate.missing", "warning")),
        (
            {"GOPRIVATE": "git.corp.example", "GONOPROXY": "x.example", "GOPROXY": "https://mirror.example"},
            ("goprivate.missing", "error"),
        ),
        ({"GOPRIVATE": "git.corp.example", "GONOSUMDB": "none"}, ("goprivate.missing", "error")),
        ({"GOPRIVATE": "git.corp.example", "GOVCS": "private:hg"}, ("vcs.denied", "error")),
        ({"GOTOOLCHAIN": "newest"}, ("gotoolchain.unavailable", "error")),
    ],
)
def test_a_wrong_setting_is_named(env: dict[str, str], wanted: tuple[str, str]) -> None:
    assert ids(facts_of(REQUIRE, env)) == [wanted]


@pytest.mark.parametrize(
    "env",
    [
        {"GOPROXY": "direct"},
        {"GOPROXY": "https://a.example|https://b.example,off"},
        {"GOPRIVATE": "git.corp.example,github.com/corp/*"},
        {"GOPRIVATE": "git.corp.example", "GONOPROXY": "git.corp.example/lib"},
        {"GOPRIVATE": "git.corp.example", "GOVCS": "*:all"},
        {"GOVCS": "public:off"},  # public modules come from a source
        {"GOTOOLCHAIN": "go1.27.0+auto"},
        {"GOTOOLCHAIN": "go1.27-custom"},
        {"GO111MODULE": "on"},
    ],
)
def test_a_setting_that_harms_nobody_is_let_be(env: dict[str, str]) -> None:
    assert ids(facts_of(REQUIRE, env)) == []


def test_a_value_is_mended_where_it_was_set() -> None:
    (by_file,) = check(facts_of(env={"GOPROXY": "off"}))
    assert by_file.fix[0] == "go env -u GOPROXY"
    (by_shell,) = check(Facts(env={"GOPROXY": Setting("off", "env")}))
    assert by_shell.fix[0] == "unset GOPROXY"
    (built_in,) = check(Facts(env={"GOPROXY": Setting("off")}))
    assert built_in.fix[0] == "go env -w GOPROXY=https://proxy.golang.org,direct"


def test_a_narrower_goprivate_is_proposed_from_what_the_project_needs() -> None:
    (found,) = check(facts_of(REQUIRE, {"GOPRIVATE": "*"}))
    assert found.fix == ("go env -w 'GOPRIVATE=git.corp.example/*'",)


def test_two_cases_of_a_proxy_that_differ_are_told_without_their_passwords() -> None:
    (found,) = check(facts_of(HTTPS_PROXY="http://a:secret1@p:1", https_proxy="http://a:secret2@p:1"))
    assert (found.id, found.severity) == ("proxy-env.conflict", "warning")
    assert "secret" not in str(found)
    same = facts_of(HTTPS_PROXY="http://p:1", https_proxy="http://p:1")
    assert check(same) == []


def test_a_replacement_is_an_error_only_where_it_is_missing(tmp_path: Path) -> None:
    inside, outside = tmp_path / "repo" / "sub", tmp_path / "elsewhere"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
        (folder / "go.mod").write_text("module b.example/y\n")

    def found(path: str) -> list[tuple[str, str]]:
        mod = parse_mod(f"module a.example/x\nrequire b.example/y v1.0.0\nreplace b.example/y => {path}\n")
        repo = str(tmp_path / "repo")
        return ids(Facts(gomod=f"{repo}/go.mod", mod=mod, repository=repo))

    assert found("./sub") == []
    assert found("../elsewhere") == [("replace.local", "warning")]
    assert found("../nowhere") == [("replace.local", "error")]


def test_a_forgotten_standin_is_found_with_what_drops_it(tmp_path: Path) -> None:
    """Inside the repository too: it is there for a while, whoever made it."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "go.mod").write_text("module a.example/x\nrequire b.example/y v1.0.0\n")
    work = "go 1.21\nuse .\nreplace b.example/y v1.0.0 => ./y // gotunnel replace\n"
    (tmp_path / "go.work").write_text(work)

    def found() -> list[Finding]:
        project = read_project({}, str(tmp_path))
        assert project.work
        return check(Facts(gomod=project.gomod, mod=project.mod, gowork=project.gowork, work=project.work,
                           standins=project.standins, repository=project.repository))  # fmt: skip

    (gone,) = found()
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "go.mod").write_text("module b.example/y\n")
    (there,) = found()
    assert (gone.id, gone.severity, there.id, there.severity) == (
        "replace.local", "error", "replace.local", "warning",
    )  # fmt: skip
    assert gone.fix[0] == there.fix[0] == "gotunnel replace --drop b.example/y@v1.0.0"
    (tmp_path / "go.work").write_text(work.replace(" // gotunnel replace", ""))
    assert found() == []  # by hand, and in the repository: it is meant to stay


def test_a_module_path_of_a_go_mod_is_a_word_in_the_fix(tmp_path: Path) -> None:
    mod = parse_mod('module a.example/x\nreplace "b;reboot" => ./nowhere\n')
    (found,) = check(Facts(gomod=str(tmp_path / "go.mod"), mod=mod))
    assert found.fix[0] == "go mod edit '-dropreplace=b;reboot'"
