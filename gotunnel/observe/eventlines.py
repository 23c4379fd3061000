"""Events as log lines: what a person or a machine wants to know, once.

Rules:
- What is told at `info` and above comes once: a way out's failure until it works again, a way that traffic
  takes until the way it left works again.  Repeats are `debug`.
- Each record has `facts`: the event's name and fields, finding ids among them, for journald and ECS.
"""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from gotunnel.observe.events import (
    Alert,
    Attempt,
    BreakerChange,
    Dial,
    Event,
    Exit,
    Failover,
    Fetch,
    Ready,
    Resume,
)

_DEBUG, _INFO, _WARNING = logging.DEBUG, logging.INFO, logging.WARNING
_MOST = 1000  # things told that are remembered
# that a module isn't there is an answer; sources are asked for what they needn't have
_USUAL = ("module.not-found",)
_NAMES = {"source": "from", "origin": "source", "error": "finding", "reason": "finding", "name": "event"}


class EventLogger:
    """An `Emit` that makes a line of each event."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._told: set[tuple[str, ...]] = set()  # (kind, way out, …)
        self._down: set[str] = set()

    def __call__(self, event: Event) -> None:
        level, words = self._line(event)
        if self._logger.isEnabledFor(level):
            self._logger.log(level, "%s", words, extra={"facts": facts(event)})

    def _line(self, event: Event) -> tuple[int, str]:
        match event:
            case Dial():
                return self._dial(event)
            case Failover():
                level = self._first("failover", event.source, event.to, event.reason)
                return level, f"now by {event.to}, since {event.source}: {_why(event.reason, event.detail)}"
            case BreakerChange():
                return self._breaker(event)
            case Fetch(error=None):
                how = "from the store" if event.cached else f"from {event.origin or 'no source'}"
                return _DEBUG, f"{event.path} {how}: {event.bytes} bytes in {event.ms:.0f} ms"
            case Fetch():
                level = _DEBUG if event.error in _USUAL else _WARNING
                return level, f"{event.path}: {_why(event.error, event.detail)}"
            case Resume():
                what = f"{event.module}@{event.version} goes on at byte {event.offset}"
                return _INFO, f"{what} by {event.to}, since {event.source} broke off"
            case Alert():
                return _WARNING, describe(event)
            case Attempt():
                words = f"attempt {event.number} of {event.argv0} ended with {event.exit}"
                if event.exit == 0:
                    return _DEBUG, words
                return _WARNING, f"{words}: {_why(event.finding, event.detail)}" if event.finding else words
            case Exit():
                tries = f"{event.attempts} attempt{'s' if event.attempts != 1 else ''}"
                return _INFO, f"ended with {event.status} after {tries}, {event.ms / 1000:.1f} s"
            case Ready():
                also = f", module proxy on {event.modproxy}" if event.modproxy else ""
                return _INFO, f"ready: proxy on {event.proxy}{also}; by {', '.join(event.upstreams)}"
            case _:
                return _DEBUG, f"{event.name}: {facts(event)}"

    def _dial(self, event: Dial) -> tuple[int, str]:
        if event.ok:
            self._told -= {one for one in self._told if one[:2] == ("dial", event.upstream)}
            return _DEBUG, f"{event.target} by {event.upstream} in {event.ms:.0f} ms"
        level = self._first("dial", event.upstream, event.error or "unknown")
        level = _WARNING if level == _INFO else level
        return level, f"{event.target} not by {event.upstream}: {_why(event.error, event.detail)}"

    def _breaker(self, event: BreakerChange) -> tuple[int, str]:
        if event.state == "open":
            level = _DEBUG if event.upstream in self._down else _WARNING
            self._down.add(event.upstream)
            return level, f"way out {event.upstream} is down: {_why(event.reason, event.detail)}"
        if event.state == "closed" and event.upstream in self._down:
            self._down.discard(event.upstream)
            self._told = {one for one in self._told if event.upstream != one[1]}
            return _INFO, f"way out {event.upstream} works again"
        return _DEBUG, f"way out {event.upstream} is {event.state}"

    def _first(self, *what: str) -> int:
        """`info` for what is new, else `debug`."""
        if what in self._told:
            return _DEBUG
        if len(self._told) >= _MOST:
            self._told.clear()
        self._told.add(what)
        return _INFO


def facts(event: Event) -> dict[str, Any]:
    """The event's name and fields by the names of contract §6, with any finding as `finding`."""
    found: dict[str, Any] = {"event": event.name}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if value is not None:
            found[_NAMES.get(field.name, field.name)] = (
                ", ".join(value) if isinstance(value, tuple) else value
            )
    return found


def describe(event: Alert) -> str:
    """An alert in words."""
    if event.signal == "failure_rate":
        numbers = f"{event.value:.0f}% of what goes by {event.upstream} fails, {event.mean:.1f}% is usual"
    else:
        numbers = f"{event.value:.1f} requests/s by {event.upstream}, {event.mean:.1f} are usual"
    return f"{numbers} ({event.sigma:.1f} deviations above)"


def _why(finding: str | None, detail: str | None) -> str:
    return ": ".join(part for part in (finding or "unknown", detail) if part)
