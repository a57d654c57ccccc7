"""What the kernel can serve of a listener's configuration, and what it can't, with the reason."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from supervisor.ground.config import Bind, PoolTable, ServerTable, shapes

BALANCES = ("round_robin", "source_hash", "maglev")
# Of a listener's keys, those that mean the same in both datapaths, and those of this one.
_SERVED = frozenset({"bind", "protocol", "pool", "datapath", "masquerade", "persist"})

Reason = tuple[str, str]  # a key of the listener, and why


def misfits(listener: Any, pools: Mapping[str, PoolTable]) -> Iterator[Reason]:
    """Every reason why the kernel can't serve this listener (an `edge.config.ListenerTable`); none: it can."""
    for field in attrs.fields(type(listener)):
        if field.name not in _SERVED and getattr(listener, field.name) != shapes.default_of(field):
            yield field.name, "the kernel looks at no byte and keeps its own time"
    pool = pools.get(listener.pool) if listener.pool is not None else None
    if pool is None:
        return
    if pool.balance not in BALANCES:
        yield "pool", f"the kernel can't balance by {pool.balance}; it can by {', '.join(BALANCES)}"
    if pool.tls is not None:
        yield "pool", "the kernel speaks no TLS to servers"
    if pool.max_queued:
        yield "pool", "nobody waits for a server in the kernel (max_queued)"
    for server in pool.servers:
        if reason := _misfit(listener.bind, server):
            yield "pool", f"server {server.address}: {reason}"


def _misfit(bind: Bind, server: ServerTable) -> str:
    if server.address.is_name:
        return ""  # which addresses it has is found out later; those of the other family are left out
    if server.address.family != bind.family:
        return "the kernel doesn't translate between IPv4 and IPv6"
    if is_loopback(server.address.host) and not is_loopback(bind.host):
        return "packets from outside are never routed to the loopback interface"
    if server.max_connections != attrs.fields(ServerTable).max_connections.default:
        return "the kernel holds no max_connections"
    return ""


def is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback
