"""Faults of what servers answer, and of git and its servers."""

from __future__ import annotations

from tests.faults.case import Case, Scene
from tests.faults.places import GITLIB, LOGINLIB, PASSWORD, PLACES, SSHLIB, STRANGE, USER
from tests.faults.world import git_by_ssh, need
from tests.lab.faults import Fault

_MIRROR = "--mirror https://goproxy.cn"
_NETRC = "printf 'machine {} login {} password {}\\n' >> $HOME/.netrc"


def _portal(scene: Scene) -> None:
    scene.world.source.behave(Fault("page"))


def _hotspot(scene: Scene) -> None:
    scene.world.source.behave(Fault("redirect", to=f"http://{STRANGE['hotspot']}/login"))


def _network_login(scene: Scene) -> None:
    scene.world.source.behave(Fault("status", status=511))


def _is_well(scene: Scene) -> None:
    """Somebody has logged in there, or a while has passed."""
    scene.world.source.behave()


def _login(scene: Scene) -> None:
    scene.names(proxy_golang_org=[STRANGE["login"]])


def _forbidden(scene: Scene) -> None:
    scene.world.source.behave(status={".": 403})


def _rate(scene: Scene) -> None:
    scene.world.source.behave(Fault("status", status=429, seconds=7))


def _server_error(scene: Scene) -> None:
    scene.world.source.behave(status={".": 503})


def _truncated(scene: Scene) -> None:
    scene.world.source.behave(Fault("length", by=100))


def _endless(scene: Scene) -> None:
    scene.world.source.behave(Fault("endless"))


def _stalled(scene: Scene) -> None:
    scene.names(proxy_golang_org=[STRANGE["hang"]])


def _no_meta(scene: Scene) -> None:
    scene.goenv("GOPRIVATE=*.corp.example")
    scene.gomod("-require=git.corp.example/team/nosuch@v1.0.0")


def _no_git(scene: Scene) -> None:
    tools = scene.home / "tools"
    tools.mkdir()
    for name in ("sh", "bash", "env", "cat", "ssh", "uname"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    first, go, *_ = scene.env["PATH"].split(":")
    scene.env["PATH"] = f"{first}:{go}:{tools}"


def _git_login(scene: Scene) -> None:
    scene.goenv("GOPRIVATE=*.corp.example")
    need(scene, LOGINLIB)


def _git_ssh(scene: Scene) -> None:
    scene.goenv("GOPRIVATE=*.corp.example")
    need(scene, SSHLIB)
    git_by_ssh(scene)
    scene.undo.enter_context(scene.world.refuse(PLACES["code.corp.example"], 22))


def _git_port(scene: Scene) -> None:
    scene.goenv("GOPRIVATE=*.corp.example", "GOINSECURE=*.corp.example")
    need(scene, GITLIB)
    scene.undo.enter_context(scene.world.black_hole(PLACES["git.corp.example"], 9418))


CASES = (
    Case("http.captive-portal", "", "a log-in page in place of answers", _portal, "in a browser",
         person=_is_well),
    Case("http.captive-portal", "redirect", "a hotspot that leads to its log-in page", _hotspot,
         f"open http://{STRANGE['hotspot']}/login in a browser", person=_is_well),
    Case("http.captive-portal", "511", "511: log in to the network first", _network_login, "in a browser",
         person=_is_well),
    Case("http.unauthorized", "", "401", _login, "~/.netrc",
         hand=_NETRC.format("proxy.golang.org", USER, PASSWORD)),
    Case("http.forbidden", "", "403", _forbidden, _MIRROR),
    Case("http.rate-limited", "", "429", _rate, _MIRROR, evidence=("Retry-After: 7",)),
    Case("http.server-error", "", "503", _server_error, _MIRROR),
    Case("http.truncated", "", "bodies break off", _truncated, "repeat in a while",
         person=_is_well),
    Case("http.endless", "", "bodies never end", _endless, _MIRROR),
    Case("http.timeout", "", "requests are taken and never answered", _stalled),
    Case("vcs.missing", "", "git isn't installed", _no_git, "apt-get install git",
         hand="export PATH=$PATH:/usr/bin", private=True),
    Case("vcs.ssh-refused", "", "git over SSH: 22 is blocked, 443 works", _git_ssh, ".ssh/config",
         evidence=("code.corp.example:443 works",)),
    Case("vcs.credentials", "", "git over https asks for a password", _git_login, "~/.netrc",
         hand=_NETRC.format("code.corp.example", USER, PASSWORD)),
    Case("vcs.port-blocked", "", "git:// (9418) is blocked", _git_port, ".insteadOf"),
    Case("import.no-meta", "", "a page without go-import tags", _no_meta, "check the spelling",
         hand="go mod edit -droprequire=git.corp.example/team/nosuch"),
)  # fmt: skip
