"""`gotunnel completion bash|zsh|fish`: a completion script on standard output, made from the parsers.

Rules:
- The script knows all by itself: completing a word starts no gotunnel.
- Behind `gotunnel run [options]` the shell completes CMD as it would alone.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gotunnel.cli.grammar import Command, Option, Word

_HOW = """how to install it:
  gotunnel completion bash > ~/.local/share/bash-completion/completions/gotunnel
  gotunnel completion zsh > "${fpath[1]}/_gotunnel"
  gotunnel completion fish > ~/.config/fish/completions/gotunnel.fish
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    parser.epilog = _HOW
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def main(args: argparse.Namespace) -> int:
    """Print the script; returns 0."""
    print(script(args.shell), end="")
    return 0


def script(shell: str) -> str:
    """The script for "bash", "zsh" or "fish"."""
    from gotunnel.cli.grammar import grammar

    lines = {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](grammar())
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# --- bash ----------------------------------------------------------------------------------------------

_BASH = r"""
_gotunnel() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} at path=gotunnel word names
    COMPREPLY=()
    # bash takes "--option=value" for three words
    if [[ $cur == '=' ]]; then cur=; elif [[ $prev == '=' ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi
    for ((at = 1; at < COMP_CWORD; at++)); do
        word=${COMP_WORDS[at]}
        if [[ $path == 'gotunnel run' && ($word == -- || $word != -*) ]]; then
            [[ $word == -- ]] && ((at++))
            break
        fi
        if _gotunnel_takes "$path" "$word"; then
            [[ ${COMP_WORDS[at+1]} == '=' ]] && ((at++))
            ((at++))
        elif [[ $word != -* ]] && _gotunnel_is "$path $word"; then
            path+=" $word"
        fi
    done
    if _gotunnel_takes "$path" "$prev" && [[ $path != 'gotunnel run' || $at -ge $COMP_CWORD ]]; then
        _gotunnel_values "$path" "$prev"
        return
    fi
    if [[ $path == 'gotunnel run' && ($at -lt $COMP_CWORD || $cur != -* && $at -eq $COMP_CWORD) ]]; then
        if declare -F _command_offset > /dev/null; then
            _command_offset "$at"
        elif ((at == COMP_CWORD)); then
            mapfile -t COMPREPLY < <(compgen -c -- "$cur")
        else
            compopt -o default
        fi
        return
    fi
    if [[ $cur == -* ]]; then
        _gotunnel_options "$path"
    else
        _gotunnel_words "$path"
    fi
}

_gotunnel_reply() {
    mapfile -t COMPREPLY < <(compgen "$@" -- "$cur")
}
"""
_BASH_VALUES = {
    "file": "compopt -o filenames; _gotunnel_reply -f",
    "directory": "compopt -o filenames; _gotunnel_reply -d",
    "host": "_gotunnel_reply -A hostname",
    "none": ":",
}


def _bash(root: Command) -> Iterator[str]:
    from gotunnel.cli.grammar import everything

    commands = everything(root)
    yield "# bash completion for gotunnel, made by: gotunnel completion bash"
    yield _BASH.strip("\n")
    yield from ("", "_gotunnel_is() {", '    case "$1" in')
    for command in commands[1:]:
        yield f"        {_quoted(' '.join(command.path))}) return 0 ;;"
    yield from ("    esac", "    return 1", "}", "", "_gotunnel_takes() {", '    case "$1 $2" in')
    for patterns, _ in _valued(commands):
        yield f"        {patterns}) return 0 ;;"
    yield from ("    esac", "    return 1", "}", "", "_gotunnel_values() {", '    case "$1 $2" in')
    for patterns, option in _valued(commands):
        yield f"        {patterns}) {_bash_value(option)} ;;"
    yield from ("    esac", "}", "", "_gotunnel_options() {", '    case "$1" in')
    for command in commands:
        names = [name for option in command.options for name in option.names]
        yield f"        {_quoted(' '.join(command.path))}) _gotunnel_reply -W {_quoted(' '.join(names))} ;;"
    yield from ("    esac", "}", "", "_gotunnel_words() {", '    case "$1" in')
    for command in commands:
        if command.commands:
            does = f"_gotunnel_reply -W {_quoted(' '.join(sub.name for sub in command.commands))}"
        elif command.words:
            does = _bash_value(command.words[0])
        else:
            continue
        yield f"        {_quoted(' '.join(command.path))}) {does} ;;"
    yield from ("    esac", "}", "", "complete -F _gotunnel gotunnel")


def _valued(commands: list[Command]) -> Iterator[tuple[str, Option]]:
    """Each option that takes a value, with the patterns of `case` that mean it."""
    for command in commands:
        for option in command.options:
            if option.metavar:
                path = " ".join(command.path)
                yield "|".join(_quoted(f"{path} {name}") for name in option.names), option


def _bash_value(what: Option | Word) -> str:
    if what.choices:
        return f"_gotunnel_reply -W {_quoted(' '.join(what.choices))}"
    return _BASH_VALUES[what.values.value]


# --- zsh -----------------------------------------------------------------------------------------------

_ZSH_VALUES = {"file": "_files", "directory": "_files -/", "host": "_hosts", "none": " "}


def _zsh(root: Command) -> Iterator[str]:
    yield "#compdef gotunnel"
    yield "# zsh completion for gotunnel, made by: gotunnel completion zsh"
    yield from _zsh_function(root)
    # from a file in $fpath the first call runs all this; sourced, it is not yet bound to the command
    yield from (
        "",
        "if [[ $funcstack[1] == _gotunnel ]]; then",
        '    _gotunnel "$@"',
        "elif (( $+functions[compdef] )); then",
        "    compdef _gotunnel gotunnel",
        "fi",
    )


def _zsh_function(command: Command) -> Iterator[str]:
    yield from ("", f"{_zsh_name(command)}() {{")
    yield "    local curcontext=$curcontext state line ret=1"
    yield from ("    typeset -A opt_args", "    _arguments -s -C \\")
    for option in command.options:
        yield f"        {_zsh_option(option)} \\"
    if command.commands:
        yield "        '(-): :->command' '(-)*:: :->rest' && ret=0"
    elif command.runs:
        yield "        '(-)1: :_path_commands' '*::: :_normal' && ret=0"
    else:
        for word in command.words:
            spec = f"{'*' if word.many else ''}:{_zsh_text(word.metavar)}:{_zsh_value(word)}"
            yield f"        {_quoted(spec)} \\"
        yield "        && ret=0"
    if command.commands:
        yield from ("    case $state in", "        command)", "            local -a commands=(")
        for sub in command.commands:
            yield f"                {_quoted(f'{sub.name}:{sub.help}')}"
        yield from (
            "            )",
            "            _describe -t commands command commands && ret=0",
            "            ;;",
        )
        yield from (
            "        rest)",
            "            curcontext=${curcontext%:*}-$words[1]:",
            "            case $words[1] in",
        )
        for sub in command.commands:
            yield f"                {sub.name}) {_zsh_name(sub)} && ret=0 ;;"
        yield from ("            esac", "            ;;", "    esac")
    yield from ("    return ret", "}")
    for sub in command.commands:
        yield from _zsh_function(sub)


def _zsh_name(command: Command) -> str:
    return "_" + "_".join(command.path)


def _zsh_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def _zsh_option(option: Option) -> str:
    value = f":{_zsh_text(option.metavar)}:{_zsh_value(option)}" if option.metavar else ""
    text = f"[{_zsh_text(option.help)}]"
    long = "=" if option.metavar else ""
    specs = [
        f"*{name}{long if name.startswith('--') else '+' if long else ''}{text}{value}"
        for name in option.names
    ]
    return " ".join(map(_quoted, specs))


def _zsh_value(what: Option | Word) -> str:
    return f"({' '.join(what.choices)})" if what.choices else _ZSH_VALUES[what.values.value]


# --- fish ----------------------------------------------------------------------------------------------

_FISH_VALUES = {
    "file": " -r -F",
    "directory": " -x -a '(__fish_complete_directories)'",
    "host": " -x -a '(__fish_print_hostnames)'",
    "none": " -x",
}


def _fish(root: Command) -> Iterator[str]:
    from gotunnel.cli.grammar import everything

    yield "# fish completion for gotunnel, made by: gotunnel completion fish"
    yield "complete -c gotunnel -f"
    for command in everything(root):
        seen = [f"__fish_seen_subcommand_from {name}" for name in command.path[1:]]
        below = [sub.name for sub in command.commands]
        here = seen if not below else [*seen, f"not __fish_seen_subcommand_from {' '.join(below)}"]
        for sub in command.commands:
            yield f"complete -c gotunnel{_fish_if(here)} -a {sub.name} -d {_fish_quoted(sub.help)}"
        for option in command.options:
            names = "".join(f" -l {n[2:]}" if n.startswith("--") else f" -s {n[1:]}" for n in option.names)
            value = _fish_value(option) if option.metavar else ""
            yield f"complete -c gotunnel{_fish_if(seen or here)}{names}{value} -d {_fish_quoted(option.help)}"
        for word in command.words[:1]:
            yield f"complete -c gotunnel{_fish_if(seen)}{_fish_value(word)}"
        if command.runs:
            yield f"complete -c gotunnel{_fish_if(seen)} -x -a '(__fish_complete_subcommand --fcs-skip=2)'"


def _fish_if(conditions: list[str]) -> str:
    return f" -n {_fish_quoted('; and '.join(conditions))}" if conditions else ""


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_value(what: Option | Word) -> str:
    if what.choices:
        return f" -x -a {_fish_quoted(' '.join(what.choices))}"
    return _FISH_VALUES[what.values.value]
