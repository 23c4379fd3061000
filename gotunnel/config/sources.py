"""TOML, environment and flags: each becomes a layer of parsed values with their origins.

Rules:
- A layer is read whole: each problem is kept with its place, one line each, and reading goes on.
- An unknown key, section or GOTUNNEL_SECTION_… variable is a problem that names the nearest known one.
- A variable that is empty counts as not set; a flag that is None (or False) too.
- Nothing here touches a file.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from gotunnel.address import one_line
from gotunnel.config import values
from gotunnel.config.model import KEYS, LISTS, SECTIONS, TABLES, Key, Route, Upstream, rows, variable
from gotunnel.dataclass import dataclass

_TOML_PLACE = r" ?\(at (?:line (\d+), column (\d+)|end of document)\)$"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: a file and line, a variable, an option, or "default"."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


DEFAULT = Origin("default")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where."""

    origin: Origin
    text: str

    def __str__(self) -> str:
        return one_line(f"{self.origin}: {self.text}")


@dataclass(slots=True)
class Layer:
    """What one source gives.  `declared` holds all names and tags, those of wrong upstreams included."""

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[str, Origin] = field(default_factory=dict)
    upstreams: list[Upstream] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    declared: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def take(self, key: Key, value: object, origin: Origin, label: str = "") -> None:
        """Parse `value` for `key`, or note what is wrong with it."""
        try:
            self.values[key.name] = key.kind.parse(value)
            self.origins[key.name] = origin
        except ValueError as error:
            self.problems.append(Problem(origin, f"{label}{error}"))


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that `name` was probably meant to be, or ""."""
    from difflib import get_close_matches

    found = get_close_matches(name[:80], list(known), 1, 0.6)
    return found[0] if found else ""


def read_toml(text: str, path: str) -> Layer:
    """The layer of a TOML text; `path` is what errors call it."""
    import tomllib

    from gotunnel.config.lines import key_lines

    layer = Layer()
    try:
        data = tomllib.loads(text)
    except RecursionError:
        layer.problems.append(Problem(Origin(path), "brackets are nested too deeply"))
        return layer
    except ValueError as error:  # TOMLDecodeError, and int()'s own for a number of 5000 digits
        layer.problems.append(_syntax(str(error), text, path))
        return layer
    _File(layer, path, key_lines(text)).read(data)
    layer.problems.sort(key=lambda problem: problem.origin.line)
    return layer


def _syntax(error: str, text: str, path: str) -> Problem:
    place = re.search(_TOML_PLACE, error)
    what = re.sub(_TOML_PLACE, "", error)
    if place and place[1]:
        return Problem(Origin(path, int(place[1])), f"no TOML: {what} (column {place[2]})")
    last = text.rstrip("\n").count("\n") + 1 if place else 0
    return Problem(Origin(path, last), f"no TOML: {what}")


@dataclass(slots=True)
class _File:
    layer: Layer
    path: str
    lines: Mapping[tuple[str | int, ...], int]

    def origin(self, *path: str | int) -> Origin:
        from gotunnel.config.lines import line_of

        return Origin(self.path, line_of(self.lines, path))

    def problem(self, text: str, *path: str | int) -> None:
        self.layer.problems.append(Problem(self.origin(*path), text))

    def read(self, data: Mapping[str, Any]) -> None:
        for name, value in data.items():
            if name in LISTS:
                self.items(name, value)
            elif name in TABLES:
                self.table((name,), value)
            else:
                self.unknown_section(name)

    def unknown_section(self, name: str) -> None:
        if homes := [key.name.rpartition(".")[0] for key in KEYS.values() if key.name.endswith("." + name)]:
            self.problem(f'the key "{name}" stands in no section; it belongs in [{homes[0]}]', name)
        elif near := nearest(name, SECTIONS):
            self.problem(f"unknown section {_shown(name)}; did you mean {_shown(near)}?", name)
        else:
            known = ", ".join(map(_shown, SECTIONS))
            self.problem(f"unknown section {_shown(name)}; known: {known}", name)

    def table(self, path: tuple[str, ...], value: object) -> None:
        prefix = ".".join(path)
        if not isinstance(value, dict):
            wrong = "double brackets" if isinstance(value, list) else values.quote(value)
            return self.problem(f"{wrong} where a table is wanted; write [{prefix}]", *path)
        for name, inner in value.items():
            dotted = f"{prefix}.{name}"
            if dotted in KEYS:
                origin = self.origin(*path, name)
                self.layer.take(KEYS[dotted], inner, origin, f"[{prefix}] {name}: ")
            elif dotted in TABLES:
                self.table((*path, name), inner)
            else:
                known = [
                    key[len(prefix) + 1 :].partition(".")[0] for key in KEYS if key.startswith(prefix + ".")
                ]
                self.unknown_key(name, f"[{prefix}]", known, (*path, name))
        return None

    def unknown_key(self, name: str, section: str, known: Iterable[str], path: tuple[str | int, ...]) -> None:
        known = list(dict.fromkeys(known))
        near = nearest(name, known)
        homes = [key.rpartition(".")[0] for key in KEYS if key.endswith("." + name)]
        if near:
            hint = f'did you mean "{near}"?'
        elif homes:
            hint = f"it belongs in [{homes[0]}]"
        else:
            hint = f"known: {', '.join(known)}"
        self.problem(f'unknown key "{one_line(name, 80)}" in {section}; {hint}', *path)

    def items(self, section: str, value: object) -> None:
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            return self.problem(f"want [[{section}]], in double brackets, once for each", section)
        for index, item in enumerate(value):
            self.item(section, index, item)
        return None

    def item(self, section: str, index: int, item: Mapping[str, object]) -> None:
        table = rows(LISTS[section])
        mine = Layer()
        for name, value in item.items():
            if name in table:
                mine.take(table[name], value, self.origin(section, index, name), f"[[{section}]] {name}: ")
            else:
                self.unknown_key(name, f"[[{section}]]", table, (section, index, name))
        for key in table.values():
            if key.name not in item and key.default is dataclasses.MISSING:
                self.problem(f'[[{section}]]: the key "{key.name}" is missing ({key.doc})', section, index)
        self.layer.problems += mine.problems
        if section == "upstream":
            tags = item.get("tags")
            names = [item.get("name"), *(tags if isinstance(tags, list) else [])]
            self.layer.declared |= {name for name in names if isinstance(name, str)}
        if all(key.name in mine.values or key.default is not dataclasses.MISSING for key in table.values()):
            made: list[Any] = self.layer.upstreams if section == "upstream" else self.layer.routes
            # origins are numbered as the accepted ones are, so that config.upstreams[n] finds its own
            place = f"{section}.{len(made)}"
            self.layer.origins[place] = self.origin(section, index)
            self.layer.origins |= {f"{place}.{name}": origin for name, origin in mine.origins.items()}
            made.append(LISTS[section](**mine.values))


def _shown(section: str) -> str:
    section = one_line(section, 80)
    return f"[[{section}]]" if section in LISTS else f"[{section}]"


_NO_KEYS = frozenset({"GOTUNNEL_ALERT_SECRET"})  # stands in no file
_VARIABLES = {key.variable: key for key in KEYS.values()}
_TABLE_VARIABLES = {variable(name): name for name in TABLES if "." in name}


def read_environment(environ: Mapping[str, str]) -> Layer:
    """The layer of the variables GOTUNNEL_SECTION_KEY; other GOTUNNEL_ names are not looked at."""
    layer = Layer()
    for name in sorted(environ):
        text, origin = environ[name], Origin(name)
        section, _, rest = name.removeprefix("GOTUNNEL_").partition("_")
        if (
            not name.startswith("GOTUNNEL_")
            or not rest
            or section.lower() not in SECTIONS
            or name in _NO_KEYS
            or not text.strip()
        ):
            continue
        if key := _VARIABLES.get(name):
            layer.take(key, key.kind.text(text), origin)
        elif table := _TABLE_VARIABLES.get(name):
            _read_inline(layer, table, text, origin)
        elif section.lower() in LISTS:
            hint = "GOTUNNEL_VIA holds CHAINs, all else stands in the file"
            layer.problems.append(Problem(origin, f"no variable sets [[{section.lower()}]]; {hint}"))
        else:
            # only the key is compared: the prefix that all share would make anything look near
            head = f"GOTUNNEL_{section}_"
            known = [known.removeprefix(head) for known in _VARIABLES if known.startswith(head)]
            near = nearest(rest, known)
            hint = (
                f"did you mean {head}{near}?" if near else f"known: {', '.join(head + key for key in known)}"
            )
            layer.problems.append(Problem(origin, f"unknown variable; {hint}"))
    return layer


def _read_inline(layer: Layer, table: str, text: str, origin: Origin) -> None:
    """A whole table in one variable: GOTUNNEL_POOL_PROBE='{ every = "10s" }'."""
    value = values.inline(text)
    known = [key.rpartition(".")[2] for key in KEYS if key.startswith(table + ".")]
    if not isinstance(value, dict) or not set(value) <= set(known):
        example = variable(f"{table}.{known[0]}")
        want = f"want a TOML table of {', '.join(known)}, or variables such as {example}"
        layer.problems.append(Problem(origin, want))
        return
    for name, inner in value.items():
        # the variable of one key, if there is one too, sorts behind this one and so replaces its value
        layer.take(KEYS[f"{table}.{name}"], inner, origin, f"{name}: ")


def read_flags(flags: Mapping[str, object]) -> Layer:
    """The layer of options, by dotted name: {"log.level": "debug"}.  Raises KeyError for an unknown one."""
    layer = Layer()
    for name, value in flags.items():
        if value is None or value is False:
            continue
        key = KEYS[name]
        given = key.kind.text(value) if isinstance(value, str) else value
        layer.take(key, given, Origin(key.flag or "--" + name.replace(".", "-").replace("_", "-")))
    return layer


def flags_of(options: object) -> dict[str, object]:
    """The flags of the table that are attributes of a parsed command line, by dotted name."""
    return {
        key.name: getattr(options, key.flag.removeprefix("--").replace("-", "_"), None)
        for key in KEYS.values()
        if key.flag
    }
