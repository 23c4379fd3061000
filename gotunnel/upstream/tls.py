"""TLS as a client inside any Stream: a socket, a channel of a jump host, another TLS.

Rules:
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
from gotunnel.upstream.tls_stream import NoTls, TlsTransport, handshake

HANDSHAKE_TIMEOUT = 10.0

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
            check_pem(option, path)
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except ssl.SSLError as error:
        raise ConfigError(f"ca {ca}: holds no certificate that can be read: {reason_of(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(list(alpn))
    if cert:
        load_pair(context, cert, key)
    return context


def check_pem(option: str, path: str) -> None:
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror or error}") from error
    if b"-----BEGIN " not in text:
        raise ConfigError(f"{option} {path}: is no PEM file (want -----BEGIN …); convert it with openssl")


def load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    def ask() -> str:  # without this OpenSSL asks on the terminal, from the middle of a run
        raise ConfigError(f"key {key or cert}: is encrypted; decrypt it with openssl pkey -in … -out …")

    try:
        context.load_cert_chain(cert, key or None, password=ask)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"key {key or cert}: does not belong to the certificate {cert}") from error
        both = f"cert {cert}, key {key}" if key else f"cert {cert}"
        hint = "" if key else "; give the key with key="
        raise ConfigError(f"{both}: can't be used: {reason_of(error)}{hint}") from error


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
            await handshake(stream, tls, incoming, outgoing)
    except TimeoutError:
        stream.abort()
        raise DialError(
            "tls.timeout", f"{peer}: no TLS handshake in {timeout:.0f} s", blame=blame, hop=hop
        ) from None
    except NoTls as error:
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
    transport = TlsTransport(tls, incoming, outgoing, stream, above)
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
    return DialError("tls.not-tls", f"{label}: TLS failed: {reason_of(error)}", blame=blame, hop=hop)


def reason_of(error: ssl.SSLError) -> str:
    return (error.reason or str(error)).lower().replace("_", " ")


def _issuer(tls: ssl.SSLObject) -> str:
    """Who issued the certificate that was not accepted; "" where Python can't tell (public since 3.13)."""
    with contextlib.suppress(AttributeError, TypeError, IndexError):
        chain: Any = cast(Any, tls)._sslobj.get_unverified_chain()
        fields = dict(pair for part in chain[0].get_info()["issuer"] for pair in part)
        return one_line(fields.get("commonName") or fields.get("organizationName") or "", 80)
    return ""
