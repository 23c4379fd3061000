"""What the admin endpoint of a service shows, and the API that `run`, `env` and `status` ask.

POST   /api/runs               a run wants to be let in
GET    /api/runs/ID            how things stand, when CMD has failed
GET    /api/runs/ID/events     its events as JSON lines, until it is over
POST   /api/runs/ID/blame      put the way out that it failed on last
DELETE /api/runs/ID            the run is over
GET    /api/environment        what `gotunnel env` prints
POST   /api/reload             as SIGHUP
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gotunnel.address import HostPort
from gotunnel.daemon.admin import Admin, Handler, Reply
from gotunnel.daemon.explained import explain
from gotunnel.errors import GotunnelError
from gotunnel.listener.sockets import address_of
from gotunnel.observe.history import History, WayNow
from gotunnel.observe.metrics import Metrics
from gotunnel.pool.breaker import State
from gotunnel.tasks import Tasks

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.web_request import BaseRequest

    from gotunnel.daemon.service import Service
    from gotunnel.pool.pool import Upstream
    from gotunnel.upstream.spec import Chain

_LOOK = 1.0  # seconds
_NOBODY = (404, {"error": "there is no such run; is it over?"})


async def start_admin(
    service: Service,
    listening: socket.socket,
    token: str,
    login: tuple[str, str] | None,
    stack: contextlib.AsyncExitStack,
) -> HostPort:
    """Serve on `listening`; `stack` ends it.  Gives the address."""
    history, metrics = History(explain=explain), Metrics()
    service.observed.add(history)
    service.observed.add(metrics)
    service.engine.graph.counted = service.traffic

    def look() -> None:
        ways = _ways(service)
        history.look(ways, store={"url": service.modules.store.label}, runs=len(service.runs))
        metrics.look(ways, runs=len(service.runs))

    def snapshot() -> dict[str, Any]:
        look()
        return {**history.snapshot(), **_now(service)}

    async def keep_looking() -> None:
        while True:
            look()
            admin.push()
            await asyncio.sleep(_LOOK)

    admin = Admin(
        token=token,
        login=login,
        snapshot=snapshot,
        metrics=metrics.render,
        ready=lambda: service.readiness,
        hosts=_hosts(listening),
        api=_api(service),
    )
    address = address_of(listening)
    await admin.start(listening)
    tasks = Tasks("admin")

    tasks.spawn("look", keep_looking())
    stack.push_async_callback(admin.close)
    stack.push_async_callback(tasks.close)
    return address


def _hosts(listening: socket.socket) -> frozenset[str]:
    """The names by which it may be reached, where others can."""
    if address_of(listening).is_loopback:
        return frozenset()
    return frozenset({socket.gethostname(), socket.getfqdn()})


def _now(service: Service) -> dict[str, Any]:
    ready, why = service.readiness
    return {"ready": ready, "why": why, "proxy": str(service.engine.address)}


def _ways(service: Service) -> list[WayNow]:
    service.traffic.look()
    graph = service.engine.graph
    return [_way(service, upstream, graph.chains.get(upstream.name)) for upstream in graph.pool.upstreams]


def _way(service: Service, upstream: Upstream, chain: Chain | None) -> WayNow:
    state, error = upstream.breaker.state, upstream.last_error
    received, sent = service.traffic.of(upstream.name)
    median = upstream.times.median()
    far = chain is not None and chain.resolves_far
    return WayNow(
        upstream.name,
        "half-open"
        if state is State.HALF_OPEN
        else "down"
        if state is State.OPEN or upstream.is_down
        else "up"
        if upstream.has_worked
        else "unknown",
        upstream.dialer.label if chain is None else str(chain),
        "far" if far else "here",
        getattr(upstream.dialer, "links", 0),
        service.traffic.open_by(upstream.name),
        received,
        sent,
        None if median is None else median * 1000,
        None if error is None else (error.finding, error.detail),
    )


def _api(service: Service) -> Mapping[tuple[str, str], Handler]:
    runs = service.runs

    async def let_in(request: BaseRequest, parts: Mapping[str, str]) -> Reply:
        try:
            asked = await request.json()
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            return 400, {"error": "want a JSON object"}
        try:
            return 201, await runs.open(asked)
        except GotunnelError as error:
            return 422, {"error": str(error)}

    async def stand(request: BaseRequest, parts: Mapping[str, str]) -> Reply:
        found = runs.health(parts["id"])
        return _NOBODY if found is None else (200, found)

    async def blame(request: BaseRequest, parts: Mapping[str, str]) -> Reply:
        found = runs.blame(parts["id"])
        return _NOBODY if found is None else (200, found)

    async def end(request: BaseRequest, parts: Mapping[str, str]) -> Reply:
        return (200, {}) if runs.end(parts["id"]) else _NOBODY

    async def events(request: BaseRequest, parts: Mapping[str, str]) -> web.StreamResponse | Reply:
        from aiohttp import web

        if runs.health(parts["id"]) is None:
            return _NOBODY
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        response.force_close()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            async for line in runs.events(parts["id"]):
                await response.write(line.encode())
        return response

    async def environment(request: BaseRequest, parts: Mapping[str, str]) -> Reply:
        return 200, service.environment()

    async def reload(request: BaseRequest, parts: Mapping[str, str]) -> Reply:
        why = await service.reload()
        return (422, {"error": why}) if why else (200, {})

    return {
        ("POST", "/api/runs"): let_in,
        ("GET", "/api/runs/{id}"): stand,
        ("DELETE", "/api/runs/{id}"): end,
        ("POST", "/api/runs/{id}/blame"): blame,
        ("GET", "/api/runs/{id}/events"): events,
        ("GET", "/api/environment"): environment,
        ("POST", "/api/reload"): reload,
    }
