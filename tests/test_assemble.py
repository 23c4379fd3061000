"""Configuration becomes objects, and is closed without a trace."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gotunnel.address import HostPort
from gotunnel.assemble import Engine, build_engine, build_graph
from gotunnel.config.load import WaysOut, load, resolve_upstreams
from gotunnel.config.model import Config, Route, Upstream
from gotunnel.errors import ConfigError, DialError
from gotunnel.observe.events import Event
from gotunnel.pool.pool import Pool
from gotunnel.tasks import Tasks
from tests.gotunnel_alone import environment


def engine(tmp_path: Path, text: str = "", **environ: str) -> Engine:
    """The engine of a configuration file and variables."""
    file = tmp_path / "config.toml"
    file.write_text(text)
    env = environment(tmp_path, **environ)
    loaded = load({}, env, path=str(file))
    return build_engine(
        loaded.config, resolve_upstreams(loaded.config, env, file=str(file)), emit=lambda event: None
    )


def ways(*pool: Upstream, routes: tuple[Route, ...] = (), others: tuple[Upstream, ...] = ()) -> WaysOut:
    return WaysOut(pool, routes, "--via", others=others)


def default(tmp_path: Path, wanted: WaysOut) -> Engine:
    events: list[Event] = []
    loaded = load({}, environment(tmp_path))
    return build_engine(loaded.config, wanted, emit=events.append)


async def test_an_engine_listens_with_a_secret_of_its_own_and_leaves_nothing(tmp_path: Path) -> None:
    first, second = engine(tmp_path), engine(tmp_path)
    assert first.secret != second.secret
    address = await first.start(HostPort("127.0.0.1", 0))
    assert first.proxy_url == f"http://gotunnel:{first.secret}@{address}"
    assert str(address).startswith("127.0.0.1:")
    await first.close()
    await second.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(address.host, address.port)


async def test_who_listens_everywhere_is_reached_by_loopback(tmp_path: Path) -> None:
    made = engine(tmp_path)
    address = await made.start(HostPort("0.0.0.0", 0))
    assert made.proxy_url.endswith(f"@127.0.0.1:{address.port}")
    await made.close()


async def test_user_and_password_file_are_escaped(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("p@ss:w/rd\n")
    made = engine(tmp_path, f'[listen]\nauth = {{ user = "a b", password_file = "{tmp_path}/secret" }}\n')
    made.address = HostPort("127.0.0.1", 1)
    assert made.proxy_url == "http://a%20b:p%40ss%3Aw%2Frd@127.0.0.1:1"
    off = engine(tmp_path, '[listen]\nauth = "off"\n')
    off.address = HostPort("::1", 1)
    assert off.proxy_url == "http://[::1]:1"


@pytest.mark.parametrize(
    ("content", "words"), [(None, "No such file"), (b"\n", "is empty"), (b"\xff", "is no text")]
)
def test_a_password_file_that_is_none(tmp_path: Path, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"password_file {tmp_path}/secret: {words}"):
        engine(tmp_path, f'[listen]\nauth = {{ user = "a", password_file = "{tmp_path}/secret" }}\n')


async def test_routes_lead_to_names_tags_direct_and_reject(tmp_path: Path) -> None:
    text = """
[[upstream]]
name = "tokyo"
via = "http://127.0.0.1:9"
[[upstream]]
name = "office"
via = "socks5h://127.0.0.1:9"
tags = ["backup"]
[[route]]
match = ["a.example"]
to = "office"
[[route]]
match = ["b.example"]
to = "backup"
[[route]]
match = ["c.example"]
to = "direct"
[[route]]
match = ["d.example"]
to = "reject"
"""
    made = engine(tmp_path, text)
    by = {host: made.graph.router.pick(HostPort(f"{host}.example", 1)) for host in "abcde"}
    tagged, named = by["a"], by["b"]
    assert isinstance(tagged, Pool)
    assert isinstance(named, Pool)
    assert [u.name for u in tagged.upstreams] == ["office"]
    assert [u.name for u in named.upstreams] == ["office"]
    assert [by[host].label for host in "cde"] == ["direct:", "reject", "pool"]
    assert [u.name for u in made.pool.upstreams] == ["tokyo", "office"]
    # what is known of a way out is known to every pool that it is in
    assert tagged.upstreams[0] is made.pool.upstreams[1]
    with pytest.raises(DialError, match="rejected"):
        await made.ways.dial(HostPort("d.example", 1))
    await made.close()


async def test_what_no_route_names_is_not_built(tmp_path: Path) -> None:
    broken = Upstream("broken", "ssh://h?identity=/no/such/key")
    used = ways(Upstream("direct:", "direct:"), others=(broken,))
    await default(tmp_path, used).close()
    with pytest.raises(ConfigError, match="/no/such/key"):
        default(
            tmp_path,
            ways(Upstream("direct:", "direct:"), others=(broken,), routes=(Route(("h",), "broken"),)),
        )


async def test_options_of_ssh_config_that_are_not_honoured_are_named_once(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host hop\n  HostName 127.0.0.1\n  RemoteCommand top\n  DynamicForward 1080\n")
    config.chmod(0o600)
    told: list[str] = []
    via = f"ssh://hop?config={config}"
    upstreams = (Upstream("one", via), Upstream("two", f"{via},http://proxy:3128"))
    engine = build_engine(
        Config(), WaysOut(upstreams, (), "--via"), emit=lambda event: None, tell=told.append
    )
    await engine.close()
    assert told == ["ssh_config of hop: not honoured here: DynamicForward, RemoteCommand"]


async def test_what_is_being_dialled_outlives_a_reload(tmp_path: Path) -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    async def slow_proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(slow_proxy, "127.0.0.1", 0)
    via = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    made, tasks = default(tmp_path, ways(Upstream("slow", via))), Tasks("test")
    dialling = tasks.spawn("dial", made.ways.dial(HostPort("origin.example", 443)))
    await asked.wait()
    config = load({}, environment(tmp_path)).config
    made.replace(build_graph(config, ways(Upstream("other", "direct:")), emit=lambda event: None))
    await asyncio.sleep(0.1)  # the old graph has no stream, and is none to close yet
    answer.set()
    stream = await dialling
    assert await stream.read() == b"hello"
    stream.close()
    await made.close()
    await tasks.close()
    server.close()
