"""The units as text: what is shipped, what each systemd gets, and what systemd-analyze says of them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from gotunnel.config.load import examine
from gotunnel.daemon.units import Wanted, quoted, render, shipped
from gotunnel.upstream.spec import parse_chain
from tests.conftest import need
from tests.examples import CONFIG, FOLDER, configuration
from tests.lab import proc


def test_what_is_shipped_is_what_is_installed() -> None:
    there = {
        str(file.relative_to(FOLDER)) for kind in ("service", "socket") for file in FOLDER.rglob(f"*.{kind}")
    }
    assert there == shipped().keys(), "write them: python -m gotunnel.daemon.units systemd"
    for name, text in shipped().items():
        assert (FOLDER / name).read_text() == text, name


@pytest.mark.parametrize("user", [False, True])
def test_only_a_systemd_that_knows_a_directive_gets_it(user: bool) -> None:
    for version, kind, steps in (
        (0, "notify", False),
        (253, "notify-reload", False),
        (257, "notify-reload", True),
    ):
        text = render(Wanted(user=user, systemd=version))["gotunnel.service"]
        assert re.findall(r"^Type=(.*)$", text, re.M) == [kind]
        assert ("ExecReload=" in text) == (kind == "notify")
        assert ("RestartSteps=" in text) == steps


def test_the_ports_and_the_program_are_the_wanted_ones() -> None:
    units = render(
        Wanted(program=quoted("/opt/a b/50%", "-m", "$x"), ports={"proxy": 1, "modproxy": 2, "admin": 3})
    )
    assert "\nListenStream=127.0.0.1:2\n" in units["gotunnel-modproxy.socket"]
    assert '\nExecStart="/opt/a b/50%%" -m $$x serve\n' in units["gotunnel.service"]


@pytest.mark.parametrize("user", [False, True])
def test_systemd_has_nothing_to_say(user: bool, tmp_path: Path) -> None:
    need((proc.tool("systemd-analyze") is not None, "not installed: systemd-analyze"))
    folder = FOLDER / "user" if user else FOLDER
    files = [str(file) for kind in ("service", "socket") for file in folder.glob(f"*.{kind}")]
    assert len(files) == 5
    env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(tmp_path), "HOME": str(tmp_path)}
    verify = ["systemd-analyze", *(["--user"] if user else []), "verify", *files]
    said = proc.run(verify, env=env)  # it warns with status 0
    assert (said.stdout, said.stderr) == ("", "")


@pytest.mark.parametrize("unit", ["gotunnel.service", "gotunnel@.service"])
def test_the_system_s_service_is_exposed_by_1_5_at_most(unit: str) -> None:
    need((proc.tool("systemd-analyze") is not None, "not installed: systemd-analyze"))
    proc.run(["systemd-analyze", "security", "--offline=true", "--threshold=15", str(FOLDER / unit)])


@pytest.mark.parametrize("example", CONFIG)
def test_the_configuration_in_an_example_is_right(example: str, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(configuration(example))
    loaded, problems = examine({}, {}, path=str(file))
    assert problems == ()
    assert loaded.config.cache.url.startswith("s3://")
    assert loaded.config.listen.auth.user == "team"
    parse_chain(loaded.config.upstreams[0].via)
