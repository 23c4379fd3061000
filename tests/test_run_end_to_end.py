"""`gotunnel run` against real sshds and proxies in namespaces, with a real go: the user's story."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import pytest

from tests.gotunnel_in_lab import Ran, finish, jump, nothing_left, run, start, ways
from tests.lab import keys, proc
from tests.lab.silent import Silent
from tests.lab.topology import GIT_HTTPS, GIT_SSH, PASSWORD, USER, Topology

Break = Callable[[Topology], None]


def sound(lab: Topology, ran: Ran) -> None:
    """What holds in every run: nothing direct, no name asked at home, nothing left behind."""
    assert lab.direct_attempts() == []
    assert not {name for name in lab.client_queries() if name.split(".")[0] in ("modules", "git", "plain")}
    assert nothing_left(lab)
    assert "Traceback" not in ran.stderr


def test_tidy_download_and_build_by_one_jump_host(lab: Topology) -> None:
    project, env = lab.fresh_project(requires=False, sums=False), lab.go_env()
    for argv in (["go", "mod", "tidy"], ["go", "mod", "download"], ["go", "build", "-o", "prog", "."]):
        ran = run(lab, [jump(lab, 1)], argv, cwd=project, env=env)
        assert ran.status == 0, ran.stderr
        assert ran.lines == []
        sound(lab, ran)
    assert (project / "prog").stat().st_size > 100_000
    assert {r["client"] for r in lab.modules.requests()} == {"10.80.0.11"}


@pytest.mark.parametrize(
    ("chain", "client"),
    [
        ("http://proxy.lab.example:8888", "10.80.0.13"),
        (f"http://{USER}:{PASSWORD}@proxy.lab.example:8889", "10.80.0.13"),
        ("socks5h://proxy.lab.example:1080", "10.80.0.13"),
        (f"socks5h://{USER}:{PASSWORD}@proxy.lab.example:1081", "10.80.0.13"),
        ("ssh1,ssh2", "10.80.0.12"),
        ("http://proxy.lab.example:8888,ssh1i", "10.80.0.11"),
        ("ssh1,http://10.80.0.13:8888", "10.80.0.13"),
        ("socks5h://proxy.lab.example:1080,ssh2i,http://10.80.0.13:8888", "10.80.0.13"),
    ],
)
def test_every_kind_and_chain(lab: Topology, chain: str, client: str) -> None:
    user = lab.sshd1.user
    names = {"ssh1i": f"{user}@10.80.0.11", "ssh2i": f"{user}@10.80.0.12"}
    names |= {"ssh1": f"{user}@jump1.lab.example", "ssh2": f"{user}@10.80.0.12"}
    chain = ",".join(names.get(hop, hop) for hop in chain.split(","))
    ran = run(lab, [chain], ["go", "mod", "download"], cwd=lab.fresh_project())
    assert ran.status == 0, ran.stderr
    assert {r["client"] for r in lab.modules.requests()} == {client}
    typed = PASSWORD in chain
    assert [line for line in ran.lines if "can be seen in ps" not in line] == []
    assert any("can be seen in ps" in line for line in ran.lines) == typed
    assert PASSWORD not in ran.stderr
    assert PASSWORD not in str(ran.log)
    sound(lab, ran)


def test_direct_mode_git_over_https_and_over_ssh(lab: Topology) -> None:
    project = lab.directory / "projects" / "direct"
    project.mkdir(parents=True, exist_ok=True)
    (project / "go.mod").write_text("module example.com/p\n\ngo 1.21\n")
    # the user's own ssh command for git is extended, not replaced
    own_ssh = f"ssh -i {lab.key.private} -o UserKnownHostsFile={lab.known_hosts}"
    env = lab.go_env(GOPROXY="direct", GOFLAGS="-mod=mod -modcacherw", GIT_SSH_COMMAND=own_ssh)
    argv = ["go", "get", f"{GIT_HTTPS}@v1.2.0", f"{GIT_SSH}@v1.0.0"]
    ran = run(lab, [jump(lab, 1)], argv, cwd=project, env=env)
    assert ran.status == 0, ran.stderr
    assert f"{GIT_SSH} v1.0.0" in (project / "go.mod").read_text()
    assert "Accepted publickey" in lab.git_sshd.log_text()
    sound(lab, ran)


def refused(lab: Topology) -> None:
    lab.sshd1.stop()


def black_hole(lab: Topology) -> None:
    lab.black_hole(lab.jump1, 22)


def mute(lab: Topology) -> None:
    lab.sshd1.freeze()  # the kernel accepts, sshd never speaks


def other_key(lab: Topology) -> None:
    lab.sshd1.forget_keys()


def changed_host_key(lab: Topology) -> None:
    lab.sshd1.new_host_key()


def no_forwarding(lab: Topology) -> None:
    lab.sshd1.set_options(AllowTcpForwarding="no")


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (refused, {"tcp.refused"}),
        (black_hole, {"tcp.timeout", "hop.stalled"}),
        (mute, {"hop.stalled"}),
        (other_key, {"ssh.auth-failed"}),
        (changed_host_key, {"ssh.host-key-changed"}),
        (no_forwarding, {"ssh.forwarding-denied"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_first_jump_host_is_unfit_the_second_carries(
    lab: Topology, break_it: Break, reason: set[str]
) -> None:
    break_it(lab)
    logged = len(lab.sshd1.log_text())
    ran = run(lab, [jump(lab, 1), jump(lab, 2)], ["go", "mod", "download"], cwd=lab.fresh_project())
    assert ran.status == 0, ran.stderr
    assert ran.reasons("jump1") & reason, ran.log
    assert [a["exit"] for a in ran.events("attempt")] == [0]  # go never saw it
    assert ran.events("failover")[0]["to"].endswith("jump2.lab.example")
    assert {r["client"] for r in lab.modules.requests()} == {"10.80.0.12"}
    assert any("jump2" in line for line in ran.lines)
    if break_it is changed_host_key:
        assert any("CHANGED" in line for line in ran.lines)
        assert "Accepted" not in lab.sshd1.log_text()[logged:]
    sound(lab, ran)


def test_first_jump_host_is_killed_while_zips_are_under_way(lab: Topology) -> None:
    lab.modules.behave(zip_rate=1_500)
    project = lab.fresh_project()
    options = ways(lab, jump(lab, 1), jump(lab, 2))
    started = time.monotonic()
    process, events = start(lab, options, ["go", "mod", "download"], env=lab.go_env(), cwd=project)
    lab.modules.wait_for(r"\.zip$", 2)
    lab.sshd1.kill()
    lab.modules.behave()
    ran = finish(process, events, started)
    assert ran.status == 0, ran.stderr
    assert len(ran.events("attempt")) <= 2
    assert "10.80.0.12" in {r["client"] for r in lab.modules.requests()}
    assert ran.reasons("jump1") & {"hop.closed", "tcp.refused"}
    sound(lab, ran)


@pytest.mark.parametrize("how", ["refused", "black-hole", "unknown-key"])
def test_all_down_is_69_in_time_and_never_direct(lab: Topology, how: str) -> None:
    for sshd, space in ((lab.sshd1, lab.jump1), (lab.sshd2, lab.jump2)):
        if how == "refused":
            sshd.stop()
        elif how == "black-hole":
            lab.black_hole(space, 22)
        else:
            sshd.new_host_key()
    ran = run(lab, [jump(lab, 1), jump(lab, 2)], ["go", "mod", "download"], cwd=lab.fresh_project())
    assert ran.status == 69, ran.stderr
    assert ran.seconds < 15
    last = ran.lines[-2:]
    assert "jump1" in last[0]
    assert "jump2" in last[1]
    expected = {"refused": "tcp.refused", "black-hole": "tcp.timeout", "unknown-key": "ssh.host-key-changed"}
    assert all(expected[how] in line for line in last), ran.stderr
    assert lab.modules.begun() == []
    sound(lab, ran)


def test_a_command_that_needs_no_network_waits_for_none(lab: Topology) -> None:
    lab.black_hole(lab.jump1)
    ran = run(lab, [jump(lab, 1)], ["sh", "-c", "echo out; exit 3"])
    assert (ran.status, ran.stdout) == (3, "out\n")
    assert ran.seconds < 5
    sound(lab, ran)


def test_a_failure_that_is_not_the_network_is_not_repeated(lab: Topology) -> None:
    project = lab.fresh_project()
    (project / "main.go").write_text("package main\n\nfunc main() { undefined() }\n")
    ran = run(lab, [jump(lab, 1)], ["go", "build", "."], cwd=project)
    assert ran.status == 1
    assert [(a["number"], a["finding"]) for a in ran.events("attempt")] == [(1, "build.failed")]
    assert ran.lines == []
    sound(lab, ran)


def source_that_mends(lab: Topology) -> None:
    """The module source fails until it was asked for a zip, and a little longer."""
    lab.modules.behave(status={r"\.zip$": 503})

    def mend() -> None:
        lab.modules.wait_for(r"\.zip$")
        time.sleep(0.3)
        lab.modules.behave()

    threading.Thread(target=mend).start()


def test_a_module_source_that_fails_once_is_asked_again(lab: Topology) -> None:
    source_that_mends(lab)
    options = ["--no-modproxy"]
    ran = run(lab, [jump(lab, 1)], ["go", "mod", "download"], cwd=lab.fresh_project(), options=options)
    assert ran.status == 0, ran.stderr
    assert len(ran.events("attempt")) >= 2
    assert ran.events("attempt")[0]["finding"] == "http.server-error"
    assert any("repeating the command" in line for line in ran.lines)
    sound(lab, ran)


def test_the_module_proxy_asks_again_itself_so_that_go_sees_nothing(lab: Topology) -> None:
    source_that_mends(lab)
    ran = run(lab, [jump(lab, 1)], ["go", "mod", "download"], cwd=lab.fresh_project())
    assert ran.status == 0, ran.stderr
    assert len(ran.events("attempt")) == 1
    sound(lab, ran)


def test_without_the_secret_nothing_is_dialled(lab: Topology) -> None:
    script = (
        "curl -sS -o /dev/null -w '%{http_connect}' --proxy \"http://x:wrong@${HTTPS_PROXY##*@}\" "
        f"{lab.modules.url}/"
    )
    ran = run(lab, [jump(lab, 1)], ["sh", "-c", script])
    assert ran.stdout == "407"
    assert ran.events("dial") == []
    assert lab.modules.begun() == []
    sound(lab, ran)


def test_plain_http_goes_by_the_endpoint_too(lab: Topology) -> None:
    env = lab.go_env(GOPROXY=lab.plain.url)
    ran = run(lab, [jump(lab, 1)], ["go", "mod", "download"], cwd=lab.fresh_project(), env=env)
    assert ran.status == 0, ran.stderr
    assert {r["client"] for r in lab.plain.requests()} == {"10.80.0.11"}
    assert "proxy-authorization" not in str(lab.plain.requests()).lower()
    sound(lab, ran)


def test_ssh_config_alias_agent_and_letters(lab: Topology) -> None:
    home = lab.directory / "home-alias"
    (home / ".ssh").mkdir(parents=True, exist_ok=True)
    config = home / ".ssh" / "config"
    config.write_text(
        f"Host hop\n  HostName jump1.lab.example\n  User {lab.sshd1.user}\n  IdentityFile {lab.key.private}\n"
        f"  UserKnownHostsFile {lab.known_hosts}\n"
        f"Host inner\n  HostName 10.80.0.12\n  User {lab.sshd2.user}\n  IdentityFile {lab.key.private}\n"
        f"  UserKnownHostsFile {lab.known_hosts}\n  ProxyJump hop\n"
    )
    config.chmod(0o600)
    curl = ["curl", "-sS", "-o", "/dev/null", f"{lab.modules.url}/{lab.corpus.first[0].path}/@v/list"]
    ran = run(lab, [], curl, options=["-F", str(config), "-J", "inner"])
    assert ran.status == 0, ran.stderr
    assert [r["client"] for r in lab.modules.requests()] == ["10.80.0.12"]
    with keys.Agent(lab.directory / "agent") as agent:
        agent.add(lab.key)
        env = lab.go_env(**agent.env)
        options = ["--known-hosts", str(lab.known_hosts), "-J", jump(lab, 1)]
        started = time.monotonic()
        process, events = start(lab, options, curl, env=env)
        by_agent = finish(process, events, started)
    assert by_agent.status == 0, by_agent.stderr
    sound(lab, ran)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_gotunnel(lab: Topology, number: signal.Signals) -> None:
    orphans = "setsid sleep 300 & (setsid sh -c 'sleep 300; :' &); sleep 300 & wait"
    started = time.monotonic()
    process, events = start(lab, ways(lab, jump(lab, 1)), ["sh", "-c", orphans], env=lab.go_env())
    # gotunnel, its keeper, sh, three sleepers and a shell round one of them
    proc.wait_until("the sleepers", lambda: len(lab.client_processes()) >= 7)
    process.send_signal(number)
    ran = finish(process, events, started)
    assert ran.status == (-number if number == signal.SIGKILL else 128 + number)
    sound(lab, ran)


def test_a_mute_server_on_the_path_does_not_hold_the_others(lab: Topology, tmp_path: object) -> None:
    with Silent(lab.directory / "silent", "silent", place=lab.proxy, address="10.77.3.2", port=2222):
        chains = ["http://proxy.lab.example:2222", "socks5h://proxy.lab.example:2222", jump(lab, 2)]
        ran = run(lab, chains, ["go", "mod", "download"], cwd=lab.fresh_project())
    assert ran.status == 0, ran.stderr
    assert {r["client"] for r in lab.modules.requests()} == {"10.80.0.12"}
    sound(lab, ran)


def test_a_second_uplink_is_chosen_by_interface_or_source(lab: Topology) -> None:
    """`direct:` with an interface or an address reaches what that one reaches, and nothing else."""
    links = lab._links
    curl = ["curl", "-sS", "-o", "/dev/null", f"{lab.modules.url}/{lab.corpus.first[0].path}/@v/list"]
    right = [f"direct:?interface={links['jump1'].device_a}", "direct:?source=10.77.1.1"]
    for first in right:
        ran = run(lab, [f"{first},{jump(lab, 1)}"], curl)
        assert ran.status == 0, ran.stderr
    wrong = run(lab, [f"direct:?interface={links['jump2'].device_a},{jump(lab, 1)}"], curl)
    assert wrong.status == 69
    assert {r["client"] for r in lab.modules.requests()} == {"10.80.0.11"}
    missing = run(lab, [f"direct:?interface=nosuch0,{jump(lab, 1)}"], curl)
    assert missing.status == 69
    assert "nosuch0" in missing.stderr
    sound(lab, missing)
