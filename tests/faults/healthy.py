"""Networks and settings with nothing wrong in them: doctor must find nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tests.faults import bench
from tests.faults.case import Scene
from tests.faults.places import COMPANY, LIB, PASSWORD, PRIVATE, SSHLIB, STRANGE, USER
from tests.faults.world import World, git_by_ssh, need

_PROXY = "proxy.corp.example"


def _via(*ways: str) -> Callable[[Scene], None]:
    return lambda scene: scene.via.extend(ways)


def _variable(scene: Scene) -> None:
    scene.env["HTTPS_PROXY"] = scene.env["https_proxy"] = f"http://{_PROXY}:8888"


def _private(scene: Scene) -> None:
    scene.goenv("GOPRIVATE=*.corp.example")
    need(scene, LIB)


def _private_by_ssh(scene: Scene) -> None:
    scene.goenv("GOPRIVATE=*.corp.example")
    need(scene, SSHLIB)
    git_by_ssh(scene)


def _alternate_proxy(scene: Scene) -> None:
    _private(scene)
    scene.sh(f"git config --global http.proxy http://{_PROXY}:8888")


def _own_source(name: str) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        scene.names(**{name.replace(".", "_"): [PRIVATE]})
        scene.goenv(f"GOPROXY=https://{name}")

    return make


def _own_source_in_clear(scene: Scene) -> None:
    scene.goenv(f"GOPROXY=http://{PRIVATE}:8081")


def _inspected(scene: Scene) -> None:
    """The company reads along, and this machine trusts it."""
    scene.names(proxy_golang_org=[STRANGE["intercepted"]])
    both = scene.world.ca.read_text() + scene.world.other_authority.cert.read_text()
    (scene.home / "CA.pem").write_text(both)
    scene.env["SSL_CERT_FILE"] = str(scene.home / "CA.pem")


def _content_network(scene: Scene) -> None:
    scene.names(proxy_golang_org=[STRANGE["cdn"]])


def _alternates(scene: Scene) -> None:
    scene.goenv("GOPROXY=https://proxy.golang.org|https://goproxy.cn|direct")


NETWORKS: Mapping[str, Callable[[Scene], None]] = {
    "directly": lambda scene: None,
    "a private module by git": _private,
    "a private module by git over SSH": _private_by_ssh,
    "a private module by git's own proxy": _alternate_proxy,
    "a list with |": _alternates,
    "a company's own source, by a name that only its resolver knows": _own_source(COMPANY[0]),
    "a company's own source, by a name that is another's outside": _own_source(COMPANY[1]),
    "a company's own source, in clear by its address": _own_source_in_clear,
    "an inspection whose CA is trusted": _inspected,
    "a content network that answers from elsewhere": _content_network,
    "by a jump host": _via("ssh://root@jump.corp.example"),
    "by an HTTP proxy": _via(f"http://{_PROXY}:8888"),
    "by an HTTP proxy with a password": _via(f"http://{USER}:{PASSWORD}@{_PROXY}:8889"),
    "by a SOCKS server": _via(f"socks5h://{_PROXY}:1080"),
    "by a SOCKS server with a password": _via(f"socks5h://{USER}:{PASSWORD}@{_PROXY}:1081"),
    "by a chain of both": _via(f"http://{_PROXY}:8888,ssh://root@10.77.0.2"),
    "by two alternates": _via("ssh://root@jump.corp.example", f"socks5h://{_PROXY}:1080"),
    "by the proxy in HTTPS_PROXY": _variable,
}


def false_alarms(world: World, make: Callable[[Scene], None]) -> str:
    """What doctor finds there that isn't there, "" for nothing."""
    with world.scene() as scene:
        make(scene)
        status, report, _ = bench.doctor(scene)
    found = [f"{f['severity']} {f['id']}: {f['subject']}: {f['summary']}" for f in report["findings"]
             if f["severity"] != "info"]  # fmt: skip
    said = [str(report["said"])] if "said" in report else []
    return "; ".join([*found, *said, *([f"status {status}"] if status else [])])


def seconds(world: World, *, slow: bool = False, black: bool = False) -> tuple[float, str | None]:
    """How long doctor takes on a line of 100 ms, or with everything swallowed; and its root cause."""
    with world.scene() as scene:
        if slow:
            scene.undo.enter_context(world.slowly())
        if black:
            scene.undo.enter_context(world.black_hole())
        _, report, took = bench.doctor(scene)
    return took, report["root_cause"]
