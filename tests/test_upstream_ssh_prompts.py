"""What a jump host asks a person: password, second factor, a new host key; and when nobody is asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from gotunnel.address import HostPort
from gotunnel.errors import Blame, DialError
from gotunnel.pool import pool as pool_module
from gotunnel.pool.pool import Pool, Upstream
from gotunnel.upstream.asking import NOBODY, Asking
from gotunnel.upstream.spec import SshHop
from gotunnel.upstream.ssh import SshDialer
from gotunnel.upstream.ssh_plan import plan
from tests.jumps import Person, jumping, logins, plan_for
from tests.lab.keys import Key, new_key
from tests.lab.proc import dead_port
from tests.lab.sshd import Sshd
from tests.peers import echo, refusal_of, say, serving, until

Start = Callable[..., Sshd]


@pytest.fixture
def known(tmp_path: Path) -> Path:
    return tmp_path / "known_hosts"


class Jump:
    """A jump host of asyncssh that wants a password, or a password and then a code (`factors`)."""

    def __init__(self, *factors: str) -> None:
        self.factors = factors or ("password",)
        self.tried: list[str] = []
        self.connections: list[asyncssh.SSHServerConnection] = []
        self.address = HostPort("127.0.0.1", 1)

    @contextlib.asynccontextmanager
    async def serving(self, host_key: Key, known: Path, **options: Any) -> AsyncIterator[Jump]:
        jump = self

        class Server(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                jump.connections.append(conn)

            def begin_auth(self, username: str) -> bool:
                return True

            def public_key_auth_supported(self) -> bool:
                return True

            def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
                jump.tried.append("publickey")
                return False

            def password_auth_supported(self) -> bool:
                return "password" in jump.factors

            def validate_password(self, username: str, password: str) -> bool:
                jump.tried.append(password)
                return password == "s3cret"

            def kbdint_auth_supported(self) -> bool:
                return "kbdint" in jump.factors

            def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
                return (
                    "Two\x1b factors",
                    "First:\nyour password",
                    "",
                    [("Password: ", False), ("Code: ", True)],
                )

            def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> Any:
                jump.tried.append("+".join(responses))
                if list(responses) == ["s3cret", "123456"]:
                    return "Again", "", "", [("Now the\nother code:", True)]
                return list(responses) == ["654321"]

            def connection_requested(self, host: str, port: int, orig: str, origport: int) -> Any:
                return True

        listener = await asyncssh.create_server(
            Server, "127.0.0.1", 0, server_host_keys=[str(host_key.private)], **options
        )
        self.address = HostPort("127.0.0.1", listener.get_port())
        with known.open("a") as file:
            file.write(f"[127.0.0.1]:{self.address.port} {host_key.public}\n")
        try:
            yield self
        finally:
            listener.close()
            await listener.wait_closed()


@pytest.fixture
def host_key(tmp_path: Path) -> Key:
    return new_key(tmp_path / "host")


PASSWORD = "someone@jump's password: "


async def test_a_password_is_asked_for_after_the_keys_and_only_once(
    host_key: Key, known: Path, client_key: Key
) -> None:
    person = Person("wr0ng", "s3cret")
    async with (
        Jump().serving(host_key, known) as server,
        serving(echo) as target,
        jumping(plan_for(server.address, client_key, known), asking=Asking(person)) as jump,
    ):
        streams = [await jump.dial(target) for _ in range(9)]
        assert await say(streams[0], b"x") == b"x"
        assert server.tried == ["publickey", "wr0ng", "s3cret"]
        assert person.asked == [PASSWORD, PASSWORD]
        assert person.echoed == [False, False]
        assert len(server.connections) == 1  # busy as it is
        server.connections[0].abort()
        await until(lambda: jump.links == 0)
        error = await refusal_of(jump, target)
        assert (error.finding, error.blame) == ("ssh.auth-failed", Blame.CREDENTIALS)
        assert "start the run again" in str(error)
        assert len(server.connections) == 1  # no login in vain
        for stream in streams:
            stream.abort()


async def test_two_factors_with_several_prompts(host_key: Key, known: Path) -> None:
    person = Person("s3cret", "123456", "654321")
    async with (
        Jump("kbdint", "password").serving(host_key, known) as server,
        serving(echo) as target,
        jumping(plan_for(server.address, None, known), asking=Asking(person)) as jump,
    ):
        (await jump.dial(target)).close()
        assert server.tried == ["s3cret+123456", "654321"]
    mark = "(someone@jump) "
    assert person.asked == [
        f"{mark}Two\x1b factors\n{mark}First:\n{mark}your password\n{mark}Password: ",  # masked later
        f"{mark}Code: ",
        f"{mark}Again\n{mark}Now the\n{mark}other code: ",
    ]
    assert person.echoed == [False, True, True]


async def test_three_tries_and_then_no_question_more(host_key: Key, known: Path) -> None:
    person = Person("one", "two", "three")
    async with (
        Jump().serving(host_key, known) as server,
        jumping(plan_for(server.address, None, known), asking=Asking(person)) as jump,
    ):
        error = await refusal_of(jump, HostPort("127.0.0.1", 9))
        assert (error.finding, error.retry_after) == ("ssh.auth-failed", 60.0)
        assert "neither our keys nor what was typed" in str(error)
        assert server.tried == ["one", "two", "three"]
        jump._refused = None  # a minute later
        assert (await refusal_of(jump, HostPort("127.0.0.1", 9))).finding == "ssh.auth-failed"
        assert len(person.asked) == 3


@pytest.mark.parametrize(
    ("changes", "asking"),
    [
        ({}, NOBODY),
        ({"methods": ("publickey",)}, Asking(Person())),
        ({"batch": True}, Asking(Person())),
        ({}, Asking(Person(None))),
    ],
)
async def test_who_is_not_asked_hears_what_the_server_offers(
    changes: dict[str, Any], asking: Asking, host_key: Key, known: Path
) -> None:
    async with (
        Jump("kbdint", "password").serving(host_key, known) as server,
        jumping(plan_for(server.address, None, known, **changes), asking=asking) as jump,
    ):
        error = await refusal_of(jump, HostPort("127.0.0.1", 9))
        assert (error.finding, error.blame) == ("ssh.auth-failed", Blame.CREDENTIALS)
        assert "none of our keys for user someone (it offers: keyboard-interactive, password)" in str(error)
        assert server.tried == []


async def test_the_order_is_the_configurations(host_key: Key, known: Path, client_key: Key) -> None:
    person = Person("s3cret")
    async with (
        Jump("kbdint", "password").serving(host_key, known) as server,
        serving(echo) as target,
        jumping(
            plan_for(server.address, client_key, known, methods=("password", "publickey")),
            asking=Asking(person),
        ) as jump,
    ):
        (await jump.dial(target)).close()
        assert server.tried == ["s3cret"]


async def test_a_slow_person_runs_into_no_limit_of_ours(
    host_key: Key, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "DEADLINE", 0.5)
    asking = Asking(Person("s3cret", slow=1.5))
    async with (
        Jump().serving(host_key, known) as server,
        serving(echo) as target,
        jumping(plan_for(server.address, None, known), asking=asking, handshake_timeout=0.5) as jump,
    ):
        pool = Pool([Upstream("jump", jump)], emit=lambda event: None, asking=asking)
        (await pool.dial(target)).abort()
        assert not asking.busy
        await pool.close()


async def test_a_server_that_waits_no_longer_is_not_asked_about_again(host_key: Key, known: Path) -> None:
    person = Person("s3cret", slow=30)
    async with (
        Jump().serving(host_key, known, login_timeout=0.3) as server,
        jumping(plan_for(server.address, None, known), asking=Asking(person)) as jump,
    ):
        error = await refusal_of(jump, HostPort("127.0.0.1", 9))
        assert (error.finding, error.retry_after) == ("ssh.auth-failed", 60.0)
        jump._refused = None
        await refusal_of(jump, HostPort("127.0.0.1", 9))
        assert len(person.asked) == 1


# --- host keys -----------------------------------------------------------------------------------


async def asked_about(jump: SshDialer) -> str:
    error = await refusal_of(jump, HostPort("127.0.0.1", dead_port()))
    assert isinstance(error, DialError)
    return error.finding


@pytest.mark.parametrize("answers", [("yes",), ("what?", "YES "), ("SHA256",)])
async def test_a_new_host_key_is_asked_about_and_kept(
    answers: tuple[str, ...], sshd: Start, client_key: Key, tmp_path: Path
) -> None:
    server, mine = sshd(), tmp_path / "mine"
    if answers == ("SHA256",):
        answers = (asyncssh.import_public_key(server.host_key.public).get_fingerprint(),)
    person = Person(*answers)
    wanted = plan_for(server, client_key, mine, host_key_mode="ask")
    async with jumping(wanted, asking=Asking(person)) as jump:
        assert await asked_about(jump) == "tcp.refused"
    assert "ED25519 SHA256:" in person.asked[0]
    assert person.echoed == [True] * len(answers)
    assert mine.read_text() == f"[127.0.0.1]:{server.port} {' '.join(server.host_key.public.split()[:2])}\n"
    async with jumping(wanted, asking=Asking(Person())) as jump:
        assert await asked_about(jump) == "tcp.refused"
    assert logins(server) == 2


async def test_who_says_no_to_a_host_key_is_asked_once(sshd: Start, client_key: Key, tmp_path: Path) -> None:
    server, mine, person = sshd(), tmp_path / "mine", Person("no")
    async with jumping(
        plan_for(server, client_key, mine, host_key_mode="ask"), asking=Asking(person)
    ) as jump:
        error = await refusal_of(jump, HostPort("127.0.0.1", 9))
        assert error.finding == "ssh.host-key-unknown"
        assert "ssh-keyscan" in str(error)
        jump._refused = None
        assert await asked_about(jump) == "ssh.host-key-unknown"
    assert len(person.asked) == 1
    assert not mine.exists()


async def test_a_changed_or_revoked_or_pinned_host_key_is_never_asked_about(
    sshd: Start, client_key: Key, known: Path, tmp_path: Path
) -> None:
    server = sshd()
    place, public, other = (
        f"[127.0.0.1]:{server.port}",
        server.host_key.public,
        new_key(tmp_path / "o").public,
    )
    for text, mode, pinned, finding in [
        (f"{place} {other}\n", "ask", "", "ssh.host-key-changed"),
        (f"@revoked * {public}\n", "ask", "", "ssh.host-key-changed"),
        ("", "yes", "", "ssh.host-key-unknown"),
        ("", "ask", f"elsewhere {public}", "ssh.host-key-unknown"),
    ]:
        known.write_text(text)
        wanted = plan_for(server, client_key, known, host_key_mode=mode, known_hosts_text=pinned)
        async with jumping(wanted, asking=Asking(Person())) as jump:
            assert await asked_about(jump) == finding


async def test_a_yes_holds_where_known_hosts_cannot_be_written(
    sshd: Start, client_key: Key, tmp_path: Path
) -> None:
    server = sshd()
    (tmp_path / "file").write_text("")
    nowhere = tmp_path / "file" / "known_hosts"
    person = Person("yes")
    async with (
        serving(echo) as target,
        jumping(plan_for(server, client_key, nowhere, host_key_mode="ask"), asking=Asking(person)) as jump,
    ):
        (await jump.dial(target)).abort()
        server.kill()
        server.restart()
        await until(lambda: jump.links == 0)
        (await jump.dial(target)).abort()


# --- ssh_config ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "methods", "batch", "mode"),
    [
        ("", ("publickey", "keyboard-interactive", "password"), False, "ask"),
        ("BatchMode yes", ("publickey",), True, "ask"),
        ("PasswordAuthentication no", ("publickey", "keyboard-interactive"), False, "ask"),
        ("KbdInteractiveAuthentication no", ("publickey", "password"), False, "ask"),
        ("PubkeyAuthentication no", ("keyboard-interactive", "password"), False, "ask"),
        ("PreferredAuthentications gssapi,password,publickey", ("password", "publickey"), False, "ask"),
        ("StrictHostKeyChecking yes", ("publickey", "keyboard-interactive", "password"), False, "yes"),
        ("StrictHostKeyChecking off", ("publickey", "keyboard-interactive", "password"), False, "no"),
    ],
)
def test_what_ssh_config_allows(
    lines: str, methods: tuple[str, ...], batch: bool, mode: str, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(lines + "\n")
    settled = plan(SshHop("jump.example", config=str(config)))
    assert (settled.methods, settled.batch, settled.host_key_mode) == (methods, batch, mode)


async def test_the_clock_stands_still_while_somebody_is_asked() -> None:
    answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ask(prompt: str, *, echo: bool = False) -> str:
        return await answer

    asking = Asking(ask)
    began = asking.clock()
    await asyncio.sleep(0.02)
    assert asking.clock() > began
    question = asyncio.gather(asking("one"), asking("two"))
    await asyncio.sleep(0)
    stands = asking.clock()
    await asyncio.sleep(0.05)
    assert asking.busy
    assert asking.clock() == stands
    answer.set_result("yes")
    assert list(await question) == ["yes", "yes"]
    assert not asking.busy
    assert asking.clock() >= stands
