"""TLS as the doctor sees it: the verified handshake that counts, and what a failed one hid.

Rules:
- The handshake that counts verifies as go does (the system's store, SSL_CERT_FILE, SSL_CERT_DIR).
- Only where it fails is the certificate read without verification, over a connection of its own, on which
  no credentials are ever sent.
- A handshake that breaks is tried again with another server name and with none: where those are answered,
  somebody on the way reads the name (SNI filtering).
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable

from gotunnel.address import one_line
from gotunnel.doctor.model import Certificate
from gotunnel.errors import DialError, StreamLost
from gotunnel.upstream.dialer import Stream
from gotunnel.upstream.tls import start_tls

OTHER_NAME = "www.example.com"  # one that nobody filters
NO_NAME = "192.0.2.1"  # for an address no server name is sent (RFC 6066 §3)
Open = Callable[[], Awaitable[Stream]]


def unverified() -> ssl.SSLContext:
    """A context that takes any certificate: to look at it, never to send a secret."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def certificate_of(stream: Stream, *, trusted: bool, error: str = "") -> Certificate | None:
    """The leaf that the peer of a TLS stream showed; None where it can't be read."""
    tls = stream.transport.get_extra_info("ssl_object")
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    return _parse(der, trusted, error) if der else None


def _parse(der: bytes, trusted: bool, error: str) -> Certificate | None:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    def words(name: x509.Name) -> str:
        found = [
            str(attribute.value)
            for oid in (NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME)
            for attribute in name.get_attributes_for_oid(oid)[:1]
        ]
        return one_line(", ".join(dict.fromkeys(found)) or name.rfc4514_string(), 120)

    try:
        leaf = x509.load_der_x509_certificate(der)
        names: tuple[str, ...] = ()
        with contextlib.suppress(x509.ExtensionNotFound):
            alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names = tuple(one_line(str(general.value), 100) for general in alternatives)[:20]
        return Certificate(
            issuer=words(leaf.issuer),
            subject=words(leaf.subject),
            names=names,
            not_before=leaf.not_valid_before_utc.timestamp(),
            not_after=leaf.not_valid_after_utc.timestamp(),
            trusted=trusted,
            error=error,
        )
    except ValueError:
        return None


def self_signed(certificate: Certificate) -> bool:
    """Did it vouch for itself?"""
    return certificate.issuer == certificate.subject


async def any_answer(open_stream: Open, server_name: str, timeout: float) -> str:
    """How a handshake with `server_name` ends: "answered" (a certificate or an alert), or an id."""
    try:
        async with asyncio.timeout(timeout):
            stream = await open_stream()
            try:
                stream = await start_tls(stream, unverified(), server_name, timeout)
            finally:
                stream.abort()
    except TimeoutError:
        return "tls.timeout"
    except StreamLost:
        return "tcp.reset"
    except DialError as error:
        # an alert is a server's word (unrecognized_name), not a filter's silence
        return (
            "answered" if error.finding == "tls.not-tls" and "TLS failed" in error.detail else error.finding
        )
    return "answered"


async def is_name_filtered(open_stream: Open, timeout: float) -> dict[str, str]:
    """Handshakes with another name and with none, to the same address: {"other": …, "none": …}."""
    other, none = await asyncio.gather(
        any_answer(open_stream, OTHER_NAME, timeout), any_answer(open_stream, NO_NAME, timeout)
    )
    return {"other": other, "none": none}
