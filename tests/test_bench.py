"""The bench runs, on sizes that prove nothing about speed; the sums it does are right."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path

import pytest

from tests.bench import growth, plot, proxying, store, wan
from tests.bench.__main__ import main, narrowed
from tests.bench.many import by_connect, storm
from tests.bench.table import Aim, Case, Contender, run, table
from tests.conftest import need
from tests.lab import proc, sshd, wanlab


def test_ratios_and_aims() -> None:
    values = {"ours": iter([9.0, 1.0, 30.0, 2.0]), "theirs": iter([9.0, 4.0, 4.0, 40.0])}
    order: list[str] = []

    def measure(name: str) -> float:
        order.append(name)
        return next(values[name])

    case = Case(
        "x", "a case", "ms",
        [Contender("ours", lambda: measure("ours")), Contender("theirs", lambda: measure("theirs"))],
        [Aim("ours", 0.5, "theirs"), Aim("ours", 1.5)],
    )  # fmt: skip
    result = run(case, 3)
    # the first round warms and is not counted; who begins takes turns
    assert result.samples == {"ours": [1.0, 30.0, 2.0], "theirs": [4.0, 4.0, 40.0]}
    assert order[2::2] == ["ours", "theirs", "ours"]
    assert [result.reached(aim) for aim in case.aims] == [(0.5, True), (2.0, False)]
    text = table(result)
    assert "ours at most 0.5 x theirs: 0.50, reached" in text
    assert "ours at most 1.5 ms: 2.00, NOT reached" in text


def test_a_cold_case_has_no_round_to_warm_up_and_a_bound() -> None:
    values = {"ours": 3.0, "theirs": 30.0}
    contenders = [Contender(name, lambda name=name: values[name]) for name in values]  # type: ignore[misc]
    aims = [Aim("ours", 0.5, "theirs"), Aim("ours", 5)]
    case = Case("x", "a case", "s", contenders, aims, warm=False, bound=1.5)
    result = run(case, 1)
    assert result.samples == {"ours": [3.0], "theirs": [30.0]}
    lines = [line.split() for line in table(result).splitlines()]
    assert lines[2] == ["ours", "3.00", "3.00", "3.00", "1.00", "2.00", "s"]
    assert lines[4] == ["bound", "1.50"]
    alone = narrowed(case, "ours")
    assert [contender.name for contender in alone.contenders] == ["ours"]
    assert alone.aims == [Aim("ours", 5)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", wan.WAN_CASES)
def test_wan_cases_give_numbers(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every contender brings every module whole: a wrong byte is an error of the bench."""
    need(wanlab.able())
    monkeypatch.setattr(wan, "MODULES", 6)
    monkeypatch.setattr(wan, "LEVELS", 2)
    monkeypatch.setattr(wan, "ZIP", 100_000)
    monkeypatch.setattr(wan, "LARGE", 300_000)
    assert main([name, "--in-place", "--rtt", "10", "--loss", "0", "--rate", "100", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert {wan.SSH, wan.HTTP} < set(result["contenders"])
    assert all(told["median"] > 0 for told in result["contenders"].values())


def test_every_case_by_jump_host_gives_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """A transfer that loses or adds a byte, or a greeting that is not whole, is an error of the bench."""
    need(sshd.can_run_sshd(), (proc.tool("curl") is not None, "not installed: curl"))
    names = ["help", "run-overhead", "connect", "serve-connect", "channel", "bulk", "bulk-up", "bulk-chain"]
    assert main([*names, "--in-place", "--rounds", "1", "--size", "2", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [r["case"] for r in results] == names
    medians = [c["median"] for result in results for c in result["contenders"].values()]
    assert len(medians) >= 20
    assert all(median > 0 for median in medians)


@pytest.mark.timeout(300)
@pytest.mark.skipif(not hasattr(os, "splice"), reason="splice and epoll are Linux")
def test_every_case_of_a_local_proxy_gives_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    need(sshd.can_run_sshd(), (proc.tool("curl") is not None, "not installed: curl"))
    monkeypatch.setattr(proxying, "COUNTS", {1: 3, 100: 150, 1000: 1000})
    monkeypatch.setattr(proxying, "TUNNELS", 50)
    monkeypatch.setattr(growth, "MODULES", (10, 20))
    monkeypatch.setattr(growth, "STREAMS", (1, 4))
    monkeypatch.setattr(store, "MODULES", 4)
    monkeypatch.setattr(store, "ZIP", 10_000)
    monkeypatch.setattr(store, "SECONDS", 1)
    names = [*proxying.PROXY_CASES, *growth.GROWTH_CASES, *(store.STORE_CASES if proc.tool("wrk") else ())]
    options = ["--in-place", "--rounds", "1", "--size", "2", "--json", "--rivals", str(tmp_path)]
    assert main([*names, *options]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    ours = [next(iter(result["contenders"].values())) for result in results]
    # a few bytes take less than a tick of CPU time, a few tunnels no new page
    coarse = {"idle", "growth-streams", "growth-bytes"}
    assert all(told["median"] > 0 for told, result in zip(ours, results, strict=True)
               if result["case"] not in coarse)  # fmt: skip
    assert {told["also"].get("failed", 0) for told in ours} == {0}
    assert "not installed: pproxy" in str(results[0]["notes"])


def test_a_rival_that_refuses_is_counted(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as refuser:
        port: int = refuser.getsockname()[1]

        def refuse() -> None:
            for _ in range(2):
                peer, _ = refuser.accept()
                with peer:
                    peer.recv(4096)
                    peer.sendall(b"HTTP/1.1 403 No\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        told = storm(("127.0.0.1", port), by_connect("127.0.0.1", 9), count=2, at_once=2)
        thread.join()
    assert told.taken == []
    assert told.failures == ["HTTP/1.1 403 No"] * 2


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    need(plot.able())
    case = Case("x", "a case, RTT 20 ms", "s", [Contender("ours", lambda: 1.0)], bound=0.5)
    for rtts in ([20.0, 200.0], [None]):
        file = tmp_path / f"{len(rtts)}.png"
        plot.draw(file, [(rtt, run(case, 1)) for rtt in rtts])
        assert file.read_bytes().startswith(b"\x89PNG")


def test_an_unknown_case_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bulk", "blk"])
    assert "no such case: blk; cases: help," in capsys.readouterr().err
