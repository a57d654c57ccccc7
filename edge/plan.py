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
from supervisor.ground.pools import Pool

if TYPE_CHECKING:
    from supervisor.ground.net.tls import Certificates


@attrs.frozen(eq=False)
class Plan:
    """One listener, of whatever protocol. `pools` is that of each route in their order, or the one for all."""

    table: ListenerTable
    pools: tuple[Pool, ...]
    limits: ClientLimits | None  # None: no client is counted
    certificates: Certificates | None  # None: TLS is not ended here
    sieve: Sieve | None  # None: nothing is looked at
    announces: bool  # its servers get a PROXY header
    asks: bool  # something must be learnt from a client before a server is picked for it


def make(table: ListenerTable, pools: Mapping[str, Pool], limits: ClientLimits | None) -> Plan:
    """Raises ValueError for what can't be used."""
    sieve = Sieve(table.routes) if table.routes else None
    names = [route.pool for route in table.routes] if table.pool is None else [table.pool]
    return Plan(
        table=table,
        pools=tuple(pools[name] for name in names),
        limits=limits,
        certificates=certificates(table),
        sieve=sieve,
        announces=table.send_proxy_protocol != "off",
        asks=any((sieve, limits, table.accept_proxy_protocol, table.tls)),
    )


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
