"""Faults of the machine itself: disk, caches, go, go.sum."""

from __future__ import annotations

import shutil

from tests.faults.case import Case, Scene
from tests.lab import proc
from tests.lab.faults import Fault


def _mount(scene: Scene, *options: str) -> None:
    """A file system of its own for the module cache."""
    place = scene.home / "mod"
    place.mkdir()
    proc.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)])
    scene.undo.callback(proc.run, ["umount", "-l", str(place)])
    scene.env["GOMODCACHE"] = str(place)


def _full(scene: Scene) -> None:
    _mount(scene, "size=64k")
    with (scene.home / "mod" / "old-build.log").open("wb") as file:
        file.write(bytes(60 << 10))


def _read_only(scene: Scene) -> None:
    _mount(scene, "ro")


def _tampering(scene: Scene) -> None:
    """The source gives another go.mod than go.sum vouches for; the right one is at the mirror."""
    scene.world.source.behave(Fault("flip", match=r"\.mod$", at=30))


def _no_go(scene: Scene) -> None:
    first, go, *_ = scene.env["PATH"].split(":")
    tools = scene.home / "tools"
    tools.mkdir()
    for name in ("sh", "bash", "env", "git", "ssh", "cat"):
        (tools / name).symlink_to(f"/usr/bin/{name}")
    scene.env["OLD_GO"] = go
    scene.env["PATH"] = f"{first}:{tools}"


def _old_go(scene: Scene) -> None:
    scene.gomod("-go=1.99")


def _tampered(scene: Scene) -> None:
    """The module cache holds a module that was changed on its way, taken before go.sum knew it."""
    cache = scene.home / "tampered"
    scene.env["GOMODCACHE"] = str(cache)
    scene.sh("go mod download")
    place = cache / "cache" / "download" / "golang.org" / "x" / "m000" / "@v" / "v1.0.0"
    file = place.with_name("v1.0.0.ziphash")
    file.write_text("h1:" + "A" * 43 + "=")
    shutil.rmtree(cache / "golang.org" / "x" / "m000@v1.0.0")


CASES = (
    Case("disk.full", "", "the module cache's disk is full", _full, "df -h",
         hand="mount -o remount,size=64m $GOMODCACHE"),
    Case("cache.permission", "", "the module cache can't be written", _read_only, "export GOMODCACHE="),
    Case("go.missing", "", "no go command", _no_go, "https://go.dev/dl/", hand="export PATH=$PATH:$OLD_GO"),
    Case("go.too-old", "", "go.mod asks for a newer go", _old_go, "https://go.dev/dl/",
         undone="the lab has no newer go"),
    Case("sum.mismatch", "", "the cache holds another module than go.sum says", _tampered,
         "go clean -modcache"),
    Case("sum.mismatch", "source", "the source gives another go.mod than go.sum says", _tampering,
         "--mirror"),
)  # fmt: skip
