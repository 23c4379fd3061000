"""TLS inside a Stream, against OpenSSL servers in threads: what passes, what an end means, whom we trust."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gotunnel.address import HostPort
from gotunnel.errors import Blame, ConfigError, DialError, StreamLost
from gotunnel.upstream.dialer import LIMIT, Stream
from gotunnel.upstream.direct import DirectDialer
from gotunnel.upstream.tls import client_context, start_tls
from tests.lab.pki import Authority, Certificate

Handler = Callable[[socket.socket], None]
Serve = Callable[[Handler], HostPort]
BLOB = bytes(range(256)) * 16_384  # 4 MB


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("origin.test")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts blocking servers, each for one connection; what they raise is nobody's business."""
    with contextlib.ExitStack() as stack:

        def start(handler: Handler) -> HostPort:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))

            def work() -> None:
                with contextlib.suppress(OSError), listener.accept()[0] as connection:
                    connection.settimeout(20)
                    handler(connection)

            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            stack.callback(thread.join, 20)
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
            return HostPort(*listener.getsockname())

        yield start


def inside_tls(
    certificate: Certificate, handler: Callable[[ssl.SSLSocket], None], **options: object
) -> Handler:
    """A handler that speaks TLS first; `options` are attributes of its context."""

    def work(connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert, certificate.key)
        ca = options.pop("client_ca", None)
        if ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(str(ca))
        for name, value in options.items():
            setattr(context, name, value)
        with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as tls:
            handler(tls)

    return work


def read_all(tls: ssl.SSLSocket) -> bytes:
    """All until the peer's close_notify."""
    data = b""
    while part := tls.recv(65536):
        data += part
    return data


async def connect(
    where: HostPort, context: ssl.SSLContext, name: str = "origin.test", timeout: float = 10.0
) -> Stream:
    return await start_tls(await DirectDialer().dial(where), context, name, timeout)


async def read_to_end(stream: Stream) -> bytes:
    data = bytearray()
    while part := await stream.read():
        data += part
    return bytes(data)


# --- what passes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_half_close_keeps_the_other_direction(
    serve: Serve, authority: Authority, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    def answer_after_all(tls: ssl.SSLSocket) -> None:
        tls.sendall(hashlib.sha256(read_all(tls)).digest() + BLOB)
        with contextlib.suppress(OSError, ssl.SSLError):
            tls.unwrap()

    where = serve(inside_tls(certificate, answer_after_all, maximum_version=version))
    stream = await connect(where, client_context(str(authority.cert)))
    assert stream.transport.get_extra_info("ssl_object").version() == version.name.replace("_", ".")
    stream.write(BLOB)
    await stream.drain()
    stream.write_eof()
    answer = await read_to_end(stream)
    assert answer[:32] == hashlib.sha256(BLOB).digest()
    assert answer[32:] == BLOB
    stream.close()


async def test_both_directions_at_once(serve: Serve, authority: Authority, certificate: Certificate) -> None:
    def echo(tls: ssl.SSLSocket) -> None:
        while part := tls.recv(65536):
            tls.sendall(part)
        tls.unwrap()

    stream = await connect(serve(inside_tls(certificate, echo)), client_context(str(authority.cert)))

    async def send() -> None:
        for start in range(0, len(BLOB), 100_000):
            stream.write(BLOB[start : start + 100_000])
            await stream.drain()
        stream.write_eof()

    async with asyncio.TaskGroup() as group:
        group.create_task(send())
        answer = group.create_task(read_to_end(stream))
    assert answer.result() == BLOB
    stream.close()


async def test_tls_inside_tls(serve: Serve, authority: Authority, certificate: Certificate) -> None:
    def inner(outer: ssl.SSLSocket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert, certificate.key)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_side=True)

        def until_done(step: Callable[[], object]) -> object:
            while True:
                with contextlib.suppress(ssl.SSLWantReadError):
                    result = step()
                    outer.sendall(outgoing.read())
                    return result
                outer.sendall(outgoing.read())
                incoming.write(outer.recv(65536))

        until_done(tls.do_handshake)
        assert until_done(lambda: tls.read(100)) == b"hello"
        until_done(lambda: tls.write(b"inside"))

    context = client_context(str(authority.cert))
    outer = await connect(serve(inside_tls(certificate, inner)), context)
    stream = await start_tls(outer, context, "origin.test")
    stream.write(b"hello")
    assert await stream.read() == b"inside"
    stream.abort()


class Slow:
    """A receiver that asks for a pause at the first byte."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.data = bytearray()
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        stream.hand_over(self)

    def data_received(self, data: bytes) -> None:
        if not self.data:
            self.stream.transport.pause_reading()
        self.data += data

    def eof_received(self) -> bool:
        self.ended.set_result("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result("lost")

    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


async def test_a_reader_that_pauses_holds_up_the_sender(
    serve: Serve, authority: Authority, certificate: Certificate
) -> None:
    sent = threading.Event()

    def send_much(tls: ssl.SSLSocket) -> None:
        for _ in range(8):  # 32 MB: more than the kernel's buffers take
            tls.sendall(BLOB)
        sent.set()
        tls.unwrap()

    stream = await connect(serve(inside_tls(certificate, send_much)), client_context(str(authority.cert)))
    slow = Slow(stream)
    await asyncio.sleep(0.5)
    assert not sent.is_set()
    assert len(slow.data) <= LIMIT
    stream.transport.resume_reading()
    assert await slow.ended == "eof"
    assert hashlib.sha256(slow.data).digest() == hashlib.sha256(BLOB * 8).digest()
    stream.close()


# --- what an end means ----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "reset"])
async def test_a_cut_is_no_eof(
    serve: Serve, authority: Authority, certificate: Certificate, how: str
) -> None:
    def cut(tls: ssl.SSLSocket) -> None:
        tls.sendall(b"half of it")
        assert tls.recv(10) == b"go on"
        if how == "reset":
            tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.socket(fileno=tls.detach()).close()  # closes the TCP connection beneath TLS

    stream = await connect(serve(inside_tls(certificate, cut)), client_context(str(authority.cert)))
    assert await stream.read_exactly(10) == b"half of it"
    stream.write(b"go on")
    with pytest.raises(StreamLost):
        await stream.read()


# --- whom we trust --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "days", "finding", "words"),
    [
        (["origin.test"], (-9, -2), "tls.expired", "expired"),
        (["origin.test"], (2, 9), "tls.clock-skew", "not yet valid"),
        (["other.test"], (-1, 9), "tls.wrong-name", "origin.test"),
    ],
)
async def test_a_certificate_that_is_not_right(
    serve: Serve, authority: Authority, names: list[str], days: tuple[int, int], finding: str, words: str
) -> None:
    bad = authority.issue(*names, days=days)
    with pytest.raises(DialError, match=words) as caught:
        await connect(serve(inside_tls(bad, lambda tls: None)), client_context(str(authority.cert)))
    assert (caught.value.finding, caught.value.blame) == (finding, Blame.TARGET)


async def test_an_issuer_whom_nobody_trusts_is_named(serve: Serve, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "Inspection Box 7").issue("origin.test")
    with pytest.raises(DialError, match="issued by Inspection Box 7") as caught:
        await connect(serve(inside_tls(stranger, lambda tls: None)), client_context())
    assert caught.value.finding == "tls.intercepted"


async def test_the_systems_store_can_be_replaced(
    serve: Serve, authority: Authority, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
    stream = await connect(serve(inside_tls(certificate, lambda tls: tls.sendall(b"x"))), client_context())
    assert await stream.read() == b"x"
    stream.abort()


async def test_an_address_may_be_the_name(serve: Serve, authority: Authority) -> None:
    by_address = authority.issue("127.0.0.1")
    for name in ("127.0.0.1", "127.0.0.2"):
        where = serve(inside_tls(by_address, lambda tls: tls.sendall(b"x")))
        right = contextlib.nullcontext() if name == "127.0.0.1" else pytest.raises(DialError, match=name)
        with right:
            (await connect(where, client_context(str(authority.cert)), name)).abort()


def say_nothing(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            pass


@pytest.mark.parametrize(
    ("handler", "finding", "words"),
    [
        (lambda c: c.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "tls.not-tls", "HTTP/1.1 400"),
        (lambda c: c.sendall(b"\x16\x03\x03\x00\x05junk!"), "tls.not-tls", "TLS failed"),
        (lambda c: c.recv(1), "tcp.reset", "during the TLS handshake"),
        (say_nothing, "tls.timeout", "no TLS handshake"),
    ],
)
async def test_a_server_that_speaks_no_tls(serve: Serve, handler: Handler, finding: str, words: str) -> None:
    with pytest.raises(DialError, match=words) as caught:
        await connect(serve(handler), client_context(), timeout=1.0)
    assert caught.value.finding == finding


async def test_a_name_that_is_none() -> None:
    with pytest.raises(DialError, match="can't be a TLS server name"):
        await start_tls(Stream(), client_context(), ".".join(["a" * 64] * 2))


# --- client certificates --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate(
    serve: Serve, authority: Authority, certificate: Certificate, version: ssl.TLSVersion
) -> None:
    ours = authority.issue("dev", client=True)
    context = client_context(str(authority.cert), str(ours.cert), str(ours.key))
    handler = inside_tls(
        certificate, lambda tls: tls.sendall(b"hello"), client_ca=authority.cert, maximum_version=version
    )
    stream = await connect(serve(handler), context)
    assert await stream.read() == b"hello"
    stream.abort()


# --- files ----------------------------------------------------------------------------------------------


def test_files_that_cannot_be_used(authority: Authority, certificate: Certificate, tmp_path: Path) -> None:
    other = authority.issue("other.test")
    gone, text, broken = tmp_path / "gone.pem", tmp_path / "text.pem", tmp_path / "broken.pem"
    text.write_text("no PEM\n")
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n-----END ENCRYPTED PRIVATE KEY-----\n")
    cert, key = str(certificate.cert), str(certificate.key)
    for arguments, words in (
        ((str(gone),), f"ca {gone}: No such file"),
        ((str(tmp_path),), f"ca {tmp_path}: Is a directory"),
        ((str(text),), f"ca {text}: is no PEM file"),
        ((str(broken),), f"ca {broken}: holds no certificate"),
        (("", str(gone), key), f"cert {gone}: No such file"),
        (("", cert, str(text)), f"key {text}: is no PEM file"),
        (("", cert, str(other.key)), f"key {other.key}: does not belong to the certificate {cert}"),
        (("", cert), f"cert {cert}: can't be used"),
        (("", str(broken), key), f"cert {broken}, key {key}: can't be used"),
    ):
        with pytest.raises(ConfigError) as caught:
            client_context(*arguments)
        assert str(caught.value).startswith(words)
        assert "\n" not in str(caught.value)


def test_an_encrypted_key_is_not_asked_for_on_the_terminal(authority: Authority, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    made = authority.issue("dev", client=True)
    key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    locked = tmp_path / "locked.key"
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"words"),
        )
    )
    with pytest.raises(ConfigError, match=r"locked\.key: is encrypted"):
        client_context("", str(made.cert), str(locked))
