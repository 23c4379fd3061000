"""Which mirror first, and when the next."""

from __future__ import annotations

from gotunnel.modproxy.fetch import Source
from gotunnel.modproxy.mirrors import CEILING, FEW, FLOOR, REST, ZIP, Mirrors

A, B, C = (Source(f"https://{name}.example") for name in "abc")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def measured(mirrors: Mirrors, source: Source, seconds: float) -> None:
    for _ in range(FEW):
        mirrors.answered(source, seconds)


def test_order() -> None:
    clock = Clock()
    mirrors = Mirrors(clock)
    assert mirrors.order([A, B, C]) == (A, B, C)
    measured(mirrors, B, 0.1)
    measured(mirrors, A, 0.5)
    assert mirrors.order([A, B, C]) == (B, A, C)
    measured(mirrors, C, 0.102)  # as good as B: the list decides
    assert mirrors.order([C, B, A]) == (C, B, A)
    mirrors.failed(B)
    assert mirrors.order([A, B, C]) == (C, A, B)
    clock.now += REST
    assert mirrors.order([A, B, C]) == (B, C, A)


def test_hedge() -> None:
    mirrors = Mirrors(Clock())
    assert mirrors.delay(A) == CEILING
    measured(mirrors, A, 0.01)
    assert mirrors.delay(A) == FLOOR
    assert mirrors.delay(A, zip_=True) == ZIP
    measured(mirrors, B, 0.6)
    assert FLOOR < (mirrors.delay(B) or 0) < CEILING
    assert Mirrors(Clock(), "off").delay(A) is None
    assert Mirrors(Clock(), 0.1).delay(A) == 0.1
