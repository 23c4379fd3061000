"""Which keys are offered, in which order, and what is said of those that can't be."""

from __future__ import annotations

import asyncio
import base64
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gotunnel.upstream import ssh_keys
from gotunnel.upstream.asking import NOBODY, Asking
from gotunnel.upstream.ssh_keys import Keys, gather
from gotunnel.upstream.ssh_plan import SshPlan
from gotunnel.upstream.ssh_prompts import Prompts
from tests.conftest import need
from tests.jumps import Person
from tests.lab import proc
from tests.lab.keys import Agent, Key, new_key
from tests.lab.sshd import can_run_sshd
from tests.peers import silence


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    need(can_run_sshd())
    with Agent(tmp_path / "agent") as made:
        yield made


def plan(*identities: object, **changes: Any) -> SshPlan:
    return SshPlan(
        host="jump", hostname="jump", port=22, user="me", named=False,
        identities=tuple(map(str, identities)), **changes,
    )  # fmt: skip


def offered(keys: Keys) -> list[str]:
    """The public keys, as they stand in a .pub file, in order; lets go of the agent."""
    keys.close()
    return [base64.b64encode(pair.public_data).decode() for pair in keys.pairs]


def blob(key: Key) -> str:
    return key.public.split()[1]


async def test_default_files_come_after_the_agent(agent: Agent, tmp_path: Path) -> None:
    held, file = new_key(tmp_path / "held"), new_key(tmp_path / "file")
    agent.add(held)
    keys = await gather(plan(file.private, tmp_path / "none", identity_agent=str(agent.socket)))
    assert offered(keys) == [blob(held), blob(file)]
    assert keys.unusable == []


async def test_what_was_named_comes_first_and_once(agent: Agent, tmp_path: Path) -> None:
    other, named, file = (new_key(tmp_path / name) for name in ("other", "named", "file"))
    agent.add(other)
    agent.add(named)
    wanted = plan(file.private, named.private, identity_agent=str(agent.socket), explicit_identities=True)
    assert offered(await gather(wanted)) == [blob(named), blob(file), blob(other)]


async def test_identities_only_keeps_the_agents_others_back(agent: Agent, tmp_path: Path) -> None:
    other, named = new_key(tmp_path / "other"), new_key(tmp_path / "named")
    agent.add(other)
    agent.add(named)
    named.private.unlink()
    by_public = plan(f"{named.private}.pub", identity_agent=str(agent.socket), identities_only=True)
    assert offered(await gather(by_public)) == [blob(named)]


async def test_a_locked_key_is_the_agents_to_use(agent: Agent, tmp_path: Path) -> None:
    locked = new_key(tmp_path / "locked", passphrase="open sesame")
    agent.add(locked)
    keys = await gather(plan(locked.private, identity_agent=str(agent.socket), explicit_identities=True))
    assert offered(keys) == [blob(locked)]
    assert keys.unusable == []


async def test_a_locked_key_without_an_agent_is_asked_for(tmp_path: Path) -> None:
    need(can_run_sshd())
    locked = new_key(tmp_path / "locked", passphrase="open sesame")
    wanted = plan(locked.private, explicit_identities=True)
    person = Person("wr0ng", "open sesame")
    prompts = Prompts(wanted, Asking(person))
    for _ in range(2):  # another connection: nobody is asked again
        assert offered(await gather(wanted, prompts)) == [blob(locked)]
        assert person.asked == [f"Passphrase for {locked.private}: "] * 2
    for words, asking in {
        "wants a passphrase and there is no terminal": NOBODY,
        "wants a passphrase and nobody gave it": Asking(Person(None)),
        "wants a passphrase and nobody gave": Asking(Person("")),
        ": wrong passphrase": Asking(Person("wr0ng", "wr0ng", "wr0ng")),  # no fourth time
    }.items():
        keys = await gather(wanted, Prompts(wanted, asking))
        assert keys.pairs == []
        assert len(keys.unusable) == 1
        assert words in keys.unusable[0]
        assert "wr0ng" not in keys.unusable[0]


async def test_a_locked_default_key_is_asked_for_only_when_all_others_were_refused(tmp_path: Path) -> None:
    need(can_run_sshd())
    locked, open_ = new_key(tmp_path / "locked", passphrase="open sesame"), new_key(tmp_path / "open")
    person = Person("open sesame")
    wanted = plan(locked.private, open_.private)
    prompts = Prompts(wanted, Asking(person))
    keys = await gather(wanted, prompts)
    assert offered(keys) == [blob(open_)]
    assert person.asked == []
    assert [pair.public_data for pair in await keys.more(wanted, prompts)] == [base64.b64decode(blob(locked))]
    assert await keys.more(wanted, prompts) == []


async def test_batch_mode_and_methods_forbid(tmp_path: Path) -> None:
    need(can_run_sshd())
    locked = new_key(tmp_path / "locked", passphrase="open sesame")
    for changes in ({"batch": True}, {"methods": ("password",)}):
        wanted = plan(locked.private, explicit_identities=True, **changes)
        person = Person("open sesame")
        assert (await gather(wanted, Prompts(wanted, Asking(person)))).pairs == []
        assert person.asked == []


async def test_what_is_no_key_says_so(tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("no key\n")
    keys = await gather(plan(junk, tmp_path / "none", tmp_path, explicit_identities=True))
    assert keys.pairs == []
    assert [words.partition(": ")[0] for words in keys.unusable] == [
        str(junk), str(tmp_path / "none"), str(tmp_path),
    ]  # fmt: skip


async def test_key_text_is_all_there_is(tmp_path: Path) -> None:
    need(can_run_sshd())
    key, file = new_key(tmp_path / "key"), new_key(tmp_path / "file")
    assert offered(await gather(plan(file.private, key_text=key.private.read_text()))) == [blob(key)]
    for text in ("nonsense", new_key(tmp_path / "l", passphrase="pass phrase").private.read_text()):
        keys = await gather(plan(key_text=text))
        assert keys.pairs == []
        assert keys.unusable[0].startswith("GOTUNNEL_SSH_KEY: ")
        assert text[40:60] not in keys.unusable[0] or not text[40:60]


async def test_a_certificate_is_offered_before_its_bare_key(tmp_path: Path) -> None:
    need(can_run_sshd())
    key, authority = new_key(tmp_path / "key"), new_key(tmp_path / "authority")
    proc.run([proc.need_tool("ssh-keygen"), "-q", "-s", str(authority.private), "-I", "me", "-n", "me",
              f"{key.private}.pub"])  # fmt: skip
    certificate = tmp_path / "key-cert.pub"
    assert [pair.has_cert for pair in (await gather(plan(key.private))).pairs] == [True, False]
    moved = certificate.rename(tmp_path / "elsewhere.pub")
    keys = await gather(plan(key.private, certificates=(str(moved), str(tmp_path / "none"))))
    assert [pair.has_cert for pair in keys.pairs] == [True, False]


async def test_an_agent_that_is_not_there_or_does_not_answer_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(can_run_sshd())
    monkeypatch.setattr(ssh_keys, "AGENT_TIMEOUT", 0.1)
    key = new_key(tmp_path / "key")
    assert offered(await gather(plan(key.private, identity_agent=str(tmp_path / "none")))) == [blob(key)]
    with tempfile.TemporaryDirectory(prefix="gt-") as folder:
        ended = asyncio.Event()

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await silence(reader, writer)
            writer.close()
            ended.set()

        mute = await asyncio.start_unix_server(talk, f"{folder}/agent")
        assert offered(await gather(plan(key.private, identity_agent=f"{folder}/agent"))) == [blob(key)]
        await ended.wait()  # it was let go of
        mute.close()
        await mute.wait_closed()
