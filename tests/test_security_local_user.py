"""Another user of the same machine: knows every port and path, and nothing that opens them."""

# ruff: noqa: E501
from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import need
from tests.security import House, ask, house, reply, say, status_of

NOBODY = 65534
# what somebody else does: tries every file, the process's own, and reads what may be read
_SPY = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
home, pid, guess = sys.argv[1], sys.argv[2], sys.argv[3:]
read, wrote = {}, []
def attempt(path):
    try:
        with open(path, "rb") as file:
            read[path] = file.read(1 << 20).decode("latin-1")
    except OSError:
        pass
for top, directories, files in os.walk(home):
    for name in files:
        attempt(os.path.join(top, name))
    try:
        with open(os.path.join(top, "server.json"), "w"):
            wrote.append(top)
    except OSError:
        pass
for path in guess:
    attempt(path)
for name in ("environ", "maps", "auxv", "mem"):
    attempt(f"/proc/{pid}/{name}")
attempt(f"/proc/{pid}/cmdline")
try:
    fds = os.listdir(f"/proc/{pid}/fd")
except OSError:
    fds = []
PTRACE_ATTACH = 16
traced = libc.ptrace(PTRACE_ATTACH, int(pid), 0, 0)
json.dump({"uid": os.getuid(), "read": read, "wrote": wrote, "fds": fds, "traced": traced}, sys.stdout)
"""


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house() as made:
        yield made


@pytest.fixture(scope="module")
def spied(served: House) -> dict[str, Any]:
    """What nobody(65534) has found out, after a module was fetched and stored."""
    need((os.getuid() == 0, "only root can become somebody else"))
    base = "a.example/m/@v/v1.0.0"
    served.world.talks[f"mirror.example:80/{base}.mod"] = reply(b"module a.example/m\n")
    assert served.module(f"{base}.mod") == (200, b"module a.example/m\n")
    private = served.directory / "run" / "gotunnel"
    guess = [private / "server.json", served.directory / ".local" / "state" / "gotunnel" / "serve.json"]
    ran = subprocess.run(
        [sys.executable, "-I", "-c", _SPY, str(served.directory), str(served.pid), *map(str, guess)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(ran.stdout)
    assert found["uid"] == NOBODY
    assert str(served.directory / "config.toml") in found["read"]  # the spy can read what may be read
    return found


def test_nothing_that_he_can_read_holds_a_secret(served: House, spied: dict[str, Any]) -> None:
    secrets = {served.secret, served.running["token"], served.prefix[1:]}
    told = {path for path, text in spied["read"].items() if any(secret in text for secret in secrets)}
    assert told == set()
    assert {os.path.basename(path) for path in spied["read"]} & {"server.json", "serve.json"} == set()


def test_the_process_shows_its_command_line_and_no_more(served: House, spied: dict[str, Any]) -> None:
    seen = {path for path in spied["read"] if path.startswith("/proc/")}
    assert seen == {f"/proc/{served.pid}/cmdline"}
    assert (spied["fds"], spied["traced"]) == ([], -1)


def test_he_can_put_no_file_where_a_run_would_believe_it(served: House, spied: dict[str, Any]) -> None:
    # the module store is made as the user's umask says, like go's own cache; here that is the worst, 0
    inside = {
        str(served.directory / "run" / "gotunnel"),
        str(served.directory / ".local" / "state" / "gotunnel"),
    }
    assert inside.isdisjoint(spied["wrote"])


GUESSES = ["", "Proxy-Authorization: Basic Og==\r\n", "Proxy-Authorization: Basic Z290dW5uZWw6\r\n",
           "Proxy-Authorization: Bearer x\r\n", "Proxy-Authorization: Basic " + "A" * 8000 + "\r\n",
           "Proxy-Authorization: Basic \xff\xfe\r\n", "Authorization: Basic Z290dW5uZWw6eA==\r\n"]  # fmt: skip


@pytest.mark.parametrize("header", GUESSES)
@pytest.mark.parametrize("line", ["CONNECT t.example:443 HTTP/1.1", "GET http://t.example/ HTTP/1.1"])
def test_the_proxy_dials_nothing_for_him(served: House, line: str, header: str) -> None:
    before = list(served.world.asked)
    got = say(served.port("proxy"), f"{line}\r\nHost: t.example\r\n{header}\r\n".encode("latin-1"))
    assert status_of(got) in (400, 407)
    assert served.world.asked == before
    assert served.secret.encode() not in got


@pytest.mark.parametrize(
    "hello",
    [
        b"\x05\x01\x00",
        b"\x05\x01\x02\x01\x01x\x01x",
        b"\x05\x01\x02\x01\x00\x00",
        b"\x04\x01\x00\x50\x7f\0\0\1x\0",
    ],
)
def test_nor_by_socks(served: House, hello: bytes) -> None:
    before = list(served.world.asked)
    asks = b"\x05\x01\x00\x03\x09t.example\x00\x50"
    got = say(served.port("proxy"), hello + asks, shut=True)
    assert served.world.asked == before
    assert got[:2] in (b"\x05\xff", b"\x05\x02", b"\x00\x5b")
    assert got[2:4] not in (b"\x01\x00",)  # not let in


def test_the_module_proxy_is_404_to_him_whatever_he_asks(served: House) -> None:
    before = list(served.world.asked)
    path = "a.example/m/@v/v1.0.0.mod"
    guesses = ["/", f"/{path}", f"/x/{path}", f"//{path}", f"/{served.prefix[1:-1]}/{path}",
               f"/{served.prefix[1:]}x/{path}", f"/%2f/{path}", f"/../{path}", f"{served.prefix}%00/{path}"]  # fmt: skip
    answers = {ask(served.port("modproxy"), guess) for guess in guesses}
    assert answers == {(404, b"404 page not found\n")}
    assert served.world.asked == before


@pytest.mark.parametrize("header", ["", "Authorization: Bearer x\r\n", "Cookie: gotunnel=x; a=b\r\n"])
def test_the_admin_endpoint_is_401_to_him(served: House, header: str) -> None:
    port = served.port("admin")
    for method, path in [("GET", "/"), ("GET", "/?token=x"), ("GET", "/api/status"), ("GET", "/metrics"), ("GET", "/events"),
                         ("GET", "/api/environment"), ("POST", "/api/runs"), ("POST", "/api/reload"), ("DELETE", "/api/runs/x")]:  # fmt: skip
        status, body = ask(port, path, header, method)
        assert status == 401, (method, path)
        assert served.running["token"].encode() not in body
    assert ask(port, "/healthz") == (200, b"ok\n")  # one word, and no more
