"""A failure in each CI host's own words; what comes from outside can't be taken for a command."""

from __future__ import annotations

import pytest

from gotunnel.observe.annotate import annotate, ci_host


@pytest.mark.parametrize(
    ("environ", "host"),
    [
        ({}, ""),
        ({"CI": "false"}, ""),
        ({"CI": "true"}, "ci"),
        ({"CI": "true", "GITHUB_ACTIONS": "true"}, "github"),
        ({"CI": "true", "GITLAB_CI": "true"}, "gitlab"),
        ({"JENKINS_URL": "https://ci/"}, "jenkins"),
        ({"TF_BUILD": "True"}, "azure"),
        ({"TEAMCITY_VERSION": "2026.1"}, "teamcity"),
    ],
)
def test_the_host_is_known_by_its_variable(environ: dict[str, str], host: str) -> None:
    assert ci_host(environ) == host


def said(
    variable: str, detail: str = "50% lost\n::error::x, y", fix: tuple[str, ...] = ("go env",)
) -> list[str]:
    return annotate("tcp.refused", detail, {variable: "true"}, fix=fix, clock=lambda: 5.5)


def test_each_host_s_format() -> None:
    assert said("HOME") == []
    assert said("GITHUB_ACTIONS") == [
        "::error title=gotunnel%3A tcp.refused::50%25 lost ::error::x, y%0Afix: go env"
    ]
    assert said("TF_BUILD", "a;b]") == [
        "##vso[task.logissue type=error;code=tcp.refused]gotunnel: tcp.refused: a;b]%0Afix: go env"
    ]
    assert said("TEAMCITY_VERSION", "it's [so|")[0] == (
        "##teamcity[buildProblem description='gotunnel: tcp.refused: it|'s |[so||' identity='tcp.refused']"
    )
    head, first, fix, tail = said("GITLAB_CI")
    assert head.startswith("\x1b[0Ksection_start:5:gotunnel_failure\r\x1b[0K")
    assert (first, fix) == ("gotunnel: 50% lost ::error::x, y", "gotunnel: fix: go env")
    assert tail == "\x1b[0Ksection_end:5:gotunnel_failure\r\x1b[0K"
    assert said("JENKINS_URL")[0] == "gotunnel: ERROR: tcp.refused: 50% lost ::error::x, y"


@pytest.mark.parametrize("variable", ["GITHUB_ACTIONS", "GITLAB_CI", "TF_BUILD", "TEAMCITY_VERSION", "CI"])
def test_no_words_from_outside_begin_a_line_or_show_a_secret(variable: str) -> None:
    nasty = "x\r\n::set-env name=A::b\n##vso[task.setvariable]\n##teamcity[x]\x1b[0Ksection_end\u2028 http://u:hush@h"
    lines = said(variable, nasty, (nasty,))
    for line in lines:
        assert "hush" not in line
        assert "\n" not in line
        assert line.count("\x1b[0Ksection_end") <= (line == lines[-1])
        assert not line.startswith(("::set", "##vso[task.set", "##teamcity[x"))
    if variable == "TEAMCITY_VERSION":
        assert "##teamcity[x]" not in lines[0]
