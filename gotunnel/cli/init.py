"""`gotunnel init`: asks a few questions, or takes flags, tests each answer, writes a configuration file.

Rules:
- Asked on the terminal only, and only what no flag has answered; without a terminal it wants `--via` or
  `--yes`.
- A way out or a mirror is tried when it is named: one request to the first module source.  On a terminal one
  that fails may be corrected, or kept; with `--yes` one way out has to work, or nothing is written (69).
- Nothing is overwritten without asking, or `--force`.
- A password goes into a file of its own (0600), never into the configuration.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gotunnel.address import one_line, redact
from gotunnel.cli.init_file import Answers, render, write
from gotunnel.errors import ConfigError, GotunnelError, UsageError
from gotunnel.tasks import in_thread

if TYPE_CHECKING:
    from gotunnel.upstream.asking import Ask

USAGE = "gotunnel init [--via CHAIN]… [--mirror URL]… [--yes] [options]"
_SOURCE = "https://proxy.golang.org"  # go's own first one
_EXAMPLES = (
    ("a jump host", "user@bastion"),
    ("a proxy", "http://proxy:3128 or socks5h://proxy:1080"),
    ("a chain", "http://proxy:3128,ssh://user@bastion"),
    ("the machine's own network", "direct:"),
)

Test = Callable[[str, str], Awaitable[tuple[bool, str]]]
"""(CHAIN, URL) -> (whether it was reached, what was seen)"""


class NothingWorks(GotunnelError):
    """No way out reached a module source."""

    status = 69


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `init`."""
    parser.add_argument(
        "--via", action="append", default=[], metavar="CHAIN", help="a way out; repeat it for alternates"
    )
    parser.add_argument(
        "-J", dest="via", action="append", metavar="[USER@]HOST[:PORT],…", help="as in ssh -J"
    )
    parser.add_argument(
        "--mirror", action="append", default=[], metavar="URL", help="a module source, tried first"
    )
    parser.add_argument(
        "--private", action="append", default=[], metavar="GLOB", help="private modules, added to GOPRIVATE"
    )
    parser.add_argument("--max-size", default="", metavar="SIZE", help="of the module store, such as 5GB")
    parser.add_argument("--output", metavar="FILE", help="the file to write; - is standard output")
    parser.add_argument("--yes", action="store_true", help="ask nothing: flags and defaults")
    parser.add_argument("--force", action="store_true", help="overwrite the file")
    parser.add_argument("--no-test", action="store_true", help="write what can't be reached now, too")


def main(args: argparse.Namespace) -> int:
    """Interview and write; returns the exit status.  Raises UsageError, ConfigError, NothingWorks."""
    import asyncio

    from gotunnel.cli.ask import terminal

    ask = None if args.yes else terminal()
    if ask is None and not args.yes and not args.via:
        raise UsageError(f"no terminal to ask on; with --via or --yes the flags decide: {USAGE}")
    answers = Answers(list(args.via), list(args.mirror), list(args.private), args.max_size)
    return asyncio.run(_init(args, answers, ask))


async def _init(args: argparse.Namespace, answers: Answers, ask: Ask | None) -> int:
    from gotunnel.cli.console import tell

    file = _place(args)
    exists = file is not None and os.path.lexists(file)  # noqa: ASYNC240 - a glance
    if exists and not args.force:
        if ask is None:
            raise UsageError(f"{file} exists; --force overwrites it")
        if not await _agreed(ask, f"{file} exists; overwrite it? [y/N] "):
            tell("nothing was written")
            return 1
    _check(answers)
    test = None if args.no_test else _tester(ask)
    if ask is not None:
        await Interview(answers, ask, tell, test).all()
    else:
        await _unasked(answers, tell, test)
    text, secrets = render(answers, file.parent if file is not None else None, force=args.force or exists)
    if file is None:
        print(text, end="")
        return 0
    try:
        write(file, text, secrets)
    except OSError as error:
        raise ConfigError(
            one_line(f"{error.filename or file}: {error.strerror}; name another by --output")
        ) from error
    tell(f"{file} written")
    tell("try: gotunnel doctor, then: gotunnel run -- go mod tidy")
    return 0


def _place(args: argparse.Namespace) -> Path | None:
    """The file to write: --output, --config, GOTUNNEL_CONFIG, else the user's; None for standard output."""
    from gotunnel.config.load import search_list

    if args.output in ("-", "/dev/stdout"):
        return None
    named = args.output or args.config or os.environ.get("GOTUNNEL_CONFIG") or search_list(os.environ)[0]
    return Path(os.path.abspath(os.path.expanduser(named)))


def _check(answers: Answers) -> None:
    """Raises UsageError for a flag that is wrong, before anything is asked."""
    for flag, values, key in (
        ("--mirror", answers.mirrors, "go.mirrors"),
        ("--private", answers.private, "go.private"),
    ):
        _parsed(flag, values, key)
    if answers.max_size:
        _parsed("--max-size", answers.max_size, "cache.max_size")
    for via in answers.vias:
        _chain(via)


def _parsed(flag: str, value: Any, key: str) -> None:
    from gotunnel.config.model import KEYS

    try:
        KEYS[key].kind.parse(value)
    except ValueError as error:
        raise UsageError(one_line(redact(f"{flag}: {error}"))) from None


def _chain(text: str) -> str:
    from gotunnel.config.model import chain_text

    try:
        return chain_text(text)
    except ValueError as error:
        raise UsageError(one_line(str(error))) from None


async def _unasked(answers: Answers, tell: Callable[[str], None], test: Test | None) -> None:
    answers.vias = answers.vias or [usual_way()]
    if test is None:
        return
    seen = [await _told(test, tell, via, answers.mirrors) for via in answers.vias]
    if not any(seen):
        raise NothingWorks("nothing was written, since no way out works; --no-test writes it anyway")


async def _told(test: Test, tell: Callable[[str], None], via: str, mirrors: list[str]) -> bool:
    """Try one way out to the mirrors, or to go's own source; say what was seen."""
    oks = []
    for url in [one for one in mirrors if one.startswith("http")] or [await _first_source()]:
        ok, words = await test(via, url)
        tell(f"{_shown(via).removesuffix(':')}: {'works' if ok else 'does not work'}: {words}")
        oks.append(ok)
    return any(oks)


async def _first_source() -> str:

    from gotunnel.goenv import first_source, read

    return first_source((await in_thread("go env", lambda: read(os.environ))).goproxy) or _SOURCE


def _shown(via: str) -> str:
    from gotunnel.config.model import shown_chain

    return shown_chain(via)


def usual_way() -> str:
    """The way out that is taken today: the proxy that the environment names, else the machine's own."""
    from gotunnel.config.upstreams import proxy_chain

    # inside a gotunnel they name its endpoint, which will be gone
    for name in () if "GOTUNNEL_PROXY" in os.environ else ("HTTPS_PROXY", "https_proxy"):
        if value := os.environ.get(name, "").strip():
            try:
                return proxy_chain(value)
            except ValueError:
                continue
    return "direct:"


def _tester(ask: Ask | None) -> Test:
    async def test(via: str, url: str) -> tuple[bool, str]:
        from urllib.parse import urlsplit

        from gotunnel.probe import Goal, Way, probe
        from gotunnel.upstream.spec import parse_chain
        from gotunnel.upstream.tls import client_context

        if via.startswith("srv://"):
            return True, "not tried: what DNS names is looked up when it is used"
        parts = urlsplit(url)
        try:
            goal = Goal.parse(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
        except ValueError as error:
            return False, str(error)
        (report,) = await probe([Way(_shown(via), parse_chain(via))], [goal], trust=client_context, ask=ask)
        (result,) = report.results
        if not result.ok:
            return False, one_line(redact(f"{result.finding}: {result.detail}"), 400)
        took = [
            result.name_ms,
            result.connect_ms,
            *(ms for _, ms in result.hops),
            result.tls_ms,
            result.first_byte_ms,
        ]
        return True, f"{goal.target} answers {result.status} in {sum(filter(None, took)):.0f} ms"

    return test


async def _agreed(ask: Ask, question: str) -> bool:
    return (await _asked(ask, question)).lower() in ("y", "yes")


async def _asked(ask: Ask, question: str) -> str:
    """The answer, stripped.  Raises KeyboardInterrupt where the person gave none."""
    answer = await ask(question, echo=True)
    if answer is None:
        raise KeyboardInterrupt
    return answer.strip()


class Interview:
    """The questions, in order; each answer is tried, and asked for again where it fails."""

    def __init__(self, answers: Answers, ask: Ask, tell: Callable[[str], None], test: Test | None) -> None:
        self._answers, self._ask, self._tell, self._test = answers, ask, tell, test

    async def all(self) -> None:
        """Fill in what no flag has answered.  Raises KeyboardInterrupt."""
        given, self._answers.vias = self._answers.vias, []
        for via in given:
            if await self._keeps(via):
                self._answers.vias.append(via)
        if not given:
            self._tell("How does this machine reach the world? Name a way out:")
            for kind, example in _EXAMPLES:
                self._tell(f"{kind:<26}{example}")
        while not self._answers.vias:
            await self._way(f"way out [{_shown(usual_way())}]: ", usual_way())
        while not given and await self._way("an alternate, for when that fails (empty: none): ", ""):
            pass
        if not self._answers.mirrors:
            await self._mirrors()
        if not self._answers.private:
            await self._words("private modules, such as git.corp.example/* (empty: none): ", "private")
        if not self._answers.max_size:
            await self._size()

    async def _way(self, question: str, default: str) -> bool:
        """Ask for one way out; False where there is to be none."""
        while True:
            text = await _asked(self._ask, question) or default
            if not text:
                return False
            try:
                via = _chain(text)
            except UsageError as error:
                self._tell(str(error))
                continue
            if via in self._answers.vias:
                self._tell(f"{_shown(via)} is there already")
            elif await self._keeps(via):
                self._answers.vias.append(via)
                return True

    async def _keeps(self, via: str) -> bool:
        """Whether it works, or is wanted all the same."""
        if self._test is None or await _told(self._test, self._tell, via, self._answers.mirrors):
            return True
        return await _agreed(self._ask, "take it all the same? [y/N] ")

    async def _mirrors(self) -> None:
        while True:
            await self._words(
                "module mirrors, tried before go's own list, as URLs (empty: none): ", "mirrors"
            )
            urls = [url for url in self._answers.mirrors if url.startswith("http")]
            test = self._test
            failed = 0
            for url in urls if test is not None else ():
                assert test is not None
                ok, words = await test(self._answers.vias[0], url)
                self._tell(f"{redact(url)}: {'works' if ok else 'does not work'}: {words}")
                failed += not ok
            if not failed or await _agreed(self._ask, "take them all the same? [y/N] "):
                return

    async def _words(self, question: str, name: str) -> None:
        while True:
            words = (await _asked(self._ask, question)).replace(",", " ").split()
            try:
                _parsed(name, words, f"go.{name}")
            except UsageError as error:
                self._tell(str(error))
                continue
            setattr(self._answers, name, words)
            return

    async def _size(self) -> None:
        while True:
            text = await _asked(self._ask, "most that the module store may take [20GB]: ")
            try:
                if text:
                    _parsed("size", text, "cache.max_size")
            except UsageError as error:
                self._tell(str(error))
                continue
            self._answers.max_size = text
            return
