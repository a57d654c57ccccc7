"""The health of a server, from the parts that the plane keeps: active, administrative, ejected.

Each part has its writer (supervisor/plane/layout.py); here is the one function that combines them, and the few that
write. Whoever writes stamps the pool's epoch, and every process that picks from the pool looks again.
"""

from __future__ import annotations

import enum
import time

from supervisor.ground.config import HealthTable, OutlierTable, PoolTable
from supervisor.plane.layout import Active, Admin, Kind, PoolState, ServerState
from supervisor.plane.locks import LockResult, pool_lock
from supervisor.plane.memory import Plane
from supervisor.plane.processes import stamp

_NS = 1_000_000_000


class Health(enum.Enum):
    UP = "up"
    DOWN = "down"  # says the active check
    EJECTED = "ejected"  # says traffic
    DRAINING = "draining"  # says the operator: no new work, existing work ends
    MAINTENANCE = "maintenance"  # says the operator: the same, and what can go elsewhere goes at once
    UNRESOLVED = "unresolved"  # says DNS: its name has no address


def judge(
    active: int, admin: int, ejected_until: int, now_ns: int, check: HealthTable | None, resolved: bool = True
) -> Health:
    """What the parts mean together: the operator's word first, then that of DNS, the check's, and traffic's.

    Without a check the active part is what an earlier configuration left, and means nothing.
    """
    if admin == Admin.MAINTENANCE:
        return Health.MAINTENANCE
    if admin == Admin.DRAINING:
        return Health.DRAINING
    if not resolved:
        return Health.UNRESOLVED
    if check is not None and (active == Active.DOWN or (active == Active.UNKNOWN and check.initial == "down")):
        return Health.DOWN
    return Health.EJECTED if ejected_until > now_ns else Health.UP


def read(plane: Plane, server_row: int, now_ns: int, check: HealthTable | None, named: bool = False) -> Health:
    """The health of a server now; `named` is one whose address is looked up."""
    at = plane.state(Kind.SERVER, server_row)
    cells = plane.cells
    return judge(
        cells[at + ServerState.ACTIVE],
        cells[at + ServerState.ADMIN],
        cells[at + ServerState.EJECTED_UNTIL],
        now_ns,
        check,
        not named or resolved(cells, at),
    )


def resolved(cells: memoryview[int], at: int) -> bool:
    """Whether the name of the server with this state has an address."""
    return bool(cells[at + ServerState.ADDRESS_HIGH] or cells[at + ServerState.ADDRESS_LOW])


def back(cells: memoryview[int], at: int, now_ns: int) -> int:
    """Monotonic ns at which the server with this state came back last: by its check, by hand, from an ejection, or to a
    pool that was at work; 0 if it was never away, which is so for all of them at the daemon's start."""
    ended = cells[at + ServerState.EJECTED_UNTIL]
    return max(cells[at + ServerState.ACTIVE_BACK], cells[at + ServerState.ADMIN_BACK], ended if ended <= now_ns else 0)


def is_failing(table: PoolTable, healths: list[Health]) -> bool:
    """Whether no server of the pool is up, so that `on_all_down` decides."""
    return all(health is not Health.UP for health in healths)


def may_eject(already: int, servers: int, outlier: OutlierTable) -> bool:
    """Whether one more ejection keeps within `max_ejected`; that of a pool of one server never does below 100 %."""
    return already + 1 <= servers * float(outlier.max_ejected) + 1e-9


def next_ejection(ejections: int, ended_ns: int, now_ns: int, outlier: OutlierTable) -> tuple[int, int]:
    """The number of ejections in a row with the one to come, and how many ns it lasts.

    Each `eject` that passed without one since the last ended takes back one, as Envoy does per interval.
    """
    eject = max(1, int(outlier.eject * _NS))
    if ejections and ended_ns:
        ejections = max(0, ejections - max(0, now_ns - ended_ns) // eject)
    ejections += 1
    return ejections, min(eject * ejections, int(outlier.max_eject * _NS))


def set_active(plane: Plane, pool_row: int, server_row: int, value: int, column: int) -> None:
    """A value of Active. By the prober only."""
    at = plane.state(Kind.SERVER, server_row)
    if value == Active.UP and plane.cells[at + ServerState.ACTIVE] == Active.DOWN:
        plane.cells[at + ServerState.ACTIVE_BACK] = time.monotonic_ns()
    plane.cells[at + ServerState.ACTIVE_SINCE] = time.time_ns()
    plane.cells[at + ServerState.ACTIVE] = value
    touch(plane, pool_row, column)


def set_admin(plane: Plane, pool_row: int, server_row: int, value: int, column: int, uid: int | None = None) -> None:
    """A value of Admin, and which user asked for it. By the supervisor only."""
    at = plane.state(Kind.SERVER, server_row)
    if value == Admin.NORMAL and plane.cells[at + ServerState.ADMIN] != Admin.NORMAL:
        plane.cells[at + ServerState.ADMIN_BACK] = time.monotonic_ns()
    plane.cells[at + ServerState.ADMIN_BY] = 0 if uid is None else uid + 1
    plane.cells[at + ServerState.ADMIN_SINCE] = time.time_ns()
    plane.cells[at + ServerState.ADMIN] = value
    touch(plane, pool_row, column)


def join(plane: Plane, server_row: int) -> None:
    """A reload has brought the server to a pool that is at work: it starts slowly. By the supervisor only."""
    plane.cells[plane.state(Kind.SERVER, server_row) + ServerState.ADMIN_BACK] = time.monotonic_ns()


def restore(plane: Plane, pool_row: int, server_row: int, column: int) -> bool:
    """End an ejection before its time; False if there is none, or a stopped process holds the pool's lock."""
    at = plane.state(Kind.SERVER, server_row) + ServerState.EJECTED_UNTIL
    now_ns = time.monotonic_ns()
    if plane.cells[at] <= now_ns:
        return False
    lock = pool_lock(plane, pool_row)
    if lock.acquire() is LockResult.TIMED_OUT:
        return False
    plane.cells[at] = now_ns
    lock.release()
    touch(plane, pool_row, column)
    return True


def touch(plane: Plane, pool_row: int, column: int) -> None:
    """Tell every process that the health of one of the pool's servers changed."""
    plane.cells[plane.state(Kind.POOL, pool_row) + PoolState.EPOCH] = stamp(column)
