"""The lab is what it says: each part in real use by a real client."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.lab import gitserver, gotool, keys, netns, pki, proc, silent, wan
from tests.lab.corpus import Corpus
from tests.lab.dns import DnsServer
from tests.lab.keys import Key
from tests.lab.netns import Namespace
from tests.lab.origin import Origin
from tests.lab.proc import LabError
from tests.lab.proxies import HttpProxy, SocksProxy
from tests.lab.sshd import Sshd

SshdFactory = Callable[..., Sshd]


@pytest.fixture
def namespaces() -> None:
    need(netns.can_make_namespaces())


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"), count=12, levels=3, filler=20_000)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> pki.Authority:
    return pki.Authority(tmp_path_factory.mktemp("pki"))


def gone(pid: int) -> bool:
    """Whether a process has ended; one that only waits for its parent has."""
    return (
        proc.started_at(pid) == ""
        or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    )


# --- ssh ----------------------------------------------------------------------------------------------


def test_ssh_client_logs_in(sshd: SshdFactory, client_key: Key, tmp_path: Path) -> None:
    server = sshd()
    known = tmp_path / "known_hosts"
    assert proc.run(server.client_argv(client_key, known, command="echo hello")).stdout == "hello\n"
    assert "Accepted publickey" in server.log_text()

    stranger = keys.new_key(tmp_path / "stranger")
    refused = proc.run(server.client_argv(stranger, known, command="echo hello"), check=False)
    assert "Permission denied (publickey)" in refused.stderr


def test_forwarding_can_be_forbidden(sshd: SshdFactory, client_key: Key, tmp_path: Path) -> None:
    target = sshd()
    known = tmp_path / "known_hosts"
    words = ("-W", f"{target.address}:{target.port}")
    for options, banner in (({}, "SSH-2.0-OpenSSH"), ({"AllowTcpForwarding": "no"}, "")):
        argv = sshd(**options).client_argv(client_key, known, *words)
        through = proc.run(argv, check=False, stdin="")
        assert through.stdout.startswith(banner)
        assert ("administratively prohibited" in through.stderr) is (banner == "")


def test_changed_host_key_is_noticed(sshd: SshdFactory, client_key: Key, tmp_path: Path) -> None:
    server = sshd()
    server.new_host_key()
    argv = server.client_argv(client_key, tmp_path / "known_hosts", command="true")
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in proc.run(argv, check=False).stderr

    fresh = server.write_known_hosts(tmp_path / "known_hosts.new")
    proc.run(server.client_argv(client_key, fresh, command="true"))


def test_kill_takes_the_connections_too(sshd: SshdFactory, client_key: Key, tmp_path: Path) -> None:
    server = sshd()
    argv = server.client_argv(client_key, tmp_path / "known_hosts", command="echo up; exec sleep 60")
    with proc.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "up\n"
        members = proc.family(server.pid)
        assert len(members) > 1
        server.kill()
        assert client.wait(timeout=10) == 255
    proc.wait_until("all of it to be gone", lambda: all(gone(pid) for pid in members))
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.address, server.port), timeout=5)
    server.start()
    proc.run(server.client_argv(client_key, tmp_path / "known_hosts", command="true"))


def test_frozen_server_accepts_and_says_nothing(sshd: SshdFactory) -> None:
    server = sshd()
    server.freeze()
    with socket.create_connection((server.address, server.port), timeout=5) as peer:
        peer.settimeout(0.3)
        with pytest.raises(TimeoutError):
            peer.recv(1)
        server.thaw()
        peer.settimeout(10)
        assert peer.recv(7) == b"SSH-2.0"


def test_encrypted_key_works_through_an_agent(sshd: SshdFactory, tmp_path: Path) -> None:
    server = sshd()
    key = keys.new_key(tmp_path / "encrypted", passphrase="correct horse")
    server.authorize(key)
    argv = server.client_argv(key, tmp_path / "known_hosts", command="true")
    assert "Permission denied" in proc.run(argv, check=False).stderr
    with keys.Agent(tmp_path / "agent") as agent:
        agent.add(key)
        proc.run(argv, env=dict(os.environ) | agent.env)
    assert not agent.socket.parent.exists()


# --- proxies and servers that misbehave -----------------------------------------------------------------


@pytest.mark.parametrize("kind", [HttpProxy, SocksProxy])
def test_proxy_with_and_without_password(
    kind: type[HttpProxy | SocksProxy], tmp_path: Path, corpus: Corpus, authority: pki.Authority
) -> None:
    need(kind.available(), (proc.tool("curl") is not None, "not installed: curl"))
    with contextlib.ExitStack() as stack:
        certificate = authority.issue("127.0.0.1")
        origin = stack.enter_context(Origin(tmp_path / "origin", corpus.directory, certificate=certificate))
        free = stack.enter_context(kind(tmp_path / "open"))
        locked = stack.enter_context(kind(tmp_path / "locked", user="lab", password="pw"))

        def fetch(proxy: str) -> int:
            url = f"{origin.url}/{corpus.first[0].path}/@v/list"
            argv = ["curl", "-sf", "--noproxy", "", "--cacert", str(authority.cert), "--proxy", proxy, url]
            return proc.run(argv, check=False).returncode

        assert fetch(free.url) == 0
        assert fetch(locked.url) == 0
        assert fetch(locked.url.replace("lab:pw@", "")) != 0
        assert fetch(locked.url.replace("lab:pw@", "lab:wrong@")) != 0
        assert len(origin.requests()) == 2


def heard(peer: socket.socket) -> bytes | str:
    """What a peer says first, or what became of it."""
    try:
        return peer.recv(65536) or "closed"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "silence"


@pytest.mark.parametrize("mode", silent.MODES)
def test_servers_that_misbehave(mode: str, tmp_path: Path) -> None:
    with silent.Silent(tmp_path, mode) as server:
        try:
            with socket.create_connection((server.address, server.port), timeout=5) as peer:
                peer.settimeout(0.3 if mode == "silent" else 10)
                said = heard(peer)
        except ConnectionRefusedError:
            said = "refused"
        except ConnectionResetError:  # sooner than we could look
            said = "reset"
        assert server.accepted() == (0 if mode == "refuse" else 1)
    match mode:
        case "garbage":
            assert isinstance(said, bytes)
            assert len(said) > 1000
            assert b"\n" not in said
        case "banner":
            assert said == b"SSH-2.0-OpenSSH_9.2p1\r\n"
        case _:
            known = {"silent": "silence", "refuse": "refused", "close": "closed", "reset": "reset"}
            assert said == known[mode]


# --- certificates, modules, git ---------------------------------------------------------------------------


def test_certificates_are_what_clients_expect(
    authority: pki.Authority, corpus: Corpus, tmp_path: Path
) -> None:
    trust = ssl.create_default_context(cafile=str(authority.cert))
    for days, name, complaint in (
        ((-1, 30), "localhost", None),
        ((-3, -1), "localhost", "certificate has expired"),
        ((-1, 30), "elsewhere.example", "Hostname mismatch"),
    ):
        certificate = authority.issue(name, days=days)
        with (
            Origin(tmp_path / f"{name}{days[1]}", corpus.directory, certificate=certificate) as origin,
            socket.create_connection((origin.address, origin.port), timeout=10) as plain,
            contextlib.ExitStack() as stack,
        ):
            if complaint:
                stack.enter_context(pytest.raises(ssl.SSLCertVerificationError, match=complaint))
            with trust.wrap_socket(plain, server_hostname="localhost") as secured:
                assert secured.version() == "TLSv1.3"


def test_go_downloads_tidies_and_builds(corpus: Corpus, authority: pki.Authority, tmp_path: Path) -> None:
    need(gotool.can_run_go())
    certificate = authority.issue("127.0.0.1")
    with Origin(tmp_path / "origin", corpus.directory, certificate=certificate) as origin:
        env = gotool.go_env(tmp_path / "go", proxy=origin.url, ca=authority.cert)
        project = corpus.write_project(tmp_path / "project")
        before = {name: (project / name).read_text() for name in ("go.mod", "go.sum")}
        proc.run(["go", "mod", "download"], env=env, cwd=project)
        assert {r["path"].rpartition("/")[2] for r in origin.requests()} == {
            "v1.0.0.mod",
            "v1.0.0.info",
            "v1.0.0.zip",
        }
        proc.run(["go", "mod", "tidy"], env=env, cwd=project)
        assert {name: (project / name).read_text() for name in before} == before
        assert proc.run(["go", "run", "."], env=env, cwd=project).stdout == "12 modules\n"
        proc.run(["go", "mod", "verify"], env=env, cwd=project)

        # from nothing, tidy finds the same
        bare = corpus.write_project(tmp_path / "bare", requires=False, sums=False)
        env = gotool.go_env(tmp_path / "go", proxy=origin.url, ca=authority.cert)
        proc.run(["go", "mod", "tidy"], env=env, cwd=bare)
        assert sorted((bare / "go.sum").read_text().splitlines()) == sorted(before["go.sum"].splitlines())


def test_git_clones_over_https_and_ssh(
    sshd: SshdFactory, client_key: Key, authority: pki.Authority, tmp_path: Path
) -> None:
    need(gitserver.can_serve_git())
    bare = gitserver.make_repository(tmp_path / "root" / "team" / "lib.git", "git.lab.example/team/lib")
    env = gotool.go_env(tmp_path / "home", ca=authority.cert)
    certificate = authority.issue("127.0.0.1")
    with gitserver.GitServer(tmp_path / "https", tmp_path / "root", certificate) as server:
        proc.run(["git", "clone", "-q", f"{server.url}/team/lib.git", str(tmp_path / "by-https")], env=env)
        assert {r["method"] for r in server.requests()} == {"GET", "POST"}
    jump = sshd()
    command = " ".join(jump.client_options(client_key, tmp_path / "known_hosts"))
    url = f"ssh://{jump.user}@{jump.address}:{jump.port}{bare}"
    env["GIT_SSH_COMMAND"] = command
    proc.run(["git", "clone", "-q", "-b", "v1.0.0", url, str(tmp_path / "by-ssh")], env=env)
    assert '"v1.2.0"' in (tmp_path / "by-https" / "lib.go").read_text()
    assert '"v1.0.0"' in (tmp_path / "by-ssh" / "lib.go").read_text()


# --- namespaces -------------------------------------------------------------------------------------------


@pytest.fixture
def pair(namespaces: None) -> Iterator[tuple[Namespace, Namespace, netns.Link]]:
    with Namespace("left") as left, Namespace("right") as right:
        yield left, right, netns.link(left, right, "10.1.0.1/30", "10.1.0.2/30")


def test_links_and_filters(pair: tuple[Namespace, Namespace, netns.Link], tmp_path: Path) -> None:
    left, right, cable = pair
    with silent.Silent(tmp_path, "silent", place=right, address="10.1.0.2", port=700):
        assert left.connect("10.1.0.2", 700) == "connected"
        with netns.reject(right, 700):
            assert left.connect("10.1.0.2", 700).startswith("ConnectionRefusedError")
        with netns.drop(right, 700):
            assert left.connect("10.1.0.2", 700).startswith("TimeoutError")
            assert left.connect("10.1.0.2", 701).startswith("ConnectionRefusedError")
        cable.cut()
        assert left.connect("10.1.0.2", 700).startswith("TimeoutError")
        cable.mend()
        assert left.connect("10.1.0.2", 700, timeout=10) == "connected"


def test_names_are_asked_of_the_namespaces_own_server(namespaces: None, tmp_path: Path) -> None:
    ask = "import socket, sys; print(socket.gethostbyname(sys.argv[1]))"
    with Namespace("names") as space:
        space.use_resolver("127.0.0.1")
        with DnsServer(tmp_path, {"here.lab.example": "10.9.8.7"}, place=space, port=53) as server:
            assert space.run([sys.executable, "-c", ask, "here.lab.example"]).stdout == "10.9.8.7\n"
            assert space.run([sys.executable, "-c", ask, "gone.lab.example"], check=False).returncode == 1
            assert server.asked() == {"here.lab.example", "gone.lab.example"}
            tcp = ("import socket,struct; s=socket.create_connection(('127.0.0.1',53),5); q=bytes.fromhex("
                   "'1234010000010000000000000468657265036c6162076578616d706c650000010001');"
                   "s.sendall(struct.pack('>H',len(q))+q); print(s.recv(512)[-4:].hex())")  # fmt: skip
            assert space.run([sys.executable, "-c", tcp]).stdout == "0a090807\n"
            assert [r["proto"] for r in server.queries()][-1] == "tcp"
        assert (netns.ETC / space.name).exists()
    assert not (netns.ETC / space.name).exists()


def test_deleted_namespace_leaves_nothing(namespaces: None) -> None:
    space = Namespace("short")
    sleeper = space.popen(["sh", "-c", "sleep 600 & exec sleep 600"])
    proc.wait_until("both to run", lambda: len(space.pids()) == 2)
    space.delete()
    assert sleeper.wait(timeout=5) == -signal.SIGKILL
    assert not Path("/run/netns", space.name).exists()
    space.delete()  # once more does no harm


def test_guard_cleans_up_after_a_killed_lab(namespaces: None) -> None:
    script = (
        "import signal, os\n"
        "from tests.lab import netns, proc\n"
        "space = netns.Namespace('doomed'); space.use_resolver('127.0.0.1')\n"
        "inside = space.popen(['sleep', '600']); outside = proc.popen(['sleep', '600'])\n"
        "print(space.name, inside.pid, outside.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = proc.run([sys.executable, "-c", script], cwd=proc.ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    name, *pids = died.stdout.split()
    proc.wait_until("the guard to act", lambda: not (netns.ETC / name).exists())
    proc.wait_until("the processes to end", lambda: all(gone(int(pid)) for pid in pids))
    assert not Path("/run/netns", name).exists()


def test_wan_line_delays(namespaces: None, tmp_path: Path) -> None:
    need(wan.can_make_wan())
    with Namespace("near") as near, Namespace("far") as far:
        with wan.WanLink(near, far, wan.Line(delay=40), tmp_path) as line:
            start = time.monotonic()
            assert near.connect(line.address_b, 9, timeout=10).startswith("ConnectionRefusedError")
            assert time.monotonic() - start >= 0.08
            assert "A->B: passed=" in line.counters()
        assert near.connect("10.99.0.2", 9).startswith("OSError")  # the network is unreachable


def test_server_that_does_not_come_up_says_why(sshd: SshdFactory) -> None:
    with pytest.raises(LabError, match="Bad configuration option: NoSuchOption"):
        sshd(NoSuchOption="yes")
