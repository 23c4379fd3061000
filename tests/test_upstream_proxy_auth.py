"""Logging in to a proxy: challenges and Digest by the RFC's own figures, then scripted proxies."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotunnel.address import HostPort
from gotunnel.errors import Blame, DialError
from gotunnel.upstream.connect import ConnectDialer
from gotunnel.upstream.direct import DirectDialer
from gotunnel.upstream.proxy_auth import Login
from gotunnel.wire.proxy_auth import Challenge, challenges, digest, strongest_digest

TARGET = HostPort("git.corp.example", 443)
PASSWORD = 's3cret, "really"'

# --- challenges -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["NTLM"], [Challenge("ntlm")]),
        (["Negotiate, NTLM"], [Challenge("negotiate"), Challenge("ntlm")]),
        (["NTLM TlRMTVNTUAAC=="], [Challenge("ntlm", "TlRMTVNTUAAC==")]),
        (
            ['Digest realm="a, b \\"c\\"", qop="auth,auth-int",nonce = x, Basic realm="=, NTLM"'],
            [
                Challenge("digest", "", (("realm", 'a, b "c"'), ("qop", "auth,auth-int"), ("nonce", "x"))),
                Challenge("basic", "", (("realm", "=, NTLM"),)),
            ],
        ),
        (
            ['Basic realm="x"', "Negotiate abc=, , DIGEST REALM=y"],
            [
                Challenge("basic", "", (("realm", "x"),)),
                Challenge("negotiate", "abc="),
                Challenge("digest", "", (("realm", "y"),)),
            ],
        ),
        (['realm="nobody\'s", Basic realm="open'], [Challenge("basic"), Challenge("realm")]),
        (["", " ,, ", "@@@"], []),
    ],
)
def test_challenges(values: list[str], expected: list[Challenge]) -> None:
    assert list(challenges(values)) == expected


@given(st.lists(st.text(alphabet=st.characters(max_codepoint=255)), max_size=3))
def test_any_text_can_be_read(values: list[str]) -> None:
    offered = challenges(values)
    best = strongest_digest(offered)
    if best is not None:
        credential = digest(best, "u", "p", method="CONNECT", uri="a:1", count=1, cnonce="c")
        assert credential.startswith("Digest username")


@given(st.dictionaries(st.sampled_from(["realm", "nonce", "opaque"]), st.text('ab,\\"= \t', max_size=9)))
def test_what_is_quoted_is_read_again(params: dict[str, str]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = ", ".join(f"{name}={quoted(value)}" for name, value in params.items())
    assert challenges([f"Digest {text}, NTLM"]) == (
        Challenge("digest", "", tuple(params.items())),
        Challenge("ntlm"),
    )


# --- Digest ---------------------------------------------------------------------------------------------

RFC7616 = (
    'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={}, '
    'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", '
    'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
)


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_digest_by_rfc7616(algorithm: str, response: str) -> None:
    """RFC 7616 §3.9.1."""
    (challenge,) = challenges([RFC7616.format(algorithm)])
    credential = digest(
        challenge,
        "Mufasa",
        "Circle of Life",
        method="GET",
        uri="/dir/index.html",
        count=1,
        cnonce="f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    )
    assert f'response="{response}"' in credential
    assert "nc=00000001" in credential
    assert 'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"' in credential


def test_digest_without_qop_by_rfc2069() -> None:
    """RFC 2069 §2.4 as its erratum 749 has it."""
    (challenge,) = challenges(
        ['Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"']
    )
    credential = digest(
        challenge, "Mufasa", "CircleOfLife", method="GET", uri="/dir/index.html", count=1, cnonce="x"
    )
    assert 'response="1949323746fe6a43ef61f9606e7febea"' in credential
    assert "nc=" not in credential


@pytest.mark.parametrize(
    ("values", "algorithm"),
    [
        (["Digest nonce=n, algorithm=MD5, Digest nonce=n, algorithm=SHA-256"], "SHA-256"),
        (["Digest nonce=n, algorithm=MD5-sess", "Digest nonce=n, algorithm=MD5"], "MD5-sess"),
        (["Digest nonce=n, algorithm=SHA-512-256, Digest nonce=n"], ""),
        (['Digest nonce=n, qop="auth-int", algorithm=MD5'], None),
        (["Digest nonce=n, algorithm=ROT13"], None),
        (["Digest realm=r"], None),
    ],
)
def test_the_strongest_algorithm_wins(values: list[str], algorithm: str | None) -> None:
    best = strongest_digest(challenges(values))
    assert (None if best is None else best.param("algorithm")) == algorithm


# --- scripted proxies -----------------------------------------------------------------------------------

Answer = tuple[int, list[str], bool]  # status, values of Proxy-Authenticate, whether the connection is kept
Script = Callable[[int, str], Answer]


class Proxy:
    """Answers each CONNECT by a script, which is told the connection's number and the credential."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.seen: list[tuple[int, str]] = []
        self._count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, self._count = self._count, self._count + 1
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
            credential = fields.get("Proxy-Authorization", "")
            self.seen.append((number, credential))
            status, offers, keep = self.script(number, credential)
            lines = [f"HTTP/1.1 {status} X", *(f"Proxy-Authenticate: {offer}" for offer in offers)]
            if status != 200:
                lines += ["Content-Length: 70000", *([] if keep else ["Connection: close"])]
            writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
            writer.write(b"hello" if status == 200 else b"x" * 70_000)
            if status == 200 or not keep:
                break

    @contextlib.asynccontextmanager
    async def dialer(self, user: str = "dev", password: str = PASSWORD) -> AsyncIterator[ConnectDialer]:
        running: set[asyncio.Task[None] | None] = set()

        async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            running.add(asyncio.current_task())
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self.serve(reader, writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        server = await asyncio.start_server(client, "127.0.0.1", 0)
        async with server:
            address = HostPort(*server.sockets[0].getsockname())
            yield ConnectDialer(
                DirectDialer(), address, label="http://proxy", user=user, password=lambda: password
            )
            await asyncio.gather(*filter(None, running))


async def reach(dialer: ConnectDialer) -> None:
    stream = await dialer.dial(TARGET)
    assert await stream.read() == b"hello"
    stream.abort()


async def refused(dialer: ConnectDialer) -> DialError:
    with pytest.raises(DialError) as caught:
        await dialer.dial(TARGET)
    assert (caught.value.finding, caught.value.blame) == ("proxy.auth-required", Blame.CREDENTIALS)
    assert PASSWORD not in str(caught.value)
    return caught.value


def schemes(proxy: Proxy) -> list[tuple[int, str]]:
    return [(number, credential.split(" ")[0]) for number, credential in proxy.seen]


@pytest.mark.parametrize("keep", [True, False])
async def test_basic_is_learnt_once(keep: bool) -> None:
    wanted = "Basic " + base64.b64encode(f"dev:{PASSWORD}".encode()).decode()
    proxy = Proxy(
        lambda _, credential: (200, [], True) if credential == wanted else (407, ['Basic realm="x"'], keep)
    )
    async with proxy.dialer() as dialer:
        await reach(dialer)
        await reach(dialer)
    second = 0 if keep else 1
    assert schemes(proxy) == [(0, ""), (second, "Basic"), (second + 1, "Basic")]


@pytest.mark.parametrize("offer", ["Digest nonce=n, algorithm=ROT13", "NTLM", "Negotiate"])
async def test_basic_is_not_sent_in_clear_beside_something_stronger(
    offer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    proxy = Proxy(lambda *_: (407, [f'Basic realm="x", {offer}'], True))
    async with proxy.dialer() as dialer:
        error = await refused(dialer)
    assert schemes(proxy) == [(0, "")]
    if "Digest" in offer:
        assert "in clear" in error.detail
    else:
        assert "pip install 'gotunnel[ntlm]'" in error.detail


@pytest.mark.parametrize(
    ("installed", "advice"), [(False, "pip install 'gotunnel[kerberos]'"), (True, "kinit gets a ticket")]
)
async def test_without_a_password_a_ticket_is_advised(
    installed: bool, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)

    async def no_ticket(self: Login, scheme: str) -> str:
        raise DialError("proxy.auth-required", "no ticket", blame=Blame.CREDENTIALS)

    monkeypatch.setattr(Login, "_start", no_ticket)
    proxy = Proxy(lambda *_: (407, ["Negotiate"], True))
    async with proxy.dialer(user="", password="") as dialer:
        assert advice in (await refused(dialer)).detail


async def test_without_a_password_the_error_says_what_is_wanted() -> None:
    proxy = Proxy(lambda *_: (407, ['Digest nonce=n, Basic realm="x"'], True))
    async with proxy.dialer(user="", password="") as dialer:
        error = await refused(dialer)
    assert "(Basic, Digest)" in error.detail
    assert "USER:PASSWORD@" in error.detail
    assert error.retry_after == 0


@pytest.mark.parametrize(("scheme", "tries"), [("Basic realm=x", 2), ("Digest nonce=n", 2)])
async def test_a_wrong_password_is_judged_once(scheme: str, tries: int) -> None:
    proxy = Proxy(lambda *_: (407, [scheme, "Basic realm=x"], True))
    async with proxy.dialer() as dialer:
        error = await refused(dialer)
    assert "refuses our user and password" in error.detail
    assert error.retry_after == 60
    assert len(proxy.seen) == tries


def nonce_of(credential: str) -> str:
    return challenges([credential])[0].param("nonce") if credential else ""


@pytest.mark.parametrize("stale", [", stale=TRUE", ""])  # not every proxy says it
async def test_a_nonce_is_counted_up_until_it_is_stale(stale: str) -> None:
    valid = "first"

    def script(_: int, credential: str) -> Answer:
        if nonce_of(credential) == valid:
            return 200, [], True
        return 407, [f'Digest realm="r", qop="auth", nonce="{valid}"{stale if credential else ""}'], True

    proxy = Proxy(script)
    async with proxy.dialer() as dialer:
        await reach(dialer)
        await reach(dialer)
        valid = "second"
        await reach(dialer)
        await reach(dialer)
    counts = [(nonce_of(c), challenges([c])[0].param("nc")) for _, c in proxy.seen if c]
    assert counts == [
        ("first", "00000001"),
        ("first", "00000002"),
        ("first", "00000003"),
        ("second", "00000001"),
        ("second", "00000002"),
    ]


async def test_a_proxy_that_is_never_content_is_given_up() -> None:
    proxy = Proxy(lambda *_: (407, ["Digest nonce=n, stale=true"], True))
    async with proxy.dialer() as dialer:
        await refused(dialer)
    assert len(proxy.seen) < 10


async def test_a_connection_that_was_to_be_kept_and_is_closed() -> None:
    def script(number: int, credential: str) -> Answer:
        return (200, [], True) if credential and number else (407, ["Basic realm=x"], True)

    class Forgetful(Proxy):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self.seen:
                await super().serve(reader, writer)
                return
            await reader.readuntil(b"\r\n\r\n")
            self.seen.append((0, ""))
            self._count = 1
            writer.write(b"HTTP/1.1 407 X\r\nProxy-Authenticate: Basic realm=x\r\nContent-Length: 0\r\n\r\n")

    proxy = Forgetful(script)
    async with proxy.dialer() as dialer:
        await reach(dialer)
    assert schemes(proxy) == [(0, ""), (1, "Basic")]


async def test_a_body_without_end_costs_a_connection_and_no_more() -> None:
    sent: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"Basic" in await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 X\r\n\r\nhello")
            return
        writer.write(b"HTTP/1.1 407 X\r\nProxy-Authenticate: Basic realm=x\r\n")
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent.append(65536)
            await writer.drain()

    proxy = Proxy(lambda *_: (200, [], True))
    proxy.serve = serve  # type: ignore[method-assign]
    async with proxy.dialer() as dialer:
        await reach(dialer)
    assert sum(sent) < 32_000_000  # our bound and what the kernel's buffers took


# --- NTLM and Negotiate, judged by pyspnego's own server ------------------------------------------------


class Spnego:
    """A script that demands a real login, as a directory would judge it, on one connection."""

    def __init__(self, scheme: str, keep: bool = True) -> None:
        self.scheme, self.keep = scheme, keep
        self.contexts: dict[int, object] = {}

    def __call__(self, number: int, credential: str) -> Answer:
        import spnego

        protocol = {"NTLM": "ntlm", "Negotiate": "negotiate"}[self.scheme]
        scheme, _, text = credential.partition(" ")
        if scheme != self.scheme:
            return 407, [self.scheme, 'Basic realm="x"'], self.keep
        context = self.contexts.setdefault(number, spnego.server(protocol=protocol))
        assert isinstance(context, spnego.ContextProxy)
        try:
            answer = context.step(base64.b64decode(text))
        except spnego.exceptions.SpnegoError:
            return 407, [self.scheme, 'Basic realm="x"'], self.keep
        if context.complete:
            return 200, [], True
        return 407, [f"{self.scheme} {base64.b64encode(answer or b'').decode()}"], self.keep


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The accounts that pyspnego's server knows."""
    pytest.importorskip("spnego")
    accounts = tmp_path / "accounts"
    accounts.write_text("CORP:dev:right\n")
    monkeypatch.setenv("NTLM_USER_FILE", str(accounts))


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("scheme", ["NTLM", "Negotiate"])
async def test_ntlm_logs_in_a_connection(scheme: str) -> None:
    proxy = Proxy(Spnego(scheme))
    async with proxy.dialer(user="CORP\\dev", password="right") as dialer:
        await reach(dialer)
        await reach(dialer)
    assert schemes(proxy) == [(0, ""), (0, scheme), (0, scheme), (1, scheme), (1, scheme)]


@pytest.mark.usefixtures("directory")
@pytest.mark.parametrize("scheme", ["NTLM", "Negotiate"])
async def test_ntlm_judges_a_wrong_password_once(scheme: str) -> None:
    proxy = Proxy(Spnego(scheme))
    async with proxy.dialer(user="CORP\\dev") as dialer:
        error = await refused(dialer)
    assert f"refuses our user and password ({scheme})" in error.detail
    assert schemes(proxy) == [(0, ""), (0, scheme), (0, scheme)]


@pytest.mark.usefixtures("directory")
async def test_ntlm_wants_its_connection_kept() -> None:
    proxy = Proxy(Spnego("NTLM", keep=False))
    async with proxy.dialer(user="CORP\\dev", password="right") as dialer:
        error = await refused(dialer)
    assert "closes the connection in the middle of a login" in error.detail


@pytest.mark.usefixtures("directory")
async def test_a_token_that_is_none() -> None:
    proxy = Proxy(
        lambda _, c: (407, ["NTLM " + base64.b64encode(b"NTLMSSP\0\2junk").decode() if c else "NTLM"], True)
    )
    async with proxy.dialer(user="CORP\\dev") as dialer:
        assert "NTLM failed" in (await refused(dialer)).detail
