"""Where CMD begins, and what ssh's letters mean."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from gotunnel.cli.main import build_parser
from gotunnel.cli.options import load_ways, split_command, ssh_defaults
from gotunnel.upstream.spec import SshHop, parse_chain


@pytest.mark.parametrize(
    ("line", "ours", "command"),
    [
        ("-J a go test -run X -v", "-J a", "go test -run X -v"),
        ("-Ja go mod tidy", "-Ja", "go mod tidy"),
        ("-qJ a go env", "-qJ a", "go env"),
        ("-qJa go env", "-qJa", "go env"),
        ("--via=x --via y -- go", "--via=x --via y", "go"),
        ("-- -x -J y", "", "-x -J y"),
        ("-- -- x", "", "-- x"),
        ("-i k1 -i k2 -F cfg --known-hosts f c", "-i k1 -i k2 -F cfg --known-hosts f", "c"),
        ("--events - go", "--events -", "go"),
        ("-q go -q", "-q", "go -q"),
        ("--retries 2 --timeout=5m sh -c true", "--retries 2 --timeout=5m", "sh -c true"),
        ("--mirror -- go", "--mirror --", "go"),
        ("--unknown go", "--unknown", "go"),
        ("-J", "-J", ""),
        ("", "", ""),
    ],
)
def test_options_after_cmd_s_name_are_cmd_s(line: str, ours: str, command: str) -> None:
    parser = build_parser("run")
    assert split_command(parser, "run", line.split()) == (ours.split(), command.split())


def parse(*words: str) -> argparse.Namespace:
    return build_parser("run").parse_args(["run", *words])


def test_ways_out_keep_their_order_whatever_names_them() -> None:
    args = parse("--via", "a", "-J", "b,c", "--via=http://p:3128", "-Jd")
    assert args.via == ["a", "b,c", "http://p:3128", "d"]
    assert parse().via == []  # no state is kept between two parsers


def test_the_letters_fill_in_what_a_hop_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    args = parse("-i", "~/k1", "-i", "k2", "-F", "~/cfg", "--known-hosts", "~/known")
    chain = ssh_defaults(args, parse_chain("http://p:3128,a,ssh://b?identity=own&config=c&known_hosts=n"))
    proxy, a, b = chain.hops
    assert proxy == parse_chain("http://p:3128").hops[0]
    assert isinstance(a, SshHop)
    assert isinstance(b, SshHop)
    assert (a.identity, a.config, a.known_hosts) == (("/home/me/k1", "k2"), "/home/me/cfg", "/home/me/known")
    assert (b.identity, b.config, b.known_hosts) == (("own",), "c", "n")


def test_inside_a_run_the_outer_endpoint_is_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("GOTUNNEL_VIA", "GOTUNNEL_CONFIG", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    own = "http://gotunnel:hush@127.0.0.1:4711"
    monkeypatch.setenv("GOTUNNEL_PROXY", own)
    monkeypatch.setenv("HTTPS_PROXY", own)
    _, ways = load_ways(parse())
    assert [(way.name, way.via) for way in ways.pool] == [("outer gotunnel", own)]
    assert ways.configured  # no preset mirror is asked, nothing goes direct
    _, ways = load_ways(parse("-J", "bastion"))
    assert [way.name for way in ways.pool] == ["ssh://bastion"]
