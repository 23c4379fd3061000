"""The file that is found, the layers over one another, and what only several keys together show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gotunnel.config import load as loading
from gotunnel.config.load import examine, load, search_list
from gotunnel.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_system_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loading, "SYSTEM_FILE", str(tmp_path / "etc.toml"))


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_each_source_overrides_the_one_before(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path)}

    def level(flags: dict[str, object], path: str | None = None) -> tuple[str, str]:
        loaded = load(flags, environ, path=path)
        return loaded.config.log.level, str(loaded.origins["log.level"])

    assert level({}) == ("info", "default")
    file = write(tmp_path / "etc.toml", '[log]\nlevel = "error"')
    assert level({}) == ("error", f"{file}:2")
    user = write(tmp_path / ".config/gotunnel/config.toml", '[log]\n\nlevel = "warning"')
    assert level({}) == ("warning", f"{user}:3")
    environ["XDG_CONFIG_HOME"] = str(tmp_path / "xdg")
    user = write(tmp_path / "xdg/gotunnel/config.toml", '[log]\nlevel = "info"')
    assert level({}) == ("info", f"{user}:2")
    environ["GOTUNNEL_CONFIG"] = write(tmp_path / "own.toml", '[log]\nlevel = "debug"')
    assert level({}) == ("debug", f"{environ['GOTUNNEL_CONFIG']}:2")
    named = write(tmp_path / "named.toml", "[log]\nformat = 'json'\nlevel = 'info'")
    assert level({}, named) == ("info", f"{named}:3")
    environ["GOTUNNEL_LOG_LEVEL"] = "warning"
    assert level({}, named) == ("warning", "GOTUNNEL_LOG_LEVEL")
    assert level({"log.level": "error"}, named) == ("error", "--log-level")
    assert load({}, environ, path=named).config.log.format == "json"


def test_a_relative_xdg_directory_is_ignored() -> None:
    assert (
        search_list({"HOME": "/home/u", "XDG_CONFIG_HOME": "rel"})[0]
        == "/home/u/.config/gotunnel/config.toml"
    )


@pytest.mark.parametrize(
    ("environ", "path", "text"),
    [
        ({}, "/nope/c.toml", "--config: /nope/c.toml: no such file; "),
        ({}, "", "--config: (empty): no such file; "),
        ({"GOTUNNEL_CONFIG": "/nope"}, None, "GOTUNNEL_CONFIG: /nope: no such file; "),
        ({}, "/", "/: Is a directory; want a readable TOML file"),
    ],
)
def test_a_file_that_was_named_must_be_there(environ: dict[str, str], path: str | None, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({}, environ, path=path)
    assert str(caught.value).startswith(text)
    assert caught.value.status == 78


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"[log]\n\nx = '\xff'")
    with pytest.raises(ConfigError, match=r"c\.toml:3: no UTF-8"):
        load({}, {}, path=str(tmp_path / "c.toml"))
    with pytest.raises(ConfigError, match="too large"):
        load({}, {}, path="/dev/zero")


TWO = "[[upstream]]\nname='a'\nvia='b'\ntags=['t']\n[[upstream]]\nname='c'\nvia='d'\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            TWO + "[[upstream]]\nname='a'\nvia='e'",
            ':9: [[upstream]] name: "a" is taken by {file}:2; take another',
        ),
        (TWO + "[[upstream]]\nname='t'\nvia='e'", ':4: [[upstream]] tags: "t" is an upstream\'s name too'),
        (
            TWO + "[[route]]\nmatch='*'\nto='tt'",
            ':10: [[route]] to: no upstream or tag "tt"; did you mean "t"?',
        ),
        (
            "[[route]]\nmatch='*'\nto='zz'",
            ':3: [[route]] to: no upstream or tag "zz"; known: direct, pool, reject',
        ),
        (
            "[listen]\nauth='off'\nproxy='0.0.0.0:3128'",
            ':3: [listen] proxy: "0.0.0.0:3128" is open to others while auth is "off" ({file}:2); set ',
        ),
        ("[listen]\nauth='off'\nadmin='[::]:1'", ':3: [listen] admin: "[::]:1" is open to others'),
        ("[listen.tls]\nkey='/k'", ":2: [listen.tls] key wants cert beside it"),
        ("[listen]\ntls={ client_ca='/k' }", ":2: [listen.tls] client_ca wants cert beside it"),
    ],
)
def test_keys_that_contradict_each_other(tmp_path: Path, text: str, problem: str) -> None:
    file = write(tmp_path / "c.toml", text)
    with pytest.raises(ConfigError) as caught:
        load({}, {}, path=file)
    assert str(caught.value).startswith(file + problem.format(file=file))


@pytest.mark.parametrize("proxy", ["127.0.0.1:0", "127.9.9.9:80", "[::1]:0", "localhost:3128"])
def test_auth_may_be_off_on_loopback(proxy: str) -> None:
    environ = {"GOTUNNEL_LISTEN_PROXY": proxy, "GOTUNNEL_LISTEN_AUTH": "off", "HOME": "/nope"}
    assert load({}, environ).config.listen.auth.mode == "off"


def test_an_upstream_with_a_mistake_is_not_unknown_to_routes_too(tmp_path: Path) -> None:
    text = "[[upstream]]\nname='a'\nvia='gopher://x'\n[[route]]\nmatch='*'\nto='a'"
    _, problems = examine({}, {}, path=write(tmp_path / "c.toml", text))
    assert [problem.origin.line for problem in problems] == [3]


def test_an_import_stays_light() -> None:
    """`gotunnel run` imports this at each start: nothing of the network, no TOML, no difflib."""
    import subprocess
    import sys

    code = "import sys, gotunnel.config.load; print(*sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    heavy = {"asyncio", "asyncssh", "tomllib", "difflib", "socket", "ssl", "json", "gotunnel.upstream.spec"}
    assert heavy & set(ran.stdout.split()) == set()
