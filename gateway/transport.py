"""How the servers of a pool are spoken to: over TLS or not, and in which version of HTTP."""

from __future__ import annotations

from typing import Any, Final

import attrs

from supervisor.ground.config import PoolTable
from supervisor.ground.lane import Conn

HTTP2: Final = b"h2"
HTTP1: Final = b"http/1.1"
_OFFERED: Final = {"auto": (HTTP2, HTTP1), "h2": (HTTP2,), "http1": (HTTP1,)}


@attrs.frozen(eq=False)
class Transport:
    """Of one pool. `connector` makes TLS of a connection, None leaves it plain; `plain` does the same for what HTTP/2
    can't carry."""

    table: PoolTable
    connector: Any = attrs.field(repr=False)
    old: Any = attrs.field(repr=False)

    @property
    def multiplexes(self) -> bool:
        """Whether its servers are asked by HTTP/2, or may be."""
        return self.table.protocol in ("h2", "h2c") or (self.table.tls is not None and self.table.protocol == "auto")

    @property
    def may_be_old(self) -> bool:
        """Whether its servers can be asked by HTTP/1.1."""
        return self.table.protocol not in ("h2", "h2c")

    @property
    def scheme(self) -> bytes:
        return b"http" if self.table.tls is None else b"https"

    def same(self, other: Transport) -> bool:
        """Whether connections made by the other can be used by this one."""
        return (self.table.tls, self.table.protocol) == (other.table.tls, other.table.protocol)

    async def secure(self, conn: Conn, name: str, http2: bool) -> tuple[Any, bool]:
        """The connection ready for requests, and whether they go by HTTP/2; that is only offered if `http2`. Raises
        TlsError or another OSError."""
        if self.connector is None:
            return conn, self.table.protocol == "h2c"
        tls = (self.connector if http2 else self.old).wrap(conn, name)
        try:
            await tls.handshake()
        except BaseException:
            tls.close()
            raise
        return tls, tls.alpn() == HTTP2 or (self.table.protocol == "h2" and http2)


def transport(table: PoolTable) -> Transport:
    """Raises ValueError for what OpenSSL doesn't take."""
    tls = table.tls
    if tls is None:
        return Transport(table, None, None)
    # Imported here: OpenSSL is loaded only where TLS is asked for.
    from supervisor.ground.net.tls_client import connector

    return Transport(table, connector(tls, *_OFFERED[table.protocol]), connector(tls, HTTP1))
