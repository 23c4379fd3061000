"""The man page gotunnel(1), made from the parsers: `python -m gotunnel.cli.manpage [FILE]`.

Rules:
- Plain man(7), ASCII only: mandoc, groff and a terminal with LANG=C all show it.
- No date and nothing of this machine: the same source gives the same bytes.
- What is here in words, and not from the parsers, is the contract's: exit status, environment, files.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from gotunnel import __version__

if TYPE_CHECKING:
    from gotunnel.cli.grammar import Command, Option

_STATUS = (
    ("CMD's own", "when CMD ran; 128+N where signal N ended it"),
    ("2", "the command line is wrong"),
    ("69", "no way out works; for env and status: no serve runs"),
    ("78", "the configuration is wrong"),
    ("124", "--timeout has passed"),
    ("126, 127", "CMD can't be run, or isn't found"),
    ("130", "interrupted"),
    ("1", "of doctor: findings; of probe: no way out reached every URL; of explain: no failure recognised"),
)
_ENVIRONMENT = (
    ("GOTUNNEL_CONFIG", "the configuration file"),
    ("GOTUNNEL_VIA", "ways out, separated by spaces, where neither --via nor the configuration names any"),
    ("GOTUNNEL_SSH_KEY, GOTUNNEL_SSH_KNOWN_HOSTS", "the text of a key and of known hosts, for CI"),
    ("GOTUNNEL_SECTION_KEY", "any key of the configuration, such as GOTUNNEL_POOL_STRATEGY"),
    ("HTTPS_PROXY, NO_PROXY", "the way out, and the routes past it, where nothing else names any"),
    ("NO_COLOR", "no colour and no progress"),
)
_FILES = (
    ("$XDG_CONFIG_HOME/gotunnel/config.toml", "the user's configuration"),
    ("/etc/gotunnel/config.toml", "the machine's configuration"),
    ("~/.ssh/config", "what ssh:// hops follow"),
    ("go.work", "where replace keeps its stand-ins"),
)
_CHAINS = (
    ("[user@]host[:port], ssh://…", "an SSH jump host, or an alias of ~/.ssh/config"),
    ("http://[user:pw@]host:port, https://…", "an upstream proxy, by CONNECT"),
    ("socks5://, socks5h://, socks4://, socks4a://", "a SOCKS proxy; h and a resolve names at its end"),
    ("direct:, direct:?interface=IF, direct:?source=ADDRESS", "the machine's own network"),
)
_EXAMPLES = (
    "gotunnel run -J dev@bastion -- go mod tidy",
    "gotunnel run --via http://proxy.office:3128 --via ssh://dev@bastion:443 -- go build ./...",
    "gotunnel doctor",
    "gotunnel demo",
)


def page() -> str:
    """The whole page, as man(7)."""
    from gotunnel.cli.grammar import grammar

    return "".join(f"{line}\n" for line in _lines(grammar()))


def _lines(root: Command) -> Iterator[str]:
    yield '.\\" made from the parsers by: python -m gotunnel.cli.manpage'
    yield f'.TH GOTUNNEL 1 "" "gotunnel {__version__}" "User Commands"'
    yield from (".SH NAME", "gotunnel \\- makes Go modules work on any network")
    yield from (".SH SYNOPSIS", ".B gotunnel", ".RI [ options ]", ".I COMMAND", "[...]")
    yield ".SH DESCRIPTION"
    yield _text(
        "Opens ways out of this network (SSH jump hosts, proxies, and chains of them), and runs the go"
    )
    yield _text("command through them: with failover, a module proxy that resumes and verifies, and repeats")
    yield _text("where only the network failed.")
    yield ".SH OPTIONS"
    yield from _arguments(root)
    yield ".SH COMMANDS"
    for command in root.commands:
        yield from _section(command)
    yield ".SH WAYS OUT"
    yield _text("A CHAIN is hops joined by commas, outermost first; a literal comma is %2C.")
    yield from _table(_CHAINS)
    yield ".SH EXIT STATUS"
    yield from _table(_STATUS)
    yield ".SH ENVIRONMENT"
    yield from _table(_ENVIRONMENT)
    yield ".SH FILES"
    yield from _table(_FILES)
    yield from (".SH EXAMPLES", ".nf")
    yield from map(_text, _EXAMPLES)
    yield from (".fi", ".SH SEE ALSO", ".BR ssh (1),", ".BR ssh_config (5),", ".BR git (1)")


def _section(command: Command) -> Iterator[str]:
    yield f".SS {_text(' '.join(command.path[1:]))}"
    yield from (".B " + _text(_usage(command)), ".br", _body(command.help))
    yield from _arguments(command)
    for sub in command.commands:
        yield from _section(sub)


def _usage(command: Command) -> str:
    """One line; in words of our own where argparse would wrap it."""
    if command.usage:
        return command.usage
    words = [*command.path, *(["[options]"] if command.options else [])]
    words += ["COMMAND"] if command.commands else []
    for word in command.words:
        name = "|".join(word.choices) or word.metavar
        words.append(f"[{name}]" if word.optional else name)
        words[-1] += "..." if word.many else ""
    return " ".join(words)


def _arguments(command: Command) -> Iterator[str]:
    for option in command.options:
        if "--help" in option.names or _is_global(option, command):
            continue
        value = f" \\fI{_text('|'.join(option.choices) or option.metavar)}\\fR" if option.metavar else ""
        yield from (".TP", ", ".join(f"\\fB{_text(name)}\\fR{value}" for name in option.names))
        yield _body(option.help)
    for word in command.words:
        if word.help:
            yield from (".TP", f"\\fI{_text(word.metavar)}\\fR", _body(word.help))


def _is_global(option: Option, command: Command) -> bool:
    """Those are told once."""
    everywhere = {"--config", "--log-level", "--log-format", "--quiet"}
    return len(command.path) > 1 and not everywhere.isdisjoint(option.names)


def _table(rows: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, words in rows:
        yield from (".TP", f".B {_text(name)}", _body(words))


def _body(text: str) -> str:
    """A description; an empty one leaves its place empty."""
    return _text(_sentence(text)) if text else "\\&"


def _sentence(text: str) -> str:
    first, space, rest = text.partition(" ")
    # a name of something keeps its letters
    first = first if "_" in first or "/" in first or "." in first else first[:1].upper() + first[1:]
    return f"{first}{space}{rest}."


def _text(text: str) -> str:
    """`text` as roff shows it as it is."""
    text = text.replace("…", "...").replace("\\", "\\e").replace("-", "\\-").replace("·", "|")
    text = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in text)
    return f"\\&{text}" if text.startswith((".", "'")) else text


def main() -> int:
    """Write to the file that is named, or to standard output."""
    if len(sys.argv) > 2 or sys.argv[1:2] in (["-h"], ["--help"]):
        print("python -m gotunnel.cli.manpage [FILE]", file=sys.stderr)
        return 2
    if len(sys.argv) == 2:
        with open(sys.argv[1], "w", encoding="ascii", newline="\n") as file:
            file.write(page())
    else:
        print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
