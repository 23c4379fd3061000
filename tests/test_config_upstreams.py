"""Which ways out a command has when nobody, or somebody, said so."""

from __future__ import annotations

import pytest

from gotunnel.config.model import Config, Route, Upstream
from gotunnel.config.upstreams import WaysOut, resolve_upstreams
from gotunnel.errors import ConfigError

TOKYO = Upstream("tokyo", "ssh://jump-tokyo")
CONFIGURED = Config(upstreams=(TOKYO,), routes=(Route(("git.corp",), "tokyo"),))
EVERYTHING = {"GOTUNNEL_VIA": "ssh://b", "HTTPS_PROXY": "http://p:1", "https_proxy": "http://q:1"}


def pool(ways: WaysOut) -> list[str]:
    return [upstream.via for upstream in ways.pool]


def test_the_first_that_is_there_wins() -> None:
    environ = dict(EVERYTHING)
    ways = resolve_upstreams(CONFIGURED, environ, via=["a", "b"], file="c.toml")
    assert (pool(ways), ways.source) == (["a", "b"], "--via")
    assert ways.others == (TOKYO,)  # a route names it
    ways = resolve_upstreams(CONFIGURED, environ, file="c.toml")
    assert (pool(ways), ways.source) == (["ssh://jump-tokyo"], "c.toml")
    ways = resolve_upstreams(Config(), environ)
    assert (pool(ways), ways.source) == (["ssh://b"], "GOTUNNEL_VIA")
    del environ["GOTUNNEL_VIA"]
    ways = resolve_upstreams(Config(), environ)
    assert (pool(ways), ways.source) == (["http://p:1"], "HTTPS_PROXY")
    environ["HTTPS_PROXY"] = ""
    ways = resolve_upstreams(Config(), environ)
    assert (pool(ways), ways.source, ways.configured) == (["http://q:1"], "https_proxy", True)
    ways = resolve_upstreams(Config(), {})
    assert (pool(ways), ways.source, ways.configured) == (["direct:"], "default", False)


@pytest.mark.parametrize(
    ("value", "chain"),
    [
        ("proxy:3128", "http://proxy:3128"),
        ("http://proxy:3128/", "http://proxy:3128"),
        ("HTTP://proxy", "http://proxy"),
        ("socks5://h:1080", "socks5h://h:1080"),
        ("socks5h://[::1]:1080", "socks5h://[::1]:1080"),
        ("u:a,b@c@proxy:1", "http://u:a%2Cb%40c@proxy:1"),
        ("https://u@proxy:1/path?x=y", "https://u@proxy:1"),
    ],
)
def test_a_proxy_variable_as_go_reads_it(value: str, chain: str) -> None:
    assert pool(resolve_upstreams(Config(), {"HTTPS_PROXY": value})) == [chain]


@pytest.mark.parametrize(
    "value",
    [
        "ftp://u:hunter2@h",
        "http://u:hunter2/@h:1",
        "http://u:hunter2@",
        "http://u:hunter2@h:x",
        "a:1,b:2",
        "//h:1",
        "h h:1",
    ],
)
def test_a_malformed_proxy_variable_is_named_and_not_repeated(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve_upstreams(Config(), {"https_proxy": value})
    assert str(caught.value).startswith("https_proxy: ")
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_chain_names_where_it_stands() -> None:
    with pytest.raises(ConfigError, match=r"^--via: .*gopher"):
        resolve_upstreams(Config(), {}, via=["ssh://a", "gopher://x"])
    with pytest.raises(ConfigError, match=r"^GOTUNNEL_VIA: .*gopher"):
        resolve_upstreams(Config(), {"GOTUNNEL_VIA": "ssh://a  gopher://x"})


def test_our_own_endpoint_is_no_upstream() -> None:
    own = "http://gotunnel:s3cret@127.0.0.1:4711"
    environ = {"GOTUNNEL_PROXY": own, "HTTPS_PROXY": own + "/", "https_proxy": own, "NO_PROXY": "localhost"}
    ways = resolve_upstreams(Config(), environ)
    assert (pool(ways), ways.nested, ways.routes) == (["direct:"], True, ())
    ways = resolve_upstreams(Config(), environ | {"HTTPS_PROXY": "http://127.0.0.1:3128"})
    assert pool(ways) == ["http://127.0.0.1:3128"]


def test_no_proxy_becomes_routes_only_beside_a_proxy_of_the_environment() -> None:
    environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "corp.example,10.0.0.0/8", "no_proxy": "other"}
    route = Route(("corp.example", "*.corp.example", "10.0.0.0/8"), "direct")
    mine = Route(("x",), "reject")
    assert resolve_upstreams(Config(routes=(mine,)), environ).routes == (mine, route)
    assert resolve_upstreams(Config(), environ, via=["a"]).routes == ()
    assert resolve_upstreams(Config(), environ | {"NO_PROXY": "*"}).routes == (Route(("*",), "direct"),)


def test_key_text_comes_along_and_is_never_shown() -> None:
    environ = {
        "GOTUNNEL_VIA": "ssh://b",
        "GOTUNNEL_SSH_KEY": "KEYTEXT",
        "GOTUNNEL_SSH_KNOWN_HOSTS": "HOSTSTEXT",
    }
    ways = resolve_upstreams(Config(), environ)
    assert (ways.ssh_key, ways.ssh_known_hosts) == ("KEYTEXT", "HOSTSTEXT")
    assert "TEXT" not in repr(ways)


def test_names_are_redacted_and_never_alike() -> None:
    ways = resolve_upstreams(
        Config(), {}, via=["http://u:a@h:1", "http://u:b@h:1", "http://u:a@h:1", "bastion"]
    )
    assert [way.name for way in ways.pool] == ["http://u:***@h:1", "http://u:***@h:1 #2", "ssh://bastion"]
