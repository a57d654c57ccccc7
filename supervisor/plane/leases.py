"""Leases: the right to hold one server connection of a pool, counted over all workers.

Under the pool's lock `open < limit` gives a lease; it ends with `free`, or is orphaned when its process dies or finds
itself without the connection (`disown`). An orphan still counts: its server may be at work, so a successor adopts it,
cancels by the pid and secret left here, and then uses or frees it. State, holder, pool and server of a lease are one
cell, so no death leaves half a lease; only the count can be behind, and is taken anew by whoever finds the lock's owner
dead.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import attrs

from supervisor.plane import layout
from supervisor.plane.layout import Kind, Lease, LeasePool, LeasePoolState, LeaseState, LeaseWord, Process
from supervisor.plane.locks import Lock, LockResult, leasepool_lock
from supervisor.plane.region import PlaneError, PlaneFullError, Region

MAX_SECRET = 256  # bytes; protocol 3.2 allows no longer cancel keys

_STATE_MASK = 0xFF
_COLUMN_MASK = 0xFF
_POOL_MASK = 0xFFFF
_SERVER_MASK = 0xFFFF
_INDEX_BITS = 16  # of an id; the sequence stands above them
_INDEX_MASK = (1 << _INDEX_BITS) - 1
_SEQUENCE_MASK = 0xFFFF
_COLUMN_CLEAR = ~(_COLUMN_MASK << LeaseWord.COLUMN)


@attrs.frozen
class Held:
    """A lease as others see it: an orphan to cancel, a line of SHOW SERVERS."""

    lease: int
    state: int  # a value of LeaseState
    column: int
    server_row: int
    pid: int
    secret: bytes = attrs.field(repr=False)
    since: int  # wall clock, ns


class Leases:
    """One per process."""

    __slots__ = ("_cells", "_locks", "_pending", "_region")

    def __init__(self, region: Region) -> None:
        self._region = region
        self._cells = region.cells
        self._locks = [leasepool_lock(region, row) for row in range(layout.LEASEPOOL_LOCKS)]
        self._pending: list[int] = []  # freed while a stopped process held the lock

    def set_limit(self, pool_row: int, limit: int) -> None:
        """Supervisor only. A lower limit takes back nothing: the pool shrinks as leases are freed."""
        self._cells[_state(pool_row) + LeasePoolState.LIMIT] = limit

    def open(self, pool_row: int) -> int:
        return self._cells[_state(pool_row) + LeasePoolState.OPEN]

    def take(self, pool_row: int, column: int, server_row: int, beyond: int = 0) -> int | None:
        """A new lease for this column; None if the pool is full (its limit and `beyond`), or locked by a stopped
        process: try again later."""
        if self._pending:
            self.settle()
        if not self._acquire(pool_row, column):
            return None
        cells = self._cells
        state = _state(pool_row)
        try:
            if cells[state] >= cells[state + LeasePoolState.LIMIT] + beyond:
                return None
            index = self._free_index(column)
            details = layout.LEASES_AT + index * layout.LEASE_CELLS
            sequence = cells[details + Lease.SEQUENCE] + 1 & _SEQUENCE_MASK
            cells[details + Lease.SEQUENCE] = sequence
            cells[details + Lease.PID] = 0
            cells[details + Lease.SECRET_BYTES] = 0
            cells[details + Lease.SINCE] = time.time_ns()
            cells[state] += 1  # first: a death in between counts one too many, never too few
            word = LeaseState.TAKEN | column << LeaseWord.COLUMN | pool_row << LeaseWord.POOL
            word |= server_row << LeaseWord.SERVER | sequence << LeaseWord.SEQUENCE
            cells[layout.LEASE_WORDS_AT + index] = word
            return index | sequence << _INDEX_BITS
        finally:
            self._locks[pool_row % layout.LEASEPOOL_LOCKS].release()

    def bind(self, lease: int, pid: int, secret: bytes) -> None:
        """Note the BackendKeyData; by the holder, after the login."""
        if len(secret) > MAX_SECRET:
            raise PlaneError(f"cancel key of {len(secret)} bytes; {MAX_SECRET} are possible")
        cells = self._cells
        at, word = self._word(lease)
        if not word:
            return
        details = layout.LEASES_AT + (lease & _INDEX_MASK) * layout.LEASE_CELLS
        for index in range(0, len(secret), layout.CELL):
            piece = secret[index : index + layout.CELL].ljust(layout.CELL, b"\0")
            cells[details + Lease.SECRET + index // layout.CELL] = int.from_bytes(piece, "little")
        cells[details + Lease.PID] = pid
        cells[details + Lease.SECRET_BYTES] = len(secret)
        cells[at] = word & ~_STATE_MASK | LeaseState.BOUND

    def holds(self, lease: int, column: int) -> bool:
        """Whether this column holds it for a connection: who receives one asks, before using it. Not while an orphan
        that it has adopted is being ended."""
        return self._bound(self._word(lease)[1], column)

    def since(self, lease: int) -> int:
        """When it was taken: wall clock, ns."""
        return self._cells[layout.LEASES_AT + (lease & _INDEX_MASK) * layout.LEASE_CELLS + Lease.SINCE]

    def move(self, lease: int, column: int, incarnation: int = 0) -> bool:
        """Make it `column`'s: by the holder, before the descriptor is sent there; if that fails, it moves it back.

        False if it isn't held any more, if that process (of that incarnation, if given) is gone, or if a stopped
        process holds the lock.
        """
        cells = self._cells
        _, word = self._word(lease)
        pool_row = word >> LeaseWord.POOL & _POOL_MASK
        if not word or not self._acquire(pool_row):
            return False
        try:
            at, word = self._word(lease)
            if word & _STATE_MASK not in (LeaseState.TAKEN, LeaseState.BOUND):
                return False
            process = layout.PROCESSES_AT + column * layout.PROCESS_CELLS
            target = cells[process + Process.INCARNATION]
            if not cells[process + Process.STATE] or (incarnation and target != incarnation):
                return False
            cells[at] = word & _COLUMN_CLEAR | column << LeaseWord.COLUMN
            if not cells[process + Process.STATE] or cells[process + Process.INCARNATION] != target:
                # It died meanwhile, and its reaper, not getting this lock, may have looked before the store.
                cells[at] = cells[at] & ~_STATE_MASK | LeaseState.ORPHANED
                return False
            return True
        finally:
            self._locks[pool_row % layout.LEASEPOOL_LOCKS].release()

    def free(self, lease: int) -> bool:
        """Give it back. False if a stopped process holds the lock: then it is done by the next call, or `settle`."""
        cells = self._cells
        at, word = self._word(lease)
        if not word:
            return True
        pool_row = word >> LeaseWord.POOL & _POOL_MASK
        if not self._acquire(pool_row, word >> LeaseWord.COLUMN & _COLUMN_MASK):
            self._pending.append(lease)
            return False
        if self._word(lease)[1]:
            cells[at] = 0
            state = _state(pool_row)
            if cells[state]:
                cells[state] -= 1
        self._locks[pool_row % layout.LEASEPOOL_LOCKS].release()
        return True

    def settle(self) -> None:
        """Free what a stopped process kept from being freed."""
        pending, self._pending = self._pending, []
        for lease in pending:
            self.free(lease)

    def adopt(self, lease: int, column: int) -> bool:
        """Make an orphan this column's own, to cancel at its server, then bind it anew or free it; False if another was
        first."""
        cells = self._cells
        _, word = self._word(lease)
        pool_row = word >> LeaseWord.POOL & _POOL_MASK
        if not word or not self._acquire(pool_row, column):
            return False
        at, word = self._word(lease)
        mine = word & _STATE_MASK == LeaseState.ORPHANED
        if mine:
            cells[at] = word & _COLUMN_CLEAR & ~_STATE_MASK | column << LeaseWord.COLUMN | LeaseState.TAKEN
        self._locks[pool_row % layout.LEASEPOOL_LOCKS].release()
        return mine

    def disown(self, lease: int, column: int) -> bool:
        """Make a lease that this column holds an orphan: by the holder, who has no connection for it. False if it isn't
        held any more, or if a stopped process holds the lock."""
        cells = self._cells
        _, word = self._word(lease)
        pool_row = word >> LeaseWord.POOL & _POOL_MASK
        if not self._bound(word, column) or not self._acquire(pool_row, column):
            return False
        at, word = self._word(lease)
        mine = self._bound(word, column)
        if mine:
            cells[at] = word & ~_STATE_MASK | LeaseState.ORPHANED
        self._locks[pool_row % layout.LEASEPOOL_LOCKS].release()
        return mine

    @staticmethod
    def _bound(word: int, column: int) -> bool:
        return word & _STATE_MASK == LeaseState.BOUND and word >> LeaseWord.COLUMN & _COLUMN_MASK == column

    def held(self, pool_row: int) -> list[Held]:
        """Every lease of the pool, orphans included."""
        cells = self._cells
        found = []
        for index, word in _all(cells):
            if word >> LeaseWord.POOL & _POOL_MASK == pool_row:
                details = layout.LEASES_AT + index * layout.LEASE_CELLS
                secret = cells[details + Lease.SECRET : details + layout.LEASE_CELLS].tobytes()
                found.append(
                    Held(
                        lease=index | word >> LeaseWord.SEQUENCE << _INDEX_BITS,
                        state=word & _STATE_MASK,
                        column=word >> LeaseWord.COLUMN & _COLUMN_MASK,
                        server_row=word >> LeaseWord.SERVER & _SERVER_MASK,
                        pid=cells[details + Lease.PID],
                        secret=secret[: cells[details + Lease.SECRET_BYTES]],
                        since=cells[details + Lease.SINCE],
                    )
                )
        return found

    def oldest_waiter(self, pool_row: int, columns: Iterable[int]) -> int:
        """Of these columns the one whose client waits longest, -1 if none waits: who gets a released connection."""
        cells = self._cells
        first = layout.COUNTERS_AT[Kind.LEASEPOOL] + LeasePool.OLDEST_TICKET
        first += pool_row * layout.TABLES[Kind.LEASEPOOL].counter_cells
        oldest, winner = 0, -1
        for column in columns:
            ticket = cells[first + column * layout.COLUMN_CELLS]
            if ticket and (not oldest or ticket < oldest):
                oldest, winner = ticket, column
        return winner

    def _acquire(self, pool_row: int, column: int = -1) -> bool:
        """With the caller's own column a timeout is counted."""
        result = self._locks[pool_row % layout.LEASEPOOL_LOCKS].acquire()
        if result is LockResult.OK:
            return True
        if result is LockResult.RECOVERED:
            recount(self._region, pool_row)
            return True
        if column >= 0:
            counters = layout.COUNTERS_AT[Kind.LEASEPOOL] + column * layout.COLUMN_CELLS
            counters += pool_row * layout.TABLES[Kind.LEASEPOOL].counter_cells
            self._cells[counters + LeasePool.LOCK_TIMEOUTS] += 1
        return False

    def _word(self, lease: int) -> tuple[int, int]:
        """The cell of this lease's word, and the word: 0 if the lease is gone, whoever has its place now."""
        at = layout.LEASE_WORDS_AT + (lease & _INDEX_MASK)
        word = self._cells[at]
        return at, word if word and word >> LeaseWord.SEQUENCE == lease >> _INDEX_BITS else 0

    def _free_index(self, column: int) -> int:
        start = column * layout.LEASES_PER_COLUMN
        at = layout.LEASE_WORDS_AT + start
        words = self._cells[at : at + layout.LEASES_PER_COLUMN].tolist()
        try:
            return start + words.index(0)
        except ValueError:
            raise PlaneFullError(f"a process can open {layout.LEASES_PER_COLUMN} server connections") from None


def recount(region: Region, pool_row: int) -> None:
    """Count `open` anew for all pools under this pool's lock, which the caller holds."""
    cells = region.cells
    stripe = pool_row % layout.LEASEPOOL_LOCKS
    rows = range(stripe, layout.TABLES[Kind.LEASEPOOL].rows, layout.LEASEPOOL_LOCKS)
    counts = dict.fromkeys(rows, 0)
    for _, word in _all(cells):
        pool = word >> LeaseWord.POOL & _POOL_MASK
        if pool in counts:
            counts[pool] += 1
    for row, count in counts.items():
        at = _state(row)
        if cells[at] != count:
            cells[at] = count


def orphan_all(region: Region, column: int) -> None:
    """Orphan what a dead process held. Supervisor only."""
    cells = region.cells
    locks: dict[int, Lock] = {}  # kept for this call: one that timed out is not waited for again
    for index, seen in _all(cells):
        if seen >> LeaseWord.COLUMN & _COLUMN_MASK != column:
            continue
        pool_row = seen >> LeaseWord.POOL & _POOL_MASK
        lock = locks.setdefault(pool_row % layout.LEASEPOOL_LOCKS, leasepool_lock(region, pool_row))
        result = lock.acquire()
        if result is LockResult.RECOVERED:
            recount(region, pool_row)
        at = layout.LEASE_WORDS_AT + index
        word = cells[at]
        # Without the lock too, if a stopped process holds it: the dead can't change this word any more, and one who
        # moves the lease looks again after its store.
        if word and word >> LeaseWord.COLUMN & _COLUMN_MASK == column:
            cells[at] = word & ~_STATE_MASK | LeaseState.ORPHANED
        if result is not LockResult.TIMED_OUT:
            lock.release()


def _all(cells: memoryview[int]) -> Iterator[tuple[int, int]]:
    """Leases that are not free, with their words; about 0.5 ms, so not for every transaction."""
    for start in range(0, layout.LEASES, layout.LEASES_PER_COLUMN):
        at = layout.LEASE_WORDS_AT + start
        words = cells[at : at + layout.LEASES_PER_COLUMN].tolist()
        if any(words):
            yield from ((start + index, word) for index, word in enumerate(words) if word)


def _state(pool_row: int) -> int:
    return layout.STATE_AT[Kind.LEASEPOOL] + pool_row * layout.TABLES[Kind.LEASEPOOL].state_cells
