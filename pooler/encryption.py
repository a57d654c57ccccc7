"""TLS towards PostgreSQL servers, in libpq's terms: `prefer`, `require`, `verify-ca`, `verify-full`.

A server is asked by an SSLRequest and answers with one byte. Source: PostgreSQL 55.2.11 "SSL Session Encryption" and
34.19 "SSL Support".
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import attrs

from pooler.errors import CANNOT_CONNECT, ServerError
from pooler.startup import ACCEPTED_TLS, REFUSED, SSL_CODE

if TYPE_CHECKING:
    from pooler.config import ServerTlsTable
    from supervisor.ground.lane import Conn
    from supervisor.ground.net.tls_client import Connector

SSL_REQUEST = (8).to_bytes(4, "big") + SSL_CODE.to_bytes(4, "big")


@attrs.frozen(eq=False)
class Encryption:
    """How the servers of a database are spoken to."""

    required: bool
    connector: Connector

    async def start(self, conn: Conn, address: str, server: str) -> Conn:
        """Shake hands if the server does; what to speak over from now on. Raises ServerError 08001, OSError."""
        await conn.send(SSL_REQUEST)
        # One byte and no more (CVE-2021-23222): what stands behind it unencrypted is nobody's word.
        answer = await conn.recv(1)
        if answer == ACCEPTED_TLS:
            secured = self.connector.wrap(conn, address)
            try:
                await secured.handshake()
            except OSError as error:
                secured.close()
                raise ServerError(f"TLS with {server} failed: {error.strerror}", CANNOT_CONNECT) from None
            return secured
        if answer != REFUSED:
            raise ServerError(f"{server} does not understand SSLRequest", CANNOT_CONNECT)
        if self.required:
            raise ServerError(f"{server} does not offer TLS", CANNOT_CONNECT)
        return conn


def certificate_of(conn: Conn) -> bytes | None:
    """What the server at the other end has shown, DER; None where the connection is not encrypted."""
    shown = getattr(conn, "peer_certificate", None)  # only a TlsConn has it, and OpenSSL may not be loaded
    return None if shown is None else shown()


def encryption(table: ServerTlsTable | None) -> Encryption | None:
    """By the configuration; made once for each content. Raises ValueError for what OpenSSL doesn't take."""
    return None if table is None else _encryption(table)


@lru_cache(maxsize=64)
def _encryption(table: ServerTlsTable) -> Encryption:
    # Imported here: OpenSSL is loaded only where TLS is asked for.
    from supervisor.ground.net.keypairs import KeyPair
    from supervisor.ground.net.tls_client import Connector

    pair = KeyPair(table.cert.data, table.key.data) if table.cert is not None and table.key is not None else None
    ca = table.ca.data if table.ca is not None else None
    verify, named = table.mode in ("verify-ca", "verify-full"), table.mode == "verify-full"
    return Encryption(table.mode != "prefer", Connector(ca, table.name, pair, verify=verify, named=named))
