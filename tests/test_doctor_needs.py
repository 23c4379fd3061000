"""What go would ask of the network here, and what a SUBJECT names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gotunnel.doctor.facts import Facts, Setting
from gotunnel.doctor.needs import module_needs, needs
from gotunnel.errors import UsageError
from gotunnel.modproxy.gosum import GoSum
from gotunnel.modproxy.modfile import parse_mod

SOURCE = "https://proxy.golang.org"


def facts_of(
    *required: str, instead: tuple[tuple[str, str], ...] = (), ssh: bool = False, **env: str
) -> Facts:
    requires = "".join(f"require {line}\n" for line in required)
    return Facts(
        go="/go",
        goversion="go1.26.8",
        platform="linux-amd64",
        env={name: Setting(value, "file") for name, value in env.items()},
        mod=parse_mod(f"module a.example/x\ngo 1.22\n{requires}"),
        instead_of=instead,
        ssh_config=ssh,
    )


def asked(facts: Facts, *subjects: str) -> list[tuple[str, str]]:
    return [(need.kind, need.url) for need in needs(facts, subjects)]


def test_a_new_project_needs_its_source_and_the_checksum_database() -> None:
    assert asked(facts_of()) == [
        ("source", f"{SOURCE}/golang.org/x/text/@v/list"),
        ("sumdb", f"{SOURCE}/sumdb/sum.golang.org/supported"),
    ]


def test_the_question_is_a_real_one_of_the_project_and_escaped() -> None:
    facts = facts_of(
        "git.corp.example/lib v1.0.0", "github.com/BurntSushi/toml v1.3.0", GOPRIVATE="*.corp.example"
    )
    assert asked(facts)[0] == ("source", f"{SOURCE}/github.com/!burnt!sushi/toml/@v/v1.3.0.info")


def test_where_go_sum_can_judge_the_answer_the_go_mod_is_asked_for() -> None:
    known = GoSum({("a.example/m", "v1.0.0/go.mod"): "h1:x"})
    facts = replace(facts_of("a.example/m v1.0.0"), sums=known)
    first = needs(facts)[0]
    assert (first.url, first.h1) == (f"{SOURCE}/a.example/m/@v/v1.0.0.mod", "h1:x")
    (first,) = module_needs(facts, ("a.example/m", "v1.0.1"))
    assert (first.url, first.h1) == (f"{SOURCE}/a.example/m/@v/v1.0.1.info", "")


def test_private_modules_are_asked_of_their_own_hosts_only() -> None:
    facts = facts_of(
        "git.corp.example/team/lib v1.0.0",
        "git.corp.example/team/other v1.0.0",
        "github.com/corp/secret v1.0.0",
        "code.corp.example/x.git/sub v1.0.0",
        GOPRIVATE="*.corp.example,github.com/corp",
    )
    found = [need for need in needs(facts) if need.kind not in ("source", "sumdb")]
    assert [(need.kind, need.url, need.private) for need in found] == [
        ("meta", "https://git.corp.example/team/lib?go-get=1", True),
        ("vcs-https", "https://github.com/corp/secret/info/refs?service=git-upload-pack", True),
        ("vcs-https", "https://code.corp.example/x.git/info/refs?service=git-upload-pack", True),
    ]
    assert not any("corp" in need.url for need in needs(facts) if need.kind in ("source", "sumdb"))


@pytest.mark.parametrize(
    ("base", "kind", "host", "port"),
    [
        ("git@github.com:", "vcs-ssh", "github.com", 22),
        ("ssh://git@ssh.github.com:443/", "vcs-ssh", "ssh.github.com", 443),
        ("git://mirror.example/", "vcs-git", "mirror.example", 9418),
        ("https://mirror.example/github/", "vcs-https", "mirror.example", 443),
    ],
)
def test_what_git_is_told_to_write_instead_is_what_is_needed(
    base: str, kind: str, host: str, port: int
) -> None:
    instead = ((base, "https://github.com/"), ("https://wrong.example/", "https://git"))
    (found,) = [
        need
        for need in needs(facts_of("github.com/corp/x v1.0.0", instead=instead, GOPRIVATE="github.com/corp"))
        if need.kind.startswith("vcs")
    ]
    assert (found.kind, found.host, found.port) == (kind, host, port)


def test_an_alias_of_the_ssh_configuration_is_no_host_to_look_up() -> None:
    instead = (("git@work:", "https://github.com/"),)
    facts = facts_of("github.com/corp/x v1.0.0", instead=instead, ssh=True, GOPRIVATE="github.com/corp")
    assert [kind for kind, _ in asked(facts)] == ["source", "sumdb"]


def test_with_direct_alone_the_repositories_and_the_database_itself_are_needed() -> None:
    assert asked(facts_of("github.com/pkg/errors v0.9.1", GOPROXY="direct")) == [
        ("sumdb", "https://sum.golang.org/latest"),
        ("vcs-https", "https://github.com/pkg/errors/info/refs?service=git-upload-pack"),
    ]


def test_off_and_what_can_not_be_read_need_nothing() -> None:
    assert asked(facts_of(GOPROXY="off")) == []
    assert asked(facts_of(GOPROXY=",", GOSUMDB="what")) == []


def test_a_newer_toolchain_is_one_more_need() -> None:
    facts = facts_of(GOTOOLCHAIN="go1.30.0")
    assert ("toolchain", f"{SOURCE}/golang.org/toolchain/@v/v0.0.1-go1.30.0.linux-amd64.zip") in asked(facts)


def test_a_module_is_asked_of_each_source_in_turn() -> None:
    facts = facts_of(GOPROXY="https://a.example,https://b.example/go|direct")
    assert [need.url for need in module_needs(facts, ("c.example/m", "v1.0.0"))] == [
        "https://a.example/c.example/m/@v/v1.0.0.info",
        "https://b.example/go/c.example/m/@v/v1.0.0.info",
    ]


@pytest.mark.parametrize(
    ("subject", "first"),
    [
        ("https://example.com/x?y=1", ("url", "https://example.com/x?y=1")),
        ("example.com", ("url", "https://example.com/")),
        ("example.com:8443", ("url", "https://example.com:8443/")),
        ("example.com:80", ("url", "http://example.com/")),
        ("[::1]:443", ("url", "https://[::1]/")),
        ("github.com:22", ("vcs-ssh", "ssh://git@github.com:22/")),
        ("github.com:9418", ("vcs-git", "git://github.com:9418/")),
        ("ssh://git@github.com/x/y", ("vcs-ssh", "ssh://git@github.com/x/y")),
        ("golang.org/x/text@v0.3.0", ("source", f"{SOURCE}/golang.org/x/text/@v/v0.3.0.info")),
        ("golang.org/x/text@latest", ("source", f"{SOURCE}/golang.org/x/text/@v/list")),
        ("golang.org/x/text", ("source", f"{SOURCE}/golang.org/x/text/@v/list")),
    ],
)
def test_a_subject_is_a_url_a_host_or_a_module(subject: str, first: tuple[str, str]) -> None:
    assert asked(facts_of(), subject)[0] == first


@pytest.mark.parametrize("subject", ["", "ftp://x/", "https://", "a b", "x:99999", "no/module", "user@host"])
def test_what_is_no_subject_is_a_mistake_in_one_line(subject: str) -> None:
    with pytest.raises(UsageError, match=r"^doctor ") as caught:
        needs(facts_of(), [subject])
    assert "\n" not in str(caught.value)
