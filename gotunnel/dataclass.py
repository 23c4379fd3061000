"""`dataclass` as dataclasses has it, but its methods are made when the first object is.

Rules:
- dataclasses makes them, from a twin of the class, and they are moved over: nothing differs but the time.
- It costs 0.5 to 1 ms a class, since dataclasses executes generated text; a run imports 140 and uses half.
- To type checkers it is dataclasses' own.  What isn't usual (no slots, methods of its own in the place of
  made ones, InitVar) is dataclasses' own at once.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    _UNUSUAL = ("__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__", "__slots__")
    _PSEUDO = ("InitVar", "KW_ONLY")
    _turn = threading.RLock()  # making one makes those it inherits from

    def dataclass(cls=None, /, **options):
        """Decorate with or without options."""
        return _later(cls, options) if cls is not None else lambda cls: _later(cls, options)

    def _later(twin, options):
        body = dict(vars(twin))
        hints = body.get("__annotations__", {})  # none are there where a Python keeps them elsewhere
        usual = hints and options.get("slots") and not any(name in body for name in _UNUSUAL)
        if not usual or not all(isinstance(h, str) and not h.startswith(_PSEUDO) for h in hints.values()):
            return _now(twin, options)
        fields = [name for name, hint in hints.items() if not hint.startswith("ClassVar")]
        inherited = {name for base in twin.__mro__ for name in vars(base).get("__slots__", ())}
        for name in (*fields, "__dict__", "__weakref__"):
            body.pop(name, None)  # a default can't stand where a slot does
        body["__slots__"] = tuple(name for name in fields if name not in inherited)
        made = False

        def make():
            nonlocal made
            with _turn:
                if not made:
                    made = True
                    new = {
                        name: value
                        for name, value in vars(_now(twin, options)).items()
                        if name not in fields and (name not in body or name in stubs)
                    }
                    # last, since another thread waits only while it isn't there
                    new["__init__"] = new.pop("__init__")
                    for name, value in new.items():
                        setattr(cls, name, value)

        def __init__(self, /, *args, **kwargs):
            make()
            cls.__init__(self, *args, **kwargs)

        stubs = {name: _Made(name, make) for name in ("__dataclass_fields__", "__dataclass_params__")}
        stubs |= {"__init__": __init__, "__match_args__": _Made("__match_args__", make)}
        cls = type(twin)(twin.__name__, twin.__bases__, body | stubs)
        cls.__qualname__ = twin.__qualname__
        return cls

    def _now(cls, options):
        import dataclasses

        return dataclasses.dataclass(**options)(cls)

    class _Made:
        """An attribute of the class that is there once its methods are."""

        def __init__(self, name, make):
            self._name, self._make = name, make

        def __get__(self, _, owner):
            self._make()
            return getattr(owner, self._name)
