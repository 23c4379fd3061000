"""Everybody who listens to the events of a service."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable

from gotunnel.observe.events import Emit, Event

_log = logging.getLogger("gotunnel.service")


class Observed:
    """An `Emit` that passes each event on; one listener that fails doesn't keep it from the others."""

    def __init__(self) -> None:
        self._listeners: list[Emit] = []

    def add(self, listener: Emit) -> Callable[[], None]:
        """Have `listener` hear of everything from now on; what is given back ends that."""
        self._listeners.append(listener)

        def remove() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return remove

    def __call__(self, event: Event) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:
                _log.exception("an event was lost: %s", event.name)
