"""What a run stands on when a service is there: its proxy and module proxy, with a secret of this run's own.

Rules:
- No handshake, no import of what the service has loaded already.
- The service's events of this run are ours.
- A service that is started anew in the middle is a pause for what CMD asks of its module proxy, which is
  why CMD asks our own door (`modproxy.resume`).  For one that stays away the run opens ways out of its own,
  unless it was named: then it is told as any other failure.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import importlib
import json
import logging
import os
import re
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gotunnel.address import HostPort
from gotunnel.cli.remote import Server, ServerError
from gotunnel.cli.run_parts import Parts, environment, here, project_of
from gotunnel.config.model import Config
from gotunnel.errors import Blame, DialError, GotunnelError
from gotunnel.goenv import read, with_mirrors
from gotunnel.observe.events import Emit, Ready, from_record
from gotunnel.tasks import in_thread

if TYPE_CHECKING:
    from gotunnel.child.retry import Health, Runner
    from gotunnel.modproxy.resume import Front

    Own = Callable[[], Awaitable[tuple[Parts, Health]]]

_log = logging.getLogger("gotunnel.run")
_LOOK = 0.5  # seconds between two questions whether a way out works again
_WAY_BACK = 2.0  # seconds that are waited for one, as Pool has it
_NEW_SERVICE = 15.0  # seconds for a service to return


class Spare:
    """What a run goes on with when its service has gone: ways out of its own, opened once."""

    def __init__(self, own: Own, more: Mapping[str, str], tell: Callable[[str], None]) -> None:
        """`own` opens them; CMD's environment gets `more`."""
        self._own, self._more, self._tell = own, more, tell
        self._one = asyncio.Lock()
        self._opened: tuple[Mapping[str, str], Health] | None = None

    async def __call__(self) -> tuple[Mapping[str, str], Health]:
        """CMD's environment and the ways out.  Raises ConfigError."""
        async with self._one:
            if self._opened is None:
                self._tell("the service has gone; this run opens ways out of its own")
                parts, health = await self._own()
                self._opened = parts.env | dict(self._more), health
            return self._opened


class RemoteHealth:
    """The ways out of a service, as it tells."""

    def __init__(
        self, server: Server, run: str, front: Front | None = None, spare: Spare | None = None
    ) -> None:
        self._server, self._run, self._front, self._spare = server, run, front, spare
        self._known: dict[str, Any] = {}
        self.gone = False  # the service itself

    @property
    def patience(self) -> float:
        """A service may be started anew; one that answers has tried its ways out itself."""
        waited = self._front is not None and self._front.gave_up
        return _NEW_SERVICE if self.gone and not waited else _WAY_BACK

    @property
    def all_down(self) -> bool:
        return bool(self._known.get("all_down"))

    async def instead(self) -> tuple[Mapping[str, str], Health] | None:
        """What to go on with, if the service is what has gone.  Raises ConfigError."""
        return await self._spare() if self.gone and self._spare is not None else None

    def failures(self) -> list[tuple[str, DialError]]:
        return [
            (name, DialError(finding, detail, blame=Blame.HOP))
            for name, finding, detail in self._known.get("failures", [])
        ]

    def blame(self) -> str | None:
        with contextlib.suppress(ServerError):
            answer = self._server.ask("POST", f"/api/runs/{self._run}/blame")
            return str(answer["blamed"]) if answer and answer.get("blamed") else None
        return None

    async def wait_usable(self, target: HostPort) -> None:
        while self.all_down:
            await asyncio.sleep(_LOOK)
            await self.refresh()

    async def refresh(self) -> HostPort | None:
        try:
            self._known = await in_thread("ask", lambda: self._server.ask("GET", f"/api/runs/{self._run}"))
            self.gone = False
        except ServerError as error:
            self.gone = True
            gone = ["the service", "hop.closed", str(error)]
            self._known = {"all_down": True, "failures": [gone], "no_way": "127.0.0.1:1"}
        with contextlib.suppress(ValueError):
            return HostPort.parse(str(self._known.get("no_way") or ""))
        return None


async def remote_parts(
    args: argparse.Namespace,
    config: Config,
    server: Server,
    runner: Runner,
    stack: contextlib.AsyncExitStack,
    *,
    emit: Emit,
    run_id: str,
    spare: Spare | None,
) -> tuple[Parts, RemoteHealth]:
    """Be let in; `stack` says goodbye.  `spare` is for when the service has gone.

    Raises ServerError, ConfigError.
    """
    from gotunnel.daemon.runs import describe

    found = await in_thread("go env", lambda: read(os.environ))
    project = await project_of(args.argv, found)
    mirrors = [*args.mirror, *config.go.mirrors]
    asked: dict[str, Any] = {
        "found": describe(found),
        "sums": project.sums.as_text(),
        "mirrors": mirrors,
        "modproxy": not args.no_modproxy,
        "prefetch": not args.no_prefetch,
        "argv": args.argv,
        "directory": str(here()),
        "env": dict(project.settings.env),
    }
    told = await in_thread("ask", lambda: server.ask("POST", "/api/runs", asked))
    asked |= {"again": told.get("again"), "prefetch": False}
    over = threading.Event()
    run = str(told["id"])

    def goodbye() -> None:
        over.set()
        with contextlib.suppress(ServerError):
            server.ask("DELETE", f"/api/runs/{run}")

    stack.callback(goodbye)
    loop = asyncio.get_running_loop()
    known = asyncio.Event()  # the service knows this run
    known.set()

    def in_loop(act: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # it has closed
            loop.call_soon_threadsafe(act)

    def follow() -> None:
        listen()
        while not over.wait(_LOOK / 2):  # the service has ended, or was started anew: be let in again
            with contextlib.suppress(ServerError):
                server.ask("POST", "/api/runs", asked)
                in_loop(known.set)
                listen()

    def listen() -> None:
        with contextlib.suppress(ServerError, OSError):
            for line in server.lines(f"/api/runs/{run}/events"):
                with contextlib.suppress(ValueError):
                    event = from_record(json.loads(line)) if line.strip() else None
                    if event is not None:
                        in_loop(functools.partial(emit, event))
        in_loop(known.clear)

    threading.Thread(target=follow, name="events", daemon=True).start()
    proxy = server.seen_from_here(str(told["proxy"]))
    goproxy, front = server.seen_from_here(str(told["goproxy"])), None
    modproxy = told.get("modproxy")
    if door := await _door(goproxy, known, stack, spare):
        goproxy, modproxy, front = door
    emit(Ready(proxy.rpartition("@")[2], modproxy, tuple(told.get("upstreams", ()))))
    env = environment(
        found,
        config,
        proxy_url=proxy,
        run_id=run_id,
        goproxy=goproxy or (with_mirrors(found.goproxy, mirrors) if mirrors else ""),
        offline=False,
    )
    sources = (*mirrors, *re.split("[,|]", found.goproxy))
    return Parts(env, sources), RemoteHealth(server, run, front, spare)


async def _door(
    goproxy: str, known: asyncio.Event, stack: contextlib.AsyncExitStack, spare: Spare | None
) -> tuple[str, str, Front] | None:
    """Our own before the service's module proxy: (the list that names it, where it listens, the door).

    None where there is none to stand before, or where the service speaks TLS, which is end to end.
    """
    first = re.split("[,|]", goproxy)[0]
    if (there := _place(first)) is None:
        return None
    from gotunnel.listener.sockets import address_of, bind

    resume = await in_thread("import h11", lambda: importlib.import_module("gotunnel.modproxy.resume"))

    async def readmitted() -> None:
        await known.wait()

    async def instead() -> tuple[HostPort, str] | None:
        try:
            env = (await spare())[0] if spare is not None else {}
        except GotunnelError as error:
            _log.warning("no ways out of our own: %s", error)
            return None
        return _place(re.split("[,|]", env.get("GOPROXY", ""))[0])

    front: Front = resume.Front(*there, readmitted, instead=instead, patience=_NEW_SERVICE)
    listening = bind(HostPort("127.0.0.1", 0), "the door to the service's module proxy")
    stack.push_async_callback(front.close)
    await front.start(listening)
    where = str(address_of(listening))
    return first.replace(str(there[0]), where, 1) + goproxy[len(first) :], where, front


def _place(url: str) -> tuple[HostPort, str] | None:
    """Address and path of a module proxy in plain HTTP."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.port:
        return None
    return HostPort.parse(parts.netloc.rpartition("@")[2]), parts.path
