"""The real units under a real systemd: what an administrator sees from installation to removal.

The way out is a tinyproxy or an sshd in the box's network; the origin is there too.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import readme
from tests.conftest import need
from tests.lab import keys, proc
from tests.lab.proxies import HttpProxy
from tests.lab.sshd import Sshd, can_run_sshd
from tests.lab.systemd_box import GOTUNNEL, SystemdBox, can_box

pytestmark = pytest.mark.timeout(180)

SERVICE = "gotunnel.service"
PROXY = "http://127.0.0.1:4480"
PIECES = 120  # of 1 KiB, 25 ms apart: a download of three seconds

# a server that answers at once, or slowly
_ORIGIN = f"""
import asyncio
async def answer(reader, writer):
    path = (await reader.readuntil(b"\\r\\n\\r\\n")).split()[1]
    print(path.decode(), flush=True)
    slow = path.endswith(b"/slow")
    writer.write(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n"
                 % ({PIECES} * 1024 if slow else 2))
    for _ in range({PIECES} if slow else 0):
        writer.write(b"x" * 1024)
        await asyncio.sleep(0.025)
    writer.write(b"" if slow else b"ok")
    writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 8000)
    print("ready", flush=True)
    await server.serve_forever()
asyncio.run(main())
"""

# a client: asks once for each line of its input, and says how it fared
_CLIENT = """
import http.client, json, sys, urllib.error, urllib.request
proxy = sys.argv[1]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy}))
for line in sys.stdin:
    try:
        with opener.open(line.strip(), timeout=60) as answer:
            print(len(answer.read()), flush=True)
    except urllib.error.HTTPError as error:
        print("status", error.code, flush=True)
    except urllib.error.URLError as error:
        print("refused" if isinstance(error.reason, ConnectionRefusedError) else "lost", flush=True)
    except (OSError, http.client.HTTPException) as error:
        print("lost", flush=True)
"""


class Client:
    """Asks through the service's proxy, one request after another."""

    def __init__(self, box: SystemdBox, proxy: str) -> None:
        argv = [sys.executable, "-c", _CLIENT, proxy]
        self._process = proc.popen(argv, place=box.network, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def begin(self, path: str = "") -> None:
        """Send off a request."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"http://127.0.0.1:8000/{path}\n")
        self._process.stdin.flush()

    def end(self) -> str:
        """How it fared: the length of the answer, `status N`, `refused`, `lost`."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self) -> str:
        """One request from begin to end."""
        self.begin()
        return self.end()

    def close(self) -> None:
        """No more."""
        self._process.kill()
        self._process.communicate()


class Machine:
    """A box with an origin, and gotunnel installed as its administrator does it."""

    def __init__(self, box: SystemdBox, directory: Path, stack: contextlib.ExitStack) -> None:
        self.box, self._directory, self._stack = box, directory, stack
        self.origin = origin = proc.Process(
            [sys.executable, "-c", _ORIGIN], log=directory / "origin.log", place=box.network
        )
        stack.callback(origin.stop)
        origin.wait_ready("the origin", lambda: "ready" in origin.output())

    def way_out(self, port: int) -> HttpProxy:
        """A proxy in the box's network, not started yet."""
        made = HttpProxy(self._directory / f"proxy-{port}", place=self.box.network, port=port)
        self._stack.callback(made.stop)
        return made

    def configure(self, *chains: str, name: str = "config") -> None:
        """Write a configuration file."""
        upstreams = "".join(
            f'[[upstream]]\nname = "way-{number}"\nvia = "{chain}"\n'
            for number, chain in enumerate(chains, 1)
        )
        probe = '[pool]\nprobe = { url = "http://127.0.0.1:8000/", every = "1s", timeout = "5s" }\n'
        self.box.write(f"/etc/gotunnel/{name}.toml", upstreams + probe)

    def install(self) -> str:
        """As root does; what it said."""
        return self.box.run(GOTUNNEL, "service", "install", "--system").stdout

    def is_active(self, unit: str = SERVICE) -> bool:
        return self.box.systemctl("is-active", unit, check=False) == "active"

    def wait_active(self, unit: str = SERVICE) -> None:
        self.wait(f"{unit} is active", lambda: self.is_active(unit))

    def wait(self, what: str, probe: Callable[[], bool]) -> None:
        """Wait; the journal is shown where it is in vain."""
        try:
            proc.wait_until(what, probe, 40.0)
        except proc.LabError as error:
            raise proc.LabError(f"{error}\n{self.box.journal()}") from None

    def status(self) -> str:
        return self.box.show(SERVICE, "StatusText")

    def kept(self, name: str) -> str:
        """A value of the runtime file."""
        return str(json.loads(self.box.run("cat", "/run/gotunnel/server.json").stdout)[name])

    def client(self) -> Client:
        made = Client(self.box, self.kept("proxy"))
        self._stack.callback(made.close)
        return made


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    need(can_box(), HttpProxy.available(), can_run_sshd())
    with contextlib.ExitStack() as stack:
        box = stack.enter_context(SystemdBox(tmp_path / "box"))
        yield Machine(box, tmp_path, stack)


def test_it_is_ready_when_a_way_out_works_and_not_before(machine: Machine) -> None:
    box = machine.box
    office = machine.way_out(3128)
    machine.configure("http://127.0.0.1:3128")
    said = machine.install()
    assert "enabled and started gotunnel.service" in said
    machine.wait("STATUS= says why", lambda: machine.status() == "no way out works: way-1: tcp.refused")
    assert box.show(SERVICE, "ActiveState") == "activating"
    box.systemctl("kill", "--kill-whom=main", "--signal=SIGHUP", SERVICE)  # no READY by the back door
    box.systemctl("start", "multi-user.target")  # and no boot waits for it
    machine.wait("the reload is done", lambda: "the new configuration is in force" in box.journal())
    down = box.run(GOTUNNEL, "service", "status", check=False)
    assert (down.returncode, down.stderr) == (69, "")
    assert "activating (start), enabled" in down.stdout
    assert "no way out works: way-1: tcp.refused" in down.stdout

    office.start()
    machine.wait_active()
    machine.wait("STATUS= is current", lambda: machine.status().startswith("1 of 1 ways out up"))
    assert box.show(SERVICE, "NRestarts") == "0"
    up = box.run(GOTUNNEL, "service", "status")
    assert up.stdout.startswith("gotunnel.service: active (running), enabled, pid ")
    assert "way-1" in up.stdout
    assert machine.client().ask() == "2"

    _is_locked_in(machine)

    again = machine.install()  # nothing to write, and the ports stay
    assert "wrote" not in again
    machine.wait_active()
    assert box.run(GOTUNNEL, "service", "uninstall").stdout.count("removed /etc/systemd/system/gotunnel") == 5
    assert box.run("find", "/etc/systemd/system", "-name", "gotunnel*").stdout == ""
    gone = box.run(GOTUNNEL, "service", "status", check=False)
    assert gone.returncode == 69
    assert (
        gone.stderr
        == "gotunnel: gotunnel.service isn't installed; to do so: gotunnel service install --system\n"
    )


def _is_locked_in(machine: Machine) -> None:
    """What the unit asks for is in force in the process itself."""
    box = machine.box
    pid = box.show(SERVICE, "MainPID")
    facts = dict(
        line.partition(":\t")[::2] for line in box.run("cat", f"/proc/{pid}/status").stdout.splitlines()
    )
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"
    assert int(facts["CapBnd"], 16) == int(facts["CapEff"], 16) == 0
    assert "0" not in facts["Uid"].split()
    mounts = {
        line.split()[4]: line.split()[5]
        for line in box.run("cat", f"/proc/{pid}/mountinfo").stdout.splitlines()
    }
    assert mounts["/"].startswith("ro")
    assert {"/root", "/var/lib/private/gotunnel", "/tmp"} <= mounts.keys()
    assert box.run("stat", "-c", "%a", "/run/gotunnel/server.json").stdout.strip() == "600"


def test_clients_wait_while_it_is_killed_or_hangs_and_none_is_refused(machine: Machine) -> None:
    box = machine.box
    machine.way_out(3128).start()
    machine.configure("http://127.0.0.1:3128")
    box.write("/etc/systemd/system/gotunnel.service.d/test.conf", "[Service]\nWatchdogSec=4s\n")
    machine.install()
    machine.wait_active()
    client, url = machine.client(), machine.kept("proxy")
    assert client.ask() == "2"

    for number, restarts in ((signal.SIGKILL, "1"), (signal.SIGSTOP, "2")):
        box.systemctl("kill", "--kill-whom=main", f"--signal={number.name}", SERVICE)
        fared = [client.ask() for _ in range(3)]  # the first waits until the service is back
        assert fared[-1] == "2", fared
        assert set(fared) <= {"2", "lost"}, fared
        machine.wait("it was restarted", lambda n=restarts: box.show(SERVICE, "NRestarts") == n)  # type: ignore[misc]
        machine.wait_active()
    assert "Watchdog timeout" in box.journal()
    assert machine.kept("proxy") == url  # a shell that took `gotunnel env` goes on


def test_reload_and_stop_lose_no_stream(machine: Machine) -> None:
    box = machine.box
    old, new = machine.way_out(3128).start(), machine.way_out(3129).start()
    machine.configure("http://127.0.0.1:3128")
    machine.install()
    machine.wait_active()
    slow, quick = machine.client(), machine.client()
    slow.begin("slow")
    machine.wait("the download has begun", lambda: machine.origin.output().count("/slow") == 1)
    assert "CONNECT" in old.log_text()

    machine.configure("http://127.0.0.1:3129")
    box.systemctl("reload", SERVICE)
    machine.wait("the reload is done", lambda: "the new configuration is in force" in machine.box.journal())
    before = old.log_text().count("CONNECT")
    assert quick.ask() == "2"
    assert old.log_text().count("CONNECT") == before
    assert "CONNECT" in new.log_text()
    assert slow.end() == str(PIECES * 1024)

    box.write("/etc/gotunnel/config.toml", '[pool]\nstratgy = "fastest"\n')
    box.systemctl("reload", SERVICE)
    machine.wait("STATUS= says why", lambda: "stratgy" in machine.status())
    machine.wait_active()
    assert quick.ask() == "2"
    assert box.show(SERVICE, "NRestarts") == "0"

    slow.begin("slow")
    machine.wait("the download has begun", lambda: machine.origin.output().count("/slow") == 2)
    box.systemctl(
        "stop", "gotunnel-proxy.socket", "gotunnel-modproxy.socket", "gotunnel-admin.socket", SERVICE
    )
    assert slow.end() == str(PIECES * 1024)
    assert box.show(SERVICE, "Result") == "success"
    assert quick.ask() in ("refused", "lost")


def test_a_key_comes_as_a_credential_and_profiles_are_apart(machine: Machine, tmp_path: Path) -> None:
    box = machine.box
    key = keys.new_key(tmp_path / "id_service")
    with Sshd(tmp_path / "sshd", place=box.network, authorized=[key]) as jump:
        box.write("/etc/credstore/gotunnel.team.ssh_key", key.private.read_text(), "0600")
        box.write("/etc/credstore/gotunnel.team.known_hosts", jump.known_hosts_line(), "0600")
        machine.configure(
            f"ssh://root@127.0.0.1:{jump.port}"
            "?identity_credential=ssh_key&known_hosts_credential=known_hosts",
            name="team",
        )
        machine.way_out(3128).start()
        machine.configure("http://127.0.0.1:3128", name="other")
        machine.install()
        for name in ("team", "other"):
            box.systemctl("start", "--no-block", f"gotunnel@{name}.service")
        for name in ("team", "other"):
            machine.wait_active(f"gotunnel@{name}.service")
        assert "Accepted publickey" in jump.log_text()
        owners = {box.run("stat", "-c", "%u", f"/run/gotunnel-{name}").stdout for name in ("team", "other")}
        assert len(owners) == 2
        box.systemctl("stop", "gotunnel@team.service")
        assert machine.is_active("gotunnel@other.service")


# a user's manager, as user@.service of systemd-logind would start it
_MANAGER = """
[Service]
Type=notify
User=nobody
Delegate=yes
RuntimeDirectory=user/65534
RuntimeDirectoryMode=0700
StateDirectory=home
Environment=XDG_RUNTIME_DIR=/run/user/65534 HOME=/var/lib/home SYSTEMD_GENERATOR_PATH=/nonexistent
ExecStart=/lib/systemd/systemd --user --log-target=console
KillMode=mixed
"""


def test_a_user_has_a_service_of_their_own(machine: Machine) -> None:
    box = machine.box
    box.write("/etc/systemd/system/manager.service", _MANAGER)
    box.systemctl("daemon-reload")
    box.systemctl("start", "manager.service")
    machine.way_out(3128).start()
    home, runtime = "/var/lib/home", "/run/user/65534"

    def mine(*argv: str, check: bool = True, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return box.run(
            *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env", f"HOME={home}"),
            *(f"XDG_RUNTIME_DIR={runtime}", *argv),
            check=check,
            stdin=stdin,
        )

    config = (
        '[[upstream]]\nname = "office"\nvia = "http://127.0.0.1:3128"\n'
        '[pool]\nprobe = { url = "http://127.0.0.1:8000/", every = "1s", timeout = "5s" }\n'
    )
    script = "mkdir -p ~/.config/gotunnel && cat > ~/.config/gotunnel/config.toml"
    mine("sh", "-c", script, stdin="nonsense = 1\n")
    failed = mine(GOTUNNEL, "service", "install").stdout
    assert f"wrote {home}/.config/systemd/user/gotunnel.service" in failed
    assert f"it ends again and again; why: journalctl --user -u {SERVICE}" in failed
    mine("sh", "-c", script, stdin=config)
    (block,) = readme.service()
    path = f"PATH={Path(GOTUNNEL).parent}:/usr/bin:/bin"
    said = mine("env", path, "sh", "-e", "-c", f'{block}echo "by $HTTPS_PROXY"').stdout
    assert "by http://gotunnel:" in said
    active = ("systemctl", "--user", "is-active", SERVICE)
    machine.wait("it is active", lambda: mine(*active, check=False).stdout.strip() == "active")
    assert "active (running), enabled" in mine(GOTUNNEL, "service", "status").stdout
    words = mine(GOTUNNEL, "env").stdout
    assert "HTTPS_PROXY=" in words
    # its runtime file stays, and the socket that it names is systemd's: that is no second service
    mine("systemctl", "--user", "kill", "--kill-whom=main", "--signal=KILL", SERVICE)
    assert mine(GOTUNNEL, "env").stdout == words, "who asks while it starts waits"
    machine.wait("it is active again", lambda: mine(*active, check=False).stdout.strip() == "active")
    assert mine("systemctl", "--user", "show", "-PNRestarts", SERVICE).stdout == "1\n"
    assert mine(GOTUNNEL, "service", "uninstall").stdout.count("removed") == 5
    assert mine(*active, check=False).stdout.strip() == "inactive"
