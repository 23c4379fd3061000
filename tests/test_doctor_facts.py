"""What the doctor knows before it asks the network: with a real go and git, in a home of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gotunnel.doctor.facts import Facts, Setting, gather
from gotunnel.doctor.project import space_of
from gotunnel.modproxy.modfile import parse_mod
from tests.conftest import need
from tests.lab import gotool


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment with a home of its own."""
    need(gotool.can_run_go())
    path = tmp_path / "home"
    path.mkdir()
    return {"PATH": os.environ["PATH"], "HOME": str(path)}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_each_value_is_told_with_where_it_comes_from(home: dict[str, str], tmp_path: Path) -> None:
    write(Path(home["HOME"], ".config", "go", "env"), "GOPROXY=https://file.example\nGOSUMDB=off\n")
    facts = gather({**home, "GOPROXY": "https://shell.example", "GONOSUMDB": ""}, str(tmp_path))
    assert facts.env["GOPROXY"] == Setting("https://shell.example", "env")
    assert facts.env["GOSUMDB"] == Setting("off", "file")
    assert facts.origin("GONOSUMDB") == "default"
    assert facts.goversion.startswith("go1.")
    assert facts.gomod == ""


def test_the_users_toolchain_setting_is_read_past_our_own_question(
    home: dict[str, str], tmp_path: Path
) -> None:
    facts = gather({**home, "GOTOOLCHAIN": "go9.9.9"}, str(tmp_path))
    assert facts.value("GOTOOLCHAIN") == "go9.9.9"
    assert facts.goversion


def test_git_netrc_and_ssh_are_read_but_no_secret_is_kept(home: dict[str, str], tmp_path: Path) -> None:
    write(Path(home["HOME"], ".netrc"), "machine git.corp.example login me password hush-hush\n")
    write(
        Path(home["HOME"], ".gitconfig"),
        '[url "git@github.com:"]\n\tinsteadOf = https://github.com/\n[http]\n\tproxy = http://p:3128\n',
    )
    write(Path(home["HOME"], ".ssh", "config"), "Host x\n")
    facts = gather(home, str(tmp_path))
    assert facts.netrc_hosts == {"git.corp.example"}
    assert facts.instead_of == (("git@github.com:", "https://github.com/"),)
    assert facts.git_proxies == (("http.proxy", "http://p:3128"),)
    assert facts.ssh_config
    assert "hush-hush" not in repr(facts)


def test_without_go_the_settings_are_read_as_go_reads_them(tmp_path: Path) -> None:
    write(tmp_path / "go.mod", "module a.example/x\n")
    environ = {"PATH": "", "HOME": str(tmp_path), "GOPROXY": "off"}
    facts = gather(environ, str(tmp_path))
    assert (facts.go, facts.value("GOPROXY"), facts.value("GOSUMDB")) == ("", "off", "sum.golang.org")
    assert facts.gomod == str(tmp_path / "go.mod")


def test_what_only_go_finds_wrong_with_a_go_mod_is_told_too(home: dict[str, str], tmp_path: Path) -> None:
    write(tmp_path / "p" / "go.mod", "module a.example/x\n\nbad line\n")
    facts = gather(home, str(tmp_path / "p"))
    ((file, words),) = facts.mod_errors
    assert file == str(tmp_path / "p" / "go.mod")
    assert "unknown directive: bad" in words


def test_a_cache_that_denies_go_sum_is_found(home: dict[str, str], tmp_path: Path) -> None:
    cache = tmp_path / "mods"
    write(tmp_path / "p" / "go.mod", "module a.example/x\ngo 1.22\nrequire b.example/Y v1.0.0\n")
    write(tmp_path / "p" / "go.sum", "b.example/Y v1.0.0 h1:one=\n")
    write(cache / "cache" / "download" / "b.example" / "!y" / "@v" / "v1.0.0.ziphash", "h1:two=")
    facts = gather({**home, "GOMODCACHE": str(cache)}, str(tmp_path / "p"))
    (wrong,) = facts.contradictions
    assert (wrong.module, wrong.wanted, wrong.found) == ("b.example/Y", "h1:one=", "h1:two=")


def test_requirements_are_what_has_to_come_from_the_network() -> None:
    mod = parse_mod(
        "module a.example/x\nrequire (\n b.example/in v1.0.0 // indirect\n c.example/local v1.0.0\n"
        " d.example/fork v1.0.0\n e.example/plain v1.2.0\n)\n"
        "replace c.example/local => ./c\nreplace d.example/fork v1.0.0 => f.example/ours v1.0.1\n"
    )
    found = Facts(mod=mod).requirements()
    assert found == (("f.example/ours", "v1.0.1"), ("e.example/plain", "v1.2.0"), ("b.example/in", "v1.0.0"))


@pytest.mark.parametrize(
    ("host", "port", "tls", "proxy"),
    [
        ("proxy.golang.org", 443, True, "http://up:1"),
        ("a.corp.example", 443, True, ""),
        ("127.0.0.1", 443, True, ""),
        ("proxy.golang.org", 80, False, "low:2"),
    ],
)
def test_proxies_are_chosen_as_go_does(host: str, port: int, tls: bool, proxy: str) -> None:
    facts = Facts(
        proxies={
            "HTTPS_PROXY": "http://up:1",
            "https_proxy": "http://low:1",
            "http_proxy": "low:2",
            "NO_PROXY": "corp.example",
        }
    )
    assert facts.proxy_for(host, port, tls=tls) == proxy


def test_gonoproxy_none_makes_nothing_private() -> None:
    env = {"GOPRIVATE": Setting("*.corp.example", "file")}
    assert Facts(env=env).is_private("git.corp.example/x")
    assert not Facts(env={**env, "GONOPROXY": Setting("none", "env")}).is_private("git.corp.example/x")


def test_a_place_below_a_file_can_not_be_written(tmp_path: Path) -> None:
    file = write(tmp_path / "file", "")
    assert "not a directory" in space_of("GOCACHE", str(file / "below")).problem
    assert space_of("GOCACHE", str(tmp_path / "not" / "there" / "yet")).problem == ""
