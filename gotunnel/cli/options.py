"""The options that name ways out, and where CMD begins.

Rules:
- Options after CMD's name are CMD's: the line is cut before argparse sees it.
- ssh's own letters (-J, -i, -F) mean what they mean to ssh; `--via` and `-J` may be mixed, in order.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from gotunnel.config.load import Loaded, WaysOut
    from gotunnel.upstream.spec import Chain

_GO_WORDS = frozenset({"build", "generate", "get", "install", "list", "mod", "test", "vet", "work"})
_MOD_WORDS = frozenset({"download", "tidy", "vendor"})


def add_ways(parser: argparse.ArgumentParser) -> None:
    """--via and ssh's letters."""
    group = parser.add_argument_group("ways out")
    group.add_argument(
        "--via",
        action="append",
        default=[],
        metavar="CHAIN",
        help="a way out: hops joined by commas, outermost first (bastion, http://proxy:3128,ssh://dev@inner, "
        "socks5h://…, direct:); repeat it for alternates, first preferred",
    )
    group.add_argument(
        "-J", dest="via", action="append", metavar="[USER@]HOST[:PORT],…", help="SSH jump hosts, as in ssh -J"
    )
    group.add_argument(
        "-i", dest="identity", action="append", default=[], metavar="FILE", help="SSH key file"
    )
    group.add_argument(
        "-F", dest="ssh_config", metavar="FILE", help="SSH configuration instead of ~/.ssh/config"
    )
    group.add_argument("--known-hosts", metavar="FILE", help="known_hosts instead of the SSH configuration's")


def as_go(words: Sequence[str]) -> list[str]:
    """`mod tidy` and `tidy` as the `go mod tidy` that was meant; [] where the first word is none of go's."""
    if words and words[0] in _GO_WORDS:
        return ["go", *words]
    return ["go", "mod", *words] if words and words[0] in _MOD_WORDS else []


def split_command(
    parser: argparse.ArgumentParser, command: str, args: Sequence[str]
) -> tuple[list[str], list[str]]:
    """(our options, CMD and its arguments): CMD begins after `--`, or at the first word that is no option."""
    parser = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices[command]
    index = 0
    while index < len(args):
        word = args[index]
        if word == "--":
            return list(args[:index]), list(args[index + 1 :])
        if not word.startswith("-") or word == "-":
            break
        index += 2 if _takes_next(parser, word) else 1
    return list(args[:index]), list(args[index:])


def _takes_next(parser: argparse.ArgumentParser, word: str) -> bool:
    """Is the word after this option its value?"""
    name, equals, _ = word.partition("=")
    if word.startswith("--"):
        if equals:
            return False
        found = [a for o, a in parser._option_string_actions.items() if o.startswith(name)]
        exact = parser._option_string_actions.get(name)
        return any(a.nargs is None for a in ([exact] if exact else found))
    for at, letter in enumerate(word[1:], 2):  # letters may be joined: -qJ HOST, -JHOST
        action = parser._option_string_actions.get(f"-{letter}")
        if action is None or action.nargs is None:
            return action is not None and at == len(word)
    return False


def ssh_defaults(args: argparse.Namespace, chain: Chain) -> Chain:
    """`chain` with -i, -F and --known-hosts on each ssh hop that has none of its own."""
    from gotunnel.upstream.spec import Chain, SshHop

    identity = tuple(os.path.expanduser(path) for path in args.identity)
    config = os.path.expanduser(args.ssh_config or "")
    known = os.path.expanduser(args.known_hosts or "")
    return Chain(
        tuple(
            replace(
                hop,
                identity=hop.identity or identity,
                config=hop.config or config,
                known_hosts=hop.known_hosts or known,
            )
            if isinstance(hop, SshHop)
            else hop
            for hop in chain.hops
        )
    )


def load_ways(args: argparse.Namespace) -> tuple[Loaded, WaysOut]:
    """The configuration and the ways out for a command line.  Raises ConfigError."""
    from gotunnel.config.load import load, resolve_upstreams
    from gotunnel.config.sources import flags_of

    loaded = load(flags_of(args), os.environ, path=args.config)
    ways = resolve_upstreams(loaded.config, os.environ, via=args.via, file=loaded.path)
    if not args.quiet:
        _warn_of_passwords(args.via)
    if ways.nested and not ways.configured:
        # inside another gotunnel, and nothing else named: its endpoint, never a silent direct connection
        return loaded, _outer(ways)
    return loaded, ways


def log_as_configured(loaded: Loaded) -> None:
    """What [log] and its variables ask for, where they do; the command line's options are in it already."""
    from gotunnel.config.sources import DEFAULT

    if any(loaded.origins[f"log.{key}"] != DEFAULT for key in ("level", "format")):
        from gotunnel.observe.logs import Format, set_up

        log = loaded.config.log
        level = log.level if loaded.origins["log.level"] != DEFAULT else "warning"
        set_up(cast("Format", log.format), level, os.environ)


def _warn_of_passwords(chains: list[str]) -> None:
    from gotunnel.cli.console import tell
    from gotunnel.upstream.spec import parse_chain

    if any(parse_chain(chain).has_typed_password for chain in chains):
        tell("a password typed to --via can be seen in ps; give it by ?password_file= or ?password_env=")


def _outer(ways: WaysOut) -> WaysOut:
    from gotunnel.config.model import Upstream

    return replace(
        ways, pool=(Upstream("outer gotunnel", os.environ["GOTUNNEL_PROXY"]),), source="GOTUNNEL_PROXY"
    )
