"""The topology is what it says: the client gets out by its hops alone, and breaks and heals as told."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator

from tests.lab import proc
from tests.lab.sshd import Sshd
from tests.lab.topology import GIT_HTTPS, GIT_SSH, HOPS, Topology

_LISTEN = "import socket, time; s = socket.create_server(('127.0.0.1', 4711)); time.sleep(600)"


@contextlib.contextmanager
def tunnel(lab: Topology, jump: Sshd) -> Iterator[None]:
    """`ssh -D 1080` in the client, through a jump host."""
    argv = jump.client_argv(lab.key, lab.known_hosts, "-N", "-D", "127.0.0.1:1080")
    process = proc.Process(argv, log=lab.directory / "ssh.log", place=lab.client)
    try:
        process.wait_ready("ssh -D", lambda: lab.client.connect("127.0.0.1", 1080) == "connected")
        yield
    finally:
        process.kill()


def test_client_reaches_the_origin_by_the_hops_alone(lab: Topology) -> None:
    url = f"{lab.modules.url}/{lab.corpus.first[0].path}/@v/list"
    direct = lab.client_run(["curl", "-sS", url])
    assert "Could not resolve host" in direct.stderr
    assert lab.client_queries() == {"modules.lab.example"}
    assert lab.direct_attempts() == []
    assert lab.client_run(["curl", "-sS", "https://10.80.0.1/"]).returncode == 7  # couldn't connect
    assert lab.direct_attempts() == ["10.80.0.1:443"]

    lab.reset()
    for jump in (lab.sshd1, lab.sshd2):
        with tunnel(lab, jump):
            through = lab.client_run(["curl", "-sS", "--proxy", "socks5h://127.0.0.1:1080", url])
            assert through.stdout == "v1.0.0\n", through.stderr
    for proxy in (lab.http, lab.http_login, lab.socks, lab.socks_login):
        through = lab.client_run(["curl", "-sS", "--proxy", proxy.url, url])
        assert through.stdout == "v1.0.0\n", through.stderr
    assert [r["client"] for r in lab.modules.requests()] == ["10.80.0.11", "10.80.0.12"] + ["10.80.0.13"] * 4
    assert lab.client_queries() == set()
    assert "modules.lab.example" in lab.inner_dns.asked()
    assert lab.direct_attempts() == []


def test_second_jump_host_is_reached_through_the_first(lab: Topology) -> None:
    first = " ".join(lab.sshd1.client_argv(lab.key, lab.known_hosts, "-W", "%h:%p"))
    inner = [*lab.sshd2.client_options(lab.key, lab.known_hosts), "-o", f"ProxyCommand={first}"]
    inner += [f"{lab.sshd2.user}@jump2.lab.example", "echo $SSH_CONNECTION"]
    through = lab.client_run(inner)
    assert through.stdout.split()[::2] == ["10.80.0.11", "10.80.0.12"], through.stderr
    assert lab.client_queries() == set()


def test_go_gets_from_git_over_https_and_ssh(lab: Topology) -> None:
    ssh = " ".join(lab.sshd1.client_options(lab.key, lab.known_hosts))
    hop = " ".join(lab.sshd1.client_argv(lab.key, lab.known_hosts, "-W", "%h:%p"))
    env = lab.go_env(
        GOPROXY="direct",
        GOFLAGS="-mod=mod -modcacherw",
        HTTPS_PROXY=lab.http.url,
        GIT_SSH_COMMAND=f"{ssh} -o ProxyCommand='{hop}'",
    )
    project = lab.directory / "projects" / "git"
    project.mkdir(parents=True, exist_ok=True)
    (project / "go.mod").write_text("module example.com/p\n\ngo 1.21\n")
    got = lab.client_run(["go", "get", f"{GIT_HTTPS}@v1.2.0", f"{GIT_SSH}@v1.0.0"], env=env, cwd=project)
    assert got.returncode == 0, got.stderr
    text = (project / "go.mod").read_text()
    assert f"{GIT_HTTPS} v1.2.0" in text
    assert f"{GIT_SSH} v1.0.0" in text
    assert "Accepted publickey" in lab.git_sshd.log_text()
    assert lab.direct_attempts() == []


def test_jump_host_can_be_killed_while_zips_are_under_way(lab: Topology) -> None:
    env = lab.go_env(HTTPS_PROXY="socks5h://127.0.0.1:1080")
    lab.modules.behave(zip_rate=500)
    with tunnel(lab, lab.sshd1):
        go = lab.client_popen(
            ["go", "mod", "download"], env=env, cwd=lab.fresh_project(), stderr=subprocess.PIPE
        )
        lab.modules.wait_for(r"\.zip$")
        lab.sshd1.kill()
        _, complaint = go.communicate(timeout=30)
    assert go.returncode == 1
    assert ".zip" in complaint
    lab.reset()
    with tunnel(lab, lab.sshd1):
        done = lab.client_run(["go", "mod", "download"], env=env, cwd=lab.fresh_project(), timeout=60)
        assert done.returncode == 0, done.stderr


def test_reset_heals_everything(lab: Topology) -> None:
    def healthy() -> list[str]:
        return [
            lab.client.connect(f"{prefix}.2", port, 5)
            for prefix, port in zip(HOPS.values(), (22, 22, 8888), strict=True)
        ]

    known = lab.known_hosts.read_text()
    lab.cut("jump1")
    lab.black_hole(lab.jump2, 22)
    lab.refuse(lab.proxy, 8888)
    lab.sshd1.kill()
    lab.sshd2.set_options(AllowTcpForwarding="no")
    lab.sshd2.new_host_key()
    lab.socks.freeze()
    lab.modules.behave(delay=30)
    left_behind = lab.client_popen([sys.executable, "-c", _LISTEN])
    proc.wait_until("it to listen", lambda: lab.client_ports() == {4711})
    assert lab.client_processes() == [left_behind.pid]
    assert lab.client.connect("10.77.2.2", 22).startswith("TimeoutError")
    lab.reset()
    assert left_behind.wait(timeout=5) == -signal.SIGKILL
    assert (lab.client_processes(), lab.client_ports()) == ([], set())
    assert healthy() == ["connected"] * 3
    assert lab.known_hosts.read_text() == known
    test_client_reaches_the_origin_by_the_hops_alone(lab)
