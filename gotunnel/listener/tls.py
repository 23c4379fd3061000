"""TLS as a server, for a proxy that a team shares.

Rules:
- TLS 1.2 is the least; with a `client_ca` nobody comes in without a certificate of it.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from gotunnel.errors import ConfigError, StreamLost
from gotunnel.upstream.dialer import Stream
from gotunnel.upstream.tls import HANDSHAKE_TIMEOUT, check_pem, load_pair, reason_of
from gotunnel.upstream.tls_stream import NoTls, TlsTransport, handshake


async def accept_tls(
    stream: Stream, context: ssl.SSLContext, above: Stream, timeout: float = HANDSHAKE_TIMEOUT
) -> None:
    """As a server: `above` becomes the Stream inside TLS over `stream`, which then belongs to it.

    Raises StreamLost where the client doesn't come to terms with us; `stream` is aborted then.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_side=True)
    try:
        async with asyncio.timeout(timeout):
            await handshake(stream, tls, incoming, outgoing)
    except (TimeoutError, NoTls, ssl.SSLError) as error:
        stream.abort()
        words = reason_of(error) if isinstance(error, ssl.SSLError) else "no TLS handshake"
        raise StreamLost(words) from error
    except BaseException:
        stream.abort()
        raise
    transport = TlsTransport(tls, incoming, outgoing, stream, above)
    above.connection_made(cast(asyncio.BaseTransport, transport))
    transport.begin()


def server_context(cert: str, key: str, client_ca: str = "") -> ssl.SSLContext:
    """What we prove who we are with, from PEM files; with `client_ca` clients must show a certificate of it.

    Raises ConfigError that names the file.
    """
    for option, path in (("cert", cert), ("key", key), ("client_ca", client_ca)):
        if path:
            check_pem(f"listen.tls.{option}", path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    load_pair(context, cert, key)
    if client_ca:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            words = (
                f"listen.tls.client_ca {client_ca}: holds no certificate that can be read: {reason_of(error)}"
            )
            raise ConfigError(words) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
