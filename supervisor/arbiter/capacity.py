"""Whether the descriptors that a worker may open are enough for the connections that the configuration allows.

A worker that has run out accepts nothing until a connection ends; better to say so at the start. What the pools'
servers and the listeners may have is taken as evenly spread over a tier's workers; a listener's own limit counts where
it is written.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence

import attrs

from supervisor.ground.config import Config
from supervisor.ground.tier import Tier

OWN = 192  # descriptors of a worker for itself: a sending end of the wire for each column, files, epoll
PER_CONNECTION = 2  # the client's and the server's


@attrs.frozen
class Shortage:
    """More is allowed than there is room for."""

    tier: str
    keys: str  # what allows it
    connections: int  # of one worker
    needed: int  # descriptors of one worker
    limit: int  # RLIMIT_NOFILE

    def __str__(self) -> str:
        return (
            f"a worker of {self.tier} may run out of open files: {self.connections} connections ({self.keys}) take "
            f"{self.needed}, and {self.limit} are allowed; raise LimitNOFILE= in the unit (ulimit -Hn in a shell), "
            f"or lower {self.keys}"
        )


def shortages(config: Config, tiers: Sequence[Tier], slots: int, limit: int) -> Iterator[Shortage]:
    """At most one for each tier: the worst."""
    for tier in tiers:
        listeners = tier.listeners(config)
        allowed = [*_allowed(config, tier.name)] if listeners else []
        if not allowed:
            continue
        connections, keys = max(allowed)
        needed = OWN + slots * len(listeners) + connections * PER_CONNECTION
        if needed > limit:
            yield Shortage(tier.name, keys, connections, needed, limit)


def _allowed(config: Config, tier: str) -> Iterator[tuple[int, str]]:
    workers = config.workers(tier)
    servers = sum(server.max_connections for pool in config.pools.values() for server in pool.servers)
    if servers:
        yield -(-servers // workers), "max_connections of the pools' servers"
    table = config.tier(tier)
    written = [
        listener.max_connections
        for name, listener in getattr(table, "listeners", {}).items()
        if (tier, "listeners", name, "max_connections") in config.lines
    ]
    if written:
        yield -(-sum(written) // workers), f"max_connections of {tier}'s listeners"
    if (tier, "max_client_conn") in config.lines:
        yield -(-table.max_client_conn // workers), f"{tier}.max_client_conn"


def open_files() -> int:
    """The limit of this process, which its children inherit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft
