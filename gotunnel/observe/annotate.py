"""A final failure as the CI host shows it: beside the job, not only in its log.

Rules:
- The host is known by the variable that it documents; where there is none, nothing is annotated.
- Words come from servers and logs: they are masked, put on one line and escaped, so that they can't be read
  as a command of the host.
- The lines go to standard error, as everything of ours does: all hosts read both.

Source: GitHub "Workflow commands", Azure "Logging commands", GitLab "Custom collapsible sections", TeamCity
"Service messages".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from gotunnel.address import one_line
from gotunnel.observe.logs import mask

_HOSTS = (
    ("GITHUB_ACTIONS", "github"),  # Gitea and Forgejo too
    ("GITLAB_CI", "gitlab"),
    ("TF_BUILD", "azure"),
    ("TEAMCITY_VERSION", "teamcity"),
    ("JENKINS_URL", "jenkins"),
    ("BUILDKITE", "buildkite"),
    ("CIRCLECI", "circleci"),
    ("CI", "ci"),
)
_GITHUB = {"%": "%25", "\r": "%0D", "\n": "%0A"}
_GITHUB_PROPERTY = _GITHUB | {":": "%3A", ",": "%2C"}
_AZURE = {"%": "%AZP25", "\r": "%0D", "\n": "%0A"}
_AZURE_PROPERTY = _AZURE | {";": "%3B", "]": "%5D"}
_TEAMCITY = {"|": "||", "'": "|'", "[": "|[", "]": "|]", "\n": "|n", "\r": "|r"}


def ci_host(environ: Mapping[str, str]) -> str:
    """github, gitlab, azure, teamcity, jenkins, buildkite, circleci, ci for another one, "" for none."""
    for variable, host in _HOSTS:
        if environ.get(variable, "").strip().lower() not in ("", "false", "0"):
            return host
    return ""


def annotate(
    finding: str,
    detail: str,
    environ: Mapping[str, str],
    *,
    fix: Sequence[str] = (),
    clock: Callable[[], float] = time.time,
) -> list[str]:
    """The lines, without newlines, that show a run's failure to the CI host; none where there is no host.

    `finding` is an id of contract §7, `fix` what mends it; `clock` in seconds of the epoch.
    """
    host = ci_host(environ)
    id, said = _plain(finding), _plain(detail)
    title = f"gotunnel: {id}"
    mends = [_plain(line) for line in fix]
    body = "\n".join([said, *(f"fix: {line}" for line in mends)])
    match host:
        case "":
            return []
        case "github":
            return [f"::error title={_escape(title, _GITHUB_PROPERTY)}::{_escape(body, _GITHUB)}"]
        case "azure":
            return [
                f"##vso[task.logissue type=error;code={_escape(id, _AZURE_PROPERTY)}]"
                + _escape(f"{title}: {body}", _AZURE)
            ]
        case "teamcity":
            words = _escape(one_line(f"{title}: {said}", 4000), _TEAMCITY)
            return [
                f"##teamcity[buildProblem description='{words}' identity='{_escape(id[:60], _TEAMCITY)}']"
            ]
        case "gitlab":
            now = int(clock())
            return [
                f"\x1b[0Ksection_start:{now}:gotunnel_failure\r\x1b[0K\x1b[31;1m{title}\x1b[0m",
                *(f"gotunnel: {line}" for line in body.split("\n")),
                f"\x1b[0Ksection_end:{now}:gotunnel_failure\r\x1b[0K",
            ]
        case _:
            return [f"gotunnel: ERROR: {id}: {said}", *(f"gotunnel: fix: {line}" for line in mends)]


def _plain(text: str) -> str:
    return one_line(mask(text), 1000)


def _escape(text: str, table: Mapping[str, str]) -> str:
    return "".join(table.get(character, character) for character in text)
