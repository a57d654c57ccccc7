"""A lane without a machine: connections in memory and a clock that the test moves.

`MemoryConn` pairs stand in for `Conn`, with bounded buffers so that backpressure shows; what happens to one end becomes
known to the other only in the next round, as with epoll. `Rehearsal` is the scheduler that drives sessions over them:
by hand (`run`, `advance`), or as one plain trio task (`drive`), where an autojump clock makes waiting free. What it
rehearses is the same session code that `Lane` runs.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, TypeVarTuple

import attrs
import trio
import trio.testing

from supervisor.ground.lane.bridge import bridge
from supervisor.ground.lane.conn import READ_SIZE
from supervisor.ground.lane.sessions import PARK, Crashed, Scheduler, Session

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CAPACITY = 64 * 1024  # bytes on their way to one end: a small kernel buffer
START = 1_000.0  # monotonic seconds at which a rehearsal begins: not 0, so that nobody takes a time for False
EPOCH = 1_700_000_000.0  # and seconds since the epoch
SWEEP_NS = 100_000_000  # as the lane's sweeper
MAX_ROUNDS = 100_000  # in one `run`: sessions that keep each other awake for longer never rest

Accepted = Callable[["MemoryConn"], Coroutine[Any, Any, None] | None]


class Unsettled(AssertionError):
    """The sessions did not come to rest, or did not end."""


@attrs.define(eq=False)
class MemoryConn:
    """One end of a connection in memory. Like a `Conn`, it raises OSError when the peer is gone."""

    lane: Rehearsal
    fd: int
    capacity: int = CAPACITY
    readable: bool = True
    writable: bool = True
    last: bool = False
    waiter: Session | None = None
    on_idle: Callable[[MemoryConn], None] | None = None
    peer: MemoryConn = attrs.field(init=False, repr=False)
    aborted: bool = False  # this end was given up by `abort`
    _inbox: bytearray = attrs.field(factory=bytearray, init=False)
    _ended: bool = attrs.field(default=False, init=False)  # the peer sends no more
    _shut: bool = attrs.field(default=False, init=False)  # we send no more
    _refused: bool = attrs.field(default=False, init=False)  # we were told that the peer's buffer is full
    _error: int = attrs.field(default=0, init=False)  # errno that the next call raises, once

    # -- as Conn has them

    def recv_nowait(self, size: int = READ_SIZE) -> bytes | None:
        """What is there, b"" at the end of the stream, None when nothing is there now."""
        if not self.readable:
            return None
        inbox = self._inbox
        if not inbox:
            self._raise_error()
            if self._ended:
                return b""
            self.readable = False
            return None
        data = bytes(inbox[:size])
        del inbox[:size]
        if len(data) < size and not self.last:
            self.readable = False
        if self.peer._refused:
            self.peer._refused = False
            self.lane.happened(self.peer, write=True)
        return data

    async def recv(self, size: int = READ_SIZE) -> bytes:
        """Up to `size` bytes, as soon as there are any; b"" at the end of the stream."""
        lane = self.lane
        lane.credit -= 1
        if lane.credit < 0:
            await lane.pause()
        self.waiter = lane.current
        while True:
            data = self.recv_nowait(size)
            if data is not None:
                return data
            self._check_open()
            await PARK

    def send_nowait(self, data: bytes | memoryview) -> int:
        """How many bytes the peer's buffer took; 0 when it takes none now."""
        if not self.writable:
            return 0
        self._raise_error()
        peer = self.peer
        if self._shut or peer.fd < 0:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        taken = min(len(data), peer.capacity - len(peer._inbox))
        if taken:
            peer._inbox += data[:taken]
            self.lane.happened(peer, read=True)
        if taken < len(data):
            self.writable = False
            self._refused = True
        return taken

    async def send(self, data: bytes | memoryview) -> None:
        """All of `data`, as fast as the peer takes it."""
        self.waiter = self.lane.current
        rest = memoryview(data)
        while rest:
            if not self.writable:
                self._check_open()
                await PARK
                continue
            rest = rest[self.send_nowait(rest) :]

    def attach(self) -> None:
        """Let the running session own it."""
        self.waiter = self.lane.current
        self.on_idle = None

    def idle(self, callback: Callable[[MemoryConn], None]) -> None:
        """Let nobody own it: `callback(conn)` when something happens to it."""
        self.waiter = None
        self.on_idle = callback

    def shutdown_write(self) -> None:
        """End our side: the peer reads to the end of the stream."""
        if not self._shut and self.fd >= 0:
            self._shut = True
            self.peer._ended = True
            self.lane.happened(self.peer, read=True, last=True)

    def close(self) -> None:
        """Give up this end. Twice is once."""
        if self.fd >= 0:
            self.shutdown_write()
            waiter, self.waiter, self.on_idle = self.waiter, None, None
            self.fd = -1
            self.readable = self.writable = False
            if waiter is not None:
                self.lane.wake(waiter)
            self.lane.happened(self.peer, read=True, write=True, last=True)

    def abort(self) -> None:
        """Close with a reset: the peer has what came before it, then ECONNRESET."""
        if self.fd >= 0:
            self.aborted = True
            self.peer._error = errno.ECONNRESET
            self.close()

    # -- for the test

    def take(self) -> bytes:
        """All that is there now, for an end that the test plays itself. The peer's end of stream adds nothing."""
        found = bytearray()
        self.readable = self.fd >= 0
        while data := self.recv_nowait():
            found += data
        return bytes(found)

    @property
    def at_end(self) -> bool:
        """The peer's stream has ended and everything of it was read."""
        return self._ended and not self._inbox

    def _check_open(self) -> None:
        if self.fd < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _raise_error(self) -> None:
        if self._error:
            error, self._error = self._error, 0
            raise OSError(error, os.strerror(error))


class Rehearsal(Scheduler):
    """Drives sessions over `MemoryConn`s. A session that crashes fails `run`, unless `crashed` is given."""

    def __init__(self, crashed: Crashed | None = None) -> None:
        super().__init__(START, crashed or self._note)
        self.wall = EPOCH
        self.servers: dict[Any, Accepted | None] = {}
        self.accept_paused = 0
        self._fd = 1_000_000  # far from any real descriptor, and from a pool's sizes
        self._events: dict[MemoryConn, tuple[bool, bool, bool]] = {}
        self._crashes: list[BaseException] = []
        self._nursery: trio.Nursery | None = None
        self._bell: trio.Event | None = None

    # -- what sessions call

    def pair(self, capacity: int = CAPACITY) -> tuple[MemoryConn, MemoryConn]:
        """Two connected ends, each with a buffer of `capacity` bytes for what comes to it."""
        ends = MemoryConn(self, self._fd, capacity), MemoryConn(self, self._fd + 1, capacity)
        self._fd += 2
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        return ends

    async def connect(self, family: int, address: Any, prepare: Any = None) -> MemoryConn:
        """A connection to what `servers` has under `address`: a function that gets the far end and may return its
        session; None for a server that never answers. Anything else refuses."""
        await self.pause()
        if address not in self.servers:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        accepted = self.servers[address]
        while accepted is None:
            await PARK
        near, far = self.pair()
        near.attach()
        coro = accepted(far)
        if coro is not None:
            self.spawn(coro)
        return near

    async def offload(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """As the lane's. Driven by hand there is no trio to run it in, so it runs at once, in one of its own."""
        if self._nursery is None:
            return trio.run(function, *args, clock=trio.testing.MockClock(autojump_threshold=0))
        return await bridge(self, self._nursery, function, *args)

    def kick(self) -> None:
        if self._bell is not None:
            self._bell.set()

    def happened(self, conn: MemoryConn, *, read: bool = False, write: bool = False, last: bool = False) -> None:
        """Note what `conn` is to learn in the next round."""
        if conn.fd >= 0:
            before = self._events.get(conn, (False, False, False))
            self._events[conn] = (before[0] or read, before[1] or write, before[2] or last)
            self.kick()

    # -- what drives it

    def run(self) -> None:
        """Give turns until every session is parked or has ended."""
        for _ in range(MAX_ROUNDS):
            if not self._events and not self._queue:
                break
            self._round()
        else:
            raise Unsettled("the sessions never rest: " + ", ".join(sorted(one.name for one in self.sessions)))
        if self._crashes:
            raise self._crashes.pop(0)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, with a sweep every tenth, so that deadlines fall in their order."""
        self.run()
        until = self.now_ns + round(seconds * 1e9)
        while self.now_ns < until:
            self._set_clock(min(until, self.now_ns + SWEEP_NS))
            self.sweep()
            self.run()
            self.lull(quiet=True)
            self.run()

    def feed(self, conn: MemoryConn, data: bytes, piece: int = READ_SIZE) -> None:
        """Send `data` from an end that the test plays itself, `piece` bytes at a time, running in between."""
        for start in range(0, len(data), piece):
            rest = data[start : start + piece]
            while rest:
                conn.writable = True
                sent = conn.send_nowait(rest)
                rest = rest[sent:]
                self.run()
                if not sent and len(conn.peer._inbox) >= conn.peer.capacity:
                    raise Unsettled("the peer reads no more of what it is fed")

    def finish(self) -> None:
        """End every session, as a lane that is shut down."""
        self.end_all()
        self.run()
        if self.sessions:
            raise Unsettled("still there: " + ", ".join(sorted(one.name for one in self.sessions)))

    async def drive(self) -> None:
        """Be one trio task that drives the sessions on trio's clock until none is left. When it is cancelled, they
        are."""
        offset = self.now_ns - round(trio.current_time() * 1e9)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                while self.sessions:
                    self._set_clock(offset + round(trio.current_time() * 1e9))
                    self.sweep()
                    self.run()
                    if self.sessions:
                        self._bell = trio.Event()
                        with trio.move_on_after(SWEEP_NS / 1e9):
                            await self._bell.wait()
                        self._bell = None
            finally:
                self._nursery = self._bell = None
                self.finish()
                nursery.cancel_scope.cancel()

    def _round(self) -> None:
        events, self._events = self._events, {}
        for conn, (read, write, last) in events.items():
            if conn.fd < 0:
                continue
            conn.readable |= read
            conn.writable |= write
            conn.last |= last
            session = conn.waiter
            if session is None:
                if conn.on_idle is not None:
                    conn.on_idle(conn)
            elif not session.queued:
                self.step(session)
        self.turn()
        self.finish_round()

    def _set_clock(self, now_ns: int) -> None:
        self.wall += (now_ns - self.now_ns) / 1e9
        self.now_ns = now_ns
        self.now = now_ns / 1e9

    def _note(self, session: Session | None, error: BaseException) -> None:
        self._crashes.append(error)
