"""What a command printed, and whether it is worth repeating: real outputs first, then doubts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gotunnel.child.classify import Output, Verdict, go_verb, is_go_command, loads_modules

OUTPUTS = sorted((Path(__file__).parent / "data" / "outputs").glob("*.txt"))
HEAD = re.compile(
    r"# argv: (?P<argv>.*)  exit: (?P<exit>-?\d+)  go: (?P<go>\S+)  retry: (?P<retry>yes|no|once)"
)

GET = 'Get "https://p.example/a.example/m/@v/v1.0.0.zip": '
REFUSED = f"go: a.example/m@v1.0.0: {GET}dial tcp 192.0.2.1:443: connect: connection refused\n"
NOT_THERE = "go: b.example/m@v1.0.0: reading https://p.example/b.example/m/@v/v1.0.0.mod: 404 Not Found\n"
LOADING = f"main.go:3:8: a.example/m@v1.0.0: {GET}EOF\n"
MISMATCH = (
    "verifying a.example/m@v1.0.0: checksum mismatch\n\tdownloaded: h1:x\n\tgo.sum: h1:y\n\nSECURITY ERROR\n"
)


def judge(argv: str, status: int, text: str, *, allow_any: bool = False) -> Verdict:
    output = Output()
    output.feed(text.encode())
    return output.verdict(argv.split(), status, allow_any=allow_any)


@pytest.mark.parametrize("file", OUTPUTS, ids=lambda file: file.stem)
def test_a_real_output(file: Path) -> None:
    first, _, text = file.read_text().partition("\n")
    head = HEAD.fullmatch(first)
    assert head, first
    verdict = judge(head["argv"], int(head["exit"]), text, allow_any=True)
    wanted = file.name.partition("--")[0]
    assert verdict.finding == (None if wanted == "none" else wanted)
    assert ("once" if verdict.once else "yes" if verdict.retry else "no") == head["retry"], verdict
    if not is_go_command(head["argv"].split()):
        assert not judge(head["argv"], int(head["exit"]), text).retry


def test_there_are_real_outputs() -> None:
    assert len(OUTPUTS) > 120


@pytest.mark.parametrize(
    ("argv", "verb"),
    [
        ("go mod tidy", ("mod", "tidy")),
        ("go -C dir mod tidy", ("mod", "tidy")),
        ("go -C=dir mod tidy", ("mod", "tidy")),
        ("go mod -C dir tidy -v", ("mod", "tidy")),
        ("go test -run mod ./...", ("test",)),
        ("go build", ("build",)),
        ("go tool stringer -type X", ("tool", "stringer")),
        ("go tool -n", ("tool",)),
        ("go -h", ()),
        ("go", ()),
    ],
)
def test_verbs(argv: str, verb: tuple[str, ...]) -> None:
    assert go_verb(argv.split()) == verb


@pytest.mark.parametrize(
    "name",
    ["go", "/usr/local/go/bin/go", "go1.22", "go1.22.3", "go1.27rc1", "gotip", "go.exe", r"C:\go\bin\go.exe"],
)
def test_go_by_any_name(name: str) -> None:
    assert is_go_command([name, "build"])


@pytest.mark.parametrize("name", ["gofmt", "gopls", "golangci-lint", "git", "make", "go-bindata", "ago", ""])
def test_not_go(name: str) -> None:
    assert not is_go_command([name])


def test_what_isnt_go_is_repeated_only_when_asked() -> None:
    assert judge("make build", 2, REFUSED) == Verdict(
        "tcp.refused",
        REFUSED.removeprefix("go: ").rstrip(),
        False,
        "not a command of go's: --retries N would repeat it",
    )
    assert judge("make build", 2, REFUSED, allow_any=True).retry
    assert judge("make build", 2, "no idea\n", allow_any=True) == Verdict(
        None, "", False, "no network failure seen"
    )


def test_success_says_nothing_but_for_e() -> None:
    assert judge("go build ./...", 0, REFUSED).finding is None
    assert judge("go mod tidy", 0, REFUSED).finding is None
    assert judge("go mod tidy -e", 0, REFUSED).retry
    assert judge("go -C d mod tidy -e -v", 0, NOT_THERE) == Verdict(
        "module.not-found",
        NOT_THERE.removeprefix("go: ").rstrip(),
        False,
        "another way doesn't mend it: this module or version doesn't exist there",
    )


@pytest.mark.parametrize("status", [-9, -15, 130, 137, 126, 127])
def test_ended_or_never_started(status: int) -> None:
    assert not judge("go mod tidy", status, REFUSED).retry
    assert not judge("make", status, REFUSED, allow_any=True).retry


def test_gits_128_is_no_signal() -> None:
    text = "fatal: unable to access 'https://h.example/': Could not resolve host: h.example\n"
    assert judge("git fetch", 128, text, allow_any=True).retry


def test_a_final_failure_decides() -> None:
    assert judge("go mod tidy", 1, REFUSED + NOT_THERE).finding == "module.not-found"
    assert not judge("go mod tidy", 1, REFUSED + NOT_THERE).retry
    assert not judge("go build", 1, REFUSED + "# a\n./a.go:1:2: undefined: x\n").retry


def test_but_not_when_the_network_may_have_brought_it_about() -> None:
    consequence = (
        "main.go:4:2: no required module provides package c.example/x; to add it:\n\tgo get c.example/x\n"
    )
    assert judge("go build", 1, REFUSED + consequence) == judge("go build", 1, REFUSED)
    assert not judge("go build", 1, consequence).retry
    page = 'go: c.example/x: unrecognized import path "c.example/x": parse https://c.example/x?go-get=1: no go-import meta tags ()\n'  # noqa: E501
    portal = "go: a.example/m@v1.0.0: invalid character '<' looking for beginning of value\n"
    assert judge("go get", 1, portal + page).retry
    assert not judge("go get", 1, REFUSED + page).retry


def test_a_mismatch_is_fetched_once_more_and_named_first() -> None:
    verdict = judge("go mod tidy", 1, REFUSED + MISMATCH)
    assert (verdict.finding, verdict.retry, verdict.once) == ("sum.mismatch", True, True)
    verdict = judge("go mod tidy", 1, MISMATCH + NOT_THERE)
    assert (verdict.retry, verdict.once) == (False, False)


def test_our_exact_words_are_the_cause() -> None:
    ours = f"go: a.example/m@v1.0.0: {GET}gotunnel: hop.stalled: tokyo: nothing came for 5 s\n"
    verdict = judge("go mod tidy", 1, REFUSED + ours)
    assert (verdict.finding, verdict.detail, verdict.retry) == (
        "hop.stalled",
        "tokyo: nothing came for 5 s",
        True,
    )


@pytest.mark.parametrize(
    ("argv", "text", "retry"),
    [
        ("go test", LOADING, True),
        ("go test .", LOADING, True),
        ("go test -run TestX -v -count=1 ./pkg -args ./... more", LOADING, True),
        ("go test ./...", LOADING, False),  # the other packages' tests have run
        ("go test ./a ./b", LOADING, False),
        ("go test ./...", REFUSED, True),  # go stopped before any
        ("go test ./...", REFUSED + "2026/01/02 03:04:05 something a test wrote\n", False),
        ("go test -x", "WORK=/tmp/go-build1\n" + LOADING, False),
        ("go run .", LOADING, True),
        ("go run . -flag", REFUSED + "exit status 1\n", False),  # the program ran go itself
        ("go run x.example/tool@latest", REFUSED, True),
        ("go generate ./...", REFUSED, True),
        ("go generate ./...", REFUSED + 'a.go:3: running "go": exit status 1\n', False),
        ("go tool mytool", REFUSED, False),
        ("go vet ./...", LOADING, True),
        ("go install ./...", LOADING, True),
    ],
)
def test_other_peoples_programs_are_never_started_twice(argv: str, text: str, retry: bool) -> None:
    assert judge(argv, 1, text).retry is retry


def test_a_failing_test_is_not_our_business() -> None:
    assert judge("go test ./...", 1, "go: downloading a.example/m v1.0.0\n").finding is None
    assert judge("go run .", 1, "panic: x\nexit status 2\n").finding is None
    assert judge("go mod tidy", 1, "go: something new\n").finding == "unknown"


def test_what_our_own_rules_forbid_is_not_asked_for_again() -> None:
    reading = (
        "go: a.example/m@v1.0.0: reading http://127.0.0.1:3000/s/a.example/m/@v/v1.0.0.mod: 403 Forbidden\n"
    )
    words = "\tserver response: gotunnel: http.forbidden: a.example/m@v1.0.0: the filter denies a.example/m\n"
    verdict = judge("go mod download", 1, reading + words)
    assert (verdict.finding, verdict.retry) == ("http.forbidden", False)
    assert judge("go mod download", 1, reading).retry
    text = f"go: a.example/m@v1: {GET}gotunnel: proxy.denied: p.example:443: rejected by a route\n"
    verdict = judge("go mod tidy", 1, text)
    assert (verdict.finding, verdict.retry) == ("proxy.denied", False)


def test_the_detail_holds_no_secret() -> None:
    secret = "s" * 32
    text = f'go: a.example/m@v1.0.0: Get "http://127.0.0.1:3000/{secret}/a": dial tcp 127.0.0.1:3000: connect: connection refused\n'  # noqa: E501
    verdict = judge("go mod tidy", 1, text.replace("a.example/m", "https://u:hunter2@h.example/"))
    assert verdict.retry
    assert secret not in verdict.detail
    assert "hunter2" not in verdict.detail


def test_a_log_of_failures_takes_little_memory() -> None:
    output = Output()
    for _ in range(50):
        output.feed(REFUSED.encode() * 200)
    assert output.verdict(["go", "build"], 1).retry


@pytest.mark.parametrize(
    ("line", "loads"),
    [
        ("go mod tidy", True), ("go build ./...", True), ("go1.26 test", True),
        ("go -C x mod download", True),
        ("go version", False), ("go env GOPROXY", False), ("go mod edit -json", False), ("go", False),
        ("make", False), ("go work sync", True),
    ],
)  # fmt: skip
def test_which_commands_may_ask_for_modules(line: str, loads: bool) -> None:
    assert loads_modules(line.split()) is loads
