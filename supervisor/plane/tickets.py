"""The secret under all TLS session tickets: in the plane, so that it outlives every process and an upgrade.

The supervisor alone writes it, and replaces it by a new random one twice a day; workers derive their ticket keys from
it. What was encrypted under an earlier secret can't be read any more, not even with the whole plane in hand.
"""

from __future__ import annotations

import os
from collections.abc import MutableSequence

from supervisor.plane.layout import CELL, Header

# A ticket is good for 2 h (OpenSSL's default), and a stolen secret opens what was sent with any ticket under it. At a
# change each client makes one whole handshake, because OpenSSL holds one key at a time.
LIFETIME = 12 * 3600 * 10**9  # ns
_CELLS = 4  # 32 bytes


def keep_fresh(cells: MutableSequence[int] | memoryview[int], now_ns: int) -> bool:
    """By the supervisor, now and then: a new secret if there is none, or if it is too old; whether there is a new one.
    `now_ns` is wall clock time; a clock that was set back makes a new one as well."""
    since = cells[Header.TICKETS_SINCE]
    if since and 0 <= now_ns - since < LIFETIME:
        return False
    cells[Header.TICKETS_SINCE] = 0  # nobody takes half a secret
    for cell in range(_CELLS):
        cells[Header.TICKETS_SECRET + cell] = int.from_bytes(os.urandom(CELL), "little")
    cells[Header.TICKETS_SINCE] = now_ns
    return True


def secret(cells: MutableSequence[int] | memoryview[int]) -> tuple[int, bytes] | None:
    """Since when (wall clock, ns), and the 32 bytes; None while there is none."""
    since = cells[Header.TICKETS_SINCE]
    words = [cells[Header.TICKETS_SECRET + cell] for cell in range(_CELLS)]
    if not since or cells[Header.TICKETS_SINCE] != since:
        return None
    return since, b"".join(word.to_bytes(CELL, "little") for word in words)
