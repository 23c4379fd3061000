"""What CMD is told, and how go's and git's own settings are read: with the real go and git."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from gotunnel.errors import UsageError
from gotunnel.goenv import (
    DEFAULT_GOPROXY,
    Found,
    compose,
    first_source,
    git_proxy_command,
    git_ssh_command,
    mirror_url,
    own_command,
    read,
    with_mirrors,
)
from tests.conftest import need
from tests.lab import gitserver, gotool

PROXY = "http://gotunnel:s3cret@127.0.0.1:4711"


def told(
    environ: Mapping[str, str] | None = None, found: Found | None = None, **more: object
) -> dict[str, str]:
    options: dict[str, object] = {"proxy_url": PROXY, "run_id": "r1", "command": ["/x/gotunnel"]} | more
    return compose(environ or {}, found or Found(), **options)  # type: ignore[arg-type]


def test_the_variables_of_the_contract() -> None:
    kept = {"GOFLAGS": "-mod=mod", "GOSUMDB": "off", "GOTOOLCHAIN": "local", "GOPROXY": "https://mine,direct"}
    user = {**kept, "HTTPS_PROXY": "http://old:1", "NO_PROXY": "corp", "REQUEST_METHOD": "GET"}
    env = told(user, git_proxy="/x/gotunnel-connect")
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        assert env[name] == env[name.lower()] == PROXY
    assert env["NO_PROXY"] == env["no_proxy"] == "localhost,127.0.0.1,::1"
    assert (env["GOTUNNEL_PROXY"], env["GOTUNNEL_RUN_ID"]) == (PROXY, "r1")
    assert env["GIT_PROXY_COMMAND"] == "/x/gotunnel-connect"
    assert "REQUEST_METHOD" not in env
    assert {name: env[name] for name in kept} == kept
    assert not {"GOPRIVATE", "GONOPROXY", "GONOSUMDB", "GIT_CONFIG_COUNT"} & env.keys()


def test_mirrors_stand_before_the_user_s_list() -> None:
    assert told(found=Found(goproxy="https://corp,off")).get("GOPROXY") is None
    listed = with_mirrors("https://corp,off", ["https://a", "https://b"])
    assert listed == told(goproxy=listed)["GOPROXY"] == "https://a|https://b|https://corp,off"
    assert with_mirrors(DEFAULT_GOPROXY, ["https://a"]) == "https://a|https://proxy.golang.org,direct"


def test_private_patterns_are_added_to_what_overrides_goprivate_too() -> None:
    env = told(found=Found(goprivate="a.example", gonosumdb="c.example"), private=["b.example/*"])
    assert (env["GOPRIVATE"], env["GONOSUMDB"]) == ("a.example,b.example/*", "c.example,b.example/*")
    assert "GONOPROXY" not in env
    assert told(private=["b.example"])["GOPRIVATE"] == "b.example"


def test_offline_private_modules_come_from_the_store_too() -> None:
    env = told(found=Found(gonoproxy="a.example"), private=["b.example"], offline=True)
    assert (env["GONOPROXY"], env["GOPRIVATE"]) == ("none", "b.example")


@pytest.mark.parametrize("text", ["https://goproxy.cn", "http://127.0.0.1:3000/x", "file:///srv/mod/"])
def test_mirrors_that_go_understands(text: str) -> None:
    assert mirror_url(text) == text.rstrip("/")


@pytest.mark.parametrize(
    "text", ["", "goproxy.cn", "https://", "https:///", "ftp://x", "https://a,https://b", "https://a|b",
             "https://a b", "https://a\n", "https://a\x1b", "file://srv", "direct", "https://a?x=1"]
)  # fmt: skip
def test_mirrors_that_it_does_not(text: str) -> None:
    with pytest.raises(UsageError, match="--mirror"):
        mirror_url(text)


# --- git -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "found", "wanted"),
    [
        ({}, Found(), "ssh OURS"),
        ({"GIT_SSH": "/my dir/ssh"}, Found(), "'/my dir/ssh' OURS"),
        # ssh takes the first of two: a user's ProxyCommand stands behind ours; a -J beside one it refuses
        ({}, Found(git_ssh="ssh -o ProxyJump=past -i 'a b'"), "ssh OURS -o ProxyJump=past -i 'a b'"),
        ({}, Found(git_ssh="ssh -i 'a b' -J past -v"), "ssh OURS -i 'a b' -v"),
        ({"GIT_SSH_COMMAND": "ssh -Jme@past,'x y' -i a-J"}, Found(), "ssh OURS -i a-J"),
        ({"GIT_SSH_COMMAND": 'ssh -v -J "past"'}, Found(), "ssh OURS -v"),
        ({"GIT_SSH_COMMAND": "ssh -v", "GIT_SSH": "plink"}, Found(git_ssh="ssh -4"), "ssh OURS -v"),
        ({"GIT_SSH_COMMAND": "LC_ALL=C /bin/ssh -v"}, Found(), "LC_ALL=C /bin/ssh OURS -v"),
        ({"GIT_SSH_COMMAND": "/home/me/wrapper.sh -x"}, Found(), "/home/me/wrapper.sh -x OURS"),
    ],
)
def test_the_user_s_ssh_command_is_extended(environ: dict[str, str], found: Found, wanted: str) -> None:
    ours = "-o BatchMode=yes -o ControlPath=none -o 'ProxyCommand=/x/gotunnel connect %h %p'"
    assert git_ssh_command(environ, found, ["/x/gotunnel"]) == wanted.replace("OURS", ours)


@pytest.mark.parametrize(
    "command", ["plink -batch", "'C:/Program Files/PuTTY/PLINK.EXE'", "ssh 'unclosed", "A=b"]
)
def test_what_has_no_o_option_is_left_alone(command: str) -> None:
    assert git_ssh_command({"GIT_SSH_COMMAND": command}, Found(), ["/x/gotunnel"]) == ""
    assert told({"GIT_SSH_COMMAND": command})["GIT_SSH_COMMAND"] == command


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment with a HOME of its own, for go and git."""
    need(gotool.can_run_go(), gitserver.can_serve_git())
    return gotool.go_env(tmp_path / "go", proxy="") | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": ""}


def test_ssh_gets_the_words_and_runs_the_proxy_command(home: dict[str, str], tmp_path: Path) -> None:
    odd = tmp_path / "it's 100%s odd"
    odd.mkdir()
    tool = odd / "gotunnel"
    tool.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >"{tmp_path}/words"\n')
    tool.chmod(0o755)
    key = tmp_path / "my key"
    env = told({**home, "GIT_SSH_COMMAND": f"ssh -F none -i '{key}'"}, command=[str(tool)])
    ran = subprocess.run(
        ["git", "ls-remote", "ssh://git@far.example:2222/repo"],
        env={**env, "GIT_TRACE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 128
    assert "run_command: " in ran.stderr
    assert (tmp_path / "words").read_text().split() == ["connect", "far.example", "2222"]


def test_a_user_s_git_proxies_are_overridden_and_nothing_else(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".gitconfig").write_text(
        '[http]\n\tproxy = http://user.example:1\n[http "https://corp.example/"]\n\tproxy = http://corp.example:2\n'
        '[remote "origin"]\n\tproxy = http://remote.example:3\n[core]\n\tsshCommand = ssh -i "a key"\n'
    )
    user = {**home, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "me"}
    found = read(user, cwd=str(tmp_path))
    assert found.git_proxies == ("http.proxy", "http.https://corp.example/.proxy", "remote.origin.proxy")
    assert found.git_ssh == "ssh -i a key"
    env = told(user, found)
    assert env["GIT_CONFIG_COUNT"] == "4"

    def config(*words: str) -> str:
        argv = ["git", "config", *words]
        return subprocess.run(
            argv, env=env, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    for url in ("https://other.example", "https://corp.example/x"):
        assert config("--get-urlmatch", "http.proxy", url) == PROXY
    assert config("remote.origin.proxy") == PROXY
    assert config("user.name") == "me"


# --- go --------------------------------------------------------------------------------------------


def lists(found: Found) -> tuple[str, str, str, str]:
    return found.goproxy, found.goprivate, found.gonoproxy, found.gonosumdb


def test_what_go_says_of_itself(home: dict[str, str], tmp_path: Path) -> None:
    found = read(home, cwd=str(tmp_path))
    assert lists(found) == lists(Found())
    assert found.gomod == os.devnull
    assert found.gomodcache.endswith("/mod")
    user = {**home, "GOPROXY": "https://corp|direct", "GOPRIVATE": "a.example", "GONOSUMDB": "b.example"}
    user["GOSUMDB"] = "sum.golang.google.cn"
    found = read(user, cwd=str(tmp_path))
    assert lists(found) == ("https://corp|direct", "a.example", "", "b.example")
    assert (found.no_proxy_globs, found.no_sumdb_globs) == ("a.example", "b.example")
    assert found.gosumdb == "sum.golang.google.cn"


def test_a_list_of_its_own_counts_even_if_it_equals_goprivate(home: dict[str, str], tmp_path: Path) -> None:
    user = {**home, "GOPRIVATE": "a.example", "GONOPROXY": "a.example"}
    assert read(user, cwd=str(tmp_path)).gonoproxy == "a.example"
    written = {**home, "GOENV": str(tmp_path / "goenv")}
    for setting in ("GOPRIVATE=a.example", "GONOSUMDB=a.example"):
        subprocess.run(["go", "env", "-w", setting], env=written, check=True, timeout=60)
    assert lists(read(written, cwd=str(tmp_path))) == (DEFAULT_GOPROXY, "a.example", "", "a.example")


def test_asking_go_never_fetches_a_toolchain(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module x\n\ngo 1.99.0\n")
    (tmp_path / "goenv").write_text("GOPRIVATE=only.go.knows\n")
    proxy = "http://127.0.0.1:9"
    user = {**home, "GOTOOLCHAIN": "auto", "GOPROXY": proxy, "GOENV": str(tmp_path / "goenv")}
    found = read(user, cwd=str(tmp_path))
    assert (found.goproxy, found.goprivate) == (proxy, "only.go.knows")


def test_without_go_and_git_the_environment_speaks(tmp_path: Path) -> None:
    nothing = {"PATH": str(tmp_path)}
    assert read(nothing) == Found()
    user = {**nothing, "GOPRIVATE": "a", "GOPROXY": "https://p", "GONOPROXY": "b"}
    assert lists(read(user)) == ("https://p", "a", "b", "")


def test_a_go_that_fails_or_talks_nonsense_is_as_none(tmp_path: Path) -> None:
    for name, script in (("go", "echo '{not json'"), ("git", "echo no; exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    assert read({"PATH": f"{tmp_path}:/bin:/usr/bin"}) == Found()


def test_our_own_commands_can_be_run() -> None:
    ran = subprocess.run(
        [*own_command(), "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert ran.stdout.startswith("gotunnel ")
    wrapper = git_proxy_command()
    if wrapper:
        assert os.access(wrapper, os.X_OK)
        ran = subprocess.run([wrapper, "h", "x"], capture_output=True, text=True, check=False, timeout=60)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr.startswith("gotunnel: connect 'h:x'")


def test_go_takes_the_environment_we_make(home: dict[str, str], tmp_path: Path) -> None:
    env = told(home, read(home, cwd=str(tmp_path)), goproxy="https://m.example|direct", private=["p.example"])
    go = shutil.which("go", path=env["PATH"])
    assert go is not None
    names = ["GOPROXY", "GOPRIVATE", "GONOPROXY", "GONOSUMDB"]
    out = subprocess.run(
        [go, "env", "-json", *names], env=env, capture_output=True, check=True, timeout=60
    ).stdout
    assert json.loads(out) == {
        "GOPROXY": "https://m.example|direct",
        "GOPRIVATE": "p.example", "GONOPROXY": "p.example", "GONOSUMDB": "p.example",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("goproxy", "first"),
    [
        ("https://proxy.golang.org,direct", "https://proxy.golang.org"),
        ("file:///srv|http://10.0.0.1:3000|direct", "http://10.0.0.1:3000"),
        ("direct", ""),
        ("off", ""),
    ],
)
def test_the_first_source_that_can_be_probed(goproxy: str, first: str) -> None:
    assert first_source(goproxy) == first
