"""After 101: two streams joined, each read only as fast as the other takes it; half-closes are passed on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from supervisor.ground.lane import Session, park

IDLE_SECONDS: Final = 3600.0  # without a byte either way; WebSockets ping far more often
DEADLINE_STEP: Final = 1.0  # seconds between moves of the deadline: it need not follow every byte


class _Direction:
    """One way: what was read and not yet taken."""

    __slots__ = ("ended", "held", "sink", "source")

    def __init__(self, source: Any, sink: Any, held: bytes) -> None:
        self.source = source
        self.sink = sink
        self.held: bytes | memoryview = held
        self.ended = False

    def step(self) -> int:
        """Move what can be moved: the bytes that the sink took, -1 if nothing happened."""
        if self.held:
            sent: int = self.sink.send_nowait(self.held)
            self.held = b"" if sent == len(self.held) else memoryview(self.held)[sent:]
            return sent or -1
        data = None if self.ended else self.source.recv_nowait()
        if data is None:
            return -1
        if data:
            self.held = data
        else:
            self.ended = True
            self.sink.shutdown_write()
        return 0


async def tunnel(
    session: Session,
    client: Any,
    server: Any,
    from_client: bytes,
    from_server: bytes,
    moved: Callable[[int, int], None],
) -> None:
    """Join them until both have ended; `from_client` and `from_server` were read already. `moved` is told the bytes
    that went up and down. Raises OSError when a side breaks, Overdue when both are silent for IDLE_SECONDS."""
    lane = session.scheduler
    client.waiter = server.waiter = session
    up, down = _Direction(client, server, from_client), _Direction(server, client, from_server)
    session.deadline = lane.now + IDLE_SECONDS
    while up.held or down.held or not (up.ended and down.ended):
        upwards, downwards = up.step(), down.step()
        if upwards < 0 and downwards < 0:
            await park()
            continue
        moved(max(0, upwards), max(0, downwards))
        if session.deadline - lane.now < IDLE_SECONDS - DEADLINE_STEP:
            session.deadline = lane.now + IDLE_SECONDS
        lane.credit -= 1
        if lane.credit < 0:
            await lane.pause()
