"""Events: frozen dataclasses, one for each name of contract §6, written as JSON lines.

Rules:
- Lower layers get an `Emit` (any callable that takes an Event) and import nothing else from here.
- `reason` and `error` are ids of the catalogue; `detail` says it in words.  Secrets never appear:
  names of upstreams are their redacted chains.
- A line has every field that the contract names for its event, null where there is nothing to say; what is
  more (`detail`, why a breaker opened, a fetch's error) stands in it only where it is known.
- A file that can't be written (a full disk, a reader that has gone) ends the log, never the tunnel.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import sys
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import IO, Any, ClassVar

from gotunnel.address import redact
from gotunnel.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """Base; `name` is the value of `event` in the line."""

    name: ClassVar[str] = ""


Emit = Callable[[Event], None]

RUN: ContextVar[str] = ContextVar("run", default="")
"""On whose behalf something happens: the id of a run that uses a shared service, "" where it is its own."""


@dataclass(frozen=True, slots=True)
class Ready(Event):
    """The local endpoint listens; `proxy` and `modproxy` are its addresses without the secret."""

    name: ClassVar[str] = "ready"
    proxy: str
    modproxy: str | None
    upstreams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dial(Event):
    """One way out was tried for one target; `ms` from the start of the try."""

    name: ClassVar[str] = "dial"
    upstream: str
    target: str
    ms: float
    ok: bool
    error: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Failover(Event):
    """Traffic moved from one way out to another; `source` is written as `from`."""

    name: ClassVar[str] = "failover"
    source: str
    to: str
    target: str
    reason: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class BreakerChange(Event):
    """`state` is closed, open or half-open."""

    name: ClassVar[str] = "breaker"
    upstream: str
    state: str
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Resume(Event):
    """A body that broke goes on from `offset` (bytes) by another way out; `source` is written as `from`."""

    name: ClassVar[str] = "resume"
    module: str
    version: str
    offset: int
    source: str
    to: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Fetch(Event):
    """A file of the module proxy was asked for; `origin` is written as `source`: who gave it, "" for none.

    `ms` from the question to the answer's end, `cached`: it came from the store.
    """

    name: ClassVar[str] = "fetch"
    path: str
    origin: str
    upstream: str
    bytes: int
    ms: float
    cached: bool
    error: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt(Event):
    """CMD ended once; `finding` is the id read from its output, if it failed."""

    name: ClassVar[str] = "attempt"
    number: int
    argv0: str
    exit: int
    finding: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Alert(Event):
    """A way out carries far more, or fails far more often, than it used to.

    `signal` is request_rate (per second) or failure_rate (percent); `value` is what it is now, `mean` what it
    was, `sigma` how many deviations lie between them.
    """

    name: ClassVar[str] = "alert"
    signal: str
    value: float
    mean: float
    sigma: float
    upstream: str


@dataclass(frozen=True, slots=True)
class Exit(Event):
    """The run is over."""

    name: ClassVar[str] = "exit"
    status: int
    attempts: int
    ms: float


_KEYS = {"source": "from", "origin": "source"}
# fields of the contract that may be None
_ALWAYS = {(Ready, "modproxy"), (Dial, "error"), (Attempt, "finding")}
# not by Event.__subclasses__(): slots=True makes a second class, and the first is there until it is collected
_KINDS: dict[object, type[Event]] = {
    kind.name: kind for kind in (Ready, Dial, Failover, BreakerChange, Resume, Fetch, Attempt, Alert, Exit)
}


def as_line(event: Event, run: str, now: datetime.datetime) -> str:
    """The JSON line of `event`, without its newline."""
    record: dict[str, object] = {
        "ts": now.astimezone(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event": event.name,
        "run": run,
    }
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        if value is None and (type(event), field.name) not in _ALWAYS:
            continue
        if isinstance(value, str):
            value = redact(value)
        elif isinstance(value, tuple):
            value = [redact(item) for item in value]
        elif isinstance(value, float):
            value = round(value, 1)
        record[_KEYS.get(field.name, field.name)] = value
    return json.dumps(record, ensure_ascii=False)


def from_record(record: Mapping[str, object]) -> Event | None:
    """The event of a line's object; None for what this version doesn't know."""
    kind = _KINDS.get(record.get("event"))
    if kind is None:
        return None
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        value = record.get(_KEYS.get(field.name, field.name))
        if value is not None:
            values[field.name] = tuple(value) if isinstance(value, list) else value
        elif "None" in str(field.type):
            values[field.name] = None
    try:
        return kind(**values)
    except TypeError:
        return None


class EventLog:
    """Writes events to a file, one flushed line each; `-` is standard error.

    Raises OSError where the file can't be opened for appending.  `on_broken` hears once, in words, why the
    log ended before the run did.
    """

    def __init__(self, path: str, run: str, on_broken: Callable[[str], None] | None = None) -> None:
        self._run = run
        self._on_broken = on_broken
        self._lock = threading.Lock()
        self._owned = path != "-"
        # what argv holds may be no UTF-8
        self._file: IO[str] | None = (
            open(path, "a", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
            if self._owned
            else sys.stderr  # None where it was closed before we came
        )

    def __call__(self, event: Event) -> None:
        line = as_line(event, self._run, datetime.datetime.now(datetime.UTC))
        with self._lock:
            if self._file is None:
                return
            try:
                self._file.write(line + "\n")
                self._file.flush()
            except OSError as error:
                self._drop()
                if self._on_broken is not None:
                    self._on_broken(error.strerror or str(error))

    def close(self) -> None:
        """Close the file; events after this are dropped."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        file, self._file = self._file, None
        if self._owned and file is not None:
            with contextlib.suppress(OSError):  # closing writes what is buffered
                file.close()
