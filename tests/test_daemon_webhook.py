"""Alerts to a real receiver over a Dialer: signed, repeated, given up, never waited for."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from aiohttp import web

from gotunnel.address import HostPort
from gotunnel.daemon.webhook import MOST, TRIES, Webhook, secret_from
from gotunnel.errors import ConfigError
from gotunnel.observe.events import Alert, Exit
from gotunnel.observe.logs import mask
from gotunnel.tasks import Backoff
from gotunnel.upstream.direct import DirectDialer
from gotunnel.upstream.tls import client_context
from tests.endpoints import Script
from tests.lab.pki import Authority

ALERT = Alert("request_rate", 12.5, 2.0, 4.2, "tokyo")


class Receiver:
    """Answers with the next of `statuses`, then 204."""

    def __init__(self, statuses: list[int]) -> None:
        self.statuses = statuses
        self.got: list[tuple[Mapping[str, str], bytes]] = []
        self.news = asyncio.Condition()
        self.at = HostPort("127.0.0.1", 1)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        async with self.news:
            self.got.append((request.headers, body))
            self.news.notify_all()
        status = self.statuses.pop(0) if self.statuses else 204
        return web.Response(status=status, headers={"Location": "/elsewhere"} if status == 302 else {})

    async def wait_for(self, count: int) -> None:
        async with asyncio.timeout(20), self.news:
            await self.news.wait_for(lambda: len(self.got) >= count)


@contextlib.asynccontextmanager
async def receiver(*statuses: int, authority: Authority | None = None) -> AsyncIterator[Receiver]:
    made = Receiver(list(statuses))
    app = web.Application()
    app.router.add_post("/hooks/T0PSECRET", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    tls = None
    if authority is not None:
        import ssl

        pair = authority.issue("hooks.example")
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pair.cert, pair.key)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    made.at = HostPort("127.0.0.1", runner.addresses[0][1])
    try:
        yield made
    finally:
        await runner.cleanup()


async def at_once(seconds: float) -> None:
    await asyncio.sleep(0)


def hook(to: Receiver, secret: str = "hush-hush") -> Webhook:
    return Webhook(f"http://{to.at}/hooks/T0PSECRET", secret, DirectDialer(), sleep=at_once)


async def test_it_is_signed_and_repeated_until_it_is_taken() -> None:
    async with receiver(503, 429) as there, contextlib.aclosing(Closing(hook(there))) as sending:
        sending.hook.start()
        sending.hook(Exit(0, 1, 1.0))  # no alert
        sending.hook(ALERT)
        await there.wait_for(3)
    assert len(there.got) == 3
    assert len({headers["X-Gotunnel-Delivery"] for headers, _ in there.got}) == 1
    headers, body = there.got[-1]
    assert headers["X-Gotunnel-Signature"] == "sha256=" + hmac.digest(b"hush-hush", body, "sha256").hex()
    assert headers["Content-Type"] == "application/json"
    sent = json.loads(body)
    assert {name: sent[name] for name in ("event", "signal", "value", "mean", "sigma", "upstream")} == {
        "event": "alert", "signal": "request_rate", "value": 12.5, "mean": 2.0, "sigma": 4.2,
        "upstream": "tokyo",
    }  # fmt: skip


class Closing:
    """Closes a webhook at the end."""

    def __init__(self, hook: Webhook) -> None:
        self.hook = hook

    async def aclose(self) -> None:
        await self.hook.close()


async def test_over_tls_by_another_way_out(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with receiver(authority=authority) as there:
        way = Script(there.at)
        made = Webhook(
            "https://hooks.example/hooks/T0PSECRET",
            "s3cret",
            way,
            context=lambda: client_context(str(authority.cert)),
        )
        made.start()
        made(ALERT)
        await there.wait_for(1)
        await made.close()
    assert way.asked == [HostPort("hooks.example", 443)]
    assert there.got[0][0]["Host"] == "hooks.example"


@pytest.mark.parametrize("status", [400, 404, 302])
async def test_an_answer_that_is_final_isn_t_repeated_and_the_next_alert_is_sent(
    status: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiver(status) as there:
        made = hook(there)
        made.start()
        made(ALERT)
        made(ALERT)
        await there.wait_for(2)
        await made.close()
    assert made.dropped == 1
    assert len(there.got) == 2
    assert f"it answered {status}" in caplog.text
    assert "T0PSECRET" not in caplog.text


async def test_a_receiver_that_is_down_is_given_up_and_what_waits_is_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    async with receiver() as there:
        pass
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    rng = random.Random(1)
    made = Webhook(
        f"http://{there.at}/x", "", DirectDialer(), sleep=sleep, backoff=lambda: Backoff(1.0, 60.0, rng)
    )
    for _ in range(MOST + 5):
        made(ALERT)
    assert made.dropped == 5
    made.start()
    async with asyncio.timeout(30):
        while made.dropped < MOST + 5:  # noqa: ASYNC110 - it tells nobody of its end
            await asyncio.sleep(0.01)
    await made.close()
    assert len(waits) == MOST * (TRIES - 1)
    assert waits[0] <= 1.0 < waits[2] < 60.0
    assert "tcp.refused" in caplog.text
    assert "unsigned" in caplog.text


def test_the_secret_comes_from_the_environment_or_a_credential(tmp_path: Path) -> None:
    assert secret_from({}) == ""
    credentials = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    assert secret_from(credentials) == ""
    (tmp_path / "alert-secret").write_text("from-a-file\n")
    assert secret_from(credentials) == "from-a-file"
    assert secret_from({**credentials, "GOTUNNEL_ALERT_SECRET": "set"}) == "set"
    (tmp_path / "alert-secret").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="UTF-8"):
        secret_from(credentials)


async def test_a_url_that_is_none_is_said_without_its_secret() -> None:
    for url in ("ftp://h/T0PSECRET", "T0PSECRET", "http://u:T0PSECRET@h/"):
        with pytest.raises(ConfigError) as caught:
            Webhook(url, "s", DirectDialer())
        assert "T0PSECRET" not in str(caught.value)
    made = Webhook("http://h/", "hush-hush", DirectDialer())
    assert mask("it is hush-hush") == "it is ***"
    await made.close()
    assert mask("it is hush-hush") == "it is hush-hush"
