"""`gotunnel connect`: inside a run by its endpoint, and from nothing through a real sshd."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotunnel.cli import connect
from gotunnel.errors import UsageError
from tests.conftest import need
from tests.gotunnel_alone import GOTUNNEL, Ran, environment, gotunnel
from tests.lab import sshd as sshd_module
from tests.lab.keys import Key
from tests.lab.sshd import Sshd

SIZE = 20 << 20


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Far:
    """A target on loopback: it reads all that comes, or sends `data` and ends its side, or both."""

    def __init__(self, data: bytes = b"", *, first: bytes = b"", reset: bool = False) -> None:
        self.data, self.first, self.reset = data, first, reset
        self.got = hashlib.sha256()
        self.size = 0
        self.ended = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            peer, _ = self._server.accept()
            with peer:
                peer.sendall(self.first)
                sender = threading.Thread(target=peer.sendall, args=(self.data,), daemon=True)
                sender.start()
                while piece := peer.recv(1 << 16):
                    self.got.update(piece)
                    self.size += len(piece)
                    if self.reset:
                        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        return
                sender.join()
        self.ended.set()

    def __enter__(self) -> Far:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(20)


Connect = Callable[..., Ran]


@pytest.fixture(params=["in a run", "from nothing"])
def call(request: pytest.FixtureRequest, tmp_path: Path) -> Connect:
    """Runs `gotunnel connect HOST PORT`, by the endpoint of a run around it or by a jump host."""
    if request.param == "in a run":

        def inside(host: str, port: int, **more: object) -> Ran:
            return gotunnel("run", "--", *GOTUNNEL, "connect", host, str(port), home=tmp_path, **more)  # type: ignore[arg-type]

        return inside
    need(sshd_module.can_run_sshd())
    server: Sshd = request.getfixturevalue("sshd")()
    key: Key = request.getfixturevalue("client_key")
    options = ["-i", str(key.private), "--known-hosts", str(tmp_path / "known_hosts")]
    options += ["-J", f"{server.user}@127.0.0.1:{server.port}"]

    def alone(host: str, port: int, **more: object) -> Ran:
        return gotunnel("connect", *options, host, str(port), home=tmp_path, **more)  # type: ignore[arg-type]

    return alone


def test_20_megabytes_both_ways_at_once_over_a_pipe(call: Connect) -> None:
    up, down = os.urandom(SIZE), os.urandom(SIZE)
    with Far(down) as far:
        ran = call("127.0.0.1", far.port, data=up)
        assert (ran.status, ran.stderr, ran.left) == (0, "", [])
        assert far.ended.wait(20)
        assert (far.size, far.got.hexdigest()) == (len(up), digest(up))
        assert (len(ran.stdout), digest(ran.stdout)) == (len(down), digest(down))


def test_a_target_that_speaks_first_and_an_empty_standard_input(call: Connect) -> None:
    with Far(first=b"SSH-2.0-hello\r\n") as far:
        ran = call("127.0.0.1", far.port)  # standard input is /dev/null
        assert (ran.status, ran.stdout, ran.stderr) == (0, b"SSH-2.0-hello\r\n", "")
        assert far.ended.wait(20)  # half-close reached it


def test_no_connection_is_one_line_and_69(call: Connect) -> None:
    ran = call("127.0.0.1", 9)
    assert (ran.status, ran.stdout, ran.left) == (69, b"", [])
    assert "refused" in ran.stderr
    assert all(line.startswith("gotunnel: ") for line in ran.stderr.splitlines())


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], list[bytes]]]:
    """`endpoint(answer)`: GOTUNNEL_PROXY is a server that answers so; returns what it was asked."""
    with contextlib.ExitStack() as stack:

        def start(answer: bytes) -> list[bytes]:
            server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            asked: list[bytes] = []

            def serve() -> None:
                with contextlib.suppress(OSError):
                    peer, _ = server.accept()
                    with peer:
                        while b"\r\n\r\n" not in b"".join(asked):
                            asked.append(peer.recv(65536))
                        peer.sendall(answer)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            stack.callback(thread.join, 20)
            address = f"127.0.0.1:{server.getsockname()[1]}"
            monkeypatch.setenv("GOTUNNEL_PROXY", f"http://a%20b:p%40ss%3A@{address}")
            return asked

        yield start


def test_credentials_of_the_endpoint_are_decoded(
    endpoint: Callable[[bytes], list[bytes]], tmp_path: Path
) -> None:
    asked = endpoint(b"HTTP/1.1 200 OK\r\n\r\nfirst bytes")
    ran = gotunnel(
        "connect", "::1", "22", home=tmp_path, env={"GOTUNNEL_PROXY": os.environ["GOTUNNEL_PROXY"]}
    )
    assert (ran.status, ran.stdout, ran.stderr) == (0, b"first bytes", "")
    head = b"".join(asked).decode()
    assert head.startswith("CONNECT [::1]:22 HTTP/1.1\r\nHost: [::1]:22\r\n")
    assert base64.b64encode(b"a b:p@ss:").decode() in head


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 502 gotunnel: dns.not-found: no such host\r\n\r\n", "dns.not-found: no such host"),
        (b"HTTP/1.1 407 \r\n\r\n", "status 407"),
        (b"HTTP/1.1 502 evil\x1b[31m\x00\r\n\r\n", "evil [31m"),
        (b"", "no answer to CONNECT"),
        (b"x" * 100_000, "no answer to CONNECT"),
    ],
    ids=["reason", "no reason", "control characters", "nothing", "endless"],
)
def test_what_the_endpoint_may_answer(
    endpoint: Callable[[bytes], list[bytes]], tmp_path: Path, answer: bytes, words: str
) -> None:
    endpoint(answer)
    ran = gotunnel("connect", "h", "22", home=tmp_path, env={"GOTUNNEL_PROXY": os.environ["GOTUNNEL_PROXY"]})
    assert (ran.status, ran.stdout) == (69, b"")
    assert words in ran.line
    assert "ss%3A" not in ran.stderr


def test_the_run_is_over(tmp_path: Path) -> None:
    env = {"GOTUNNEL_PROXY": "http://gotunnel:hush@127.0.0.1:9"}
    ran = gotunnel("connect", "h", "22", home=tmp_path, env=env)
    assert (ran.status, ran.stdout) == (69, b"")
    assert ran.line == (
        "the endpoint in GOTUNNEL_PROXY (127.0.0.1:9) can't be reached: Connection refused; is its run over?"
    )


@pytest.mark.parametrize("way", ["in a run", "from nothing"])
def test_a_connection_that_breaks_is_told(tmp_path: Path, way: str) -> None:
    around = ["run", "--", *GOTUNNEL] if way == "in a run" else []
    with Far(first=b"begin", reset=True) as far:
        ran = gotunnel(*around, "connect", "127.0.0.1", str(far.port), home=tmp_path, data=b"x")
    assert (ran.status, ran.left) == (69, [])
    assert "reset" in ran.line
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("way", ["in a run", "from nothing"])
def test_standard_input_may_be_a_file_or_closed_and_output_may_go_away(tmp_path: Path, way: str) -> None:
    around = [*GOTUNNEL, "run", "--", *GOTUNNEL] if way == "in a run" else GOTUNNEL
    env = environment(tmp_path, PYTHONPATH=os.getcwd())
    (tmp_path / "file").write_bytes(b"from a file")
    for shell, got in (
        ('exec "$@" <file', b"from a file"),
        ('exec "$@" <&-', b""),
        ('"$@" <file | true', None),
    ):
        with Far(bytes(1 << 20) if got is None else b"ok") as far:
            argv = ["sh", "-c", shell, "sh", *around, "connect", "127.0.0.1", str(far.port)]
            ran = subprocess.run(argv, cwd=tmp_path, env=env, capture_output=True, timeout=60, check=False)
            assert ran.stderr == b""
            if got is not None:
                assert (ran.returncode, ran.stdout) == (0, b"ok")
                assert far.ended.wait(20)
                assert far.got.hexdigest() == digest(got)


def test_a_host_with_brackets_is_taken_and_nonsense_is_not() -> None:
    assert str(connect._target("[::1]", "22")) == "[::1]:22"
    assert str(connect._target("::1", "22")) == "[::1]:22"
    for host, port in (("h", "x"), ("", "1"), ("a b", "1"), ("h", "1\n"), ("[h]:1", "2")):
        with pytest.raises(UsageError, match=r"^connect "):
            connect._target(host, port)


def test_ssh_takes_it_as_its_proxy_command(
    tmp_path: Path, sshd: Callable[..., Sshd], client_key: Key
) -> None:
    jump, inner = sshd(), sshd()
    known = tmp_path / "known_hosts"
    words = [
        sys.executable,
        "-m",
        "gotunnel",
        "connect",
        "-i",
        str(client_key.private),
        "--known-hosts",
        str(known),
    ]
    words += ["-J", f"{jump.user}@127.0.0.1:{jump.port}"]
    command = " ".join(words) + " %h %p"
    argv = inner.client_argv(
        client_key, known, "-o", f"ProxyCommand={command}", command="echo through; exit 7"
    )
    ran = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(tmp_path, PYTHONPATH=os.getcwd()),
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (7, "through\n"), ran.stderr
    assert "Accepted publickey" in jump.log_text()
