"""What lies where in the shared memory: kinds of rows, their fields, sections and limits.

A row of a kind has state cells (shared, one writer each or behind a lock) and, in every column, counter cells that
belong to that column's process alone. Fields are plain ints to be added to a base: `cells[base + Server.IN_FLIGHT]`.
Every row is wider than its fields: new ones are added at the end and change no offset. Anything else changes
`FINGERPRINT`, and an upgrade over another fingerprint is refused while the old code runs on.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Mapping

import attrs

CELL = 8  # bytes; aligned, so that a load or a store is never torn
PAGE_CELLS = 512  # 4 KiB: sections and columns start on pages, so that untouched ones cost nothing

MAGIC = int.from_bytes(b"PORTWAY\0", "little")
LAYOUT_VERSION = 1

COLUMNS = 64  # processes at once, the supervisor and the retired column included; draining ones hold theirs
SUPERVISOR = 0  # column of the supervisor itself
RETIRED = 1  # column with the folded counters of the dead
FIRST_PROCESS = 2
MAX_SLOTS = 64  # SO_REUSEPORT sockets of one listener: twice the CPUs of a 32-core machine
NAME_CELLS = 64  # a name's length and 504 bytes: "pool/host:port" with a DNS name of 253 fits
MAX_NAME = (NAME_CELLS - 1) * CELL  # bytes of UTF-8


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
    Kind.DATABASE: Table(512, 8, 8, DatabaseState, Database),
    Kind.TIER: Table(16, 8, 128, TierState, Tier, frozenset({Tier.SESSIONS})),
}


def fields(holder: type) -> dict[str, int]:
    """Field names of `Server`, `Pool`, ... with their offsets, for metrics; bases of ranges are left out."""
    skip = {"LATENCY", "LATENCY_BUCKETS", "REASONS", "MAX_REASONS", "OWNER", "HEIRS"}
    return {name.lower(): at for name, at in vars(holder).items() if name.isupper() and name not in skip}


class Header:
    """Cells at the start of the region; written by the supervisor, except the stamp LIVE_EPOCH."""

    MAGIC = 0
    VERSION = 1
    FINGERPRINT = 2
    GENERATION = 3  # of the configuration; flipped when all have prepared
    CREATED = 4  # wall clock, ns
    LIVE_EPOCH = 5  # a stamp, new whenever a process came, went or changed its state
    INCARNATIONS = 6  # the last incarnation given out
    FOLDING = 7  # odd while counters move into the retired column
    SECRET = 16  # 32 bytes: key of the digests in the quota table
    TICKETS_SECRET = 20  # 32 bytes: under the keys of TLS session tickets (see `tickets`)
    TICKETS_SINCE = 24  # wall clock, ns, of that secret; 0 none
    NAMES_VERSION = 32  # + index of the kind


class Process:
    """A column's process; PROCESS_CELLS apart. INCARNATION 0 means the column is free."""

    PID = 0
    INCARNATION = 1
    TIER = 2  # row of Kind.TIER
    NUMBER = 3  # "gateway 1/2": 1
    STATE = 4  # a value of ProcessState
    HEARTBEAT = 5  # monotonic ns
    ACKNOWLEDGED = 6  # generation that the process has prepared
    STARTED = 7  # wall clock, ns


class ProcessState:
    """Values of Process.STATE."""

    GONE, STARTING, READY, DRAINING = 0, 1, 2, 3


class LeaseWord:
    """A lease's one cell of truth, stored at once: the state, then column, pool row, server row, sequence."""

    COLUMN, POOL, SERVER, SEQUENCE = 8, 16, 32, 48  # shifts


class LeaseState:
    """The low bits of a lease's word. Column c opens the words from c × LEASES_PER_COLUMN; a lease's id is the index of
    its word, with the sequence << 16: the id of a lease that is gone is nobody's."""

    FREE, TAKEN, BOUND, ORPHANED = 0, 1, 2, 3


class Lease:
    """What else is known of a leased server connection; LEASE_CELLS apart, written by its holder."""

    PID = 0  # BackendKeyData
    SECRET_BYTES = 1
    SINCE = 2  # wall clock, ns
    SEQUENCE = 3  # of the last lease that had this word
    SECRET = 4  # up to 256 bytes: protocol 3.2


class Flow:
    """A UDP flow; FLOW_CELLS apart."""

    HIGH = 0  # client address: IPv6, or IPv4 mapped
    LOW = 1
    META = 2  # a value of FlowMeta; 0 never used
    SEEN = 3  # monotonic ns


class FlowMeta:
    """A flow's one cell of truth, stored last: bits | client port << 32 | local port << 16 | server row."""

    USED = 1 << 63
    REMOVED = 1 << 62  # was used, and may stand in the way to another: searches go on behind it
    IPV4 = 1 << 61  # the client's address was given as IPv4
    CLIENT_PORT, LOCAL_PORT = 32, 16  # shifts


PROCESS_CELLS = 16
LOCK_BYTES = 64  # a pthread_mutex_t takes 40 (x86-64) or 48 (aarch64); a cache line each
QUOTA_LOCKS = 256
LEASEPOOL_LOCKS = 128
POOL_LOCKS = 128
FIRST_LEASEPOOL_LOCK = QUOTA_LOCKS
FIRST_POOL_LOCK = QUOTA_LOCKS + LEASEPOOL_LOCKS
SEGMENTS_LOCK = FIRST_POOL_LOCK + POOL_LOCKS
LOCKS = SEGMENTS_LOCK + 1

BUCKET_ROWS = 16  # probes that a key may need; with half the rows in use 0.4 % of the buckets are full
BUCKET_CELLS = BUCKET_ROWS * 3
BUCKETS = 1 << 16  # 1,048,576 keys at once, 24 MiB when all are touched

LEASE_CELLS = 40
LEASES_PER_COLUMN = 1024  # server connections that one process opened; PostgreSQL seldom allows more
LEASES = LEASES_PER_COLUMN * COLUMNS

FLOW_CELLS = 4
FLOWS_PER_SEGMENT = 1 << 13  # of one slot; a worker has several slots, and 8192 sessions by default
# The directory of segments is a cell each: listener row << 8 | slot, + 1; 0 free.
SEGMENTS = 512  # UDP listeners × slots: 64 listeners on a small machine, 8 on one with 32 CPUs; 256 KiB each when used

GUEST_BUCKETS = 1 << 10  # of a column, with BUCKET_ROWS rows each: 16,384 clients connected to one worker at once
# A page whose first cell is the incarnation of the process that writes here, then the buckets; 388 KiB when used.
GUESTS_CELLS = PAGE_CELLS + GUEST_BUCKETS * BUCKET_CELLS


def _pages(cells: int) -> int:
    return -(-cells // PAGE_CELLS) * PAGE_CELLS


def _sections() -> tuple[dict[str, int], dict[Kind, int], dict[Kind, int], dict[Kind, int], int, int]:
    at = 0
    sections: dict[str, int] = {}
    names: dict[Kind, int] = {}
    states: dict[Kind, int] = {}
    counters: dict[Kind, int] = {}

    def place(cells: int) -> int:
        nonlocal at
        start, at = at, at + _pages(cells)
        return start

    sections["header"] = place(PAGE_CELLS)
    sections["processes"] = place(COLUMNS * PROCESS_CELLS)
    sections["locks"] = place(LOCKS * LOCK_BYTES // CELL)
    for kind, table in TABLES.items():
        names[kind] = place(table.rows * NAME_CELLS)
        states[kind] = place(table.rows * table.state_cells)
    within = 0
    for kind, table in TABLES.items():
        counters[kind] = within
        within += _pages(table.rows * table.counter_cells)
    sections["columns"] = place(within * COLUMNS)
    sections["quotas"] = place(BUCKETS * BUCKET_CELLS)
    sections["lease words"] = place(LEASES)
    sections["leases"] = place(LEASES * LEASE_CELLS)
    sections["segments"] = place(SEGMENTS)
    sections["flows"] = place(SEGMENTS * FLOWS_PER_SEGMENT * FLOW_CELLS)
    sections["guests"] = place(COLUMNS * GUESTS_CELLS)
    return sections, names, states, counters, within, at


SECTIONS, NAMES_AT, STATE_AT, _COUNTERS_WITHIN, COLUMN_CELLS, TOTAL_CELLS = _sections()
COUNTERS_AT: Mapping[Kind, int] = {kind: SECTIONS["columns"] + at for kind, at in _COUNTERS_WITHIN.items()}
PROCESSES_AT = SECTIONS["processes"]
LOCKS_AT = SECTIONS["locks"]
QUOTAS_AT = SECTIONS["quotas"]
LEASE_WORDS_AT = SECTIONS["lease words"]
LEASES_AT = SECTIONS["leases"]
SEGMENTS_AT = SECTIONS["segments"]
FLOWS_AT = SECTIONS["flows"]
GUESTS_AT = SECTIONS["guests"]
TOTAL_BYTES = TOTAL_CELLS * CELL

FINGERPRINT = zlib.crc32(
    repr(
        (
            LAYOUT_VERSION,
            [(kind.value, table.rows, table.state_cells, table.counter_cells) for kind, table in TABLES.items()],
            sorted(SECTIONS.items()),
            [PROCESS_CELLS, LOCK_BYTES, BUCKET_ROWS, LEASE_CELLS, LEASES_PER_COLUMN, FLOW_CELLS, FLOWS_PER_SEGMENT],
        )
    ).encode()
)
