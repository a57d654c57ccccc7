"""Where a server given by name is: written into the plane by the prober, read by everybody.

An address takes several cells. Their writer makes the version odd before and even after, and a reader that met an odd
or a changed one has read nothing (a sequence lock, as in the kernel's seqlock_t).
"""

from __future__ import annotations

import socket

from supervisor.plane.layout import ServerState

_MAPPED = b"\0" * 10 + b"\xff\xff"
TRIES = 10  # of a read; a write takes microseconds, unless its writer was stopped in it

Place = tuple[int, tuple[str, int]]  # family, and what `connect` takes


def write(cells: memoryview[int], state: int, host: str, port: int) -> None:
    """Where the server with this state is now; nowhere for an empty host. By the prober only."""
    packed = bytes(16)
    if host:
        packed = socket.inet_pton(socket.AF_INET6, host) if ":" in host else _MAPPED + socket.inet_aton(host)
    at = state + ServerState.RESOLVED
    cells[at] |= 1
    cells[state + ServerState.ADDRESS_HIGH] = int.from_bytes(packed[:8], "big")
    cells[state + ServerState.ADDRESS_LOW] = int.from_bytes(packed[8:], "big")
    cells[state + ServerState.ADDRESS_PORT] = port
    cells[at] += 1


def read(cells: memoryview[int], state: int) -> Place | None:
    """Where it is; None if it is nowhere."""
    at = state + ServerState.RESOLVED
    for _ in range(TRIES):
        version = cells[at]
        high, low, port = (
            cells[state + ServerState.ADDRESS_HIGH],
            cells[state + ServerState.ADDRESS_LOW],
            cells[state + ServerState.ADDRESS_PORT],
        )
        if version == cells[at] and not version & 1:
            break
    else:
        return None
    if not (high or low):
        return None
    packed = high.to_bytes(8, "big") + low.to_bytes(8, "big")
    if packed.startswith(_MAPPED):
        return socket.AF_INET, (socket.inet_ntop(socket.AF_INET, packed[12:]), port)
    return socket.AF_INET6, (socket.inet_ntop(socket.AF_INET6, packed), port)


def show(place: Place) -> str:
    """The address as a configuration would have it."""
    _, (host, port) = place
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
