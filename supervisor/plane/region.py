"""The region itself: a sparse memfd, mapped once before the first fork, seen as cells of 8 bytes.

Owns the mapping and the header's identity (magic, version, fingerprint). It knows no rows; those who do
(names, processes, counters, quotas, leases, flows) work on its `cells` and, for mutexes, on its `address`.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import time

import attrs
import cffi

from supervisor.plane import layout
from supervisor.plane.layout import Header

# fcntl(2); Python 3.11 lacks some of these names on some builds.
F_ADD_SEALS = 1033
F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW = 1, 2, 4

_ffi = cffi.FFI()


class PlaneError(Exception):
    """The shared memory can't do what is asked: full, foreign, or misused."""


class PlaneFullError(PlaneError):
    """A table has no row left."""


class ForeignPlaneError(PlaneError):
    """The descriptor holds no plane, or one of another layout."""


@attrs.define(eq=False)
class Region:
    fd: int
    cells: memoryview[int]
    address: int
    _map: mmap.mmap
    _anchor: object  # keeps the buffer that `address` was taken from

    def close(self) -> None:
        """Unmap and close; only for tests and a start that failed: a running process keeps its plane to the end."""
        self._anchor = None
        self.cells.release()
        os.close(self.fd)
        try:
            self._map.close()
        except BufferError:
            pass  # someone holds a part of `cells`; the mapping goes with the last of them


def map_region(fd: int) -> tuple[mmap.mmap, memoryview[int], int, object]:
    mapping = mmap.mmap(fd, layout.TOTAL_BYTES, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    anchor = _ffi.from_buffer(mapping)
    return mapping, memoryview(mapping).cast("Q"), int(_ffi.cast("uintptr_t", anchor)), anchor


def make_memory() -> int:
    """A memfd of the full size; sealed, so that nobody can shrink it under those who map it (SIGBUS)."""
    fd = os.memfd_create("portway-plane", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, layout.TOTAL_BYTES)
    fcntl.fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)
    return fd


def write_identity(cells: memoryview[int]) -> None:
    cells[Header.VERSION] = layout.LAYOUT_VERSION
    cells[Header.FINGERPRINT] = layout.FINGERPRINT
    cells[Header.CREATED] = time.time_ns()
    for i in range(4):
        cells[Header.SECRET + i] = int.from_bytes(os.urandom(layout.CELL), "little")
    cells[Header.MAGIC] = layout.MAGIC


def check_identity(fd: int) -> None:
    """Raises ForeignPlaneError before anything is mapped at the wrong size."""
    try:
        size = os.fstat(fd).st_size
        head = os.pread(fd, 3 * layout.CELL, 0)
    except OSError as error:
        raise ForeignPlaneError(f"descriptor {fd}: {error}") from error
    cells = [int.from_bytes(head[i : i + layout.CELL], "little") for i in range(0, len(head), layout.CELL)]
    if len(cells) < 3 or cells[Header.MAGIC] != layout.MAGIC:
        raise ForeignPlaneError(f"descriptor {fd} holds no plane")
    if cells[Header.FINGERPRINT] != layout.FINGERPRINT or size != layout.TOTAL_BYTES:
        raise ForeignPlaneError(
            f"layout {cells[Header.VERSION]} ({cells[Header.FINGERPRINT]:08x}) in memory, "
            f"this code has {layout.LAYOUT_VERSION} ({layout.FINGERPRINT:08x})"
        )
