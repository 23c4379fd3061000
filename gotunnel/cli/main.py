"""The parser and the way from errors to one line and an exit status (contract §1, §2).

Rules:
- Nothing heavy is imported before a command is known: `gotunnel --help` must feel instant.
- A GotunnelError is one line and its status; an interrupt is 130; anything else is a bug and shows its trace,
  secrets masked (`guarded`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import NoReturn

from gotunnel import __version__
from gotunnel.cli.guarded import keep_memory_private, mask_crashes
from gotunnel.errors import CommandError, GotunnelError, UsageError

_EPILOG = """examples:
  gotunnel run -J dev@bastion -- go mod tidy
  gotunnel run --via http://proxy:3128 --via ssh://dev@bastion:443 -- go build
  gotunnel demo
"""


class Parser(argparse.ArgumentParser):
    """argparse with our form of an error: one line, status 2."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see: {self.prog} --help")


# command -> (module, what it does); only the module of the command at hand is imported
COMMANDS = {
    "run": ("gotunnel.cli.run", "runs CMD through the ways out; repeats it when only the network failed"),
    "serve": ("gotunnel.cli.serve", "the same engine in the foreground for ever: for systemd, for a team"),
    "env": ("gotunnel.cli.env", 'prints the environment for a running serve: eval "$(gotunnel env)"'),
    "status": ("gotunnel.cli.status", "what the running serve is doing"),
    "service": ("gotunnel.cli.service", "installs, removes and shows the systemd units of serve"),
    "connect": ("gotunnel.cli.connect", "joins standard input and output to HOST:PORT: an ssh ProxyCommand"),
    "doctor": ("gotunnel.cli.doctor", "finds out why Go can't reach its modules, and what mends it"),
    "probe": ("gotunnel.cli.probe", "times each phase of a request over each way out, side by side"),
    "explain": ("gotunnel.cli.explain", "reads a log of go, git or CI: what failed, why, and what mends it"),
    "cache": ("gotunnel.cli.cache", "looks after the module store; carries a project to an offline machine"),
    "config": ("gotunnel.cli.config", "shows and checks the configuration"),
    "replace": ("gotunnel.cli.replace", "a local directory stands in for a module, and go.mod stays clean"),
    "init": ("gotunnel.cli.init", "asks a few questions, tests each answer, writes a configuration file"),
    "completion": ("gotunnel.cli.completion", "prints a completion script for bash, zsh or fish"),
    "demo": ("gotunnel.cli.demo", "shows a failover on this machine: no configuration, no network, no root"),
}
HOLD_SECRETS = ("run", "serve", "connect")  # for as long as they live


def build_parser(*commands: str) -> Parser:
    """The command line, with the options of `commands` (the others are named only)."""
    parser = Parser(
        prog="gotunnel",
        description="Makes Go modules work on any network: runs CMD over ways out that fail over.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gotunnel {__version__}")
    _add_global(parser, top=True)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, (path, words) in COMMANDS.items():
        sub = subparsers.add_parser(name, help=words, description=words, allow_abbrev=False)
        if name in commands:
            module = import_module(path)
            sub.usage = getattr(module, "USAGE", None)
            module.add_arguments(sub)
            for one in _with_subcommands(sub):
                _add_global(one, top=False)
            sub.set_defaults(main=module.main)
    return parser


def _with_subcommands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def _add_global(parser: argparse.ArgumentParser, *, top: bool) -> None:
    # on a subcommand an option not given must not undo what stood before the subcommand
    default = None if top else argparse.SUPPRESS
    parser.add_argument("--config", metavar="FILE", default=default, help="configuration file")
    parser.add_argument(
        "--log-level", choices=("error", "warning", "info", "debug"), default=default, help="default: info"
    )
    parser.add_argument("--log-format", choices=("text", "json"), default=default)
    parser.add_argument(
        "-q", "--quiet", action="store_true", default=False if top else argparse.SUPPRESS, help="errors only"
    )


def _command_at(args: Sequence[str]) -> int:
    """Where the command stands in `args`; `gotunnel go mod tidy` is answered with the right spelling."""
    index = 0
    while index < len(args) and args[index].startswith("-"):
        index += 2 if args[index] in ("--config", "--log-level", "--log-format") else 1
    if index >= len(args) or args[index] in COMMANDS:
        return min(index, len(args))
    import shlex
    from difflib import get_close_matches
    from shutil import which

    from gotunnel.cli.options import as_go

    word = args[index]
    near = get_close_matches(word, COMMANDS, 1)
    meant = as_go(args[index:])
    if meant or which(word) is not None:
        right = shlex.join(meant or args[index:])
        raise UsageError(f"{word!r} is no command of gotunnel; write: gotunnel run -- {right}")
    hint = f"did you mean {near[0]!r}?" if near else f"commands: {', '.join(COMMANDS)}"
    raise UsageError(f"{word!r} is no command; {hint}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status."""
    try:
        _open_standard_descriptors()
        mask_crashes()
        status = _dispatch(list(sys.argv[1:] if argv is None else argv))
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except GotunnelError as error:
        from gotunnel.cli.console import tell

        tell(str(error))
        return error.status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # python flushes standard output once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141  # 128 + SIGPIPE


def entry(argv: Sequence[str] | None = None) -> int:
    """The program: `main`, and its end.

    A daemon thread (`tasks.in_thread`) that is in native code when Python ends is unwound there by
    pthread_exit, and Rust (cryptography, bcrypt, obstore) answers by abort(3): before Python 3.14 the status
    would be SIGABRT's.  So where threads are left the process ends without Python's own end.
    """
    status = main(argv)
    threading = sys.modules.get("threading")
    if threading is not None and threading.active_count() > 1:
        if (logging := sys.modules.get("logging")) is not None:
            logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(status)
    return status


def _open_standard_descriptors() -> None:
    """Started with 0, 1 or 2 closed (`<&-`) the next sockets would land there and be taken for them."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _dispatch(args: list[str]) -> int:
    parser = build_parser()
    if not args:
        parser.print_help(sys.stderr)
        return 2
    if args[0] == "help":  # as go and git have it
        args = [*args[1:2], "--help"]
    at = _command_at(args)
    command: list[str] = []
    if at < len(args):
        parser = build_parser(args[at])
        if args[at] == "run":
            from gotunnel.cli.options import split_command

            options_of_run, command = split_command(parser, "run", args[at + 1 :])
            args = [*args[: at + 1], *options_of_run]
    options, unknown = parser.parse_known_args(args)
    if unknown:
        raise _unknown(parser, options.command, unknown)
    if options.command is None:
        raise UsageError(f"no command; commands: {', '.join(COMMANDS)}")
    if options.command == "run":
        options.argv = _sure(command)
    if options.command in ("run", "serve", "cache"):
        from gotunnel.cli.env import undo

        undo(os.environ)
    _set_up_log(options)
    if options.command in HOLD_SECRETS:
        keep_memory_private()
    call: Callable[[argparse.Namespace], int] = options.main
    return call(options)


def _sure(command: list[str]) -> list[str]:
    """`command`, unless its `go` was forgotten.  Raises CommandError."""
    from gotunnel.cli.options import as_go

    if meant := as_go(command):
        import shlex
        from shutil import which

        if which(command[0]) is None:
            words = f"{command[0]}: command not found; did you mean: gotunnel run -- {shlex.join(meant)}"
            raise CommandError(words, 127)
    return command


def _unknown(parser: Parser, command: str | None, words: list[str]) -> UsageError:
    """What to say of options that nobody has; argparse would name the help of no command."""
    from difflib import get_close_matches

    if command:
        subparsers = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
        parser = subparsers.choices[command]
    near = get_close_matches(words[0].partition("=")[0], parser._option_string_actions, 1, 0.75)
    hint = f"did you mean {near[0]}?" if near else f"see: {parser.prog} --help"
    return UsageError(f"unrecognized arguments: {' '.join(words)}; {hint}")


def _set_up_log(options: argparse.Namespace) -> None:
    """Python's own logging, where it is wanted: it costs a few milliseconds to import."""
    if options.log_level is not None or options.log_format is not None:
        from gotunnel.observe.logs import set_up

        set_up(options.log_format or "text", options.log_level or "warning", os.environ)
    else:
        import logging

        logging.getLogger().addHandler(logging.NullHandler())  # else Python writes raw lines to stderr
