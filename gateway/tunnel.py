"""After 101: two streams joined, each read only as fast as the other takes it; half-closes are passed on."""

from __future__ import annotations

from typing import Any, Final

from supervisor.ground.lane import Session, park

IDLE_SECONDS: Final = 3600.0  # without a byte either way; WebSockets ping far more often
DEADLINE_STEP: Final = 1.0  # seconds between moves of the deadline: it need not follow every byte


class _Direction:
    """One way: what was read and not yet taken."""

    __slots__ = ("ended", "held", "moved", "sink", "source")

    def __init__(self, source: Any, sink: Any, held: bytes) -> None:
        self.source = source
        self.sink = sink
        self.held: bytes | memoryview = held
        self.ended = False
        self.moved = 0

    def step(self) -> bool:
        """Move what can be moved; whether anything did."""
        if self.held:
            sent = self.sink.send_nowait(self.held)
            self.moved += sent
            self.held = b"" if sent == len(self.held) else memoryview(self.held)[sent:]
            return bool(sent)
        if self.ended:
            return False
        data = self.source.recv_nowait()
        if data is None:
            return False
        if data:
            self.held = data
        else:
            self.ended = True
            self.sink.shutdown_write()
        return True


async def tunnel(session: Session, client: Any, server: Any, from_client: bytes, from_server: bytes) -> int:
    """Join them until both have ended; `from_client` and `from_server` were read already. Returns the bytes that went
    to the client. Raises OSError when a side breaks, Overdue when both are silent for IDLE_SECONDS."""
    lane = session.scheduler
    client.waiter = server.waiter = session
    up, down = _Direction(client, server, from_client), _Direction(server, client, from_server)
    session.deadline = lane.now + IDLE_SECONDS
    while up.held or down.held or not (up.ended and down.ended):
        moved = up.step()
        moved |= down.step()
        if not moved:
            await park()
            continue
        if session.deadline - lane.now < IDLE_SECONDS - DEADLINE_STEP:
            session.deadline = lane.now + IDLE_SECONDS
        lane.credit -= 1
        if lane.credit < 0:
            await lane.pause()
    return down.moved
