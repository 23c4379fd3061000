"""A real Chromium, driven by the DevTools protocol over aiohttp's WebSocket.

https://chromedevtools.github.io/devtools-protocol/: commands are answered by id, events come between.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp

from gotunnel.tasks import Tasks

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--disable-default-apps", "--disable-dev-shm-usage", "--no-proxy-server", "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)  # fmt: skip


def can_run_chromium() -> tuple[bool, str]:
    """(is there one, why not)."""
    return _found() is not None, "chromium isn't installed"


def _found() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab.  `events` are all that it told, as (method, params)."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, session: str, tasks: Tasks) -> None:
        self._socket, self.session = socket, session
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []
        tasks.spawn("listen", self._listen())

    async def _listen(self) -> None:
        async for message in self._socket:
            said = message.json()
            waiting = self._waiting.pop(said.get("id", 0), None)
            if waiting is not None:
                waiting.set_result(said)
            elif "method" in said:
                self.events.append((said["method"], said["params"]))

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command's result.  Raises RuntimeError for what the browser refuses."""
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        await self._socket.send_json(message)
        async with asyncio.timeout(30):
            said = await answer
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']}")
        return dict(said["result"])

    async def js(self, expression: str) -> Any:
        """The value of a JavaScript expression.  Raises RuntimeError where it throws."""
        said = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in said:
            raise RuntimeError(str(said["exceptionDetails"]))
        return said["result"].get("value")

    async def until(self, expression: str, seconds: float = 20.0) -> Any:
        """The value of `expression` once it is true.  Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while not (value := await self.js(expression)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return value

    async def open(self, url: str) -> None:
        """Go there, as if the address had been typed."""
        await self.call("Page.navigate", url=url, transitionType="typed")
        await self.until("document.readyState == 'complete'")

    async def key(self, name: str) -> None:
        """Press and release a key."""
        codes = {"Tab": 9, "Enter": 13}
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if (name, kind) == ("Enter", "keyDown") else {}
            await self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                code=name,
                windowsVirtualKeyCode=codes[name],
                **text,
            )

    def told(self, method: str, when: Callable[[dict[str, Any]], bool] = lambda params: True) -> list[Any]:
        """The events of that name."""
        return [params for name, params in self.events if name == method and when(params)]


@contextlib.asynccontextmanager
async def chromium(profile: Path) -> AsyncIterator[Page]:
    """A fresh browser with one empty tab that tells of its console, its requests and its errors."""
    binary = _found()
    assert binary is not None
    tasks = Tasks("browser")
    profile.mkdir(parents=True, exist_ok=True)
    with (profile / "log").open("wb") as log:
        process = subprocess.Popen(
            [binary, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={"PATH": "/usr/bin:/bin", "HOME": str(profile)},
        )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while not (profile / "DevToolsActivePort").exists():
                assert process.poll() is None, (profile / "log").read_text(errors="replace")
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.1)
            port, path = (profile / "DevToolsActivePort").read_text().split()
        async with aiohttp.ClientSession() as http:
            address = f"ws://127.0.0.1:{port}{path}"
            async with http.ws_connect(address, max_msg_size=0) as socket:
                page = Page(socket, "", tasks)
                targets = (await page.call("Target.getTargets"))["targetInfos"]
                tab = next(t["targetId"] for t in targets if t["type"] == "page")
                attached = await page.call("Target.attachToTarget", targetId=tab, flatten=True)
                page.session = attached["sessionId"]
                for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
                    await page.call(f"{domain}.enable")
                yield page
                page.session = ""
                with contextlib.suppress(RuntimeError, TimeoutError):
                    await page.call("Browser.close")
    finally:
        await tasks.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
