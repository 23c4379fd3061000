"""`serve` as a user has it: found by run, env and status; reloaded, restarted, ended."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need
from tests.lab import proc
from tests.lab.corpus import Corpus
from tests.lab.faults import Fault
from tests.lab.origin import Origin
from tests.lab.pki import Authority
from tests.lab.proc import wait_until
from tests.lab.proxies import HttpProxy

GOTUNNEL = [sys.executable, "-m", "gotunnel"]


class Home:
    """A user's home, with a configuration, a module source on loopback, and a service."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.corpus = Corpus(directory / "tree", count=6, levels=2)
        self.origin = Origin(directory / "origin", self.corpus.directory)
        self.config = directory / "config.toml"
        self.process: subprocess.Popen[str] | None = None
        self.processes: list[subprocess.Popen[str]] = []
        run = directory / "run"
        run.mkdir(mode=0o700)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "XDG_RUNTIME_DIR": str(run),
            "GOTUNNEL_CONFIG": str(self.config),
            "GOPROXY": "",
            "GOMODCACHE": str(directory / "modcache"),
            "GOCACHE": str(directory / "gocache"),
            "GOFLAGS": "-modcacherw",
            "GOTOOLCHAIN": "local",
            "GOTELEMETRY": "off",
            "GOENV": "off",
        }

    def write(self, text: str) -> None:
        self.config.write_text(text)

    def start(self, *options: str) -> None:
        with (self.directory / "serve.txt").open("a") as out:
            self.process = subprocess.Popen(
                [*GOTUNNEL, "serve", *options], env=self.env, stderr=out, stdin=subprocess.DEVNULL, text=True
            )
        self.processes.append(self.process)
        self.wait_for("ready: a way out works", len(self.processes))

    @property
    def said(self) -> str:
        return (self.directory / "serve.txt").read_text()

    def wait_for(self, words: str, times: int = 1) -> None:
        wait_until(words, lambda: self.said.count(words) >= times, 30.0)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def gotunnel(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*GOTUNNEL, *words],
            env={**self.env, **env},
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        ran = self.gotunnel("status", "--json")
        assert ran.returncode == 0, ran.stderr
        found: dict[str, Any] = json.loads(ran.stdout)
        return found

    def run(self, argv: Sequence[str], *options: str) -> tuple[subprocess.CompletedProcess[str], list[Any]]:
        events = self.directory / "events.jsonl"
        events.unlink(missing_ok=True)
        ran = self.gotunnel("run", "--events", str(events), *options, "--", *argv)
        return ran, [json.loads(line) for line in events.read_text().splitlines()]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path)
    with made.origin:
        made.env["GOPROXY"] = made.origin.url
        made.env["GOSUMDB"] = "off"
        made.write('[[upstream]]\nname = "here"\nvia = "direct:"\n')
        try:
            yield made
        finally:
            for process in made.processes:
                process.kill()
                process.wait(30)


def test_run_env_and_status_find_a_service_and_use_it(home: Home) -> None:
    ran = home.gotunnel("env")
    assert (ran.returncode, ran.stdout) == (69, "")
    assert ran.stderr.startswith("gotunnel: no serve is running")
    home.start()
    status = home.status()
    assert [(way["name"], way["state"]) for way in status["ways"]] == [("here", "up")]
    project = home.corpus.write_project(home.directory / "project")
    ran, events = home.run(["go", "-C", str(project), "mod", "download"])
    assert ran.returncode == 0, ran.stderr
    ready = next(event for event in events if event["event"] == "ready")
    running = json.loads((home.directory / "run" / "gotunnel" / "server.json").read_text())
    assert ready["proxy"] == running["proxy"].rpartition("@")[2]
    assert any(event["event"] == "fetch" for event in events)
    secret = running["modproxy"].rpartition("/")[2]
    assert secret not in ran.stderr + json.dumps(events)
    # a second user's cache is empty, the service's store isn't: nothing is fetched again
    asked = len(home.origin.begun(r"\.zip$"))
    assert asked == len(home.corpus.modules)
    ran, _ = home.run(["go", "-C", str(project), "mod", "download"])
    home.env["GOMODCACHE"] = str(home.directory / "other")
    ran, _ = home.run(["go", "-C", str(project), "mod", "download"])
    assert ran.returncode == 0, ran.stderr
    assert len(home.origin.begun(r"\.zip$")) == asked
    assert home.status()["runs"] == 0
    ran, _ = home.run(["sh", "-c", "echo $GOPROXY"], "--no-modproxy", "--mirror", "https://m.example")
    assert ran.stdout == f"https://m.example|{home.origin.url}\n"


def test_each_run_has_a_secret_of_its_own_that_ends_with_it(home: Home) -> None:
    home.start()
    seen = [home.run(["sh", "-c", "echo $HTTPS_PROXY $GOPROXY"])[0].stdout.split() for _ in range(2)]
    assert len({url for urls in seen for url in urls}) == 4
    running = json.loads((home.directory / "run" / "gotunnel" / "server.json").read_text())
    assert running["proxy"] not in seen[0] + seen[1]
    service = running["modproxy"].rpartition("/")[0]
    for proxy, goproxy in seen:
        door, _, secret = goproxy.rpartition("/")
        assert door != service, "a run has a door of its own"
        for where, status in ((door, "000"), (service, "404")):
            url = f"{where}/{secret}/{home.corpus.first[0].path}/@v/list"
            ran = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url],
                                 capture_output=True, text=True, check=False)  # fmt: skip
            assert ran.stdout == status
        ran = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--proxy", proxy,
                              home.origin.url.replace("127.0.0.1", "127.0.0.2")],
                             capture_output=True, text=True, check=False)  # fmt: skip
        assert ran.stdout == "407"


def test_a_shell_that_took_env_goes_on_after_a_restart(home: Home) -> None:
    home.start()
    project = home.corpus.write_project(home.directory / "project")
    words = home.gotunnel("env").stdout
    script = f"{words}\ngo -C {project} mod download && echo fine"
    assert home.stop() == 0
    home.start()
    ran = subprocess.run(["sh", "-c", script], env=home.env, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "fine\n"), ran.stderr
    ran = subprocess.run(
        ["sh", "-c", f"{words}\neval \"$({' '.join(GOTUNNEL)} env --unset)\"\necho $GOPROXY.$HTTPS_PROXY."],
        env=home.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.stdout == f"{home.origin.url}..\n", ran.stderr


def test_in_a_shell_that_took_env_run_uses_the_service_and_serve_asks_not_itself(home: Home) -> None:
    home.start()
    running = json.loads((home.directory / "run" / "gotunnel" / "server.json").read_text())
    home.env |= {k: v for k, v in json.loads(home.gotunnel("env", "--shell", "json").stdout).items() if v}
    project = home.corpus.write_project(home.directory / "project")
    argv = ["go", "-C", str(project), "mod", "download"]
    ran, events = home.run(argv)
    assert ran.returncode == 0, ran.stderr
    assert events[0]["proxy"] == running["proxy"].rpartition("@")[2]
    assert home.stop() == 0
    home.env |= {"GOMODCACHE": str(home.directory / "other"), "XDG_CACHE_HOME": str(home.directory / "anew")}
    home.origin.clear_log()
    home.start()
    ran, _ = home.run(argv)
    assert ran.returncode == 0, ran.stderr
    assert len(home.origin.begun(r"\.zip$")) == len(home.corpus.modules)
    # and where the address was written down for good, as by `go env -w`
    assert home.stop() == 0
    home.env = {**home.env, "GOPROXY": running["modproxy"], "GOTUNNEL_ENV_BEFORE": ""}
    home.start()
    assert "GOPROXY is this service itself; https://proxy.golang.org,direct is taken" in home.said


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_a_service_that_ends_costs_a_run_no_repeat(home: Home, how: signal.Signals | None) -> None:
    """go asks its proxy but once: what it waits for comes from the service that is started anew, or, where
    there is none (None), from the run itself."""
    home.origin.behave(delay=0.5)
    home.start()
    project = home.corpus.write_project(home.directory / "project")
    events = home.directory / "events.jsonl"
    argv = [*GOTUNNEL, "run", "--events", str(events), "--", "go", "-C", str(project), "mod", "download"]
    running = subprocess.Popen(argv, env=home.env, stderr=subprocess.PIPE, text=True)
    wait_until("go asks", lambda: len(home.origin.begun(r"\.info$")) > 0, 30.0)
    assert home.process is not None
    home.process.send_signal(how or signal.SIGKILL)
    home.process.wait(30)
    if how is not None:
        home.start()
    _, err = running.communicate(timeout=80)
    assert running.returncode == 0, err
    assert err == ("" if how else "gotunnel: the service has gone; this run opens ways out of its own\n")
    attempts = [e for e in map(json.loads, events.read_text().splitlines()) if e["event"] == "attempt"]
    assert [attempt["exit"] for attempt in attempts] == [0]
    assert not home.corpus.damage(home.directory / "modcache")


def test_a_kept_port_that_somebody_took_is_told_in_one_line(home: Home) -> None:
    home.start()
    kept = json.loads((home.directory / ".local/state/gotunnel/serve.json").read_text())
    assert home.process is not None
    home.process.kill()  # its runtime file stays, and names a port that is somebody else's now
    home.process.wait(30)
    heard: list[str] = []

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(f"{self.path} {self.headers}")
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    with (
        socket.create_server(("127.0.0.1", kept["proxy"])),
        ThreadingHTTPServer(("127.0.0.1", kept["admin"]), Other) as other,
    ):
        threading.Thread(target=other.serve_forever, daemon=True).start()
        assert home.gotunnel("status").returncode == 69
        assert home.run(["true"])[0].returncode == 0
        home.start()
        other.shutdown()
    assert len(heard) == 3
    assert kept["token"] not in "".join(heard)
    taken = [line for line in home.said.splitlines() if "taken" in line]
    assert taken == [
        f"gotunnel: ports of the last time are taken: {kept['proxy']} (proxy), {kept['admin']} (admin); "
        "shells need `gotunnel env` anew"
    ]
    now = json.loads((home.directory / ".local/state/gotunnel/serve.json").read_text())
    assert now["modproxy"] == kept["modproxy"]
    assert now["secret"] != kept["secret"], "who took the port may have heard it"
    assert now["token"] != kept["token"]
    assert home.run(["true"])[0].returncode == 0


def test_it_serves_where_nothing_can_be_kept(home: Home) -> None:
    home.env |= {"STATE_DIRECTORY": "/proc/gotunnel", "RUNTIME_DIRECTORY": "/proc/gotunnel"}
    home.start()
    assert "ports and secrets are new after a restart: /proc/gotunnel/serve.json: " in home.said
    assert "run, env and status don't find this service: /proc/gotunnel/server.json: " in home.said


def test_a_stale_file_counts_as_no_service(home: Home) -> None:
    home.start()
    assert home.process is not None
    home.process.kill()
    home.process.wait(30)
    assert (home.directory / "run" / "gotunnel" / "server.json").exists()
    ran, _ = home.run(["true"])
    assert ran.returncode == 0
    assert home.gotunnel("status").returncode == 69


def test_a_second_service_of_a_user_is_refused_unless_it_has_a_name(home: Home) -> None:
    home.start()
    ran = home.gotunnel("serve")
    assert ran.returncode == 78
    assert re.search(r"runs already \(pid \d+\).*--profile NAME", ran.stderr)
    home.start("--profile", "two")
    assert home.gotunnel("status", "--json", "--profile", "two").returncode == 0


def test_it_is_ready_by_another_mirror_when_the_first_is_silent(home: Home) -> None:
    with Origin(home.directory / "silent", home.corpus.directory) as silent:
        silent.behave(Fault("silent"))
        home.env["GOPROXY"] = f"{silent.url},{home.origin.url}"
        home.start()
        assert home.status()["ways"][0]["state"] == "up"


def test_a_reload_swaps_the_ways_out_and_a_wrong_one_changes_nothing(home: Home) -> None:
    home.start()
    assert home.process is not None
    home.write('[[upstream]]\nname = "other"\nvia = "direct:"\n')
    home.process.send_signal(signal.SIGHUP)
    home.wait_for("the new configuration is in force")
    assert [way["name"] for way in home.status()["ways"]] == ["other"]
    # tried at once, not when the next probe is due
    wait_until("it is known", lambda: home.status()["ways"][0]["state"] == "up", 10.0)
    home.write('[[upstream]]\nnam = "x"\n')
    home.process.send_signal(signal.SIGHUP)
    home.wait_for("the new configuration is refused, the old one stays")
    home.write("")
    assert [way["name"] for way in home.status()["ways"]] == ["other"]
    assert home.run(["true"])[0].returncode == 0


def test_a_reload_says_what_only_a_restart_changes(home: Home) -> None:
    home.env["GOTUNNEL_ALERT_SECRET"] = "the hook's own"  # no key: no file may hold it
    home.start()
    assert home.process is not None
    home.write(
        '[[upstream]]\nname = "here"\nvia = "direct:"\n[listen]\nproxy = "127.0.0.1:4999"\n'
        "[alert]\nsigma = 4.0\n[limits]\nper_client = 7\n"
    )
    home.process.send_signal(signal.SIGHUP)
    home.wait_for("in force, but for what only a restart changes: listen.proxy, alert.sigma\n")


def test_it_is_unready_while_no_way_out_works(home: Home, tmp_path: Path) -> None:
    need(HttpProxy.available())
    probe = f'[pool]\nprobe = {{ url = "{home.origin.url}", every = "1s", timeout = "2s" }}\n'
    with HttpProxy(tmp_path / "office") as office:
        home.write(f'[[upstream]]\nname = "office"\nvia = "http://127.0.0.1:{office.port}"\n{probe}')
        home.start()
        running = json.loads((home.directory / "run" / "gotunnel" / "server.json").read_text())

        def said() -> str:
            words = ["curl", "-s", "--noproxy", "*", "-H", f"Authorization: Bearer {running['token']}"]
            return proc.run([*words, f"{running['admin']}/readyz"]).stdout

        assert said() == "ready\n"
        office.stop()
        wait_until(
            "it is unready", lambda: said() == "unready: no way out works: office: tcp.refused\n", 20.0
        )
        office.start()
        wait_until("it is ready again", lambda: said() == "ready\n", 40.0)


def test_a_stream_outlives_a_reload_and_a_stop_waits_for_it(home: Home) -> None:
    home.origin.behave(zip_rate=2000)
    home.start()
    assert home.process is not None
    running = json.loads((home.directory / "run" / "gotunnel" / "server.json").read_text())
    url = f"{home.origin.url}/{home.corpus.zip_path(home.corpus.first[0]).relative_to(home.corpus.directory)}"
    with subprocess.Popen(
        ["curl", "-s", "-p", "--noproxy", "", "--proxy", running["proxy"], url], stdout=subprocess.PIPE
    ) as slow:
        home.origin.wait_for(r"\.zip$")
        home.process.send_signal(signal.SIGHUP)
        home.wait_for("the new configuration is in force")
        time.sleep(0.2)
        home.process.send_signal(signal.SIGTERM)
        assert slow.stdout is not None
        body = slow.stdout.read()
    assert body == home.corpus.zip_path(home.corpus.first[0]).read_bytes()
    assert home.process.wait(30) == 0
    with contextlib.suppress(FileNotFoundError):
        assert not (home.directory / "run" / "gotunnel" / "server.json").exists()


def test_many_downloads_at_once_and_each_file_is_fetched_once(home: Home) -> None:
    """64 of them with GOTUNNEL_SOAK."""
    many = 64 if os.environ.get("GOTUNNEL_SOAK") else 12
    home.origin.behave(delay=0.1)
    home.start()
    running = json.loads((home.directory / "run" / "gotunnel" / "server.json").read_text())
    project = home.corpus.write_project(home.directory / "project")
    started = []
    for number in range(many):
        env = {
            **home.env,
            "GOMODCACHE": str(home.directory / f"cache{number}"),
            "GOPROXY": running["modproxy"],
        }
        argv = ["go", "-C", str(project), "mod", "download"]
        started.append(subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True))
    for process in started:
        _, err = process.communicate(timeout=100)
        assert process.returncode == 0, err
    asked = [record["path"] for record in home.origin.begun(r"\.(zip|mod|info)$")]
    assert len(asked) == len(set(asked)) == 3 * len(home.corpus.modules)


def test_connect_uses_the_service(home: Home) -> None:
    home.start()
    host, port = home.origin.address, str(home.origin.port)
    ran = subprocess.run(
        [*GOTUNNEL, "connect", host, port],
        env=home.env,
        input=f"GET /{home.corpus.first[0].path}/@v/list HTTP/1.0\r\n\r\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("v1.0.0\n")
    ways = home.status()["ways"]
    assert sum(ways[0]["hour"]["bytes"]) > 0 or ways[0]["bytes_in"] > 0


def test_a_team_shares_it_over_tls_with_a_password(home: Home) -> None:
    ca = Authority(home.directory / "ca")
    mine = ca.issue("localhost", "127.0.0.1")
    (home.directory / "password").write_text("s3cret\n")
    home.write(
        '[[upstream]]\nname = "here"\nvia = "direct:"\n[listen]\n'
        f'auth = {{ user = "team", password_file = "{home.directory}/password" }}\n'
        f'tls = {{ cert = "{mine.cert}", key = "{mine.key}" }}\n'
    )
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(home.directory / "notify"))
    manager.settimeout(20)
    home.env |= {"NOTIFY_SOCKET": str(home.directory / "notify"), "WATCHDOG_USEC": "3000000"}
    home.start()
    with manager:  # the watchdog is fed inside TLS too
        while manager.recv(4096) != b"WATCHDOG=1":
            pass
    running = json.loads((home.directory / "run" / "gotunnel" / "server.json").read_text())
    project = home.corpus.write_project(home.directory / "project")
    where = running["modproxy"].partition("//")[2].partition("/")[0].replace("127.0.0.1", "localhost")
    env = {**home.env, "SSL_CERT_FILE": str(ca.cert), "GOPROXY": f"https://team:s3cret@{where}"}
    argv = ["go", "-C", str(project), "mod", "download"]
    ran = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    env |= {"GOPROXY": f"https://team:wrong@{where}", "GOMODCACHE": str(home.directory / "other")}
    ran = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 1
    assert "401" in ran.stderr
    by = [
        "curl",
        "-sS",
        "--proxy-cacert",
        str(ca.cert),
        "--proxy",
        running["proxy"].replace("127.0.0.1", "localhost"),
    ]
    plain = f"{home.origin.url}/{home.corpus.first[0].path}/@v/list"
    ran = subprocess.run([*by, "--noproxy", "", "-p", plain], capture_output=True, text=True, check=False)
    assert ran.stdout == "v1.0.0\n", ran.stderr
    assert running["proxy"].startswith("https://team:")


def test_a_project_with_a_large_go_sum_is_let_in(home: Home) -> None:
    home.start()
    project = home.corpus.write_project(home.directory / "project")
    with (project / "go.sum").open("a") as sums:
        sums.writelines(f"big.example/m{n} v1.0.0 h1:{'A' * 43}=\n" for n in range(30_000))
    ran, events = home.run(["go", "-C", str(project), "list", "-m"])
    assert ran.returncode == 0, ran.stderr
    running = json.loads((home.directory / "run" / "gotunnel" / "server.json").read_text())
    assert events[0]["proxy"] == running["proxy"].rpartition("@")[2]
