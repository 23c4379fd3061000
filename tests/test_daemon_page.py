"""The status page in a real Chromium, against a real Admin whose history is a script."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gotunnel.daemon.admin import Admin
from gotunnel.daemon.page import load
from tests.browser import Page, can_run_chromium, chromium
from tests.conftest import need
from tests.scripted import HOSTILE, SECRETS, Script

TOKEN = "page-token-page-token-42"


class Served:
    """The script, the admin that serves it, and where."""

    def __init__(self) -> None:
        self.script = Script()
        self.script.hour()
        self.admin = self.new_admin()
        self.port = 0

    def new_admin(self) -> Admin:
        script = self.script
        return Admin(
            token=TOKEN,
            snapshot=lambda: {**script.history.snapshot(), "ready": True, "why": ""},
            metrics=script.metrics.render,
            ready=lambda: (True, ""),
        )

    async def start(self) -> None:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", self.port))
        self.port = sock.getsockname()[1]
        await self.admin.start(sock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    made = Served()
    await made.start()
    yield made
    await made.admin.close()


@contextlib.asynccontextmanager
async def opened(served: Served, tmp_path: Path) -> AsyncIterator[Page]:
    """The page, with its token, once it shows the three ways out; then no complaint of its own."""
    need(can_run_chromium())
    async with chromium(tmp_path / "profile") as page:
        await page.open(f"{served.url}?token={TOKEN}")
        await page.until("document.querySelectorAll('.way').length == 3")
        yield page
        asked = [params["request"]["url"] for params in page.told("Network.requestWillBeSent")]
        assert asked
        assert [url for url in asked if not url.startswith((served.url, "data:"))] == []


def complaints(page: Page) -> list[Any]:
    """What a console would show in red or yellow."""
    return [
        *page.told("Runtime.exceptionThrown"),
        *page.told("Runtime.consoleAPICalled", lambda p: p["type"] in ("error", "warning", "assert")),
        *page.told("Log.entryAdded", lambda p: p["entry"]["level"] in ("error", "warning")),
    ]


async def test_it_shows_the_hour_and_a_failover_as_it_happens(served: Served, tmp_path: Path) -> None:
    async with opened(served, tmp_path) as page:
        assert await page.js("location.pathname + location.search") == "/"  # the token has gone from there
        assert await page.js("document.cookie") == ""
        assert await page.js("document.getElementById('t-up').textContent") == "2 of 3"
        assert await page.js("document.querySelectorAll('.way svg .bar').length") > 60
        assert await page.js("document.querySelectorAll('.way svg .fault').length") == 6
        assert HOSTILE[:28] in await page.js("document.getElementById('way-list').textContent")
        assert await page.js("document.querySelectorAll('.way img').length") == 0  # a name is text
        assert await page.js("document.getElementById('news').textContent") == ""  # nothing has happened yet

        await page.js("document.querySelector('#failures li:last-child summary').click()")
        await page.js("document.querySelector('.way h3').marked = true")
        served.script.fail_over()
        served.admin.push()
        news = await page.until("document.getElementById('news').textContent")
        assert "tokyo is down: hop.stalled" in news
        assert "now by office, since tokyo" in news
        assert "■ down" in await page.js("document.querySelector('.way .pill').textContent")
        assert await page.js("document.querySelector('.way h3').marked")  # changed in place
        assert await page.js("document.querySelector('#failures li:last-child details').open")
        assert "hop.stalled" in await page.js("document.querySelector('#failures li').textContent")
        assert "gotunnel probe" in await page.js("document.querySelector('#failures li code').textContent")
        assert "tokyo → office" in await page.js("document.getElementById('moves').textContent")

        served.script.states["tokyo"] = "up"
        served.script.look()
        served.admin.push()
        await page.until("document.getElementById('news').textContent.includes('tokyo works again')")
        everything = await page.js("document.documentElement.outerHTML")
        assert not [secret for secret in (*SECRETS, TOKEN) if secret in everything]
        assert complaints(page) == []


async def test_a_restart_of_the_service_is_survived(served: Served, tmp_path: Path) -> None:
    async with opened(served, tmp_path) as page:
        await served.admin.close()
        await page.until("document.getElementById('live').dataset.state == 'lost'")
        served.admin = served.new_admin()
        served.script.carried["tokyo"] += 10**9
        served.script.look(60)
        await served.start()
        await page.until("document.getElementById('live').dataset.state == 'live'", 30)
        await page.until("document.querySelector('.way').textContent.includes('1.2 GB')")


async def test_every_part_has_a_name_for_those_who_listen(served: Served, tmp_path: Path) -> None:
    async with opened(served, tmp_path) as page:
        nodes = (await page.call("Accessibility.getFullAXTree"))["nodes"]
        seen: dict[str, list[str]] = {}
        for node in nodes:
            if not node.get("ignored"):
                role, name = node["role"]["value"], node.get("name", {}).get("value", "")
                seen.setdefault(role, []).append(name)
        assert "main" in seen
        assert "banner" in seen
        assert seen["table"] == ["Sources of module files"]
        assert {"Source", "Requests", "Failed", "Median"} <= set(seen["columnheader"])
        assert "goproxy.cn" in seen["rowheader"]
        assert {"gotunnel", "Ways out", "Recent failures", "Module proxy", "Failovers 1"} <= set(
            seen["heading"]
        )
        assert {"tokyo: up", "office: up"} <= set(seen["listitem"])
        charts = [name for name in seen["image"] if name]
        assert len(charts) == 6
        assert any(name.startswith("Latency over the last hour: 61 ms to ") for name in charts)
        assert "Throughput over the last hour: nothing carried" in charts
        assert "Latest change" in seen["status"]
        nameless = {"main", "banner", "region", "table", "link", "heading", "status", "DisclosureTriangle"}
        assert [role for role in nameless & seen.keys() - {"main", "banner"} if "" in seen[role]] == []


async def test_the_keyboard_goes_through_in_order_and_sees_where_it_is(
    served: Served, tmp_path: Path
) -> None:
    async with opened(served, tmp_path) as page:
        await page.js("document.body.focus()")
        stops = []
        for _ in range(5):
            await page.key("Tab")
            stops.append(
                await page.js(
                    "(e => [e.tagName, e.id || e.className, getComputedStyle(e).outlineStyle])"
                    "(document.activeElement).join(' ')"
                )
            )
        assert stops == [
            "A skip solid",
            "SUMMARY  solid",
            "SUMMARY  solid",
            "DIV sources-region solid",
            "BODY  none",
        ]
        await page.key("Tab")
        await page.key("Tab")
        await page.key("Enter")  # opens what went wrong
        assert await page.js("document.querySelector('#failures details').open")
        served.script.fail_over()
        served.admin.push()
        await page.until("document.getElementById('news').textContent")
        assert await page.js("document.activeElement.tagName") == "SUMMARY"  # an update takes nobody's place


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_phone_needs_no_sideways_scrolling_and_colours_can_be_read(
    served: Served, tmp_path: Path, scheme: str
) -> None:
    async with opened(served, tmp_path) as page:
        served.script.fail_over()
        served.admin.push()
        await page.until("document.getElementById('news').textContent")
        await page.call(
            "Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True
        )
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        await page.call("Emulation.setEmulatedMedia", features=features)
        await page.until("innerWidth == 390")
        assert await page.js("document.documentElement.scrollWidth") <= 390
        assert await page.js("getComputedStyle(document.querySelector('.pill')).transitionDuration") == "0s"
        dark = await page.js("getComputedStyle(document.body).backgroundColor") == "rgb(15, 22, 24)"
        assert dark == (scheme == "dark")
        poor = await page.js(CONTRAST)
        assert poor == []  # WCAG 2.2, 1.4.3: 4.5 to 1


# text whose colour stands out less than 4.5 to 1 from what is behind it
CONTRAST = """(() => {
  const parse = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = parse(c).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if (parse(c)[3] !== 0) return c;
    }
  };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${e.tagName}.${e.className}: ${ratio.toFixed(2)}`);
  }
  return poor;
})()"""


def test_the_files_ask_for_nothing_elsewhere_and_write_no_markup() -> None:
    files = load()
    assert set(files) == {"/", "/app.js", "/style.css", "/icon.svg"}
    for path, file in files.items():
        text = file.body.decode().replace("http://www.w3.org/2000/svg", "")
        for forbidden in (
            "http://",
            "https://",
            "innerHTML",
            "outerHTML",
            "insertAdjacent",
            "eval(",
            "onclick",
        ):
            assert forbidden not in text, (path, forbidden)


async def test_a_stranger_s_browser_sees_nothing(served: Served, tmp_path: Path) -> None:
    need(can_run_chromium())
    async with chromium(tmp_path / "profile") as page:
        await page.open(served.url)
        assert "the token is wanted" in await page.js("document.body.textContent")
        await page.open(f"http://localhost:{served.port}/?token={TOKEN}")  # a site of its own
        await page.until("document.querySelectorAll('.way').length == 3")
        # another port is another origin on the same site, to which browsers would send the cookie
        other = await asyncio.start_server(_page_of(served), "127.0.0.1", 0)
        async with other:
            await page.open(f"http://localhost:{other.sockets[0].getsockname()[1]}/")
            assert await page.until("document.title") == "refused"


def _page_of(served: Served) -> Any:
    """A page that looks at the admin endpoint from another origin: what it can see is its title."""
    script = f"""
    const image = new Image();
    image.onload = () => {{ document.title = 'let in'; }};
    image.onerror = () => {{ document.title = 'refused'; }};
    image.src = 'http://localhost:{served.port}/icon.svg';"""
    body = f"<!doctype html><link rel=icon href=data:,><script>{script}</script>".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()

    return answer
