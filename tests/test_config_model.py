"""The table: the contract's defaults, word for word."""

from __future__ import annotations

from gotunnel.config.model import KEYS, Config, Route, Upstream

CONTRACT = {
    "pool.strategy": "ordered",
    "pool.hedge": "auto",
    "pool.probe.url": "",
    "pool.probe.every": "30s",
    "pool.probe.timeout": "5s",
    "pool.stall": "5s",
    "listen.proxy": "127.0.0.1:0",
    "listen.modproxy": "127.0.0.1:0",
    "listen.admin": "127.0.0.1:0",
    "listen.auth": "auto",
    "listen.tls.cert": "",
    "listen.tls.key": "",
    "listen.tls.client_ca": "",
    "go.mirrors": [],
    "go.private": [],
    "go.filter": [],
    "cache.url": "",
    "cache.max_size": "20GB",
    "cache.list_ttl": "60s",
    "cache.offline": False,
    "limits.connections": 4096,
    "limits.per_client": 1024,
    "limits.head": "64KB",
    "retry.attempts": 3,
    "retry.backoff": "500ms..10s",
    "log.format": "text",
    "log.level": "info",
    "alert.sigma": 3.0,
    "alert.webhook": "",
}


def test_the_defaults_are_the_contracts() -> None:
    assert {name: key.kind.show(key.default) for name, key in KEYS.items()} == CONTRACT


def test_values_are_parsed() -> None:
    config = Config()
    assert (config.pool.stall, config.limits.head, config.retry.backoff.last) == (5.0, 64_000, 10.0)
    assert (config.listen.proxy.host, config.listen.proxy.port) == ("127.0.0.1", 0)


def test_a_repr_holds_no_password() -> None:
    assert "hunter2" not in repr(Upstream("a", "http://u:hunter2@h:1"))


def test_a_route_knows_what_it_matches() -> None:
    route = Route(("git.corp.example", "10.0.0.0/8"), "direct")
    assert [any(p.matches(host, 22) for p in route.patterns()) for host in ("10.9.9.9", "x")] == [True, False]
