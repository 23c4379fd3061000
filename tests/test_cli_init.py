"""`gotunnel init`: what is asked, what each answer is tried against, and what stands in the file then."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotunnel.cli import ask, init
from gotunnel.cli import main as cli
from gotunnel.config.load import load, resolve_upstreams
from gotunnel.upstream.spec import SocksHop, parse_chain
from tests.conftest import need
from tests.lab import proc
from tests.lab.corpus import Corpus
from tests.lab.origin import Origin
from tests.lab.proxies import SocksProxy


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[Origin]:
    corpus = Corpus(tmp_path / "origin", count=1, levels=1)
    with Origin(tmp_path / "server", corpus.directory) as running:
        yield running


@pytest.fixture
def file(tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the configuration is to go; the machine's own settings aren't to be seen."""
    monkeypatch.setitem(cli.COMMANDS, "init", ("gotunnel.cli.init", "writes a configuration file"))
    for name in [name for name in os.environ if name.upper().startswith(("GO", "HTTP"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("GOPROXY", origin.url)
    return tmp_path / "config" / "gotunnel" / "config.toml"


class Script:
    """A person who answers by heart; each question has to hold the words that come with its answer."""

    def __init__(self, *dialogue: tuple[str, str | None]) -> None:
        self.left = list(dialogue)

    async def __call__(self, prompt: str, *, echo: bool = False) -> str | None:
        await asyncio.sleep(0)
        assert self.left, f"not expected: {prompt}"
        words, answer = self.left.pop(0)
        assert words in prompt
        return answer


@pytest.fixture
def person(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Script]:
    def script(*dialogue: tuple[str, str | None]) -> Script:
        made = Script(*dialogue)
        monkeypatch.setattr(ask, "terminal", lambda: made)
        return made

    return script


def dead() -> str:
    return f"http://127.0.0.1:{proc.dead_port()}"


def test_each_answer_is_tried_and_may_be_corrected(
    file: Path, origin: Origin, person: Callable[..., Script], capsys: pytest.CaptureFixture[str]
) -> None:
    script = person(
        ("way out [direct:]", "ftp://x"),  # no such thing
        ("way out [direct:]", dead()),
        ("take it all the same?", ""),
        ("way out [direct:]", ""),
        ("an alternate", dead()),
        ("take it all the same?", "y"),
        ("an alternate", ""),
        ("module mirrors", "goproxy.example"),
        ("module mirrors", origin.url),
        ("private modules", "git.corp.example/*, *.internal.example"),
        ("store may take", "much"),
        ("store may take", "5GB"),
    )
    assert cli.main(["init"]) == 0
    assert not script.left
    said = capsys.readouterr().err
    assert "unknown scheme 'ftp'" in said
    assert "does not work: tcp.refused" in said
    hints = said.splitlines()[: len(init._EXAMPLES) + 1]
    assert "the machine's own network direct:" in hints[-1]
    assert max(map(len, hints)) < 80
    assert "direct:: works" not in said
    assert f"direct: works: {origin.url.partition('//')[2]} answers" in said
    found = load({}, {}, path=str(file)).config
    assert [one.via.partition("://")[0] for one in found.upstreams] == ["direct:", "http"]
    assert (found.go.mirrors, found.cache.max_size) == ((origin.url,), 5 * 10**9)
    assert found.go.private == ("git.corp.example/*", "*.internal.example")
    assert cli.main(["--config", str(file), "config", "check"]) == 0


def test_a_password_goes_into_a_file_of_its_own_and_works_from_there(
    file: Path, tmp_path: Path, person: Callable[..., Script]
) -> None:
    need(SocksProxy.available())
    with SocksProxy(tmp_path / "proxy", user="me", password="p%,w&x") as proxy:
        person(("module mirrors", ""), ("private", ""), ("store", ""))
        typed = f"socks5h://me:p%25%2Cw%26x@{proxy.address}:{proxy.port}"
        assert cli.main(["init", "--via", typed]) == 0
        text = file.read_text()
        assert "p%" not in text
        secret = file.parent / "127.0.0.1.password"
        assert secret.read_text() == "p%,w&x\n"
        assert {stat.S_IMODE(path.stat().st_mode) for path in (file, secret)} == {0o600}
        loaded = load({}, {}, path=str(file))
        (upstream,) = resolve_upstreams(loaded.config, {}, file=str(file)).pool
        (hop,) = parse_chain(upstream.via).hops
        assert isinstance(hop, SocksHop)
        assert (hop.user, hop.password.read()) == ("me", "p%,w&x")
        assert cli.main(["init", "--yes", "--force", "--via", upstream.via]) == 0  # logs in by it
        secret.write_text("wrong\n")
        assert cli.main(["init", "--yes", "--force", "--via", upstream.via]) == 69


def test_scripts_get_what_works_or_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = dead()
    assert cli.main(["init", "--yes", "--via", bad]) == 69
    assert "--no-test writes it anyway" in capsys.readouterr().err
    assert not file.exists()
    assert cli.main(["init", "--yes", "--via", bad, "--via", "direct:"]) == 0
    assert len(load({}, {}, path=str(file)).config.upstreams) == 2
    before = file.read_text()
    assert cli.main(["init", "--yes"]) == 2
    assert "--force overwrites it" in capsys.readouterr().err
    assert file.read_text() == before
    assert cli.main(["init", "--yes", "--no-test", "--force", "--via", bad]) == 0
    assert file.read_text() != before


def test_without_a_terminal_a_way_out_that_is_named_needs_no_yes(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ask, "terminal", lambda: None)
    assert cli.main(["init", "--no-test", "--via", "bastion"]) == 0
    assert 'via  = "bastion"' in file.read_text()
    assert cli.main(["init", "--no-test", "--via", "bastion"]) == 2
    assert "--force overwrites it" in capsys.readouterr().err


def test_an_existing_file_is_overwritten_only_when_the_person_agrees(
    file: Path, person: Callable[..., Script]
) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("# mine\n")
    person(("overwrite it?", ""))
    assert cli.main(["init"]) == 1
    person(("overwrite it?", "yes"), ("way out", None))  # and then Ctrl-C
    assert cli.main(["init"]) == 130
    assert file.read_text() == "# mine\n"


def test_standard_output_takes_the_text_but_no_password(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    jump = ["--via", "http://proxy.example:3128,ssh://dev@bastion", "--private", "a.example/*"]
    assert cli.main(["init", "--yes", "--no-test", "--output", "-", *jump]) == 0
    text = capsys.readouterr().out
    assert 'name = "bastion"' in text
    assert 'via  = "http://proxy.example:3128,ssh://dev@bastion"' in text
    assert cli.main(["init", "--yes", "--no-test", "--output", "-", "--via", "http://u:secret@h:1"]) == 2
    assert "secret" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no terminal to ask on"),
        (["--yes", "--via", "ftp://x"], "unknown scheme"),
        (["--yes", "--mirror", "x"], "--mirror"),
        (["--yes", "--max-size", "much"], "--max-size"),
    ],
)
def test_a_mistake_is_one_line(
    file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    told: str,
) -> None:
    monkeypatch.setattr(ask, "terminal", lambda: None)
    assert cli.main(["init", *words]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert not file.exists()


def test_the_way_of_today_is_what_is_proposed(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    assert init.usual_way() == "direct:"
    monkeypatch.setenv("https_proxy", "proxy.office:3128")
    assert init.usual_way() == "http://proxy.office:3128"
    monkeypatch.setenv("GOTUNNEL_PROXY", "http://x:y@127.0.0.1:1")
    assert init.usual_way() == "direct:"
