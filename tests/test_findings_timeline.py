"""The requests of `-x`: counted by host and module, in bounded memory."""

from __future__ import annotations

from pathlib import Path

from gotunnel.findings.timeline import OTHERS, Timeline, lines

DATA = Path(__file__).parent / "data" / "outputs"


def timeline(*told: str) -> Timeline:
    made = Timeline()
    for line in told:
        made.take(line)
    return made


def get(host: str, path: str, answer: str = "") -> str:
    return f"# get https://{host}.example/{path}" + (f": {answer}" if answer else "")


def test_requests_by_host_and_module() -> None:
    made = timeline(
        get("a", "m.example/m/@v/list"),
        get("a", "m.example/m/@v/list", "200 OK (0.250s)"),
        get("a", "m.example/!m/@v/v1.0.0.zip"),
        get("a", "m.example/!m/@v/v1.0.0.zip", "200 OK (1.500s)"),
        get("a", "m.example/@v/list", "404 Not Found (0.100s)"),
        get("b", "m.example/m/@v/v1.0.0.mod", "503 Service Unavailable (0.300s)"),
        get("b", "m.example/m/@v/v1.0.0.info", 'Get "https://b.example/x": dial tcp 192.0.2.1: i/o timeout'),
        get("b", "m.example/m/@v/v2.0.0.info"),
        "go: downloading m.example/m v1.0.0",
    )  # fmt: skip
    assert (made.requests, made.failed) == (5, 2)
    assert [(row.name, row.requests, row.failed) for row in made.rows(made.hosts, 9)] == [
        ("b.example", 2, 2), ("a.example", 3, 0),
    ]  # fmt: skip
    assert made.hosts["a.example"].seconds == 1.85
    assert made.hosts["a.example"].slowest == 1.5
    assert "m.example/M@v1.0.0" in made.modules
    assert made.slowest()[0].what == "https://a.example/m.example/!m/@v/v1.0.0.zip"
    assert [request.said for request in made.failing] == [
        "503 Service Unavailable", "dial tcp 192.0.2.1: i/o timeout",
    ]  # fmt: skip
    assert made.unanswered() == ["https://b.example/m.example/m/@v/v2.0.0.info"]


def test_git_commands_count_for_their_repository() -> None:
    made = Timeline()
    for line in (DATA / "vcs.credentials--x-git.go1.26.txt").read_text().splitlines():
        made.take(line)
    assert [(row.name, row.requests) for row in made.hosts.values()] == [("github.com", 1)]
    made.take("12.500s # cd /home/dev/modcache/cache/vcs/04dea6a4dfadfa20554125bbdbc455f922837a0e1522860"
              "bbfc10d49323eb935; git fetch -f --depth=1 origin refs/tags/v1.0.0")  # fmt: skip
    assert made.hosts["github.com"].slowest == 12.5
    made.take("1.000s # cd /x; git ls-remote -q git@git.corp.example:team/r")
    assert made.hosts["git.corp.example"].requests == 1


def test_a_file_that_came_from_elsewhere_is_mended() -> None:
    made = timeline(get("a", "m.example/m/@v/v1.0.0.mod", 'Get "https://a.example/x": EOF'))
    assert not made.mended("https://a.example/m.example/m/@v/v1.0.0.mod")
    made.take(get("b", "m.example/m/@v/v1.0.0.mod", "200 OK (0.1s)"))
    assert made.mended("https://a.example/m.example/m/@v/v1.0.0.mod")
    assert not made.mended("")


def test_it_is_bounded_and_counts_all() -> None:
    made = Timeline()
    for n in range(6000):
        made.take(get(f"h{n}", f"m{n}.example/m/@v/v1.0.0.mod"))
        if n % 2:
            made.take(get(f"h{n}", f"m{n}.example/m/@v/v1.0.0.mod", "503 No (0.010s)"))
    assert (made.requests, made.failed) == (3000, 3000)
    assert len(made.hosts) == 201
    assert made.hosts[OTHERS].requests == 2800
    assert len(made.modules) == 2001
    assert len(made.unanswered()) <= 2000
    shown = made.rows(made.hosts, 3)
    assert [row.name for row in shown][-1] == OTHERS
    assert sum(row.requests for row in shown) == 3000


def test_the_table_fits_and_hides_secrets() -> None:
    secret = "Zk3_9dQw-7yLr5TnXv2bHc8mJf4sPg1A"
    long = f"{secret}/{'x' * 90}.example/m/@v/v1.0.0.zip"
    text = list(
        lines(timeline(get("a", long, "200 OK (3.000s)"), get("b", long, "500 No (1.0s)"), get("c", long)))
    )
    assert max(map(len, text)) <= 80
    assert secret[:10] not in "\n".join(text)
    assert any("without an answer" in line for line in text)
