"""How long a transfer goes on, with a clock that is only a number."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gotunnel.errors import Blame, DialError, NoWayOut, StreamLost
from gotunnel.modproxy.failed import ATTEMPTS, FRUITLESS, SETTLE, WAIT, WORTH, Failed, Patience, not_reached


def refused() -> Failed:
    error = DialError("tcp.refused", "jump: refused", blame=Blame.HOP, hop="jump")
    return not_reached(NoWayOut("origin:443", [("jump", error)]), "")


def broke() -> Failed:
    failed = Failed(
        "http.truncated", "origin: the connection broke: [Errno 104]", again=True, upstream="jump"
    )
    failed.__cause__ = StreamLost("[Errno 104]")
    return failed


def said() -> Failed:
    return Failed("http.server-error", "origin: answered 503", again=True, upstream="jump", answered=503)


def told(patience: Patience, error: Failed, times: list[float], *, down: bool, worked: bool) -> list[bool]:
    return [patience.goes_on(now, error, down=down, worked=worked) for now in times]


FEW = [0.1, 0.2, 0.3, 0.4]
CASES: dict[str, tuple[Callable[[], Failed], bool, bool, list[float], list[bool]]] = {
    "a way that has worked is waited for": (refused, True, True, [0.1] * 40 + [WAIT - 1], [True] * 41),
    "but not for ever": (refused, True, True, [WAIT], [False]),
    "one that never did is not": (refused, True, False, [0.1, 0.2], [True, False]),
    "a break where the way is down too": (broke, True, True, [0.1] * 40 + [WAIT], [True] * 40 + [False]),
    "a break where the way is sound": (broke, False, True, [*FEW, SETTLE], [True] * 4 + [False]),
    "a source that says no": (said, False, True, FEW, [True] * 3 + [False]),
}


@pytest.mark.parametrize("name", CASES)
def test_whose_fault_it_is_says_how_long(name: str) -> None:
    make, down, worked, times, want = CASES[name]
    assert told(Patience(0.0), make(), times, down=down, worked=worked) == want


def test_every_byte_starts_the_wait_anew() -> None:
    patience = Patience(0.0)
    patience.progress(20.0, 1)
    assert patience.goes_on(WAIT + 10, refused(), down=True, worked=True)
    assert not patience.goes_on(WAIT + 20, refused(), down=True, worked=True)


def test_a_source_that_gives_little_each_time_is_given_up_in_the_end() -> None:
    patience, asked = Patience(0.0), 0
    while patience.goes_on(asked, said(), down=False, worked=True):
        asked += 1
        patience.progress(asked, 1)
    assert FRUITLESS < asked < ATTEMPTS
    patience.progress(asked, 10 * WORTH)
    assert patience.goes_on(asked, said(), down=False, worked=True)
