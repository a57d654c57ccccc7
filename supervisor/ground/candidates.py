"""Which servers of a pool take work, and how large a share a server that has just come back gets. Pure functions.

The order of preference: primaries of the own zone, primaries of every zone, backups, and if nobody is up, all that the
operator hasn't taken out, or nobody (`on_all_down`).
"""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.ground.config import PoolTable
from supervisor.ground.health import Health
from supervisor.ground.servers import Server
from supervisor.plane import layout

RAMP_STEPS = 16  # of a slow start: at each the shares are made anew
FIRST_SHARE = 0.1  # of its weight and its connections: from nothing, a server would never show that it can work

_NOT_TRIED = (Health.DRAINING, Health.MAINTENANCE, Health.UNRESOLVED)


def candidates(
    table: PoolTable, own_zone: str, servers: Sequence[Server], healths: Sequence[Health]
) -> tuple[tuple[Server, ...], int | None]:
    """Who takes work now, and which counter of the pool (`layout.Pool`) each pick adds to, None for an ordinary one."""
    up = [server for server, one in zip(servers, healths, strict=True) if one is Health.UP]
    primaries = tuple(server for server in up if not server.backup)
    if primaries:
        local = tuple(server for server in primaries if _is_near(server, own_zone))
        if len(local) == len(primaries):
            return primaries, None
        known = [server for server, one in zip(servers, healths, strict=True) if one is not Health.UNRESOLVED]
        wanted = sum(1 for server in known if not server.backup and _is_near(server, own_zone))
        if local and len(local) >= wanted * float(table.min_zone_up) - 1e-9:
            return local, None
        return primaries, layout.Pool.OTHER_ZONE
    if up:
        return tuple(up), layout.Pool.BACKUP
    if table.on_all_down == "refuse":
        return (), None
    rest = [server for server, one in zip(servers, healths, strict=True) if one not in _NOT_TRIED]
    return tuple(rest), layout.Pool.FAIL_OPEN


def _is_near(server: Server, own_zone: str) -> bool:
    """A server without a zone, and every server of a site without one, is as near as the own."""
    return not own_zone or server.zone in ("", own_zone)


def share(back_ns: int, now_ns: int, span_ns: int) -> float:
    """The share, above 0 and at most 1, that a server gets which came back at `back_ns` (0: it was never away)."""
    if not back_ns or not span_ns:
        return 1.0
    return min(1.0, max(FIRST_SHARE, (now_ns - back_ns) / span_ns))
