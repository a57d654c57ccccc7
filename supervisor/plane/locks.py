"""Mutexes in shared memory that survive the death, and bound the wait for the stop, of their owner.

Robust, process-shared pthread mutexes, called through cffi's ABI mode: 0.3 µs for a lock and an unlock. An owner that
died leaves RECOVERED to the next, who repairs what the lock guards before the release. A stopped owner costs the others
at most 50 ms, once a second; what a timeout means is the caller's decision (limits admit, leases try again).
Inside a lock: no await, no thread, no call that can raise for an ordinary reason.
"""

from __future__ import annotations

import enum
import errno
import time
from typing import Any

import attrs
import cffi

from supervisor.plane import layout
from supervisor.plane.region import PlaneError, Region

MAX_WAIT = 50_000_000  # ns; a request may wait that long for a stopped process, and the holder needs microseconds
SUSPICION = 1_000_000_000  # ns; after a timeout the lock is only tried: a stopped owner must not slow every request

_CLOCK_MONOTONIC = 1
_PTHREAD_PROCESS_SHARED = 1
_PTHREAD_MUTEX_ROBUST = 1

_ffi = cffi.FFI()
_ffi.cdef(
    """
    int pthread_mutexattr_init(void *);
    int pthread_mutexattr_destroy(void *);
    int pthread_mutexattr_setpshared(void *, int);
    int pthread_mutexattr_setrobust(void *, int);
    int pthread_mutex_init(void *, void *);
    int pthread_mutex_trylock(void *);
    int pthread_mutex_clocklock(void *, int, void *);
    int pthread_mutex_consistent(void *);
    int pthread_mutex_unlock(void *);
    """
)
_lib: Any = _ffi.dlopen(None)  # glibc 2.34 and later hold pthreads in libc itself; Python links them anyway

trylock = _lib.pthread_mutex_trylock  # for hot paths: 0 is ours, anything else goes to Lock.settle()
unlock = _lib.pthread_mutex_unlock


class LockResult(enum.Enum):
    OK = "ok"
    RECOVERED = "recovered"  # ours; its last owner died inside: repair, then release
    TIMED_OUT = "timed out"  # not ours


@attrs.define(eq=False)
class Lock:
    pointer: Any  # the mutex, as cffi passes it on
    _suspect_until: int = 0  # monotonic ns

    def acquire(self) -> LockResult:
        """Wait at most MAX_WAIT; RECOVERED asks the caller to repair before the release."""
        code = trylock(self.pointer)
        return LockResult.OK if not code else self.settle(code)

    def settle(self, code: int) -> LockResult:
        """What follows a trylock that returned `code`, which is not 0."""
        if code == errno.EBUSY:
            now = time.monotonic_ns()
            if now < self._suspect_until:
                return LockResult.TIMED_OUT
            until = now + MAX_WAIT
            timespec = _ffi.new("long[2]", [until // 1_000_000_000, until % 1_000_000_000])
            code = _lib.pthread_mutex_clocklock(self.pointer, _CLOCK_MONOTONIC, timespec)
            if code == errno.ETIMEDOUT:
                self._suspect_until = until + SUSPICION
                return LockResult.TIMED_OUT
        if code == 0:
            return LockResult.OK
        if code == errno.EOWNERDEAD:
            # At once, not after the repair: should the repair raise, the mutex must not be dead for good. Whoever dies
            # before the unlock leaves EOWNERDEAD again, so every repair is begun anew by the next owner.
            _lib.pthread_mutex_consistent(self.pointer)
            return LockResult.RECOVERED
        raise PlaneError(f"pthread_mutex_lock: {errno.errorcode.get(code, code)}")

    def release(self) -> None:
        unlock(self.pointer)


def make_mutexes(region: Region) -> None:
    """Initialise every mutex of a new region; before the first fork, once."""
    attributes = _ffi.new("char[64]")  # pthread_mutexattr_t takes 4 bytes on glibc
    _must(_lib.pthread_mutexattr_init(attributes))
    _must(_lib.pthread_mutexattr_setpshared(attributes, _PTHREAD_PROCESS_SHARED))
    _must(_lib.pthread_mutexattr_setrobust(attributes, _PTHREAD_MUTEX_ROBUST))
    for index in range(layout.LOCKS):
        _must(_lib.pthread_mutex_init(_pointer(region, index), attributes))
    _must(_lib.pthread_mutexattr_destroy(attributes))


def lock(region: Region, index: int) -> Lock:
    return Lock(_pointer(region, index))


def leasepool_lock(region: Region, row: int) -> Lock:
    return lock(region, layout.FIRST_LEASEPOOL_LOCK + row % layout.LEASEPOOL_LOCKS)


def pool_lock(region: Region, row: int) -> Lock:
    return lock(region, layout.FIRST_POOL_LOCK + row % layout.POOL_LOCKS)


def _pointer(region: Region, index: int) -> Any:
    return _ffi.cast("void *", region.address + layout.LOCKS_AT * layout.CELL + index * layout.LOCK_BYTES)


def _must(code: int) -> None:
    if code:
        raise PlaneError(f"pthread: {errno.errorcode.get(code, code)}")
