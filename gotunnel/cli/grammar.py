"""The command line as data, read from the argparse parsers: what completion and the man page are made of.

Rules:
- Nothing is said twice: a new option of a command is in the scripts and the page by itself.
- What `Values` a word takes follows from its metavar: FILE, DIR, PATH and CHAIN mean something.
"""

from __future__ import annotations

import argparse
import enum

from gotunnel.dataclass import dataclass


class Values(enum.Enum):
    """What a value is, as far as a shell can help."""

    NONE = "none"
    CHOICES = "choices"
    FILE = "file"
    DIRECTORY = "directory"
    HOST = "host"


@dataclass(frozen=True, slots=True)
class Option:
    """An option; `metavar` is "" for a switch."""

    names: tuple[str, ...]
    metavar: str
    choices: tuple[str, ...]
    help: str

    @property
    def values(self) -> Values:
        """What stands behind it."""
        return _values(self.metavar, self.choices)


@dataclass(frozen=True, slots=True)
class Word:
    """A positional argument; `many` where several may stand, `optional` where it may be missing."""

    metavar: str
    choices: tuple[str, ...]
    help: str
    many: bool
    optional: bool

    @property
    def values(self) -> Values:
        """What it is."""
        return _values(self.metavar, self.choices)


@dataclass(frozen=True, slots=True)
class Command:
    """A command with all that may follow; `path` is how it is called: ("gotunnel", "cache", "info").

    `runs`: another command line follows.
    """

    path: tuple[str, ...]
    help: str
    usage: str
    options: tuple[Option, ...]
    words: tuple[Word, ...]
    commands: tuple[Command, ...]
    runs: bool = False

    @property
    def name(self) -> str:
        """The last word of `path`."""
        return self.path[-1]


def grammar() -> Command:
    """All of `gotunnel`.  Imports every command."""
    from gotunnel.cli.main import COMMANDS, build_parser

    return _command(build_parser(*COMMANDS), ("gotunnel",), "")


def everything(command: Command) -> list[Command]:
    """`command` and all below it."""
    return [command, *(one for sub in command.commands for one in everything(sub))]


def _command(parser: argparse.ArgumentParser, path: tuple[str, ...], words: str) -> Command:
    options, arguments, commands = [], [], []
    for action in parser._actions:
        if action.help == argparse.SUPPRESS:
            continue
        choices = tuple(str(one) for one in action.choices or ())
        if isinstance(action, argparse._SubParsersAction):
            told = {choice.dest: choice.help or "" for choice in action._choices_actions}
            commands += [
                _command(sub, (*path, name), told.get(name, "")) for name, sub in action.choices.items()
            ]
        elif action.option_strings:
            metavar = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
            options.append(Option(tuple(action.option_strings), metavar, choices, _help(parser, action)))
        else:
            metavar = str(action.metavar or action.dest)
            many, optional = action.nargs in ("*", "+"), action.nargs in ("*", "?")
            arguments.append(Word(metavar, choices, _help(parser, action), many, optional))
    usage = parser.usage or ""
    return Command(
        path,
        words,
        usage,
        tuple(options),
        tuple(arguments),
        tuple(commands),
        runs=path == ("gotunnel", "run"),
    )


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    text = action.help or ""
    return text % {**vars(action), "prog": parser.prog} if "%" in text else text


def _values(metavar: str, choices: tuple[str, ...]) -> Values:
    if choices:
        return Values.CHOICES
    words = metavar.replace("[", " ").replace("]", " ").replace("=", " ").replace("|", " ").split()
    if "DIR" in words:
        return Values.DIRECTORY
    if "FILE" in words or "PATH" in words:
        return Values.FILE
    return Values.HOST if "CHAIN" in words or "HOST" in words else Values.NONE
