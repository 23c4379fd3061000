"""Whatever comes from outside: no exception but our own, no hang, no memory beyond the bounds.

    GOTUNNEL_FUZZ=100000 python -m pytest tests/test_fuzz.py --timeout 7200

runs so many examples of each; without it a few hundred.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Sequence

import h11
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gotunnel.address import HostPort
from gotunnel.errors import ConfigError
from gotunnel.listener import proxy
from gotunnel.listener.auth import Keys
from gotunnel.upstream.spec import Chain, masked, parse_chain
from gotunnel.wire.http1 import ConnectClient, HeadError, Reply
from gotunnel.wire.socks5 import Refusal, Request, Send, Socks5Server

EXAMPLES = int(os.environ.get("GOTUNNEL_FUZZ", "300"))
LIMIT = 2000
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=EXAMPLES <= 300,  # the same few hundred in CI each time
)
pytestmark = pytest.mark.timeout(7200 if EXAMPLES > 300 else 120)


def pieces(*words: bytes, most: int = 12) -> st.SearchStrategy[list[bytes]]:
    """A stream in pieces: the words that mean something, mixed with any bytes."""
    return st.lists(st.sampled_from(words) | st.binary(max_size=40), max_size=most)


def one_line_if_refused(kind: type[Exception], parse: Callable[[str], object], text: str) -> bool:
    """Whether `text` is taken, or refused by this error in one line."""
    try:
        parse(text)
    except kind as error:
        return "\n" not in str(error)
    return True


def split(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`stream` cut at these places."""
    places = sorted({min(cut, len(stream)) for cut in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in itertools.pairwise(places)]


# --- SOCKS, server side ------------------------------------------------------------------------------

SOCKS = pieces(
    b"\x05\x01\x00", b"\x05\x01\x02", b"\x05\x02\x00\x02", b"\x01\x01u\x01p", b"\x05\x01\x00\x03",
    b"\x05\x01\x00\x03\x01a\x00\x50", b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50", b"\x05\x01\x00\x04",
    bytes(15) + b"\x01\x00\x50", b"\x05\x02\x00", b"\x03[::1]", b"\xff" * 300, most=8,
)  # fmt: skip


@fuzz
@given(SOCKS, st.booleans(), st.lists(st.integers(0, 400), max_size=6))
def test_socks_server(said: list[bytes], secret: bool, cuts: list[int]) -> None:
    stream = b"".join(said)
    check = (lambda user, password: (user, password) == (b"u", b"p")) if secret else None
    at_once, piecewise = Socks5Server(check), Socks5Server(check)
    events = at_once.feed(stream)
    parts = []
    for piece in split(stream, cuts):
        parts += piecewise.feed(piece)
        # one message at most waits, unless the dialogue is over
        assert len(piecewise.trailing) <= 513 or isinstance(parts[-1], Request | Refusal)
    assert parts == events
    assert all(isinstance(event, Send) for event in events[:-1])
    assert len(events) <= 3
    for event in events:
        if isinstance(event, Request):
            assert HostPort.parse(str(event.target)) == event.target
            assert stream.endswith(at_once.trailing)
            if secret:
                assert b"\x01\x01u\x01p" in stream


# --- the listener's requests -------------------------------------------------------------------------

REQUESTS = pieces(
    b"CONNECT example.com:443 HTTP/1.1\r\n", b"GET http://example.com/ HTTP/1.1\r\n", b"Host: a\r\n", b"\r\n",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Proxy-Authorization: Basic dTpw\r\n",
    b"Proxy-Authorization: Basic \xff\r\n", b"Expect: 100-continue\r\n", b"X: " + b"a" * 900, b" ", b"\0",
    b"\n", b":",
)  # fmt: skip


class Said:
    """A client for the listener's reader of requests: says its pieces, then closes."""

    def __init__(self, said: list[bytes]) -> None:
        self._said = said
        self.taken = 0
        self.written = b""

    async def read(self) -> bytes:
        """The next piece."""
        piece = self._said.pop(0) if self._said else b""
        self.taken += len(piece)
        return piece

    def write(self, data: bytes) -> None:
        """Keep the answer."""
        self.written += data


def run(coroutine: object) -> object:
    """A coroutine that never has to wait."""
    try:
        coroutine.send(None)  # type: ignore[attr-defined]
    except StopIteration as end:
        return end.value
    raise AssertionError("it hangs")


@fuzz
@given(REQUESTS, st.lists(st.integers(0, 3000), max_size=6))
@example([b"X: " + b"a" * 900, b"\r\n\r\n"], [])  # found so: a reason phrase that was cut with "…"
def test_listener_requests(said: list[bytes], cuts: list[int]) -> None:
    client = Said([piece for piece in split(b"".join(said), cuts) if piece])
    endpoint = proxy.Endpoint(None, keys=Keys("p"), head=LIMIT)  # type: ignore[arg-type]
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    request = run(endpoint._request(client, http))  # type: ignore[arg-type]
    if request is None:
        head, _, body = client.written.partition(b"\r\n\r\n")
        assert head == b"" or head.startswith((b"HTTP/1.1 4", b"HTTP/1.1 501 "))
        assert head == b"" or f"\r\nContent-Length: {len(body)}\r\n".encode() in head  # one answer, no more
        return
    assert isinstance(request, h11.Request)
    assert client.taken <= LIMIT + 3000
    for name, value in request.headers:
        if name == b"proxy-authorization":
            assert Keys("p").whose(value.decode("latin-1")) in ("", None)
    if request.method == b"CONNECT":
        assert one_line_if_refused(ValueError, HostPort.parse, request.target.decode("latin-1"))


@fuzz
@given(st.binary(min_size=1, max_size=200), st.integers(10, 60))
def test_listener_takes_no_endless_head(piece: bytes, times: int) -> None:
    client = Said([b"GET / HTTP/1.1\r\nHost: a\r\nX: " + piece.replace(b"\n", b"-")] + [b"a" * 500] * times)
    endpoint = proxy.Endpoint(None, keys=Keys(), head=LIMIT)  # type: ignore[arg-type]
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT)
    assert run(endpoint._request(client, http)) is None  # type: ignore[arg-type]
    assert client.written.startswith(b"HTTP/1.1 4")
    assert client.taken <= LIMIT + 1000


# --- replies to our CONNECT --------------------------------------------------------------------------

REPLIES = pieces(
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.0 403 No\r\n", b"HTTP/1.1 407 \r\n",
    b"HTTP/1.1 299 \xff\r\n", b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Via: a\r\n b\r\n",
    b"HTTP/1.1 204\r\n", b"HTTP/2 200\r\n", b"X: " + b"a" * 900, b"SSH-2.0-x\r\n", b"\x05\x00", b"\n", b"\0",
    b"\r\n",
)  # fmt: skip


def feed(client: ConnectClient, said: list[bytes]) -> Reply | None:
    """Pieces, then the end."""
    client.request()
    for piece in [*filter(None, said), b""]:
        reply = client.feed(piece)
        if reply is not None:
            return reply
    return None


@fuzz
@given(REPLIES, st.lists(st.integers(0, 3000), max_size=6))
def test_connect_replies(said: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(said)
    client = ConnectClient(HostPort("example.com", 443), limit=LIMIT)
    try:
        reply = feed(client, split(stream, cuts))
    except HeadError:
        return
    assert reply is not None  # at the end of the stream there is an answer or an error
    assert 200 <= reply.status <= 999
    assert not reply.trailing or reply.accepted


@fuzz
@given(
    st.sampled_from([b"HTTP/1.1 100 C\r\n\r\n", b"X: y\r\n", b"a", b"HTTP/1.1 200 OK\r\nA"]),
    st.binary(max_size=9),
)
def test_connect_takes_no_endless_head(piece: bytes, noise: bytes) -> None:
    client = ConnectClient(HostPort("example.com", 443), limit=LIMIT)
    said = [noise.replace(b"\n", b"-") or b"-", *[piece * 50] * 1000]
    taken = 0
    try:
        for part in said:
            taken += len(part)
            if client.feed(part) is not None:
                break
    except HeadError:
        pass
    assert taken <= 8 * LIMIT


# --- CHAINs ------------------------------------------------------------------------------------------

WORDS = """
    ssh:// http:// https:// socks5h:// socks5:// socks4a:// socks4:// direct: direct srv:// , @ : / ? & = %2C
    %00 % [ ] [::1] :: host user 22 99999 10.0.0.1 ~ # - identity known_hosts password_env password_file
    compression connections interface source yes auto ca server_name
"""
CHAINS = st.lists(st.sampled_from([*WORDS.split(), " ", "\n"]) | st.text(max_size=5), max_size=14).map(
    "".join
)


@fuzz
@given(CHAINS)
def test_chains(text: str) -> None:
    assert one_line_if_refused(ConfigError, parse_chain, text)
    try:
        chain = parse_chain(text)
    except ConfigError:
        return
    assert isinstance(chain, Chain)
    assert chain.hops
    hash(chain)  # chains and their hops are keys
    again = parse_chain(str(chain).replace(":***@", "@")) if "%" not in text else None
    assert again is None or len(again.hops) == len(chain.hops)


@fuzz
@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=6, max_size=12), CHAINS, CHAINS)
def test_chains_never_show_a_password(password: str, before: str, after: str) -> None:
    password = f"Pw{password}"
    text = f"{before},http://user:{password}@host{after}"
    try:
        shown = str(parse_chain(text)) + repr(parse_chain(text))
    except ConfigError as error:
        shown = str(error)
    assert password not in shown
    assert password not in masked(text)
