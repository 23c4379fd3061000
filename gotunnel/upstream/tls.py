"""TLS as a client inside any Stream: a socket, a channel of a jump host, another TLS.

Rules:
- OpenSSL works in memory (ssl.MemoryBIO), so that it needs no socket below; the result is again a Stream.
- Half-close: our EOF is a close_notify, after which we go on reading.  The peer's close_notify is an EOF; an
  end without one is a loss, since anybody on the way can forge the end of a TCP connection.
- Back-pressure passes through both ways; what was decrypted for a reader that paused is held, at most
  what one delivery of the stream below brought.
- Certificates are always checked.  TLS 1.2 is the least.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from gotunnel.address import one_line
from gotunnel.errors import Blame, ConfigError, DialError, StreamLost
from gotunnel.upstream.dialer import Stream

HANDSHAKE_TIMEOUT = 10.0
_RECORD = 16 * 1024  # the most that one TLS record holds (RFC 8446 §5.1)
_FLUSH = 256 * 1024
_CUT = "the connection was cut without TLS's close_notify"

# X509_V_ERR_* of OpenSSL (x509_vfy.h) -> finding; every other code means that nobody we trust vouches for it
_VERIFY = {9: "tls.clock-skew", 10: "tls.expired", 62: "tls.wrong-name", 64: "tls.wrong-name"}

# what peers answer to a client certificate (RFC 8446 §6.2, by OpenSSL's names) -> what is wrong with it
_CLIENT_CERTIFICATE = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a client certificate: set cert= and key=",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it wants a client certificate: set cert= and key=",
    "TLSV1_ALERT_UNKNOWN_CA": "it doesn't know who issued our client certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "it denies access to our client certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it doesn't accept our client certificate",
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": "it doesn't accept our client certificate",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it doesn't accept our client certificate",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "our client certificate has expired",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "our client certificate was revoked",
}


def client_context(
    ca: str = "", cert: str = "", key: str = "", alpn: Sequence[str] = ("http/1.1",)
) -> ssl.SSLContext:
    """What to trust and how to prove who we are, from PEM files.

    Without `ca` the system's store counts (SSL_CERT_FILE and SSL_CERT_DIR are honoured), with it that file
    alone.  `cert` may hold the key too.  Raises ConfigError that names the file.
    """
    for option, path in (("ca", ca), ("cert", cert), ("key", key)):
        if path:
            _check_pem(option, path)
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except ssl.SSLError as error:
        raise ConfigError(f"ca {ca}: holds no certificate that can be read: {_reason(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(alpn))
    if cert:
        _load_pair(context, cert, key)
    return context


def _check_pem(option: str, path: str) -> None:
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror or error}") from error
    if b"-----BEGIN " not in text:
        raise ConfigError(f"{option} {path}: is no PEM file (want -----BEGIN …); convert it with openssl")


def _load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    def ask() -> str:  # without this OpenSSL asks on the terminal, from the middle of a run
        raise ConfigError(f"key {key or cert}: is encrypted; decrypt it with openssl pkey -in … -out …")

    try:
        context.load_cert_chain(cert, key or None, password=ask)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"key {key or cert}: does not belong to the certificate {cert}") from error
        both = f"cert {cert}, key {key}" if key else f"cert {cert}"
        hint = "" if key else "; give the key with key="
        raise ConfigError(f"{both}: can't be used: {_reason(error)}{hint}") from error


async def start_tls(
    stream: Stream,
    context: ssl.SSLContext,
    server_name: str,
    timeout: float = HANDSHAKE_TIMEOUT,
    *,
    label: str = "",
    blame: Blame = Blame.TARGET,
) -> Stream:
    """A Stream inside TLS over `stream`, which then belongs to it (on an error it is aborted).

    `server_name` is what the certificate must be for, a name or an address; `timeout` in seconds.  Errors
    call the peer `label` and charge `blame` (HOP for a proxy).  Raises DialError.
    """
    name = server_name.rstrip(".")
    peer = label or name
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hop = label if blame is Blame.HOP else ""
    try:
        try:
            tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
        except ValueError as error:  # UnicodeError among them
            words = f"{peer}: {name!r} can't be a TLS server name"
            raise DialError("tls.wrong-name", words, blame=blame, hop=hop) from error
        async with asyncio.timeout(timeout):
            await _handshake(stream, tls, incoming, outgoing)
    except TimeoutError:
        stream.abort()
        raise DialError(
            "tls.timeout", f"{peer}: no TLS handshake in {timeout:.0f} s", blame=blame, hop=hop
        ) from None
    except _NoTls as error:
        stream.abort()
        words = f"{peer}: it speaks no TLS (it answered {error})"
        if blame is Blame.HOP:
            words += "; is it an http:// proxy?"
        raise DialError("tls.not-tls", words, blame=blame, hop=hop) from error
    except StreamLost as error:
        stream.abort()
        finding = "hop.closed" if blame is Blame.HOP else "tcp.reset"
        words = f"{peer}: {error} during the TLS handshake"
        raise DialError(finding, words, blame=blame, hop=hop) from error
    except ssl.SSLError as error:
        stream.abort()
        raise explain(error, label=peer, blame=blame, issuer=_issuer(tls)) from error
    except BaseException:
        stream.abort()
        raise
    above = Stream()
    transport = _TlsTransport(tls, incoming, outgoing, stream, above)
    above.connection_made(cast(asyncio.BaseTransport, transport))
    transport.begin()
    try:
        for _ in range(2):
            # TLS 1.3 judges clients after the handshake: a verdict and a reset that are here already must be
            # read before our first write, which would fail and drop both
            await asyncio.sleep(0)
    except BaseException:
        above.abort()
        raise
    return above


class _NoTls(Exception):
    """The first bytes are none of a TLS server's; the text shows them."""


async def _handshake(
    stream: Stream, tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO
) -> None:
    first = True
    while True:
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            done = False
        except ssl.SSLError:
            with contextlib.suppress(StreamLost):
                stream.write(outgoing.read())  # the alert that tells the peer why
            raise
        else:
            done = True
        if outgoing.pending:
            stream.write(outgoing.read())
        if done:
            return
        data = await stream.read()
        if not data:
            raise StreamLost("it closed the connection")
        if first and data[0] not in (0x15, 0x16):  # alert, handshake
            raise _NoTls(repr(one_line(data[:40].decode("ascii", "replace"), 40)))
        first = False
        incoming.write(data)


def explain(error: ssl.SSLError, *, label: str, blame: Blame, issuer: str = "") -> DialError:
    """What OpenSSL's error means, at a handshake or at the first read (TLS 1.3 judges clients late)."""
    hop = label if blame is Blame.HOP else ""
    if isinstance(error, ssl.SSLCertVerificationError):
        finding = _VERIFY.get(error.verify_code, "tls.intercepted")
        words = error.verify_message
        if finding == "tls.intercepted":
            words += f"; issued by {issuer}, whom we don't trust" if issuer else ""
            words += "; if that is right, name its CA with ca= or SSL_CERT_FILE"
        return DialError(finding, f"{label}: certificate: {words}", blame=blame, hop=hop)
    reason = (error.reason or "").upper().replace(" ", "_")
    if reason in _CLIENT_CERTIFICATE:
        finding, charged = "http.unauthorized", blame
        if blame is Blame.HOP:
            finding, charged = "proxy.auth-required", Blame.CREDENTIALS
        return DialError(finding, f"{label}: {_CLIENT_CERTIFICATE[reason]}", blame=charged, hop=hop)
    return DialError("tls.not-tls", f"{label}: TLS failed: {_reason(error)}", blame=blame, hop=hop)


def _reason(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


def _issuer(tls: ssl.SSLObject) -> str:
    """Who issued the certificate that was not accepted; "" where Python can't tell (public since 3.13)."""
    with contextlib.suppress(AttributeError, TypeError, IndexError):
        chain: Any = cast(Any, tls)._sslobj.get_unverified_chain()
        fields = dict(pair for part in chain[0].get_info()["issuer"] for pair in part)
        return one_line(fields.get("commonName") or fields.get("organizationName") or "", 80)
    return ""


class _TlsTransport:
    """What a TLS stream writes to, and at the same time who the stream below pushes to."""

    def __init__(
        self,
        tls: ssl.SSLObject,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        below: Stream,
        above: Stream,
    ) -> None:
        self._tls = tls
        self._incoming, self._outgoing = incoming, outgoing
        self._below, self._above = below, above
        self._paused = False
        self._held = bytearray()
        self._ended = False  # the peer's close_notify came
        self._eof_due = False  # … and those above don't know yet
        self._said_bye = False
        self._closing = False
        self._gone = False
        self._error: Exception | None = None

    def begin(self) -> None:
        """Take over what the handshake left, and the stream below."""
        if self._below.write_paused:
            self._above.pause_writing()
        self._pump()
        self._below.hand_over(self)

    # --- called by the stream below ----------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if not self._ended and not self._closing and self._error is None:
            self._incoming.write(data)
            self._pump()

    def eof_received(self) -> bool:
        if not self._ended and not self._closing:
            self._fail(ConnectionResetError(_CUT))
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        if self._gone:
            return
        # nobody can resume us any more: what came before the end is handed on even to one who paused
        self._paused = False
        self._release()
        self._gone = True
        if not (self._ended or self._closing):
            exc = self._error or exc or ConnectionResetError(_CUT)
        self._above.connection_lost(exc)

    def pause_writing(self) -> None:
        self._above.pause_writing()

    def resume_writing(self) -> None:
        self._above.resume_writing()

    def _pump(self) -> None:
        parts: list[bytes] = []
        failure: ssl.SSLError | None = None
        ended = False
        try:
            while part := self._tls.read(_RECORD):
                parts.append(part)
            ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # the same, after our own close_notify
            ended = True
        except ssl.SSLError as error:
            failure = error
        self._flush()  # answers of TLS itself, such as a key update
        if parts and not self._held and not self._paused:
            self._above.data_received(b"".join(parts))
        elif parts:
            self._held += b"".join(parts)
        if ended:
            self._ended = self._eof_due = True
        self._release()
        if failure is not None:
            self._fail(failure)

    def _release(self) -> None:
        """Hand on what may be handed on."""
        if self._held and not self._paused and not self._gone:
            data = bytes(self._held)
            self._held.clear()
            self._above.data_received(data)
        if self._eof_due and not self._held and not self._paused and not self._gone:
            self._eof_due = False
            if not self._above.eof_received():
                self.close()

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
            self._below.abort()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._below.write(self._outgoing.read())

    # --- called by the stream above ----------------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._said_bye or self._gone or self._error is not None:
            return
        rest = memoryview(data)
        try:
            while rest:
                sent = self._tls.write(rest[:_FLUSH])
                rest = rest[sent:]
                self._flush()
        except ssl.SSLError as error:
            self._fail(error)

    def write_eof(self) -> None:
        if self._said_bye or self._gone or self._error is not None:
            return
        self._said_bye = True
        # OpenSSL then looks for the peer's own close_notify, which needn't be there yet
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def close(self) -> None:
        self.write_eof()
        self._closing = True
        self._below.close()

    def abort(self) -> None:
        self._closing = True
        self._below.abort()

    def pause_reading(self) -> None:
        self._paused = True
        if not self._below.is_lost:
            self._below.transport.pause_reading()

    def resume_reading(self) -> None:
        self._paused = False
        if self._held or self._eof_due:  # later, since whoever calls us may be in the middle of a read
            asyncio.get_running_loop().call_soon(self._release)
        if not self._below.is_lost:
            self._below.transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self._tls
        if name == "socket":  # whoever asks would bypass TLS
            return default
        return self._below.transport.get_extra_info(name, default)
