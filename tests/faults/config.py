"""Faults of settings: GOPROXY and its kin, proxy variables, go.mod's replace."""

from __future__ import annotations

import shutil

from tests.faults.case import Case, Scene
from tests.faults.places import LIB, PLACES, STRANGE
from tests.faults.world import need

_MIRROR = "https://goproxy.cn"


def _off(scene: Scene) -> None:
    scene.goenv("GOPROXY=off")


def _malformed(scene: Scene) -> None:
    scene.env["GOPROXY"] = "ftp://proxy.golang.org"


def _nothing(scene: Scene) -> None:
    scene.env["GOPROXY"] = ","


def _dead_port(scene: Scene) -> None:
    scene.goenv("GOPROXY=http://127.0.0.1:3000")


def _dead_address(scene: Scene) -> None:
    scene.env["GOPROXY"] = f"https://{STRANGE['empty']}"


def _proxy_dead(scene: Scene) -> None:
    scene.env["HTTPS_PROXY"] = "http://10.77.0.2:9"


def _git_proxy_dead(scene: Scene) -> None:
    scene.sh("git config --global http.proxy http://10.77.0.2:9")


def _cases_disagree(scene: Scene) -> None:
    scene.env["HTTPS_PROXY"] = "http://10.77.0.2:9"
    scene.env["https_proxy"] = "http://10.77.0.2:8888"


def _cases_disagree_alive(scene: Scene) -> None:
    scene.env["HTTPS_PROXY"] = "http://10.77.0.2:8888"
    scene.env["https_proxy"] = "http://proxy.corp.example:8888"


def _sumdb_off(scene: Scene) -> None:
    scene.goenv("GOSUMDB=off")


def _sumdb_unreadable(scene: Scene) -> None:
    scene.goenv("GOSUMDB=sum.example.org+nonsense")
    scene.env["RIGHT"] = f"{scene.world.sumdb.key} https://sum.lab.example"


def _sumdb_dead(scene: Scene) -> None:
    scene.env["GOSUMDB"] = f"{scene.world.sumdb.key} https://sum.lab.example"
    scene.undo.enter_context(scene.world.refuse(PLACES["sum.lab.example"], 443))


def _modules_off(scene: Scene) -> None:
    scene.goenv("GO111MODULE=off")


def _noproxy(scene: Scene) -> None:
    scene.env["GONOPROXY"] = "other.corp.example"
    scene.goenv("GOPROXY=https://proxy.golang.org")


def _noproxy_direct(scene: Scene) -> None:
    scene.env["GONOPROXY"] = "other.corp.example"


def _nosumdb(scene: Scene) -> None:
    scene.goenv("GONOSUMDB=*")


def _insecure(scene: Scene) -> None:
    scene.goenv("GOINSECURE=*")


def _govcs(scene: Scene) -> None:
    scene.env["GOVCS"] = "private:off,public:git"


def _no_fallback(scene: Scene) -> None:
    scene.goenv(f"GOPROXY=https://proxy.golang.org,{_MIRROR}")
    scene.undo.enter_context(scene.world.refuse(PLACES["proxy.golang.org"], 443))


def _private_missing(scene: Scene) -> None:
    need(scene, LIB)
    scene.goenv("GOPROXY=https://proxy.golang.org")


def _private_forbidden(scene: Scene) -> None:
    _private_missing(scene)
    scene.world.source.behave(status={"git.corp.example": 403})


def _too_wide(scene: Scene) -> None:
    scene.goenv("GOPRIVATE=*")


def _too_wide_works(scene: Scene) -> None:
    scene.goenv("GOPRIVATE=github.com/*")


def _replaced(scene: Scene) -> None:
    need(scene, LIB)
    scene.gomod(f"-replace={LIB}=../no-such-directory")
    scene.goenv("GOPRIVATE=*.corp.example")


def _elsewhere(scene: Scene) -> None:
    """A checkout of a module, which only this user has."""
    place = scene.home / "m000"
    place.mkdir()
    (place / "go.mod").write_text("module golang.org/x/m000\n\ngo 1.21\n")


def _replaced_here(scene: Scene) -> None:
    _elsewhere(scene)
    scene.gomod("-replace=golang.org/x/m000=../m000")


def _standin(scene: Scene) -> None:
    _elsewhere(scene)
    scene.sh("gotunnel replace golang.org/x/m000=../m000")


def _standin_gone(scene: Scene) -> None:
    _standin(scene)
    shutil.rmtree(scene.home / "m000")


def _toolchain(scene: Scene) -> None:
    scene.env["GOTOOLCHAIN"] = "auto"
    scene.gomod("-toolchain=go1.99.1")


CASES = (
    Case("goproxy.off", "", "GOPROXY=off", _off, "go env -u GOPROXY"),
    Case("goproxy.malformed", "scheme", "GOPROXY with ftp://", _malformed, "unset GOPROXY"),
    Case("goproxy.malformed", "empty", "GOPROXY is a lone comma", _nothing, "unset GOPROXY"),
    Case("goproxy.unreachable", "loopback", "GOPROXY points at a dead port here", _dead_port,
         "go env -u GOPROXY"),
    Case("goproxy.unreachable", "address", "GOPROXY points at a dead address", _dead_address,
         "unset GOPROXY"),
    Case("proxy-env.unreachable", "", "HTTPS_PROXY points at a dead port", _proxy_dead,
         "unset HTTPS_PROXY https_proxy"),
    Case("proxy-env.unreachable", "git", "git's own http.proxy points at a dead port", _git_proxy_dead,
         "git config --global --unset http.proxy", private=True),
    Case("proxy-env.conflict", "dead", "HTTPS_PROXY dead, https_proxy alive", _cases_disagree,
         'export HTTPS_PROXY="$https_proxy"'),
    Case("proxy-env.conflict", "", "HTTPS_PROXY and https_proxy differ, both alive", _cases_disagree_alive,
         "unset https_proxy", severity="warning", go="works"),
    Case("gosumdb.off", "", "GOSUMDB=off", _sumdb_off, "go env -u GOSUMDB", severity="warning", go="works"),
    Case("gosumdb.off", "wide", "GONOSUMDB=*", _nosumdb, "go env -u GONOSUMDB", severity="warning",
         go="works"),
    Case("gosumdb.off", "unreadable", "GOSUMDB with a key that is none", _sumdb_unreadable,
         "go env -u GOSUMDB", hand='FIX; export GOSUMDB="$RIGHT"', sums=False),
    Case("gosumdb.unreachable", "", "the checksum database's port is closed", _sumdb_dead, sums=False),
    Case("go111module.off", "", "GO111MODULE=off", _modules_off, "go env -u GO111MODULE"),
    Case("goprivate.missing", "gonoproxy", "GONOPROXY leaves a private module out", _noproxy,
         "unset GONOPROXY", private=True),
    Case("goprivate.missing", "direct", "the same with direct behind the source", _noproxy_direct,
         "unset GONOPROXY", private=True, severity="warning", go="works"),
    Case("goprivate.too-wide", "goinsecure", "GOINSECURE=*", _insecure, "go env -u GOINSECURE",
         severity="warning", go="works"),
    Case("vcs.denied", "govcs", "GOVCS forbids git for private modules", _govcs, "unset GOVCS",
         private=True),
    Case("goproxy.no-fallback", "", "a dead source with a comma behind it", _no_fallback,
         f"|{_MIRROR}"),
    Case("goprivate.missing", "", "a private module is asked of a public source", _private_missing,
         "GOPRIVATE=git.corp.example/*"),
    Case("goprivate.missing", "forbidden", "the same where the source says 403", _private_forbidden,
         "GOPRIVATE=git.corp.example/*"),
    Case("goprivate.too-wide", "", "GOPRIVATE=* and the hosts can't be reached", _too_wide,
         "go env -u GOPRIVATE"),
    Case("goprivate.too-wide", "works", "GOPRIVATE=github.com/*", _too_wide_works, "go env -",
         severity="warning", go="works"),
    Case("replace.local", "", "replace by a directory that isn't there", _replaced,
         "go mod edit -dropreplace"),
    Case("replace.local", "here", "a forgotten replace in go.mod: only this machine has the directory",
         _replaced_here, "go mod edit -dropreplace", severity="warning", go="works"),
    Case("replace.local", "standin", "a forgotten stand-in of gotunnel replace", _standin,
         "gotunnel replace --drop", severity="warning", go="works", evidence=("go.work",)),
    Case("replace.local", "standin-gone", "a stand-in whose directory is gone", _standin_gone,
         "gotunnel replace --drop", evidence=("go.work",)),
    Case("gotoolchain.unavailable", "", "a toolchain that doesn't exist", _toolchain,
         "GOTOOLCHAIN=local"),
)  # fmt: skip
