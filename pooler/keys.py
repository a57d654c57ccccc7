"""Cancel keys given to clients: ours, not a server's, and made so that any worker knows which one holds the client.

A client in transaction mode has no server of its own, so it can't be given a server's key. What it gets instead names a
column of the plane in the process id, with a serial number in that column; the secret is random. A key of a process
that is gone leads to its column's next owner, whose serial numbers and secrets are others.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Generic, TypeVar

import attrs

SECRET_SIZE = 4  # bytes; protocol 3.0
LONG_SECRET_SIZE = 32  # bytes; protocol 3.2, as PostgreSQL 18 makes them

Holder = TypeVar("Holder")

_SERIAL_BITS = 24
_MAX_SERIAL = (1 << _SERIAL_BITS) - 1


def column_of(pid: int) -> int:
    """The column that a key of ours names; anything at all for a key of somebody else's."""
    return pid >> _SERIAL_BITS & 0x7F  # seven bits: a process id stays positive as a signed number


@attrs.define(eq=False)
class Keys(Generic[Holder]):
    """The keys that one worker has given out."""

    column: int
    _serial: int = attrs.field(factory=lambda: secrets.randbelow(_MAX_SERIAL))
    _holders: dict[int, tuple[bytes, Holder]] = attrs.field(factory=dict)

    def give(self, holder: Holder, long: bool) -> tuple[int, bytes]:
        """A process id and a secret for BackendKeyData."""
        while True:
            self._serial = self._serial % _MAX_SERIAL + 1
            pid = self.column << _SERIAL_BITS | self._serial
            if pid not in self._holders:
                break
        secret = secrets.token_bytes(LONG_SECRET_SIZE if long else SECRET_SIZE)
        self._holders[pid] = (secret, holder)
        return pid, secret

    def take_back(self, pid: int) -> None:
        """When the client is gone."""
        self._holders.pop(pid, None)

    def find(self, pid: int, secret: bytes) -> Holder | None:
        """Whose key this is, if it is one."""
        found = self._holders.get(pid)
        if found is None or not hmac.compare_digest(found[0], secret):
            return None
        return found[1]

    def holder(self, pid: int) -> Holder | None:
        """Whose it is, for who needs no secret."""
        found = self._holders.get(pid)
        return None if found is None else found[1]
