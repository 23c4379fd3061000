"""`gotunnel run` as a script sees it, with a real sshd on loopback where a way out is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotunnel.child import mirrors
from gotunnel.cli.main import main
from tests.gotunnel_alone import GOTUNNEL, environment, gotunnel
from tests.lab.keys import Key, new_key
from tests.lab.pki import Authority
from tests.lab.sshd import Sshd


@contextlib.contextmanager
def echo() -> Iterator[int]:
    """A server on loopback that sends back what it gets; its port."""

    def treat(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(65536):
                peer.sendall(data)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=treat, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def through(port: int) -> list[str]:
    """A CMD that talks to the echo server by the endpoint and prints what came back."""
    code = f"""
import base64, os, socket, urllib.parse
url = urllib.parse.urlsplit(os.environ["HTTPS_PROXY"])
sock = socket.create_connection((url.hostname, url.port))
word = base64.b64encode(f"{{url.username}}:{{url.password}}".encode()).decode()
lines = ["CONNECT 127.0.0.1:{port} HTTP/1.1", "Host: x", f"Proxy-Authorization: Basic {{word}}", "", ""]
sock.sendall("\\r\\n".join(lines).encode())
head = b""
while b"\\r\\n\\r\\n" not in head:
    head += sock.recv(1)
if b" 200 " not in head:
    raise SystemExit(head.decode())
sock.sendall(b"hello")
print(sock.recv(100).decode())
sock.close()
"""
    return ["python3", "-c", code]


def test_standard_output_is_byte_exact_and_nothing_is_said(tmp_path: Path) -> None:
    data = os.urandom(300_000)
    ran = gotunnel("run", "--", "cat", home=tmp_path, data=data)
    assert (ran.status, ran.stderr, ran.left) == (0, "", [])
    assert hashlib.sha256(ran.stdout).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -TERM $$", 143), ("exit 69", 69)])
def test_the_status_is_cmd_s(tmp_path: Path, script: str, status: int) -> None:
    ran = gotunnel("run", "sh", "-c", script, home=tmp_path)
    assert (ran.status, ran.stdout, ran.stderr) == (status, b"", "")


def test_the_timeout_is_124_and_ends_grandchildren(tmp_path: Path) -> None:
    started = time.monotonic()
    ran = gotunnel("run", "--timeout", "700ms", "sh", "-c", "sleep 60 & sleep 60", home=tmp_path)
    assert (ran.status, ran.left) == (124, [])
    assert ran.line == "the --timeout of 0.7 s has passed; sh was ended"
    assert time.monotonic() - started < 30


def test_events_of_a_run_end_with_its_exit(tmp_path: Path) -> None:
    for argv, status in ((["sh", "-c", "exit 5"], 5), (["no-such-command"], 127)):
        path = tmp_path / "events"
        path.unlink(missing_ok=True)
        assert gotunnel("run", "--events", str(path), "--", *argv, home=tmp_path).status == status
        log = [json.loads(line) for line in path.read_text().splitlines()]
        assert log[0]["event"] == "ready"
        assert log[0]["upstreams"] == ["direct:"]
        assert (log[-1]["event"], log[-1]["status"], log[-1]["attempts"]) == ("exit", status, 1)
        assert len({line["run"] for line in log}) == 1


def test_events_that_cannot_be_written_do_not_harm_the_run(tmp_path: Path) -> None:
    with echo() as port:
        ran = gotunnel("run", "--events", "/dev/full", "--", *through(port), home=tmp_path)
    assert (ran.status, ran.stdout) == (0, b"hello\n")
    assert ran.line == "--events /dev/full: No space left on device"


def test_the_log_is_as_configured(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[log]\nlevel = "debug"\n')
    for env, options in (
        ({"GOTUNNEL_LOG_LEVEL": "debug"}, []),
        ({}, ["--config", "c.toml"]),
        ({"GOTUNNEL_LOG_LEVEL": "error"}, ["--log-level", "debug"]),
    ):
        ran = gotunnel("run", *options, "--", "sh", "-c", "sleep 1; echo hi", home=tmp_path, env=env)
        assert (ran.status, ran.stdout) == (0, b"hi\n")
        assert "gotunnel: run: prefetch" in ran.stderr
    ran = gotunnel("run", "--log-level", "error", "true", home=tmp_path, env={"GOTUNNEL_LOG_LEVEL": "debug"})
    assert ran.stderr == ""


def test_a_directory_that_is_gone_holds_no_project(tmp_path: Path) -> None:
    for argv in (["echo", "hi"], ["echo", "tidy", "get"]):
        gone = f'mkdir gone && cd gone && rmdir ../gone && exec "$@" run -- {" ".join(argv)}'
        ran = subprocess.run(
            ["sh", "-c", gone, "sh", *GOTUNNEL], cwd=tmp_path, capture_output=True, text=True, timeout=60,
            env=environment(tmp_path, PYTHONPATH=os.getcwd()), check=False,
        )  # fmt: skip
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, " ".join(argv[1:]) + "\n", "")


def test_a_go_sum_that_cannot_be_read_stops_go_commands_only(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module example.com/m\n")
    (tmp_path / "go.sum").write_text("<<<<<<< HEAD\n")
    ran = gotunnel("run", "--", "echo", "hi", home=tmp_path)
    assert (ran.status, ran.stdout, ran.stderr) == (0, b"hi\n", "")
    ran = gotunnel("run", "--", "go", "build", home=tmp_path)
    assert (ran.status, ran.stdout) == (78, b"")
    assert "go.sum:1: want MODULE VERSION SUM" in ran.line


@pytest.mark.parametrize(
    ("goproxy", "left"),
    [
        ("https://p.example|direct", "off"),
        ("file:///store,https://p.example,direct", "file:///store,off"),
        ("off", "off"),
    ],
)
def test_offline_without_a_module_proxy_still_ends_in_off(tmp_path: Path, goproxy: str, left: str) -> None:
    argv = ["sh", "-c", "echo $GOPROXY $GONOPROXY"]
    env = {"GOPROXY": goproxy}
    ran = gotunnel("run", "--offline", "--no-modproxy", "--", *argv, home=tmp_path, env=env)
    assert (ran.status, ran.stdout) == (0, f"{left} none\n".encode())


@pytest.mark.parametrize("mirror", ["direct", "off"])
def test_a_mirror_that_is_no_source_leads_the_list_all_the_same(tmp_path: Path, mirror: str) -> None:
    env = {"GOPROXY": "https://p.example", "GOTUNNEL_GO_MIRRORS": mirror}
    ran = gotunnel("run", "--", "sh", "-c", "echo $GOPROXY", home=tmp_path, env=env)
    assert (ran.status, ran.stdout) == (0, f"{mirror}|https://p.example\n".encode())


def test_a_gosumdb_that_go_would_refuse_is_for_go_to_refuse(tmp_path: Path) -> None:
    argv = ["sh", "-c", "echo $GOPROXY"]
    for options, left in (([], "file:///store,direct"), (["--offline"], "file:///store,off")):
        env = {"GOSUMDB": "bogus key", "GOPROXY": "file:///store,direct"}
        ran = gotunnel("run", *options, "--", *argv, home=tmp_path, env=env)
        assert (ran.status, ran.stdout, ran.stderr) == (0, f"{left}\n".encode(), "")


def test_a_typed_password_is_warned_of_once_and_not_repeated(tmp_path: Path) -> None:
    ran = gotunnel("run", "--via", "http://u:hush@127.0.0.1:9", "--", "true", home=tmp_path)
    assert ran.status == 0
    assert "hush" not in ran.stderr
    assert ran.stderr.count("can be seen in ps") == 1
    ran = gotunnel("run", "-q", "--via", "http://u:hush@127.0.0.1:9", "--", "true", home=tmp_path)
    assert (ran.status, ran.stderr) == (0, "")


def test_quiet_leaves_errors_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_go(tmp_path, monkeypatch, REFUSED)
    for options, lines in ((["-q"], 1), ([], 2)):
        assert main(["run", *options, "--retries", "1", "--via", "direct:", "go", "build"]) == 1
        told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("gotunnel: ")]
        assert len(told) == lines
        assert "tried 2 times" in told[-1]


def test_a_run_inside_a_run_goes_by_the_outer_endpoint(tmp_path: Path) -> None:
    with echo() as port:
        inner = [*GOTUNNEL, "run", "--events", "inner", "--", *through(port)]
        ran = gotunnel("run", "--events", "outer", "--", *inner, home=tmp_path)
    assert (ran.status, ran.stdout, ran.stderr, ran.left) == (0, b"hello\n", "", [])
    outer, inside = (
        list(map(json.loads, (tmp_path / x).read_text().splitlines())) for x in ("outer", "inner")
    )
    assert inside[0]["upstreams"] == ["outer gotunnel"]
    assert [(e["upstream"], e["target"]) for e in outer if e["event"] == "dial"] == [
        ("direct:", f"127.0.0.1:{port}")
    ]


# --- with a jump host ------------------------------------------------------------------------------


@pytest.fixture
def jump(sshd: Callable[..., Sshd]) -> Sshd:
    return sshd()


def ssh_options(tmp_path: Path, key: Key) -> list[str]:
    return ["-i", str(key.private), "--known-hosts", str(tmp_path / "known_hosts")]


def test_by_a_jump_host(tmp_path: Path, jump: Sshd, client_key: Key) -> None:
    way = f"{jump.user}@127.0.0.1:{jump.port}"
    with echo() as port:
        ran = gotunnel("run", *ssh_options(tmp_path, client_key), "-J", way, *through(port), home=tmp_path)
    assert (ran.status, ran.stdout, ran.stderr, ran.left) == (0, b"hello\n", "", [])


def test_by_key_and_known_hosts_as_texts(tmp_path: Path, jump: Sshd, client_key: Key) -> None:
    env = {
        "GOTUNNEL_VIA": f"ssh://{jump.user}@127.0.0.1:{jump.port}",
        "GOTUNNEL_SSH_KEY": client_key.private.read_text(),
        "GOTUNNEL_SSH_KNOWN_HOSTS": jump.known_hosts_line(),
    }
    with echo() as port:
        ran = gotunnel("run", "--", *through(port), home=tmp_path, env=env)
        assert (ran.status, ran.stdout, ran.stderr) == (0, b"hello\n", "")
        assert not list(tmp_path.rglob("*id_*"))  # the key is never written
        env["GOTUNNEL_SSH_KNOWN_HOSTS"] = jump.known_hosts_line().replace("127.0.0.1", "192.0.2.1")
        ran = gotunnel("run", "--", *through(port), home=tmp_path, env=env)
    assert ran.status != 0
    assert "ssh.host-key-unknown" in ran.stderr


def test_known_hosts_are_as_ssh_takes_them(tmp_path: Path, jump: Sshd, client_key: Key) -> None:
    new = tmp_path / "new" / "known_hosts"
    for file, checking, status in (
        (new, "yes", 78),
        (new, "accept-new", 0),
        (new, "yes", 0),
        ("/dev/null", "no", 0),
        ("/dev/null", "accept-new", 0),
    ):
        way = f"ssh://{jump.user}@127.0.0.1:{jump.port}?identity={client_key.private}&known_hosts={file}"
        with echo() as port:
            argv = ["run", "--via", f"{way}&host_key_checking={checking}", "--", *through(port)]
            ran = gotunnel(*argv, home=tmp_path)
        assert ran.status == status, ran.stderr
    assert new.read_text().startswith(f"[127.0.0.1]:{jump.port} ")


def test_a_key_that_wants_a_passphrase_or_is_none(tmp_path: Path, jump: Sshd) -> None:
    locked = new_key(tmp_path / "locked", passphrase="hush").private
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("hush")
    way = f"{jump.user}@127.0.0.1:{jump.port}"
    for key in (locked, nonsense):
        options = ["-i", str(key), "--known-hosts", str(tmp_path / "known_hosts"), "-J", way]
        with echo() as port:
            ran = gotunnel("run", *options, *through(port), home=tmp_path)
        assert (ran.status, ran.left) == (69, [])
        assert "Traceback" not in ran.stderr
        assert "hush" not in ran.stderr
        lines = [line for line in ran.stderr.splitlines() if line.startswith("gotunnel: ")]
        assert "no way out works:" in lines[1]
        assert str(key) in lines[0]
        assert str(key) in lines[2]
        assert len(lines) == 3


def test_what_mends_it_is_told_to_a_ci_host_without_braces(tmp_path: Path) -> None:
    go = tmp_path / "go"
    go.write_text(
        "#!/bin/sh\n[ $1 = env ] && exit 1\n"
        "echo 'dial tcp: lookup p on 192.0.2.1:53: no such host' >&2; exit 1\n"
    )
    go.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    via = ["--via", "http://127.0.0.1:1", "--retries", "0"]
    ran = gotunnel("run", *via, "--", "go", "mod", "tidy", home=tmp_path, env={"CI": "true", "PATH": path})
    assert "gotunnel: fix: check the spelling of HOST\n" in ran.stderr
    assert "{" not in ran.stderr


# --- the mirror that would have worked --------------------------------------------------------------


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A preset mirror that answers from here."""
    authority = Authority(tmp_path / "pki")
    issued = authority.issue("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.cert, issued.key)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
    ready, loop = threading.Event(), asyncio.new_event_loop()
    urls: list[str] = []

    async def treat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
        writer.close()  # no abort: a reset may overtake the answer

    async def serve() -> asyncio.Server:
        server = await asyncio.start_server(treat, "127.0.0.1", 0, ssl=context)
        urls.append(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        ready.set()
        return server

    def work() -> None:
        server = loop.run_until_complete(serve())
        loop.run_forever()
        server.close()
        loop.run_until_complete(server.wait_closed())
        loop.close()

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(20)
    monkeypatch.setattr(mirrors, "PRESETS", ("https://127.0.0.1:9", urls[0]))
    yield urls[0]
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def fake_go(directory: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """A `go` that fails with these words; asked for its settings it fails, too."""
    (directory / "bin").mkdir()
    go = directory / "bin" / "go"
    go.write_text(f"#!/bin/sh\necho '{words}' >&2\nexit 1\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory / 'bin'}:/usr/bin:/bin")
    for name in ("HTTPS_PROXY", "https_proxy", "GOTUNNEL_VIA", "GOTUNNEL_CONFIG", "GOTUNNEL_PROXY", "CI"):
        monkeypatch.delenv(name, raising=False)  # in CI there are lines for its host
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(directory))


REFUSED = 'go: m@v1: Get "https://p/m.mod": dial tcp 192.0.2.1:443: connect: connection refused'


def test_the_mirror_that_would_have_worked_is_printed_as_a_command(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_go(tmp_path, monkeypatch, REFUSED)
    assert main(["run", "--retries", "0", "go", "get", "a b"]) == 1
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.splitlines()[-1] == (
        f"gotunnel: {preset} can be reached from here; try: gotunnel run --mirror {preset} -- go get 'a b'"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mirror", "https://127.0.0.1:9"], REFUSED),
        (["--via", "direct:"], REFUSED),
        ([], "x.go:1:1: syntax error"),
    ],
    ids=["a mirror was named", "a way out was named", "it was not the network"],
)
def test_no_mirror_is_asked_where_it_would_not_help(
    options: list[str], words: str, preset: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    fake_go(tmp_path, monkeypatch, words)
    assert main(["run", "--retries", "0", *options, "go", "build"]) == 1
    assert preset not in capfd.readouterr().err


def test_the_user_s_own_sources_are_not_suggested(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_go(tmp_path, monkeypatch, REFUSED)
    monkeypatch.setenv("GOPROXY", f"{preset},direct")
    assert main(["run", "--retries", "0", "go", "build"]) == 1
    assert "no preset mirror can be reached from here either" in capfd.readouterr().err
