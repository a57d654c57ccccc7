"""After 101: two streams joined, each read only as fast as the other takes it; half-closes are passed on.

A drain asks for a farewell: the client of a WebSocket is sent a close frame, between two frames of the server's, and no
frame after it. Its answer goes to the server, which so ends its side as if the client had gone of itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from gateway.frames import GOING_AWAY, Frames
from supervisor.ground.lane import PARK, Session

IDLE_SECONDS: Final = 3600.0  # without a byte either way; WebSockets ping far more often
FAREWELL_SECONDS: Final = 10.0  # for the rest of the closing handshake
DEADLINE_STEP: Final = 1.0  # seconds between moves of the deadline: it need not follow every byte


class Farewell:
    """Whether the client is to be told to go elsewhere; set by a drain, which wakes the session."""

    __slots__ = ("asked",)

    def __init__(self) -> None:
        self.asked = False


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


class _ToClient(_Direction):
    """From the server, with the farewell put in where it may stand."""

    __slots__ = ("farewell", "frames", "said")

    def __init__(self, source: Any, sink: Any, held: bytes, farewell: Farewell) -> None:
        super().__init__(source, sink, held)
        self.farewell = farewell
        self.frames = Frames()
        self.frames.follow(held)
        self.said = False

    def step(self) -> int:
        if self.held or self.ended:
            return super().step()
        frames, asked = self.frames, self.farewell.asked
        if self.said:
            return self._pass_over()
        if asked and frames.between and not frames.closed:
            self.held, self.said = GOING_AWAY, True
            return 0
        result = super().step()
        if self.held:
            end = frames.follow(self.held, asked)
            if end < len(self.held):
                self.held, self.said = bytes(self.held[:end]) + GOING_AWAY, True
        return result

    def _pass_over(self) -> int:
        """RFC 6455 §5.5.1: after a close frame there is no other."""
        data = self.source.recv_nowait()
        if data is None:
            return -1
        if not data:
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
    farewell: Farewell,
) -> None:
    """Join them until both have ended; `from_client` and `from_server` were read already. `moved` is told the bytes
    that went up and down. Raises OSError when a side breaks, Overdue when both are silent for IDLE_SECONDS,
    or the client does not answer a farewell."""
    lane = session.scheduler
    client.waiter = server.waiter = session
    up, down = _Direction(client, server, from_client), _ToClient(server, client, from_server, farewell)
    parting = False
    session.deadline = lane.now + IDLE_SECONDS
    while up.held or down.held or not (up.ended and down.ended):
        upwards, downwards = up.step(), down.step()
        if upwards < 0 and downwards < 0:
            await PARK
            continue
        if down.said is not parting:
            parting = True
            session.deadline = lane.now + FAREWELL_SECONDS
        moved(max(0, upwards), max(0, downwards))
        if not parting and session.deadline - lane.now < IDLE_SECONDS - DEADLINE_STEP:
            session.deadline = lane.now + IDLE_SECONDS
        lane.credit -= 1
        if lane.credit < 0:
            await lane.pause()
