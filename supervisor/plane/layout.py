"""What lies where in the shared memory: sections, limits, and the rows of rows.py, whose names are these too.

A row of a kind has state cells (shared, one writer each or behind a lock) and, in every column, counter cells that
belong to that column's process alone. Whatever changes more than a field at a row's end changes `FINGERPRINT`, and an
upgrade over another fingerprint is refused while the old code runs on.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from supervisor.plane.rows import MAX_SLOTS as MAX_SLOTS
from supervisor.plane.rows import TABLES as TABLES
from supervisor.plane.rows import Active as Active
from supervisor.plane.rows import Admin as Admin
from supervisor.plane.rows import Database as Database
from supervisor.plane.rows import DatabaseState as DatabaseState
from supervisor.plane.rows import Kind as Kind
from supervisor.plane.rows import LeasePool as LeasePool
from supervisor.plane.rows import LeasePoolState as LeasePoolState
from supervisor.plane.rows import Limit as Limit
from supervisor.plane.rows import LimitState as LimitState
from supervisor.plane.rows import Listener as Listener
from supervisor.plane.rows import ListenerState as ListenerState
from supervisor.plane.rows import Pool as Pool
from supervisor.plane.rows import PoolState as PoolState
from supervisor.plane.rows import Role as Role
from supervisor.plane.rows import Route as Route
from supervisor.plane.rows import RouteState as RouteState
from supervisor.plane.rows import Server as Server
from supervisor.plane.rows import ServerState as ServerState
from supervisor.plane.rows import Table as Table
from supervisor.plane.rows import Tier as Tier
from supervisor.plane.rows import TierState as TierState
from supervisor.plane.rows import fields as fields

CELL = 8  # bytes; aligned, so that a load or a store is never torn
PAGE_CELLS = 512  # 4 KiB: sections and columns start on pages, so that untouched ones cost nothing

MAGIC = int.from_bytes(b"PORTWAY\0", "little")
LAYOUT_VERSION = 1

COLUMNS = 64  # processes at once, the supervisor and the retired column included; draining ones hold theirs
SUPERVISOR = 0  # column of the supervisor itself
RETIRED = 1  # column with the folded counters of the dead
FIRST_PROCESS = 2
NAME_CELLS = 64  # a name's length and 504 bytes: "pool/host:port" with a DNS name of 253 fits
MAX_NAME = (NAME_CELLS - 1) * CELL  # bytes of UTF-8


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
