"""`gotunnel.dataclass` is dataclasses' own in all but the time."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import threading
from collections.abc import Callable
from dataclasses import field
from typing import Any, ClassVar

import pytest

from gotunnel import dataclass as ours


@ours.dataclass(frozen=True, slots=True)
class Base:
    """What others are made of."""

    kind: ClassVar[str] = "base"
    number: int
    words: tuple[str, ...] = ()


@ours.dataclass(frozen=True, slots=True)
class Derived(Base):
    kind: ClassVar[str] = "derived"
    more: list[int] = field(default_factory=list, compare=False, repr=False)


@ours.dataclass(slots=True)
class Loose:
    number: int = 1

    def __post_init__(self) -> None:
        self.number += 1


@ours.dataclass(frozen=True, slots=True, order=True)
class Ordered:
    number: int


def test_objects_are_as_dataclasses_makes_them() -> None:
    one = Derived(1, more=[5])
    assert repr(one) == "Derived(number=1, words=())"
    assert one == Derived(1)
    assert hash(one) == hash(Derived(1))
    assert one != Base(1)
    assert Derived.kind == "derived"
    assert dataclasses.replace(one, number=2) == Derived(2)
    assert dataclasses.asdict(one) == {"number": 1, "words": (), "more": [5]}
    for made in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert made == one
        assert made.more == [5]
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.number = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del one.number
    assert not hasattr(one, "__dict__")
    with pytest.raises(TypeError, match="number"):
        Derived()  # type: ignore[call-arg]
    assert sorted([Ordered(2), Ordered(1)]) == [Ordered(1), Ordered(2)]


def test_a_loose_one_can_be_changed_and_not_hashed() -> None:
    one = Loose()
    assert one.number == 2
    one.number = 7
    assert one == dataclasses.replace(one, number=6)
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)
    with pytest.raises(AttributeError):
        one.other = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["fields", "is_dataclass", "match"])
def test_the_class_may_be_asked_before_there_is_an_object(name: str) -> None:
    @ours.dataclass(frozen=True, slots=True)
    class New(Base):
        last: str = ""

    asked: dict[str, Callable[[], Any]] = {
        "fields": lambda: [f.name for f in dataclasses.fields(New)] == ["number", "words", "last"],
        "is_dataclass": lambda: dataclasses.is_dataclass(New),
        "match": lambda: New.__match_args__ == ("number", "words", "last"),
    }
    assert asked[name]()
    match New(1, (), "x"):
        case New(1, (), last):
            assert last == "x"
        case _:
            pytest.fail("no match")


def test_what_is_unusual_is_theirs_at_once() -> None:
    @ours.dataclass
    class Plain:
        number: int = 1

    @ours.dataclass(frozen=True, slots=True)
    class Own:
        number: int

        def __repr__(self) -> str:
            return "mine"

    assert vars(Plain)["__dataclass_fields__"]
    assert Plain() == Plain(1)
    assert repr(Own(1)) == "mine"
    assert Own(1) == Own(1)


def test_many_threads_may_make_the_first() -> None:
    for _ in range(50):

        @ours.dataclass(frozen=True, slots=True)
        class New:
            number: int

        made: list[New] = []
        start = threading.Barrier(4)

        def work(new: type[New] = New, made: list[New] = made, start: threading.Barrier = start) -> None:
            start.wait()
            made.append(new(1))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert made == [New(1)] * 4


def test_nothing_is_made_before_the_first_object() -> None:
    @ours.dataclass(frozen=True, slots=True)
    class New:
        number: int

    assert not isinstance(vars(New)["__dataclass_fields__"], dict)
    assert New(1).number == 1
    assert isinstance(vars(New)["__dataclass_fields__"], dict)
