"""A listener's configuration made ready to work by. Made anew by each reload, and swapped in by one assignment.

What a connection does not need is decided here and not on its way: a listener without routes never looks at a byte.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from edge.config import ListenerTable
from edge.peek.sieve import Sieve
from supervisor.ground.pools import Pool


@attrs.frozen(eq=False)
class Plan:
    """One listener, of whatever protocol. `pools` is that of each route in their order, or the one for all."""

    table: ListenerTable
    pools: tuple[Pool, ...]
    sieve: Sieve | None  # None: nothing is looked at
    announces: bool  # its servers get a PROXY header
    asks: bool  # something must be learnt from a client before a server is picked for it


def make(table: ListenerTable, pools: Mapping[str, Pool]) -> Plan:
    sieve = Sieve(table.routes) if table.routes else None
    names = [route.pool for route in table.routes] if table.pool is None else [table.pool]
    return Plan(
        table=table,
        pools=tuple(pools[name] for name in names),
        sieve=sieve,
        announces=table.send_proxy_protocol != "off",
        asks=sieve is not None or bool(table.accept_proxy_protocol),
    )
