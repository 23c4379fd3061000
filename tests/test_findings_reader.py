"""The reader: what arrives as bytes leaves as matches, however it is cut."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotunnel.findings.reader import Blocks, Match, Reader

OUTPUTS = sorted((Path(__file__).parent / "data" / "outputs").glob("*.txt"))
REFUSED = b'go: a.example/m@v1.2.3: Get "https://p.example:8443/a.example/m/@v/v1.2.3.mod": dial tcp 192.0.2.1:8443: connect: connection refused\n'  # fmt: skip # noqa: E501


def read(*parts: bytes) -> list[Match]:
    reader = Reader()
    found = [match for part in parts for match in reader.feed(part)]
    return found + reader.finish()


def ids(*parts: bytes) -> list[str]:
    return [match.id for match in read(*parts)]


def test_a_line_tells_of_what_it_speaks() -> None:
    (match,) = read(REFUSED)
    assert match.id == "tcp.refused"
    assert match.groups == {
        "url": "https://p.example:8443/a.example/m/@v/v1.2.3.mod",
        "host": "p.example",
        "port": "8443",
        "module": "a.example/m",
        "version": "v1.2.3",
        "address": "192.0.2.1:8443",
    }


def test_the_host_is_the_one_that_failed() -> None:
    (match,) = read(
        b'Get "https://h.example/x": proxyconnect tcp: dial tcp: '
        b"lookup proxy.example on 10.0.0.1:53: no such host"
    )
    assert (match.groups["host"], match.groups["server"]) == ("proxy.example", "10.0.0.1:53")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_cuts_change_nothing(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(OUTPUTS)).read_bytes()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert read(*parts) == read(whole)


def test_colours_carriage_returns_and_timestamps() -> None:
    assert ids(b"\x1b[31m" + REFUSED.replace(b"\n", b"\x1b[0m\r\n")) == ["tcp.refused"]
    assert ids(b"\x1b[3", b"1mfatal: early\x1b[1m EOF\n") == ["http.truncated"]
    assert ids(b"Receiving objects:  10%\rReceiving objects:  11%\rfatal: early EOF\r\n") == [
        "http.truncated"
    ]
    assert ids(b"2026-01-02T03:04:05Z main.go:1:2: undefined: x\n") == ["build.failed"]


def test_the_end_needs_no_newline() -> None:
    assert ids(REFUSED.rstrip()) == ["tcp.refused"]


def test_the_body_of_a_response_explains_its_status() -> None:
    status = b"go: a.example/m@v1.2.3: reading https://p.example/a.example/m/@v/v1.2.3.zip: 502 Bad Gateway\n"
    (match,) = read(status + b"\tserver response: gotunnel: dns.not-found: tokyo: no such name p.example\n")
    assert (match.id, match.exact, match.groups["words"]) == (
        "dns.not-found", True, "tokyo: no such name p.example",
    )  # fmt: skip
    (match,) = read(
        status.replace(b"502", b"404")
        + b"\tserver response:\n\tnot found: a.example/m@v1.2.3: fetch timed out\n"
    )
    assert match.id == "http.timeout"
    assert ids(
        status + b'\tb.example/m@v1.0.0: Get "https://p.example/b": gotunnel: tcp.reset: tokyo: gone\n'
    ) == [
        "http.server-error",
        "tcp.reset",
    ]


def test_a_consequence_is_dropped_near_its_cause() -> None:
    cause = b"error: RPC failed; HTTP 503 curl 22 The requested URL returned error: 503\n"
    assert ids(cause + b"fatal: the remote end hung up unexpectedly\nfatal: early EOF\n") == [
        "http.server-error"
    ]
    assert ids(b"fatal: early EOF\n") == ["http.truncated"]
    assert ids(cause + b"fine\n" * 2000 + b"fatal: early EOF\n") == ["http.server-error", "http.truncated"]


def test_our_own_lines_are_no_failures() -> None:
    assert ids(b"gotunnel: tcp.refused: tokyo: connection refused\n") == []


def test_a_line_without_end_takes_no_memory_and_keeps_its_end() -> None:
    reader = Reader()
    tracemalloc.start()
    try:
        for _ in range(400):
            assert reader.feed(b"x" * 65536) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000
    assert [match.id for match in reader.feed(b": connect: connection refused\n") + reader.finish()] == [
        "tcp.refused"
    ]


def test_one_long_line_in_one_piece() -> None:
    (match,) = read(b"y" * 1_000_000 + b": connect: connection refused\n")
    assert len(match.line) < 40_000


@pytest.mark.parametrize(
    "junk", [b"\xff\xfe\x00\n" * 3, b"\n" * 50, b"\x1b", b"\x1b]0;title without end", b""]
)
def test_junk_is_nothing(junk: bytes) -> None:
    assert read(junk) == []


def test_blocks_are_whole_lines() -> None:
    blocks = Blocks()
    assert blocks.feed(b"one\ntw") == b"one\n"
    assert blocks.feed(b"o") == b""
    assert blocks.feed(b"\nthree") == b"two\n"
    assert blocks.finish() == b"three\n"
    assert blocks.finish() == b""
