"""The daemon's shared memory, looked at from outside: which rows, columns and segments are taken."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from supervisor.plane import layout
from supervisor.plane.layout import Kind, LeaseState
from supervisor.plane.memory import Plane


@contextmanager
def shared(pid: int) -> Iterator[Plane]:
    """The plane of the supervisor with this process id."""
    links = Path(f"/proc/{pid}/fd")
    found = next(link for link in links.iterdir() if "memfd:portway-plane" in os.readlink(link))
    plane = Plane.attach(os.open(found, os.O_RDWR | os.O_CLOEXEC))
    try:
        yield plane
    finally:
        plane.close()


def taken(pid: int) -> dict[str, object]:
    """All that can be left over: names of rows by kind, processes' columns, segments of UDP flows, leases."""
    with shared(pid) as plane:
        columns = [info.tier for info in map(plane.process, range(layout.COLUMNS)) if info is not None]
        segments = plane.cells[layout.SEGMENTS_AT : layout.SEGMENTS_AT + layout.SEGMENTS].tolist()
        leases = plane.cells[layout.LEASE_WORDS_AT : layout.LEASE_WORDS_AT + layout.LEASES].tolist()
        return {
            **{kind.value: sorted(plane.names(kind)) for kind in Kind},
            "columns": sorted(columns),
            "segments": sum(map(bool, segments)),
            "leases": sum(word & 0xFF != LeaseState.FREE for word in leases),
        }
