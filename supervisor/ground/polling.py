"""Which of its tier's slots a worker polls: what the owner cells in the plane say, and nothing else.

Every worker of a tier holds all sockets of all its listeners; only the owner of a slot has it in its epoll. The
supervisor writes the cells and says so; a worker also looks by itself each second, so a lost message costs a second.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence

import attrs

from supervisor.ground.tier import Runtime
from supervisor.plane.layout import Kind, ListenerState
from supervisor.plane.memory import Plane

Failed = Callable[[str, int, Exception], None]


@attrs.define(eq=False)
class Polling:
    """The slots of one worker."""

    tier: str
    column: int
    plane: Plane
    runtime: Runtime
    sockets: dict[str, list[socket.socket]]
    failed: Failed  # listener, slot, error: a slot that could not be polled; it is tried again at the next look
    _attached: set[tuple[str, int]] = attrs.field(factory=set, init=False)

    def look(self) -> None:
        """Poll what is ours and only that."""
        for listener, sockets in self.sockets.items():
            owners = self._owners(listener)
            for slot, sock in enumerate(sockets):
                mine = self.plane.cells[owners + slot] == self.column
                key = (listener, slot)
                if mine and key not in self._attached:
                    try:
                        self.runtime.attach(listener, slot, sock)
                    except OSError as error:  # EMFILE and its kind
                        self.failed(listener, slot, error)
                    else:
                        self._attached.add(key)
                elif not mine and key in self._attached:
                    self._attached.discard(key)
                    self.runtime.detach(listener, slot)

    def remove(self, listeners: Sequence[str]) -> None:
        """Give up these listeners and close their sockets here. Before the runtime forgets them."""
        for listener in listeners:
            for slot, sock in enumerate(self.sockets.pop(listener, ())):
                if (listener, slot) in self._attached:
                    self._attached.discard((listener, slot))
                    self.runtime.detach(listener, slot)
                sock.close()

    def add(self, sockets: Mapping[str, list[socket.socket]]) -> None:
        """Listeners that came over the wire. After the runtime knows them."""
        self.sockets.update(sockets)

    def close(self) -> None:
        """Give up everything: a drain begins. With the last holder's copy the port closes."""
        self.remove(tuple(self.sockets))

    def _owners(self, listener: str) -> int:
        row = self.plane.row(Kind.LISTENER, f"{self.tier}/{listener}")
        return self.plane.state(Kind.LISTENER, row) + ListenerState.OWNER
