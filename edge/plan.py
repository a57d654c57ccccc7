"""A listener's configuration made ready to work by. Made anew by each reload, and swapped in by one assignment.

What a connection does not need is decided here and not on its way: a listener without routes never looks at a byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from edge.config import ListenerTable
from edge.limits import ClientLimits
from edge.peek.sieve import Sieve
from supervisor.ground.config import PoolTable
from supervisor.ground.pools import Pool

if TYPE_CHECKING:
    from supervisor.ground.net.tls import Certificates
    from supervisor.ground.net.tls_client import Connector


@attrs.frozen(eq=False)
class Plan:
    """One listener, of whatever protocol. `pools` is that of each route in their order, or the one for all; so are
    `connectors`, which begin TLS with a pool's servers, None where there is none, and `versions`."""

    table: ListenerTable
    pools: tuple[Pool, ...]
    connectors: tuple[Connector | None, ...]
    limits: ClientLimits | None  # None: no client is counted
    certificates: Certificates | None  # None: TLS is not ended here
    sieve: Sieve | None  # None: nothing is looked at
    versions: tuple[str, ...]  # of the PROXY header that each pool's servers get, "off" for none
    announces: bool  # any of them gets one
    asks: bool  # something must be learnt from a client before a server is picked for it


def make(
    table: ListenerTable, tables: Mapping[str, PoolTable], pools: Mapping[str, Pool], limits: ClientLimits | None
) -> Plan:
    """`tables` are those that the pools are to have. Raises ValueError for what can't be used."""
    sieve = Sieve(table.routes) if table.routes else None
    sent = table.send_proxy_protocol
    versions = tuple(route.send_proxy_protocol or sent for route in table.routes) or (sent,)
    names = [route.pool for route in table.routes] if table.pool is None else [table.pool]
    return Plan(
        table=table,
        pools=tuple(pools[name] for name in names),
        connectors=tuple(_connector(tables[name]) for name in names),
        limits=limits,
        certificates=certificates(table),
        sieve=sieve,
        versions=versions,
        announces=any(version != "off" for version in versions),
        asks=any((sieve, limits, table.accept_proxy_protocol, table.tls)),
    )


def _connector(table: PoolTable) -> Connector | None:
    if table.tls is None:
        return None
    # Imported here: OpenSSL is loaded only where TLS is asked for.
    from supervisor.ground.net.tls_client import connector

    return connector(table.tls)


def alpn(table: ListenerTable) -> tuple[bytes, ...]:
    """The protocols that are offered within TLS, the preferred first."""
    return () if table.tls is None else tuple(name.encode() for name in table.tls.alpn)


def certificates(table: ListenerTable) -> Certificates | None:
    """What a listener shows; None without TLS. Raises ValueError."""
    if table.tls is None:
        return None
    # Imported here: OpenSSL is loaded only where TLS is asked for.
    from supervisor.ground.net.tls import Certificates

    return Certificates([one.pair() for one in table.tls.certificates], alpn(table))
