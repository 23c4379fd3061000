"""`gotunnel config show|check|path`: what is configured, whether it is right, where it stands.

Rules:
- `show` prints what a run started here would use, ways out included, each value with its source.
- Nothing secret is printed: every value goes through its kind's `show`.
- `check` prints every problem, one line each; status 0 or 78.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping

from gotunnel.address import one_line
from gotunnel.config import load
from gotunnel.config.model import KEYS, Config, Key, Route, Upstream, rows
from gotunnel.config.sources import Origin, flags_of
from gotunnel.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `gotunnel config`."""
    commands = parser.add_subparsers(dest="config_command", metavar="show|check|path", required=True)
    show = commands.add_parser("show", help="the effective configuration with the source of each value")
    show.add_argument("--json", action="store_true", help="as one JSON object")
    commands.add_parser("check", help="OK, or everything that is wrong, one line each (status 78)")
    commands.add_parser("path", help="the file in use, or where one is looked for (status 1)")


def main(args: argparse.Namespace) -> int:
    """Run the command; `args.config` is the global `--config`.  Returns the exit status."""
    path: str | None = getattr(args, "config", None)
    try:
        if args.config_command == "path":
            return _path(os.environ, path)
        if args.config_command == "check":
            return _check(flags_of(args), os.environ, path)
        return _show(flags_of(args), os.environ, path, as_json=args.json)
    except ConfigError as error:
        print(f"gotunnel: {error}", file=sys.stderr)
        return error.status


def _path(environ: Mapping[str, str], path: str | None) -> int:
    file = load.find(environ, path)
    if file is None:
        print("gotunnel: no configuration file; looked for:", file=sys.stderr)
        for candidate in load.search_list(environ):
            print(f"  {one_line(candidate)}", file=sys.stderr)
        return 1
    # a file's name is bytes: print would refuse one that is no UTF-8
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(file) + b"\n")
    sys.stdout.buffer.flush()
    return 0


def _check(flags: Mapping[str, object], environ: Mapping[str, str], path: str | None) -> int:
    problems: list[str] = []
    file = None
    try:
        loaded, found = load.examine(flags, environ, path=path)
        file = loaded.path
        problems += map(str, found)
        problems += _missing_files(loaded)
        problems += _wrong_store(loaded)
        load.resolve_upstreams(loaded.config, environ, file=loaded.path)
    except ConfigError as error:
        problems.append(str(error))
    for problem in problems:
        print(problem)
    if not problems:
        print(f"OK: {one_line(file)}" if file else "OK: no file, defaults and environment")
    return ConfigError.status if problems else 0


def _missing_files(loaded: load.Loaded) -> Iterator[str]:
    """Files that the configuration names and that can't be read now."""
    listen = loaded.config.listen
    named = {
        "listen.auth": listen.auth.password_file,
        "listen.tls.cert": listen.tls.cert,
        "listen.tls.key": listen.tls.key,
        "listen.tls.client_ca": listen.tls.client_ca,
    }
    for name, file in named.items():
        if file and not (os.path.isfile(file) and os.access(file, os.R_OK)):
            section, _, key = name.rpartition(".")
            what = f"[{section}] {key}: {file} is no readable file; create it, or name another"
            yield one_line(f"{loaded.origins[name]}: {what}")


def _wrong_store(loaded: load.Loaded) -> Iterator[str]:
    """What only the store itself knows of its URL."""
    from gotunnel.storage.open import parse_url

    try:
        if url := loaded.config.cache.url:
            parse_url(url)
    except ConfigError as error:
        yield one_line(f"{loaded.origins['cache.url']}: [cache] url: {error}")


def _show(flags: Mapping[str, object], environ: Mapping[str, str], path: str | None, *, as_json: bool) -> int:
    loaded = load.load(flags, environ, path=path)
    ways = load.resolve_upstreams(loaded.config, environ, file=loaded.path)
    view = _View(loaded, ways)
    print(json.dumps(view.as_data(), indent=2) if as_json else "\n".join(view.as_lines()))
    return 0


class _View:
    """The effective configuration for people (TOML) and for programs (JSON)."""

    def __init__(self, loaded: load.Loaded, ways: load.WaysOut) -> None:
        self.path, self.config, self.ways = loaded.path, loaded.config, ways
        self.origins = loaded.origins

    def items(self, section: str) -> Iterator[dict[str, tuple[object, str]]]:
        """For each upstream or route: its keys with what is shown and the source."""
        table: tuple[Upstream, ...] | tuple[Route, ...] = (
            self.ways.pool if section == "upstream" else self.ways.routes
        )
        mine: tuple[Upstream, ...] | tuple[Route, ...] = (
            self.config.upstreams if section == "upstream" else self.config.routes
        )
        for number, item in enumerate(table):
            shown: dict[str, tuple[object, str]] = {}
            for name, key in rows(type(item)).items():
                origin = self.origins.get(f"{section}.{number}.{name}", Origin("default"))
                if number >= len(mine):  # not from the configuration but from where the ways out came
                    origin = Origin(self.ways.source if section == "upstream" else "NO_PROXY")
                shown[name] = (key.kind.show(getattr(item, name)), str(origin))
            yield shown

    def as_data(self) -> dict[str, object]:
        """One JSON object: lists of upstreams and routes, and each section's keys with their sources."""
        data: dict[str, object] = {"file": self.path, "ways_out": self.ways.source}
        for section in ("upstream", "route"):
            data[section] = [
                {name: {"value": value, "source": source} for name, (value, source) in item.items()}
                for item in self.items(section)
            ]
        for upstream, shown in zip(self.ways.pool, data["upstream"], strict=True):  # type: ignore[call-overload]
            shown["names_resolve"] = "far end" if resolves_far(upstream) else "here"
        for key in KEYS.values():
            section, _, name = key.name.partition(".")
            place = data.setdefault(section, {})
            assert isinstance(place, dict)
            place[name] = {"value": self.value(key), "source": str(self.origins[key.name])}
        return data

    def value(self, key: Key) -> object:
        """What is shown of a key's value."""
        return key.kind.show(value_of(self.config, key.name))

    def as_lines(self) -> Iterator[str]:
        """TOML, each line with a comment that names its source."""
        yield f"# file: {one_line(self.path) if self.path else 'none'}"
        for section in ("upstream", "route"):
            for number, item in enumerate(self.items(section)):
                yield from ("", f"[[{section}]]")
                for name, (value, source) in item.items():
                    if name == "via":
                        far = resolves_far(self.ways.pool[number])
                        source += f"; names resolve {'at the far end' if far else 'here'}"
                    yield _line(name, value, source)
        section = ""
        for key in KEYS.values():
            head, _, name = key.name.partition(".")
            if head != section:
                section = head
                yield from ("", f"[{section}]")
            yield _line(name, self.value(key), str(self.origins[key.name]))


def value_of(config: Config, name: str) -> object:
    """The value of a dotted name."""
    value: object = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def resolves_far(upstream: Upstream) -> bool:
    """True where the names of targets are resolved at the far end of this way out."""
    from gotunnel.upstream.spec import parse_chain

    if upstream.via.startswith("srv://"):
        # the service's name tells the kind of hop: _gotunnel-ssh._tcp.…
        return upstream.via.partition(".")[0].rpartition("-")[2] not in ("direct", "socks4", "socks5")
    return parse_chain(upstream.via).resolves_far


def _line(name: str, value: object, source: str) -> str:
    return f"{f'{name} = {_toml(value)}':<40}  # {one_line(source)}"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # a JSON string, number or boolean is the same in TOML; what JSON leaves as it is, `values` refuses
    return json.dumps(value, ensure_ascii=False)
