"""Bulk data between two plain sockets: through a pipe inside the kernel (splice(2)), never copied to us.

For a connection that has proved to be bulk; small messages cost more this way than by recv and send. A pipe belongs to
a direction only while it holds something, so connections that are idle hold none, and a few serve a worker.
"""

from __future__ import annotations

import fcntl
import os

import attrs

from edge.connection import Connection
from supervisor.ground.lane import PARK, Conn, Session
from supervisor.plane import layout

_IN, _OUT = layout.Listener.BYTES_IN, layout.Listener.BYTES_OUT
_TO, _FROM = layout.Server.BYTES_OUT, layout.Server.BYTES_IN

# bytes: what /proc/sys/fs/pipe-max-size allows everybody. Each segment takes one of its 256 slots, so a pipe of 64 KiB
# would be full with 16 of 1,448 bytes; 1 MiB takes a quarter less CPU than 256 KiB.
PIPE = 1024 * 1024
MAX_PIPES = 16  # of a worker: /proc/sys/fs/pipe-user-pages-soft allows a user 64 MiB. Beyond, bulk is copied
MOVES_A_TURN = 2  # each way, then the others have their turn: a millisecond
SMALL = 16 * 1024  # bytes a wake-up: below, copying is as cheap
LULL = 8  # small wake-ups in a row that end the bulk

NOTHING, NO_PIPE = -1, -2  # what a move may come to

# No SPLICE_F_MORE: it corks the socket, and the end of a message waits 200 ms.
_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


@attrs.define(eq=False)
class Pipe:
    """`held` bytes are in it."""

    reading: int
    writing: int
    held: int = 0


@attrs.define(eq=False)
class Pipes:
    """The pipes of a worker."""

    _free: list[Pipe] = attrs.field(factory=list, init=False)
    _open: int = attrs.field(default=0, init=False)
    _spare: int = attrs.field(default=0, init=False)  # the fewest that were free since the last `trim`

    def take(self) -> Pipe | None:
        """An empty one; None if all are in use, or no more descriptors can be had."""
        if self._free:
            pipe = self._free.pop()
            self._spare = min(self._spare, len(self._free))
            return pipe
        if self._open >= MAX_PIPES:
            return None
        try:
            reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE)
        except OSError:
            pass  # smaller than we would like: slower, and as good
        self._open += 1
        return Pipe(reading, writing)

    def give(self, pipe: Pipe) -> None:
        """Back, or closed if something is in it that nobody will read."""
        if pipe.held:
            self._close(pipe)
        else:
            self._free.append(pipe)

    def trim(self) -> None:
        """Close those that nobody needed since the last time. Call it now and then."""
        for _ in range(self._spare):
            self._close(self._free.pop())
        self._spare = len(self._free)

    def close(self) -> None:
        """Those that nobody uses."""
        while self._free:
            self._close(self._free.pop())
        self._spare = 0

    def _close(self, pipe: Pipe) -> None:
        os.close(pipe.reading)
        os.close(pipe.writing)
        self._open -= 1


@attrs.define(eq=False)
class Direction:
    """From one socket to the other."""

    source: Conn
    sink: Conn
    open: bool  # the source's stream has not ended
    pipe: Pipe | None = None  # while something is in it

    def move(self, pipes: Pipes) -> int:
        """Bytes that the source gave, 0 if only the sink took some or the source ended; else NOTHING or NO_PIPE. Raises
        OSError as either side gives it."""
        drained = NOTHING if self.pipe is None else self._drain(pipes)
        if self.pipe is not None or not self.source.readable:
            return drained
        if not self.open:  # and yet something happened to it: writing tells whether that was a reset
            self.source.readable = False
            self.source.send_nowait(b"")
            return drained
        pipe = pipes.take()
        if pipe is None:
            return NO_PIPE
        try:
            pipe.held = os.splice(self.source.fd, pipe.writing, PIPE, flags=_FLAGS)
        except BlockingIOError:  # the source has nothing, for the pipe is empty
            self.source.readable = False
            pipes.give(pipe)
            return drained
        except OSError:
            pipes.give(pipe)
            raise
        moved = pipe.held
        if not moved:
            pipes.give(pipe)
            self.open = self.source.readable = False
            self.sink.shutdown_write()
            return 0
        self.pipe = pipe
        self._drain(pipes)
        return moved

    def _drain(self, pipes: Pipes) -> int:
        """Into the sink: 0 if it took something."""
        pipe = self.pipe
        assert pipe is not None
        if not self.sink.writable:
            return NOTHING
        try:
            pipe.held -= os.splice(pipe.reading, self.sink.fd, pipe.held, flags=_FLAGS)
        except BlockingIOError:
            self.sink.writable = False
            return NOTHING
        if not pipe.held:
            self.pipe = None
            pipes.give(pipe)
        return 0


async def bulk(
    session: Session, connection: Connection, cells: memoryview, at: int, to: int, pipes: Pipes, asking: bool,
    answering: bool,
) -> tuple[bool, bool]:  # fmt: skip
    """Carry bytes until they are no longer bulk, or both streams have ended; nothing is under way then. `asking` and
    `answering` say whether the client's and the server's have not, and so does what is returned. Counts, deadlines and
    errors are those of the relay."""
    up = Direction(connection.stream, connection.upstream, asking)
    down = Direction(connection.upstream, connection.stream, answering)
    lane = session.scheduler
    moves = lull = since = 0  # bytes since the last wake-up
    try:
        while up.open or down.open or up.pipe is not None or down.pipe is not None:
            asked, answered = up.move(pipes), down.move(pipes)
            if asked >= 0 or answered >= 0:
                asked, answered = max(asked, 0), max(answered, 0)
                cells[at + _IN] += asked
                cells[to + _TO] += asked
                cells[at + _OUT] += answered
                cells[to + _FROM] += answered
                connection.bytes_in += asked
                connection.bytes_out += answered
                since += asked + answered
                moves += 1
                if moves == MOVES_A_TURN:
                    moves = 0
                    await lane.pause()
                continue
            if since:
                session.deadline = lane.now + connection.idle_timeout
                lull = lull + 1 if since < SMALL else 0
            if (lull >= LULL or NO_PIPE in (asked, answered)) and up.pipe is None and down.pipe is None:
                break
            moves = since = 0
            await PARK
    finally:
        for direction in (up, down):
            if direction.pipe is not None:
                pipes.give(direction.pipe)
    return up.open, down.open
