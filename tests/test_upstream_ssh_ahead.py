"""The jump host is dialled while asyncssh is being imported, unless somebody may have to be asked first."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import DialError
from gotunnel.upstream import ssh_login
from gotunnel.upstream.asking import NOBODY, Asking
from gotunnel.upstream.dialer import Stream
from gotunnel.upstream.direct import DirectDialer
from gotunnel.upstream.ssh_keys import may_ask
from gotunnel.upstream.ssh_prompts import Prompts
from tests.jumps import Person, jumping, plan_for
from tests.lab import proc
from tests.lab.keys import Key, new_key
from tests.lab.proc import dead_port
from tests.lab.sshd import Sshd
from tests.peers import serving, silence, until

Start = Callable[..., Sshd]


class Watched(DirectDialer):
    """Tells when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.streams: list[Stream] = []

    async def dial(self, target: HostPort) -> Stream:
        self.asked.set()
        self.streams.append(await super().dial(target))
        return self.streams[-1]


class Import:
    """In the place of asyncssh's: it ends when `until` says so, and remembers what that said."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, until: Callable[[], bool]) -> None:
        self.saw: list[bool] = []
        monkeypatch.setattr(ssh_login, "loaded", lambda: bool(self.saw))
        monkeypatch.setattr(ssh_login, "load_asyncssh", lambda: self.saw.append(until()))


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


async def test_the_host_is_dialled_meanwhile_and_once(
    sshd: Start, client_key: Key, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = sshd()
    before = Watched()
    loading = Import(monkeypatch, lambda: before.asked.wait(10))
    async with jumping(plan_for(server, client_key, known), before) as dialer:
        await dialer.warm()
        assert dialer.links == 1
    assert (loading.saw, len(before.streams)) == ([True], 1)


async def test_a_passphrase_is_asked_for_before_the_host_is_reached(
    sshd: Start, client_key: Key, known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, locked = sshd(), tmp_path / "locked"
    shutil.copy(client_key.private, locked)
    proc.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", str(locked)], timeout=30)
    before, seen = Watched(), list[bool]()

    class Somebody(Person):
        async def __call__(self, prompt: str, *, echo: bool = False) -> str | None:
            seen.append(before.asked.is_set())
            return await super().__call__(prompt, echo=echo)

    Import(monkeypatch, lambda: before.asked.wait(0.2))
    asking = Asking(Somebody("open sesame"))
    async with jumping(
        plan_for(server, None, known, identities=(str(locked),)), before, asking=asking
    ) as dialer:
        await dialer.warm()
    assert (seen, len(before.streams)) == ([False], 1)


async def test_a_host_that_refuses_is_told_as_ever(
    client_key: Key, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Import(monkeypatch, lambda: True)
    nobody = HostPort("127.0.0.1", dead_port())
    async with jumping(plan_for(nobody, client_key, known), Watched()) as dialer:
        with pytest.raises(DialError) as caught:
            await dialer.warm()
    assert caught.value.finding == "tcp.refused"


async def test_what_nobody_takes_is_closed(
    client_key: Key, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()
    Import(monkeypatch, lambda: over.wait(10))
    before = Watched()
    async with serving(silence) as host, jumping(plan_for(host, client_key, known), before) as dialer:
        warming = asyncio.gather(dialer.warm(), return_exceptions=True)
        await until(lambda: before.streams)
        await dialer.close()  # ends the login in the middle of the import
        await until(lambda: before.streams[0].is_lost)
        over.set()
        await warming


@pytest.mark.parametrize(
    ("made", "changes", "asks"),
    [
        ({}, {}, False),
        ({"passphrase": "secret"}, {}, True),
        ({"passphrase": "secret"}, {"explicit_identities": False}, False),  # asked for after all others
        ({"passphrase": "secret"}, {"batch": True}, False),
        ({"passphrase": "secret"}, {"methods": ("password",)}, False),
        ({"kind": "rsa"}, {}, False),
    ],
)
def test_who_may_be_asked(tmp_path: Path, made: dict[str, str], changes: dict[str, Any], asks: bool) -> None:
    plan = plan_for(HostPort("127.0.0.1", 1), new_key(tmp_path / "key", **made), tmp_path, **changes)
    assert may_ask(plan, Prompts(plan, Asking(Person()))) is asks
    assert not may_ask(plan, Prompts(plan, NOBODY))


@pytest.mark.parametrize("text", ["", "-----BEGIN OPENSSH PRIVATE KEY-----\n!", "nothing of the kind", None])
def test_what_is_not_plainly_unlocked_may_be_locked(tmp_path: Path, text: str | None) -> None:
    plan = plan_for(HostPort("127.0.0.1", 1), key := new_key(tmp_path / "key"), tmp_path)
    key.private.unlink()
    if text is not None:
        key.private.write_text(text)
    assert may_ask(plan, Prompts(plan, Asking(Person())))


def test_the_old_form_may_be_locked(tmp_path: Path) -> None:
    key = new_key(tmp_path / "key", kind="rsa")
    proc.run(["ssh-keygen", "-p", "-m", "PEM", "-N", "", "-f", str(key.private)], timeout=30)
    plan = plan_for(HostPort("127.0.0.1", 1), key, tmp_path)
    assert may_ask(plan, Prompts(plan, Asking(Person())))
