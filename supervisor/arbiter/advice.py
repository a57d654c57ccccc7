"""What works, but perhaps not as meant: told once, in the log of the start, with the cure."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence

from supervisor.arbiter import capacity
from supervisor.arbiter.listeners import Listeners
from supervisor.ground.config import Config
from supervisor.ground.privileges import Identity
from supervisor.ground.tier import Tier

Advice = tuple[str, dict[str, object]]  # a log line's event and its fields


def advice(config: Config, tiers: Sequence[Tier], listeners: Listeners, identity: Identity | None) -> Iterator[Advice]:
    """All of it."""
    named = config.supervisor.user or config.supervisor.group
    if named and identity is None:
        yield "not root: user and group have no effect", {}
    if not named and os.geteuid() == 0:
        yield "workers run as root; supervisor.user names another user for them", {}
    for shortage in capacity.shortages(config, tiers, listeners.slots, capacity.open_files()):
        yield "file limit", {"reason": str(shortage)}
    yield from _sockets(config, listeners)


def _sockets(config: Config, listeners: Listeners) -> Iterator[Advice]:
    binds = [(key.spec.bind, key.spec.transport.value) for key in listeners.all()]
    if config.supervisor.admin is not None:
        binds.append((config.supervisor.admin, socket.SOCK_STREAM))
    for address in listeners.activated.unused(binds):
        cure = "bind a listener to it, or take it out of the socket unit: nobody answers there"
        yield "socket without a listener", {"address": address, "cure": cure}
    local = {key.row for key in listeners.all() if key.spec.bind.is_local}  # these can be no other
    for row in sorted(listeners.shared - local):
        cure = "ReusePort=yes in the socket unit, and the same user for it and the daemon"
        yield "one socket for all workers", {"listener": row, "cure": cure}
