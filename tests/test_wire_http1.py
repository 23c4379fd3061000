"""CONNECT's answer, however it is cut and whatever it is."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotunnel.address import HostPort
from gotunnel.wire.http1 import HEAD_LIMIT, ConnectClient, HeadError, Reply, answer, basic

TARGET = HostPort("git.example", 443)
GOOD = b"HTTP/1.1 200 Connection established\r\nProxy-Agent: x\r\n\r\n"


def client(target: HostPort = TARGET, authorization: str = "") -> ConnectClient:
    made = ConnectClient(target, authorization)
    made.request()
    return made


def fed(*pieces: bytes) -> Reply | None:
    """What a client makes of an answer that comes in these pieces."""
    asked = client()
    for place, piece in enumerate(pieces):
        reply = asked.feed(piece)
        if reply is not None:
            assert place == len(pieces) - 1
            return reply
    return None


def test_the_request() -> None:
    assert ConnectClient(TARGET, basic("me", "pä:ss")).request() == (
        b"CONNECT git.example:443 HTTP/1.1\r\nHost: git.example:443\r\nUser-Agent: gotunnel\r\n"
        b"Proxy-Authorization: Basic " + base64.b64encode("me:pä:ss".encode()) + b"\r\n\r\n"
    )


def test_an_ipv6_target_stands_in_brackets() -> None:
    request = ConnectClient(HostPort("2001:db8::1", 443)).request()
    assert request.startswith(b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\n")


@pytest.mark.parametrize("host", ["bücher.example", "a\r\nX-Evil: 1", "a b", "nul\0"])
def test_a_name_that_http_cannot_say_is_a_value_error(host: str) -> None:
    with pytest.raises(ValueError, match="can't be said"):
        ConnectClient(HostPort(host, 443)).request()


def test_bytes_of_the_environment_that_are_no_text_go_out_as_they_came() -> None:
    assert basic("u", b"p\xff".decode("utf-8", "surrogateescape")) == (
        "Basic " + base64.b64encode(b"u:p\xff").decode()
    )


def test_an_answer_cut_after_every_byte() -> None:
    reply = fed(*(GOOD[i : i + 1] for i in range(len(GOOD))))
    assert reply is not None
    assert (reply.accepted, reply.reason, reply.trailing) == (True, "Connection established", b"")


@pytest.mark.parametrize("cut", [1, 20, len(GOOD) - 2, len(GOOD)])
def test_bytes_after_the_head_belong_to_the_tunnel(cut: int) -> None:
    whole = GOOD + b"SSH-2.0-x\r\n"
    reply = fed(whole) if cut == len(GOOD) else fed(whole[:cut], whole[cut:])
    assert reply is not None
    assert reply.trailing == b"SSH-2.0-x\r\n"


@pytest.mark.parametrize("extra", [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_an_accepted_connect_has_no_body_whatever_it_says(extra: bytes) -> None:
    reply = fed(b"HTTP/1.1 200 OK\r\n" + extra + b"\r\nhello")
    assert reply is not None
    assert reply.trailing == b"hello"


def test_interim_answers_are_passed_over() -> None:
    reply = fed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + GOOD)
    assert reply is not None
    assert reply.status == 200


@pytest.mark.parametrize(
    ("status", "accepted"), [(201, True), (204, True), (299, True), (302, False), (407, False)]
)
def test_any_2xx_accepts(status: int, accepted: bool) -> None:
    reply = fed(b"HTTP/1.0 %d Words\r\nProxy-Authenticate: Basic realm=x\r\n\r\n" % status)
    assert reply is not None
    assert reply.accepted is accepted
    assert reply.header("proxy-authenticate") == "Basic realm=x"
    assert reply.header("other") == ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nHalf: a head",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x05\x00",
        b"HTTP/1.1 999999 x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
    ],
)
def test_what_is_no_answer_is_a_head_error(data: bytes) -> None:
    asked = client()
    with pytest.raises(HeadError) as caught:  # noqa: PT012 - the end may be what tells
        if data:
            asked.feed(data)
        asked.feed(b"")
    assert str(caught.value).isprintable()
    assert "event type" not in str(caught.value)  # h11's inner life is nobody's business


@pytest.mark.parametrize("unit", [b"X: y\r\n", b"x", b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n"])
def test_an_endless_head_is_given_up_after_a_bounded_number_of_bytes(unit: bytes) -> None:
    asked = client()
    if unit in (b"X: y\r\n", b"x"):
        asked.feed(b"HTTP/1.1 200 OK\r\n")
    piece = unit * (4096 // len(unit))
    fed_bytes = 0
    with pytest.raises(HeadError):  # noqa: PT012 - which piece it is doesn't matter
        while fed_bytes < 16 * HEAD_LIMIT:
            assert asked.feed(piece) is None
            fed_bytes += len(piece)
    assert fed_bytes <= 5 * HEAD_LIMIT


_PARTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 Switching\r\n", b"HTTP/1.1 100 C\r\n", b"HTTP/1.0 ", b"407 ",
        b"\r\n", b"\n", b"\r", b" ", b":", b"A: b\r\n", b"Transfer-Encoding: chunked\r\n", b"\0", b"\xff",
        b"Content-Length: 9999999999999999999999\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n",
    ]
)  # fmt: skip


@given(st.lists(st.one_of(_PARTS, st.binary(max_size=40)), max_size=12), st.booleans())
def test_nothing_but_a_head_error_leaves_it(pieces: list[bytes], ends: bool) -> None:
    asked, sent = client(), b""
    try:
        for piece in [p for p in pieces if p] + [b""] * ends:
            sent += piece
            if (reply := asked.feed(piece)) is not None:
                assert 200 <= reply.status <= 999
                assert sent.endswith(reply.trailing)
                return
    except HeadError as error:
        words = str(error)
    else:
        return
    assert words.isprintable()


def test_an_answer_of_ours_is_whole_and_its_reason_one_plain_line() -> None:
    text = answer(502, "gotunnel: bücher\r\nX-Evil: 1", headers=(("A", "b"),))
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[:2] == [b"HTTP/1.1 502 gotunnel: b?cher  X-Evil: 1", b"A: b"]
    assert f"Content-Length: {len(body)}".encode() in head
