"""Rate limits, exact over all workers: GCRA on rows in shared memory, found by a keyed digest.

A row is a digest of 128 bits and a theoretical arrival time (TAT, monotonic ns). A bucket of 16 rows and its stripe's
lock belong together; a row may be reused once its TAT is past, for then it says no more than a new one. Every prefix of
the stores that claim a row leaves a table that is right, so an owner that died inside left nothing to repair.
Limits never fail closed: a full bucket, or a lock held by a stopped process, admits and counts.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

from supervisor.plane import layout
from supervisor.plane.layout import Header, Limit
from supervisor.plane.locks import Lock, LockResult, lock, trylock, unlock
from supervisor.plane.region import Region

_WORDS = struct.Struct("=QQ").unpack
_ROW_MASK = layout.BUCKET_ROWS - 1
_LOW = layout.BUCKET_ROWS  # offset of the digests' second words within a bucket
_TAT = 2 * layout.BUCKET_ROWS


class Quotas:
    """One per process. The digests of a request come from `digests(limit name)`."""

    __slots__ = ("_cells", "_locks", "_pointers", "_region")

    def __init__(self, region: Region) -> None:
        self._region = region
        self._cells = region.cells
        self._locks: list[Lock] = [lock(region, index) for index in range(layout.QUOTA_LOCKS)]
        self._pointers: list[Any] = [one.pointer for one in self._locks]

    def digests(self, limit: str) -> Callable[[bytes], bytes]:
        """The function from a key (user, address...) of that limit to its digest; every worker's is the same.

        Keyed with a secret of this plane, so that nobody can compute keys that share a bucket.
        """
        secret = self._cells[Header.SECRET : Header.SECRET + 4].tobytes()
        seeded = hashlib.blake2b(limit.encode() + b"\0", digest_size=16, key=secret)
        copy = seeded.copy

        def digest(key: bytes) -> bytes:
            one = copy()
            one.update(key)
            return one.digest()

        return digest

    def admit(
        self, digest: bytes, interval_ns: int, burst: int, now_ns: int, counters: int = -1
    ) -> tuple[bool, int, int]:
        """Whether one more may come, and if so, count it: (admitted, remaining, ns).

        The ns are those until one more will be admitted, or, if admitted, until all of `burst` are free again.
        `interval_ns` is the time one takes to come back (a rate of 100/s: 10,000,000), `now_ns` is monotonic and may be
        late. With `counters` (base of the LIMIT row in this process's column) the outcome is counted there.
        """
        cells = self._cells
        high, low = _WORDS(digest)
        high |= 1  # 0 marks a row never used
        bucket = low % layout.BUCKETS
        stripe = bucket % layout.QUOTA_LOCKS
        pointer = self._pointers[stripe]
        code = trylock(pointer)
        if code and self._locks[stripe].settle(code) is LockResult.TIMED_OUT:
            if counters >= 0:
                cells[counters + Limit.LOCK_TIMEOUTS] += 1
                cells[counters] += 1
            return True, 0, 0
        base = layout.QUOTAS_AT + bucket * layout.BUCKET_CELLS
        at = base + (low >> 16 & _ROW_MASK)
        if cells[at] != high or cells[at + _LOW] != low:
            at = self._find(base, at, high, low, now_ns)
            if at < 0:
                unlock(pointer)
                if counters >= 0:
                    cells[counters + Limit.ADMITTED_FULL] += 1
                    cells[counters] += 1
                return True, 0, 0
        tat = cells[at + _TAT]
        # max(TAT, now) + T - now <= burst × T: exactly `burst` at once.
        tat = (tat if tat > now_ns else now_ns) + interval_ns
        spare = burst * interval_ns + now_ns - tat
        if spare < 0:
            unlock(pointer)
            if counters >= 0:
                cells[counters + Limit.REFUSED] += 1
            return False, 0, -spare
        cells[at + _TAT] = tat
        unlock(pointer)
        if counters >= 0:
            cells[counters] += 1  # Limit.ADMITTED
        return True, spare // interval_ns, tat - now_ns

    def _find(self, base: int, home: int, high: int, low: int, now_ns: int) -> int:
        """The row of this digest in the bucket, claimed if there is none; -1 if all others are in use."""
        cells = self._cells
        highs = cells[base : base + layout.BUCKET_ROWS].tolist()
        if high in highs:
            for index, word in enumerate(highs):
                if word == high and cells[base + index + _LOW] == low:
                    return base + index
        # At home if possible, so that the next request looks at one row.
        start = home - base
        for step in range(layout.BUCKET_ROWS):
            at = base + (start + step & _ROW_MASK)
            if cells[at + _TAT] <= now_ns:
                # In this order: dying between two stores leaves a row that nobody's digest matches, and that is free.
                cells[at] = high
                cells[at + _LOW] = low
                return at
        return -1
