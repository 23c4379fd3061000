"""Whole logs, real ones above all: however they are cut, prefixed or mixed, the cause is the same."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotunnel.findings.loglines import asked, bare, scrub
from gotunnel.findings.story import Story, Told

OUTPUTS = sorted((Path(__file__).parent / "data" / "outputs").glob("*.txt"))
SECRET = "Zk3_9dQw-7yLr5TnXv2bHc8mJf4sPg1A"

GET = 'go: a.example/m@v1.0.0: Get "https://p.example/a.example/m/@v/v1.0.0.zip": '
REFUSED = f"{GET}dial tcp 192.0.2.1:443: connect: connection refused\n"


def tell(*parts: bytes | str) -> Told:
    story = Story()
    for part in parts:
        story.feed(part if isinstance(part, bytes) else part.encode())
    return story.finish()


def first(*parts: bytes | str) -> dict[str, Any]:
    found: dict[str, Any] = tell(*parts).answer["findings"][0]
    return found


def root(*parts: bytes | str) -> str:
    return tell(*parts).answer["root_cause"] or "none"


def output(file: Path) -> str:
    return file.read_text().partition("\n")[2]


def wanted(file: Path) -> str:
    return file.name.partition("--")[0]


# What a CI system makes of a line.
FORMS: dict[str, Callable[[int, str], str]] = {
    "github": lambda n, line: f"2026-06-09T12:00:{n % 60:02}.1234567Z {line}",
    "github-error": lambda n, line: f"2026-06-09T12:00:{n % 60:02}.1234567Z ##[error]{line}",
    "github-workflow": lambda n, line: f"::error file=main.go,line={n + 1}::{line}",
    "gh-run-view": lambda n, line: f"build\tRun go mod tidy\t\ufeff2026-06-09T12:00:00.1234567Z {line}",
    "gitlab": lambda n, line: f"section_start:17{n}:step_script\r\x1b[0K\x1b[0;33m{line}\x1b[0;m\r",
    "gitlab-stamps": lambda n, line: f"2026-06-09T12:00:00.123456Z 01E {line}",
    "jenkins": lambda n, line: f"[2026-06-09T12:00:00.123Z] {line}",
    "jenkins-clock": lambda n, line: f"12:00:{n % 60:02}  {line}",
    "jenkins-parallel": lambda n, line: f"[2026-06-09T12:00:00.123Z] [linux amd64] {line}",
    "docker-build": lambda n, line: f"#12 {n}.456 {line}",
    "docker-excerpt": lambda n, line: f"{n}.456 {line}",
    "compose": lambda n, line: f"app-1  | {line}",
    "docker-json": lambda n, line: json.dumps({"log": line + "\n", "stream": "stderr", "time": "2026"}),
    "go-json": lambda n, line: json.dumps({"ImportPath": "x", "Action": "build-output", "Output": line}),
    "journal": lambda n, line: f"Jun 09 12:00:00 host ci[{n}]: {line}",
    "teamcity": lambda n, line: f"[12:00:00]W: [Step 1/2] {line}",
    "buildkite": lambda n, line: f"\x1b_bk;t=17{n:05}\x07\x1b[31m{line}\x1b[0m",
    "crlf": lambda n, line: f"{line}\r",
    "mail": lambda n, line: f"> {line}",
}


@pytest.mark.parametrize("file", OUTPUTS, ids=lambda file: file.stem)
def test_a_real_output_in_every_form(file: Path) -> None:
    text, want = output(file), wanted(file)
    plain = tell(text)
    assert (plain.answer["root_cause"] or "none") == want
    assert plain.failed == (want != "none")
    for finding in plain.answer["findings"]:
        assert finding["stage"]
        assert "step" not in finding["evidence"]
    lines = text.splitlines()
    for name, form in FORMS.items():
        shaped = "".join(form(n, line) + "\n" for n, line in enumerate(lines))
        assert root(shaped) == want, (name, shaped)


@pytest.mark.parametrize("file", OUTPUTS, ids=lambda file: file.stem)
def test_a_real_output_out_of_order(file: Path) -> None:
    lines = output(file).splitlines(keepends=True)
    for seed in range(5):
        random.Random(seed).shuffle(lines)
        assert root(*lines) == wanted(file), lines


@pytest.mark.parametrize("file", OUTPUTS, ids=lambda file: file.stem)
def test_a_real_output_amid_other_jobs(file: Path) -> None:
    """Interleaved with a job that is well; each line with its job's mark."""
    quiet = ["go: downloading golang.org/x/text v0.3.0", "ok  \texample.com/x\t0.01s", "\tat all well"]
    mixed = "".join(
        f"#12 {n}.100 {line}\n#13 {n}.200 {quiet[n % 3]}\n"
        for n, line in enumerate(output(file).splitlines())
    )
    assert root(mixed) == wanted(file)


@cache
def says_it_all(file: Path) -> bool:
    """One line of it tells the cause; so it stays the same wherever the rest is cut off."""
    return wanted(file) != "none" and len(tell(output(file)).answer["findings"]) == 1


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_cut_off(data: st.DataObject) -> None:
    """Cut after the telling line, whatever comes before; and fed in pieces of any size."""
    file = data.draw(st.sampled_from([file for file in OUTPUTS if says_it_all(file)]))
    lines = output(file).splitlines(keepends=True)
    last = max(n for n in range(len(lines)) if root(*lines[n:]) == wanted(file))
    start = data.draw(st.integers(0, last))
    whole = "".join(lines[start:]).encode()
    cut = data.draw(st.integers(0, len(whole)))
    assert root(whole[:cut], whole[cut:]) == wanted(file)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_two_failures_in_one_log(data: st.DataObject) -> None:
    """Neither hides the other, and the order of the log decides nothing."""
    files = [file for file in OUTPUTS if says_it_all(file)]
    one, two = (data.draw(st.sampled_from(files)) for _ in range(2))
    answers = [tell(output(a), output(b)).answer for a, b in ((one, two), (two, one))]
    for answer in answers:
        told = json.dumps(answer)
        assert answer["root_cause"] in (wanted(one), wanted(two))
        assert wanted(one) in told
        assert wanted(two) in told


def test_failures_of_one_cause_are_one_finding() -> None:
    lines = [REFUSED.replace("a.example/m", f"a.example/m{n}") for n in range(30)]
    (found,) = tell(*lines).answer["findings"]
    assert (found["id"], found["subject"], found["stage"]) == ("tcp.refused", "p.example:443", "download")
    evidence = found["evidence"]
    assert (evidence["count"], len(evidence["modules"]), evidence["more"]) == (30, 20, 10)
    assert evidence["modules"][0] == "a.example/m0@v1.0.0"
    assert evidence["address"] == "192.0.2.1:443"


def test_a_log_of_failures_is_bounded_and_counts_all() -> None:
    lines = [REFUSED.replace("p.example", f"p{n}.example") for n in range(7000)]
    gone = "go: b.example/x@v1.0.0: reading https://p.example/b.example/x/@v/v1.0.0.mod: 404 Not Found\n"
    found = tell(*lines, gone).answer["findings"]
    assert len(found) <= 102
    assert sum(f["evidence"]["count"] for f in found if f["id"] == "tcp.refused") == 7000
    assert found[-1]["id"] == "module.not-found"


def test_what_follows_is_counted_with_its_cause() -> None:
    after = "main.go:3:8: no required module provides package b.example/x; to add it:\n\tgo get b.example/x\n"
    (found,) = tell(after, REFUSED).answer["findings"]
    assert found["id"] == "tcp.refused"
    assert found["evidence"]["consequences"] == {"module.not-found": 1}
    assert root(after) == "module.not-found"
    gone = "go: b.example/x@v1.0.0: reading https://p.example/b.example/x/@v/v1.0.0.mod: 404 Not Found\n"
    assert [f["id"] for f in tell(REFUSED, gone).answer["findings"]] == ["tcp.refused", "module.not-found"]


def test_our_own_words_are_exact() -> None:
    found = first(
        f"go: a.example/m@v1.0.0: reading http://127.0.0.1:4567/{SECRET}/a.example/m/@v/v1.0.0.zip: 502 No\n"
        "\tserver response: gotunnel: ssh.forwarding-denied: proxy.golang.org: refused (by tokyo)\n"
    )  # fmt: skip
    assert (found["id"], found["via"], found["stage"]) == ("ssh.forwarding-denied", "tokyo", "download")
    assert found["evidence"]["modules"] == ["a.example/m@v1.0.0"]
    assert SECRET not in json.dumps(found)
    found = first(
        f"{GET}gotunnel: tcp.timeout: no way out reached p.example:443: tokyo: tcp.timeout: silent; "
        "paris: tcp.refused: no\n"
    )
    assert (found["id"], found["via"], found["subject"]) == ("tcp.timeout", "tokyo", "p.example:443")


def test_bodies_stay_with_their_jobs() -> None:
    """Two jobs' status lines and bodies, interleaved."""
    status = "go: {m}@v1.0.0: reading http://127.0.0.1:1/" + SECRET + "/{m}/@v/v1.0.0.zip: 502 Bad Gateway"
    log = (
        f"#1 0.1 {status.format(m='a.example/a')}\n#2 0.1 {status.format(m='b.example/b')}\n"
        "#1 0.2 \tserver response: gotunnel: dns.not-found: a.example: no such name\n"
        "#2 0.2 \tserver response: gotunnel: http.rate-limited: b.example: 429\n"
    )
    found = {f["id"]: f["evidence"]["modules"] for f in tell(log).answer["findings"]}
    assert found == {"dns.not-found": ["a.example/a@v1.0.0"], "http.rate-limited": ["b.example/b@v1.0.0"]}


def test_a_compile_error_isnt_the_networks_fault() -> None:
    found = first("# example.com/app\n./a.go:1:2: undefined: x\n./b.go:3:4: undefined: y\n")
    assert (found["id"], found["stage"], found["retryable"]) == ("build.failed", "build", False)
    assert found["evidence"]["files"] == ["./a.go:1:2", "./b.go:3:4"]
    link = "/usr/local/go/pkg/tool/linux_amd64/link: running gcc failed: exit status 1\n"
    assert first(link)["stage"] == "link"


def test_a_request_that_another_source_answered_is_a_warning() -> None:
    dead, ok = (f"# get https://{host}.example/a.example/m/@v/v1.0.0.zip" for host in ("dead", "ok"))
    failed = f'{dead}: Get "{dead[6:]}": dial tcp 192.0.2.1:443: connect: connection refused\n'
    told = tell(f"{dead}\n{failed}{ok}\n{ok}: 200 OK (0.123s)\n")
    assert [(f["id"], f["severity"]) for f in told.answer["findings"]] == [("tcp.refused", "warning")]
    assert not told.failed
    assert root(f"{dead}\n{failed}{ok}\n") == "tcp.refused"  # cut off, or nothing came


def test_what_gotunnel_said_of_a_way_out() -> None:
    down = "gotunnel: way out tokyo is down: ssh.auth-failed: publickey refused\n"
    found = first(down)
    assert (found["id"], found["via"], found["severity"]) == ("ssh.auth-failed", "tokyo", "error")
    answer = tell(down, "./a.go:1:2: undefined: x\n").answer
    assert answer["root_cause"] == "build.failed"
    assert [f["severity"] for f in answer["findings"]] == ["error", "warning"]


HIDDEN = (
    f"go: m.example/a@v1: reading http://127.0.0.1:4567/{SECRET}/m.example/a/@v/v1.mod: 502 Bad Gateway",
    f'go: m.example/a@v1: Get "https://team.example/{SECRET}/x": EOF',
    f'go: m.example/a@v1: Get "https://user:{SECRET}@p.example/x": dial tcp: lookup p.example: no such host',
    f'go: m.example/a@v1: Get "https://user:p@{SECRET}@p.example/x": lookup p.example: no such host',
    f"fatal: unable to access 'https://{SECRET}@git.example/r/': Could not resolve host: git.example",
    f"fatal: Authentication failed for 'https://x-access-token:{SECRET}@git.example/r/'",
    f"> Authorization: Basic {SECRET}= : connection refused",
    f"http.extraheader=AUTHORIZATION: bearer {SECRET} connection refused",
    f"machine git.example login me password {SECRET} connection refused",
    f"connection refused by machine git.example login me password {SECRET}",
    f"PRIVATE-TOKEN: {SECRET} connection refused",
    f"connection refused https://p.example/x?access_token={SECRET}&y=1",
    f"connection refused GOTUNNEL_TOKEN={SECRET}",
    f"connection refused ghp_{SECRET.replace('-', '')}",
    f"connection refused glpat-{SECRET}",
    f"gotunnel: way out tokyo is down: tcp.refused: http://me:{SECRET}@proxy.example",
    f"{GET}gotunnel: proxy.denied: https://me:{SECRET}@proxy.example/ said no",
    f'# get https://u:{SECRET}@p.example/m.example/a/@v/v1.mod: Get "https://u:{SECRET}@p.example/x": EOF',
    f"fatal: nothing known, but the token={SECRET} stands in the last line",
)


@pytest.mark.parametrize("line", HIDDEN)
def test_no_secret_leaves(line: str) -> None:
    from gotunnel.cli.explain import lines

    told = tell(line + "\n")
    assert SECRET[:12] not in json.dumps(told.answer)
    assert SECRET[:12] not in "\n".join(lines(told))


def test_a_command_to_paste_is_harmless() -> None:
    """What a log says goes into no command but as a plain word."""
    for evil in ("$(reboot)", "`reboot`", "a;reboot", "a|reboot", "a&reboot", "-oProxyCommand=reboot"):
        told = tell(
            f"ssh: Could not resolve hostname {evil}: Name or service not known\n"
            f'go: a.example/m@v1.0.0: Get "https://{evil}/x": dial tcp 192.0.2.1:443: connection refused\n'
            f'Load key "/x/{evil}": bad permissions\n'
        )
        assert told.failed
        for finding in told.answer["findings"]:
            assert not any("reboot" in fix for fix in finding["fix"]), finding["fix"]


def test_what_isnt_known() -> None:
    told = tell("hello\nerror: the moon is full\nbye\n")
    assert told.answer == {"ok": True, "root_cause": None, "findings": []}
    assert told.last == "error: the moon is full"


@pytest.mark.parametrize(
    ("text", "line", "lane"),
    [
        ("2026-06-09T12:00:00.1Z \tserver response: x", "\tserver response: x", ""),
        ("#12 3.456 go: x", "go: x", "#12"),
        ("12.345 \tgo: x", "\tgo: x", ""),
        ("# get https://x.example/: 200 OK (0.123s)", "# get https://x.example/: 200 OK (0.123s)", ""),
        ("0.123s # cd /x; git fetch", "0.123s # cd /x; git fetch", ""),
        ("web_1  | go: x", "go: x", "web_1"),
        ("FAIL\texample.com/x [build failed]", "FAIL\texample.com/x [build failed]", ""),
        ("./main.go:5:2: undefined: x", "./main.go:5:2: undefined: x", ""),
    ],
)
def test_a_prefix_goes_and_nothing_else(text: str, line: str, lane: str) -> None:
    assert (bare(text).text, bare(text).lane) == (line, lane)


def test_what_a_url_asks_for() -> None:
    want = asked("https://p.example/base/github.com/!burnt!sushi/toml/@v/v1.2.3.zip")
    assert want is not None
    assert (want.host, want.module, want.version, want.step) == (
        "p.example", "github.com/BurntSushi/toml", "v1.2.3", "download",
    )  # fmt: skip
    steps = {
        "/a.example/m/@v/list": "resolve", "/a.example/m/@latest": "resolve",
        "/a.example/m/@v/v1.mod": "resolve",
        "/sumdb/sum.golang.org/lookup/a.example/m@v1": "verify", "/tile/8/0/x001/234": "verify", "/": "",
        "/m?go-get=1": "resolve",
    }  # fmt: skip
    for path, step in steps.items():
        found = asked("https://p.example" + path)
        assert found is not None
        assert found.step == step, path


def test_scrubbing_leaves_the_rest_and_takes_no_time() -> None:
    plain = "User was rejected by the SOCKS5 server, password authentication failed; git@github.com:x/y"
    assert scrub(plain) == plain
    assert scrub("ssh://git@host.example/r") == "ssh://git@host.example/r"
    for hostile in ("a" * 60_000, "https://" * 8_000, "token-" * 10_000, "login x " * 8_000):
        assert len(scrub(hostile)) <= 2100
