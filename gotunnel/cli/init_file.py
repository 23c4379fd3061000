"""The configuration file that `gotunnel init` writes: its text, and the files that its passwords go to.

Rules:
- Commented, so that it can be edited by hand; what was not answered stands there as a comment.
- A password never stands in it: each gets a file of its own beside it (0600).
- It is written at once, and only what gotunnel itself would read without complaint.
"""

from __future__ import annotations

import json
import re
from dataclasses import field
from pathlib import Path

from gotunnel.dataclass import dataclass
from gotunnel.errors import ConfigError, UsageError


@dataclass(slots=True)
class Answers:
    """What goes into the file; `max_size` as written, "" for the default."""

    vias: list[str] = field(default_factory=list)
    mirrors: list[str] = field(default_factory=list)
    private: list[str] = field(default_factory=list)
    max_size: str = ""


def render(answers: Answers, folder: Path | None, *, force: bool = False) -> tuple[str, dict[Path, str]]:
    """(the text of the file, passwords by the file that is to hold each); these lie in `folder`.

    Raises UsageError where a password has no folder to go to.
    """

    def quote(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    lines = ["# gotunnel, written by `gotunnel init`; every key: gotunnel config show", ""]
    lines += ["# Ways out: the first that works is taken, the next where it fails."]
    names: set[str] = set()
    secrets: dict[Path, str] = {}
    for via in answers.vias:
        name = _name(via, names)
        lines += ["[[upstream]]", f"name = {quote(name)}"]
        lines += [f"via  = {quote(_without_passwords(via, name, folder, secrets, force=force))}", ""]
    lines += ["[go]", "# Module sources that are tried before those of `go env GOPROXY`."]
    lines += [_or_comment("mirrors", answers.mirrors, ["https://goproxy.cn"])]
    lines += ["# Private modules: never asked of a public source or checksum database; added to GOPRIVATE."]
    lines += [_or_comment("private", answers.private, ["git.corp.example/*"]), ""]
    lines += ["[cache]", "# The module store; what was not used for longest goes first."]
    lines += [f"max_size = {quote(answers.max_size)}" if answers.max_size else '# max_size = "20GB"']
    text = "\n".join(lines) + "\n"
    _accepted(text)
    return text, secrets


def _or_comment(key: str, values: list[str], example: list[str]) -> str:
    return (
        f"{key} = {json.dumps(values, ensure_ascii=False)}" if values else f"# {key} = {json.dumps(example)}"
    )


def _accepted(text: str) -> None:
    """Raises ConfigError where gotunnel would refuse what is to be written."""
    from gotunnel.config.sources import read_toml

    if problems := read_toml(text, "the new file").problems:
        raise ConfigError(str(problems[0]))


def _name(via: str, taken: set[str]) -> str:
    """What the way out is called: the host of its last hop."""
    from gotunnel.config.model import RESERVED

    last = via.split(",")[-1].partition("://")[2] or via.split(",")[-1]
    host = re.sub(r"[^A-Za-z0-9._-]+", "-", re.sub(r"[?/].*|:[0-9]*$", "", last.rpartition("@")[2]))
    stem = host.strip("-._")[:50] or "way"
    stem = "here" if stem in RESERVED else stem
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name


def _without_passwords(
    via: str, name: str, folder: Path | None, secrets: dict[Path, str], *, force: bool
) -> str:
    from gotunnel.upstream.masking import quoted
    from gotunnel.upstream.spec import ConnectHop, SocksHop, parse_chain

    if via.startswith("srv://"):
        return via
    hops = []
    for number, text in enumerate(via.split(","), 1):
        (hop,) = parse_chain(text).hops
        if isinstance(hop, ConnectHop | SocksHop) and hop.password.value:
            if folder is None:
                raise UsageError(
                    "a password wants a file beside the configuration; name one by --output FILE"
                )
            file = folder / f"{name}{'' if number == 1 else f'-{number}'}.password"
            count = 1
            while file in secrets or (not force and file.exists()):
                count += 1
                file = file.with_name(f"{file.stem.rstrip('0123456789-')}-{count}.password")
            secrets[file] = hop.password.value
            scheme, _, rest = text.strip().partition("://")
            authority, _, query = rest.partition("?")
            userinfo, _, where = authority.rpartition("@")
            option = f"password_file={quoted(str(file), '&')}"
            text = f"{scheme}://{userinfo.partition(':')[0]}@{where}?{f'{query}&' if query else ''}{option}"
        hops.append(text)
    return ",".join(hops)


def write(file: Path, text: str, secrets: dict[Path, str]) -> None:
    """Put `text` into `file`, and each password into its own.  Raises OSError."""
    from gotunnel.modproxy.gowork import write_whole

    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    for place, password in secrets.items():
        write_whole(place, f"{password}\n".encode(), mode=0o600)
    # a mirror's URL may hold a token, and a way out says where a firewall has its holes
    write_whole(file, text.encode(), mode=0o600)
