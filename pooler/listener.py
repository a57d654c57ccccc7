"""A listener of the pooler in one worker: its counters, and how its clients get TLS.

TLS begins by an SSLRequest (PostgreSQL 55.2.11 "SSL Session Encryption") or directly, with ALPN `postgresql`. Sessions
resume in any worker; certificates are swapped by reloads and renewals.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from pooler.config import ListenerTable
from supervisor.ground.lane import PARK, Conn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from OpenSSL import SSL

    from supervisor.ground.net.tls import Acceptor, Certificates
    from supervisor.ground.net.tlsconn import TlsConn

    MakeBase = Callable[[str, Sequence[bytes]], SSL.Context]  # by the listener's name and its protocols

ALPN = b"postgresql"
# RFC 8446 §5.1: the type of a ClientHello's record; no startup packet is long enough to begin so.
TLS_HANDSHAKE = b"\x16"


class Listener:
    """One listener. `row` is the plane's; `counters` are its cells in this worker's column."""

    def __init__(self, name: str, row: int, counters: int, table: ListenerTable, make_base: MakeBase) -> None:
        self.name = name
        self.row = row
        self.counters = counters
        self.table = table
        self._make_base = make_base
        self._acceptor: Acceptor | None = None
        self.take(table, certificates(table))

    def take(self, table: ListenerTable, pairs: Certificates | None) -> None:
        """Work by this table from now on; connections keep what they began with. Can't fail."""
        self.table = table
        if pairs is None:
            self._acceptor = None
        elif self._acceptor is None:
            from supervisor.ground.net.tls import Acceptor

            self._acceptor = Acceptor(self._make_base(self.name, (ALPN,)), pairs)
        else:
            self._acceptor.certificates = pairs

    @property
    def offers_tls(self) -> bool:
        return self._acceptor is not None

    @property
    def demands_tls(self) -> bool:
        return self.table.tls is not None and self.table.tls.required

    async def starts_with_tls(self, conn: Conn) -> bool:
        """Whether the client begins with TLS, with no SSLRequest before. Takes nothing off the connection."""
        conn.attach()
        while conn.fd >= 0:
            try:
                return conn.sock.recv(1, socket.MSG_PEEK) == TLS_HANDSHAKE
            except BlockingIOError:
                await PARK
        return False

    async def secure(self, conn: Conn) -> TlsConn:
        """Shake hands; the connection is closed if that fails. Raises OSError."""
        assert self._acceptor is not None
        secured = self._acceptor.wrap(conn)
        try:
            await secured.handshake()
        except BaseException:
            secured.close()
            raise
        return secured


def certificates(table: ListenerTable) -> Certificates | None:
    """What serves which name. Raises ValueError for a pair that can't be used."""
    if table.tls is None:
        return None
    # Imported here: OpenSSL is loaded only where TLS is asked for.
    from supervisor.ground.net.peers import PeerPolicy
    from supervisor.ground.net.tls import Certificates

    ca = table.tls.client_ca
    peers = None if ca is None else PeerPolicy(ca.data, required=False)
    return Certificates([one.pair() for one in table.tls.certificates], (ALPN,), peers)
