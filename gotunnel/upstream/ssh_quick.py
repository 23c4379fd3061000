"""A login in one round trip after the key exchange, where asyncssh takes four: speed, nothing else.

Rules:
- The first key signs at once: neither `none` nor the question whether the key would do (RFC 4252 §5.2, §7:
  both are optional) is asked before.  If it is refused, all goes on as if it had not been tried: `none` next.
- Not so a key that a person may have to touch or confirm (sk-, one of several of an agent): it signs only
  what it was asked for.
- To servers known to read on, the signature leaves together with the service request (RFC 4253 §10); RSA
  waits for the server's word on SHA-2 (RFC 8308), which comes with its new keys.
- The host key has been judged before: asyncssh's key exchange ends no other way.
- That wants to know asyncssh's insides: only for versions of which they are known (`insides_known`), and
  where anything looks otherwise all is left as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

_USERAUTH = b"ssh-userauth"
_READ_ON = (b"SSH-2.0-OpenSSH_", b"SSH-2.0-dropbear", b"SSH-2.0-AsyncSSH_")


def signs_unasked(pairs: Sequence[Any]) -> bool:
    """May the first of the pairs sign before it is known to be wanted?"""
    from asyncssh.public_key import SSHLocalKeyPair

    if not pairs or b"sk-" in pairs[0].algorithm or pairs[0].use_webauthn:
        return False
    return isinstance(pairs[0], SSHLocalKeyPair) or len(pairs) == 1


def quicken_login(connection: Any) -> None:
    """Have this client connection, which is new, log in so; its insides must be known, `publickey` come first
    among the methods."""
    request_service, try_next = connection.send_service_request, connection.try_next_auth
    accepted = asyncio.Event()
    tried = False

    def send_service_request(service: bytes) -> None:
        nonlocal tried
        request_service(service)
        if service == _USERAUTH and not tried and signs_unasked(connection._client_keys):
            tried = True
            connection.try_next_auth = skip_first
            connection._auth = _signing_class()(connection, accepted)

    def skip_first(*, next_method: bool = False) -> None:
        """The service was accepted (or the key can't sign): the request is on its way already."""
        connection.try_next_auth = none_first
        accepted.set()

    def none_first(*, next_method: bool = False) -> None:
        """The key was refused."""
        connection.try_next_auth = try_next
        if connection._auth_methods[:1] != [b"none"]:
            connection._auth_methods.insert(0, b"none")
        try_next()

    connection.send_service_request = send_service_request


def _signing_class() -> Any:
    """asyncssh's public key authentication, which asks first, less the asking; made late."""
    from asyncssh.auth import _ClientPublicKeyAuth

    class Signing(_ClientPublicKeyAuth):
        def __init__(self, connection: Any, accepted: asyncio.Event) -> None:
            self._accepted = accepted
            super().__init__(connection, b"publickey")

        async def _start(self) -> None:
            conn: Any = self._conn
            settled = b"rsa" not in conn._client_keys[0].algorithm or conn._server_sig_algs
            if not settled or not conn._server_version.startswith(_READ_ON):
                await self._accepted.wait()
            self._keypair = await conn.public_key_auth_requested()
            if self._keypair is None:
                conn.try_next_auth()
            else:
                await self._send_signed_request()

    return Signing
