"""Alerts to a webhook: a signed POST, over the ways out like everything else.

Rules:
- Whoever emits never waits: what is to be sent stands in a queue of MOST; when it is full the oldest goes.
- The body is the event's JSON line.  `X-Gotunnel-Signature: sha256=HEX` is its HMAC-SHA256 with the secret;
  `X-Gotunnel-Delivery` stays the same over repeats, so that a receiver can tell them.
- No answer, 408, 429 and 5xx are repeated with backoff, TRIES times at most; any other answer than 2xx is
  final, a redirect too: what is signed for one address isn't sent to another.
- The URL may hold a secret (chat services have theirs in the path): only its host is ever shown.

h11 over a Stream is all it takes: `modproxy.client` only asks with GET, and an aiohttp session would need a
connector of its own around our Dialer.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import hmac
import logging
import os
import ssl
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import unquote

import h11

from gotunnel import __version__
from gotunnel.errors import ConfigError, DialError, StreamLost
from gotunnel.modproxy.client import Url
from gotunnel.observe.events import Alert, Event, as_line
from gotunnel.observe.logs import register_secret
from gotunnel.tasks import Backoff, Tasks
from gotunnel.upstream.dialer import Dialer
from gotunnel.upstream.tls import client_context, start_tls
from gotunnel.wire.http1 import basic

MOST = 100  # alerts that wait
TRIES = 8
BACKOFF = (1.0, 60.0)  # seconds
TIMEOUT = 15.0  # seconds for a try, the dial included
CREDENTIAL = "alert-secret"  # its name in LoadCredential=
_log = logging.getLogger("gotunnel.webhook")


def secret_from(environ: Mapping[str, str]) -> str:
    """GOTUNNEL_ALERT_SECRET, else systemd's credential `alert-secret`, "" for none.  Raises ConfigError."""
    if secret := environ.get("GOTUNNEL_ALERT_SECRET", ""):
        return secret
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    if not os.path.isabs(directory):
        return ""
    file = Path(directory) / CREDENTIAL
    try:
        return file.read_text(encoding="utf-8").strip("\r\n")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no UTF-8"
        raise ConfigError(f"{file}: {why}; the alert webhook's secret can't be read") from error


def signature(secret: str, body: bytes) -> str:
    """The value of X-Gotunnel-Signature."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class _Refused(Exception):
    """The receiver's answer; `again` where it may be another later."""

    def __init__(self, text: str, *, again: bool) -> None:
        super().__init__(text)
        self.again = again


class Webhook:
    """An `Emit` that sends alerts, and nothing else, to `url`.  Raises ConfigError for a URL that is none."""

    def __init__(
        self,
        url: str,
        secret: str,
        dialer: Dialer,
        *,
        context: Callable[[], ssl.SSLContext] = client_context,
        backoff: Callable[[], Backoff] = lambda: Backoff(*BACKOFF),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        try:
            self._url = Url.parse(url)
        except ValueError:  # its text shows the path
            raise ConfigError("alert.webhook: want https://HOST/… or http://HOST/…") from None
        if self._url.userinfo and not self._url.tls:
            raise ConfigError(
                "alert.webhook: credentials go over https only; write https://… or leave them out"
            )
        if not secret:
            _log.warning(
                "alerts are sent unsigned: set GOTUNNEL_ALERT_SECRET, or a credential %s", CREDENTIAL
            )
        self._secret, self._dialer = secret, dialer
        self._forget = register_secret(secret)
        self._make_context, self._backoff, self._sleep = context, backoff, sleep
        self._context: ssl.SSLContext | None = None
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._news = asyncio.Event()
        self._tasks = Tasks("webhook")
        self.dropped = 0  # that nobody will get

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Alert):
            return
        body = as_line(event, "", datetime.datetime.now(datetime.UTC)).encode()
        if len(self._waiting) >= MOST:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append((str(uuid.uuid4()), body))
        self._news.set()

    def start(self) -> None:
        """Begin to send."""
        self._tasks.spawn("send", self._send_all())

    async def close(self) -> None:
        """Send no more, not even what waits."""
        await self._tasks.close()
        self._forget()

    async def _send_all(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await self._deliver(*self._waiting.popleft())

    async def _deliver(self, delivery: str, body: bytes) -> None:
        """One alert, as often as it takes."""
        backoff = self._backoff()
        for number in range(1, TRIES + 1):
            try:
                async with asyncio.timeout(TIMEOUT):
                    await self._post(delivery, body)
                return
            except _Refused as error:
                why, again = str(error), error.again
            except DialError as error:
                why, again = f"{error.finding}: {error.detail}", True
            except TimeoutError:
                why, again = f"no answer in {TIMEOUT:.0f} s", True
            except (StreamLost, h11.RemoteProtocolError) as error:
                why, again = f"no answer that can be read: {error}", True
            except Exception as error:  # the alerts after this one shall be sent
                why, again = f"{type(error).__name__}", False
            if not again or number == TRIES:
                self.dropped += 1
                _log.warning("an alert wasn't delivered to %s: %s", self._url.host, why)
                return
            _log.debug("webhook at %s: try %d: %s", self._url.host, number, why)
            await self._sleep(backoff.delay())

    async def _post(self, delivery: str, body: bytes) -> None:
        url = self._url
        stream = await self._dialer.dial(url.target)
        try:
            if url.tls:
                self._context = self._context or self._make_context()
                stream = await start_tls(stream, self._context, url.target.host, label=str(url.target))
            http = h11.Connection(h11.CLIENT)
            request = h11.Request(method="POST", target=url.path, headers=self._headers(delivery, body))
            sent = [http.send(request), http.send(h11.Data(data=body)), http.send(h11.EndOfMessage())]
            stream.write(b"".join(part or b"" for part in sent))
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await stream.read())
                elif isinstance(event, h11.Response):
                    break
                elif not isinstance(event, h11.InformationalResponse):
                    raise StreamLost("it closed the connection")
        finally:
            with contextlib.suppress(StreamLost):
                stream.abort()
        status = event.status_code
        if not 200 <= status < 300:
            raise _Refused(f"it answered {status}", again=status in (408, 429) or status >= 500)

    def _headers(self, delivery: str, body: bytes) -> list[tuple[str, str]]:
        headers = [
            ("Host", self._url.host),
            ("User-Agent", f"gotunnel/{__version__}"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            ("X-Gotunnel-Delivery", delivery),
        ]
        if self._secret:
            headers.append(("X-Gotunnel-Signature", signature(self._secret, body)))
        if self._url.userinfo:
            user, _, password = self._url.userinfo.partition(":")
            headers.append(("Authorization", basic(unquote(user), unquote(password))))
        return headers
