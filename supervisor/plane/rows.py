"""The kinds of rows in the plane, and what each has: state cells that all share, counter cells in every column.

Fields are plain ints to be added to a base: `cells[base + Server.IN_FLIGHT]`. Every row is wider than its fields: new
ones are added at the end and change no offset.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

MAX_SLOTS = 64  # SO_REUSEPORT sockets of one listener: twice the CPUs of a 32-core machine


class Kind(enum.Enum):
    """What a row counts."""

    SERVER = "server"  # "pool/host:port"
    POOL = "pool"
    LISTENER = "listener"  # "tier/name"
    ROUTE = "route"
    LIMIT = "limit"
    LEASEPOOL = "leasepool"  # "database/user"
    TIER = "tier"
    DATABASE = "database"  # of the pooler


class ServerState:
    """Shared part of a SERVER row; the writer stands beside each field."""

    ACTIVE = 0  # the prober: a value of Active
    ACTIVE_SINCE = 1  # wall clock, ns
    ADMIN = 2  # the supervisor: a value of Admin
    ADMIN_SINCE = 3
    EJECTED_UNTIL = 4  # whoever holds the pool's lock; monotonic ns, 0 never
    EJECTED_SINCE = 5  # wall clock, ns
    EJECTIONS = 6  # times in a row: the next ejection lasts that much longer
    CHECKS = 7  # the prober: checks made
    CHECK_FAILURES = 8
    CHECK_STREAK = 9  # the prober: checks in a row that contradict ACTIVE; here, so that its successor goes on
    CHECK_US = 10  # the prober: what the last check took
    ACTIVE_BACK = 11  # the prober: monotonic ns at which checks last brought it back, 0 never
    ADMIN_BACK = 12  # the supervisor: monotonic ns at which it was last given work again
    ADMIN_BY = 13  # the supervisor: who set ADMIN, a user's id + 1; 0 nobody
    RESOLVED = 14  # the prober: writes of the three below, times two; odd while one is under way, 0 never resolved
    ADDRESS_HIGH = 15  # of a server given by name: IPv6, or IPv4 mapped; both 0 while its name doesn't resolve
    ADDRESS_LOW = 16
    ADDRESS_PORT = 17
    ROLE = 18  # the prober, of a PostgreSQL server, here and below: a value of Role
    ROLE_ASKED = 19  # monotonic ns before it was asked
    WAL = 20  # where it was then: what it has written, or replayed
    LAG_MS = 21  # of a replica
    TIMELINE = 22  # of a primary


class Active:
    """Values of ServerState.ACTIVE."""

    UNKNOWN, UP, DOWN = 0, 1, 2  # UNKNOWN counts as the configured `initial`


class Role:
    """Values of ServerState.ROLE."""

    UNKNOWN, PRIMARY, REPLICA = 0, 1, 2


class Admin:
    """Values of ServerState.ADMIN."""

    NORMAL, DRAINING, MAINTENANCE = 0, 1, 2


class Server:
    CONNECTIONS = 0
    IN_FLIGHT = 1
    STREAK = 2  # failures in a row, as this process saw them
    FAILURES = 3
    BYTES_IN = 4
    BYTES_OUT = 5
    REQUESTS = 6
    EJECTED = 7
    FULL = 8  # passed over at max_connections


class PoolState:
    EPOCH = 0  # a stamp, new whenever the health of one of its servers changed
    FAILING_OPEN = 1  # the prober: 1 while no server is up


class Pool:
    FAIL_OPEN = 0  # picks made although no server was up
    PICKS_REFUSED = 1  # picks that found no server
    EJECTIONS = 2
    EJECTIONS_DENIED = 3  # by max_ejected
    LOCK_TIMEOUTS = 4
    BACKUP = 5  # picks that went to a backup server
    OTHER_ZONE = 6  # picks made while too few servers of the own zone were up
    WAITING = 7  # for room on a server
    OLDEST_TICKET = 8  # monotonic ns at which this process's longest waiting came, 0 none
    QUEUED = 9  # that had to wait
    QUEUE_REFUSED = 10  # because as many as may wait were waiting
    QUEUE_TIMEOUTS = 11


class ListenerState:
    OWNER = 0  # + slot: the column that polls it, 0 none (column 0 is the supervisor, which polls nothing)
    SLOTS = MAX_SLOTS
    HEIRS = 64  # + slot // 8: a byte for each slot, the column that polls it next (see `heirs`)
    BY_KERNEL = 72  # the edge's datapath service: 1 while rules of the kernel take what comes to it


class Listener:
    ACCEPTED = 0
    ACTIVE = 1
    REFUSED = 2
    ERRORS = 3
    BYTES_IN = 4
    BYTES_OUT = 5
    DATAGRAMS_IN = 6
    DATAGRAMS_OUT = 7
    DROPPED = 8
    ACCEPT_PAUSED = 9
    SESSIONS = 10  # UDP sessions alive
    CONNECT_FAILURES = 11
    TIMEOUTS = 12
    RESETS = 13
    HANDSHAKE_FAILURES = 14
    PROTOCOL_ERRORS = 15
    LOGINS_REFUSED = 16
    LIMITED = 17  # connections refused by a limit on the listener's, or on one client's


class RouteState:
    pass


class Route:
    REQUESTS = 0
    RESPONSES_1XX = 1
    RESPONSES_2XX = 2
    RESPONSES_3XX = 3
    RESPONSES_4XX = 4
    RESPONSES_5XX = 5
    BYTES_IN = 6
    BYTES_OUT = 7
    IN_FLIGHT = 8
    RETRIES = 9
    ABORTED = 10
    LATENCY_SUM = 11  # µs
    LATENCY = 16  # + bit length of the µs: 24 buckets, the last from 4.2 s
    LATENCY_BUCKETS = 24
    REASONS = 40  # + index of the reason code, as the gateway numbers them
    MAX_REASONS = 48


class LimitState:
    pass


class Limit:
    ADMITTED = 0
    REFUSED = 1
    ADMITTED_FULL = 2  # admitted because the table had no room
    LOCK_TIMEOUTS = 3  # admitted because a stopped process held the lock


class LeasePoolState:
    OPEN = 0  # server connections over all workers, orphans included; under the lock
    LIMIT = 1  # the supervisor
    PAUSED = 2  # whoever carries out the operator's command, here and below: 1 while no connection is given out
    DISABLED = 3  # 1 while no client may come in
    STALE = 4  # wall clock, ns: connections opened before are not used again
    KILLED = 5  # wall clock, ns: whoever was there then is to go


class LeasePool:
    IDLE = 0
    BUSY = 1
    WAITING = 2
    OLDEST_TICKET = 3  # monotonic ns at which the longest waiting client came, 0 none
    TRANSACTIONS = 4
    QUERIES = 5
    WAIT_US = 6
    BYTES_IN = 7
    BYTES_OUT = 8
    LOGINS = 9
    ERRORS = 10
    LOCK_TIMEOUTS = 11
    CANCELS = 12
    HANDED_OVER = 13
    WAIT_TIMEOUTS = 14
    CLIENTS = 15
    XACT_US = 16  # held by clients, all connections together; an integral of what is seen at each look
    QUERY_US = 17  # of that, at work


class DatabaseState:
    SATURATED = 0  # any worker: monotonic ns until which clients wait too long, or too many of them


class Database:
    SATURATED_MS = 0  # a worker's: for how long it has said so
    LISTENING = 1  # server connections that listen for all clients
    CHANNELS = 2  # that they listen to
    NOTIFICATIONS = 3  # given to clients, one by one


class TierState:
    pass


class Tier:
    LOCK_TIMEOUTS = 0
    WIRE_SENT = 1
    WIRE_DROPPED = 2
    SESSIONS = 3
    OVERDUE = 4  # sessions ended by a deadline
    ERRORS = 5  # sessions ended by a fault of ours
    OFFLOADED = 6
    LOG_DROPPED = 7
    ROUNDS = 8
    TOKENS_VERIFIED = 9
    TOKENS_CACHED = 10
    RESPAWNS = 11
    RELOADS = 12
    RELOADS_REFUSED = 13
    CERTIFICATES_RENEWED = 14
    CERTIFICATES_REFUSED = 15
    UPGRADES = 16
    UPGRADES_REFUSED = 17


@attrs.frozen
class Table:
    """One kind: rows, widths, and which counters are gauges: zeroed, not folded, when their process dies."""

    rows: int
    state_cells: int
    counter_cells: int
    state: type
    counters: type
    gauges: frozenset[int] = frozenset()


TABLES: Mapping[Kind, Table] = {
    Kind.SERVER: Table(2048, 32, 16, ServerState, Server, frozenset({Server.IN_FLIGHT, Server.STREAK})),
    Kind.POOL: Table(512, 8, 16, PoolState, Pool, frozenset({Pool.WAITING, Pool.OLDEST_TICKET})),
    Kind.LISTENER: Table(256, 80, 32, ListenerState, Listener, frozenset({Listener.ACTIVE, Listener.SESSIONS})),
    Kind.ROUTE: Table(1024, 8, 96, RouteState, Route, frozenset({Route.IN_FLIGHT})),
    Kind.LIMIT: Table(512, 8, 8, LimitState, Limit),
    Kind.LEASEPOOL: Table(
        2048,
        8,
        32,
        LeasePoolState,
        LeasePool,
        frozenset({LeasePool.IDLE, LeasePool.BUSY, LeasePool.WAITING, LeasePool.OLDEST_TICKET, LeasePool.CLIENTS}),
    ),
    Kind.DATABASE: Table(512, 8, 8, DatabaseState, Database, frozenset({Database.LISTENING, Database.CHANNELS})),
    Kind.TIER: Table(16, 8, 128, TierState, Tier, frozenset({Tier.SESSIONS})),
}


def fields(holder: type) -> dict[str, int]:
    """Field names of `Server`, `Pool`, ... with their offsets, for metrics; bases of ranges are left out."""
    skip = {"LATENCY", "LATENCY_BUCKETS", "REASONS", "MAX_REASONS", "OWNER", "HEIRS"}
    return {name.lower(): at for name, at in vars(holder).items() if name.isupper() and name not in skip}
