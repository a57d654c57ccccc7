"""UDP sessions from the worker that polled a slot to the one that polls it next, with their sockets.

The supervisor names the heir before the owner lets go. The old owner sends first and says that it has let go after;
only then is the heir named the owner, so the sessions stand in its mailbox before the slot is its own, and no datagram
finds it without them. What a full mailbox does not take falls back to the rows in the plane, as after a crash.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence

import attrs

from supervisor.ground.tier import Worker
from supervisor.ground.wire import MAX_DESCRIPTORS, close_all, message
from supervisor.plane.heirs import heir_of

BATCH = 200  # sessions a message: about 90 bytes of JSON each, and a descriptor, of which MAX_DESCRIPTORS fit
ROOM_PATIENCE = 0.3  # seconds in all for the heir to take what its mailbox did not; meanwhile this worker stands still
KEPT = 5.0  # seconds that sessions wait for their slot; the supervisor names the owner within one

assert BATCH <= MAX_DESCRIPTORS


@attrs.frozen
class Flow:
    """A session as its next owner needs it."""

    address: tuple[str, int, int, int]  # the client; the last two are 0 for IPv4
    server_row: int
    seen: float  # monotonic seconds of the last datagram; one clock for all processes


@message("udp-flows")
@attrs.frozen
class Handed:
    """Sessions of a slot, a descriptor for each."""

    listener: str
    slot: int
    flows: tuple[Flow, ...]


@attrs.define(eq=False)
class Handover:
    """Both ends of it in one worker."""

    worker: Worker
    row_of: Callable[[str], int]  # a listener's row in the plane
    _arrived: dict[tuple[str, int], list[tuple[Flow, socket.socket]]] = attrs.field(factory=dict, init=False)
    _since: dict[tuple[str, int], float] = attrs.field(factory=dict, init=False)

    def give(self, listener: str, slot: int, flows: Sequence[tuple[Flow, int]]) -> None:
        """To the slot's heir, if that is another worker. The descriptors stay the caller's to close."""
        worker = self.worker
        heir = heir_of(worker.plane, self.row_of(listener), slot)
        if heir in (0, worker.column):
            return
        patience = time.monotonic() + ROOM_PATIENCE
        for start in range(0, len(flows), BATCH):
            batch = flows[start : start + BATCH]
            letter = Handed(listener, slot, tuple(flow for flow, _ in batch))
            fds = [fd for _, fd in batch]
            if worker.mailbox.send(heir, letter, fds):
                continue
            worker.mailbox.wait_for_room(heir, max(0.0, patience - time.monotonic()))
            if not worker.mailbox.send(heir, letter, fds):
                worker.log.warning("sessions not handed over", listener=listener, slot=slot, left=len(flows) - start)
                return

    def receive(self, handed: Handed, fds: Sequence[int]) -> None:
        """Sessions for a slot that is about to be ours."""
        worker = self.worker
        heir = heir_of(worker.plane, self.row_of(handed.listener), handed.slot)
        if heir not in (0, worker.column):  # the supervisor has changed its mind meanwhile
            worker.mailbox.send(heir, handed, fds)
            close_all(fds)
            return
        key = (handed.listener, handed.slot)
        sockets = [socket.socket(fileno=fd) for fd in fds]
        self._arrived.setdefault(key, []).extend(zip(handed.flows, sockets, strict=False))
        self._since[key] = time.monotonic()

    def take(self, listener: str, slot: int) -> list[tuple[Flow, socket.socket]]:
        """What has arrived for the slot; the sockets are now the caller's."""
        self._since.pop((listener, slot), None)
        return self._arrived.pop((listener, slot), [])

    def sweep(self) -> None:
        """Close what came for a slot that another got in the end."""
        now = time.monotonic()
        for key in [key for key, since in self._since.items() if now - since > KEPT]:
            for _, sock in self.take(*key):
                sock.close()

    def close(self) -> None:
        """Whatever still waits."""
        for key in list(self._arrived):
            for _, sock in self.take(*key):
                sock.close()
