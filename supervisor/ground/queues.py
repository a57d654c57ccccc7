"""Waiting for a place on a server of a pool whose servers are all at `max_connections`.

First come first served over all workers: each worker shows in the plane when its longest waiting came (its ticket), and
only the bearer of the oldest may take the next place. Whoever gives a place back wakes that one, over the wire if it
waits in another worker; what a lost message would have said is looked at ten times a second. At most `max_queued` wait
over all workers, each for at most `queue_timeout`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

import attrs

from supervisor.ground.choices import Key
from supervisor.ground.lane import Event, Overdue, Scheduler
from supervisor.ground.pools import Pool
from supervisor.ground.servers import Server
from supervisor.ground.wire import Mailbox, message
from supervisor.plane import layout
from supervisor.plane.turns import Turns

LOOK_SECONDS = 0.1  # between looks for a place whose wake-up was lost, or that came back by no release of ours


@message("room")
@attrs.frozen
class Room:
    """A place has become free for the longest waiting of this pool, which is yours."""

    pool: str


@attrs.define(eq=False)
class _Waiter:
    ticket: int  # monotonic ns
    woken: Event


@attrs.define(eq=False)
class Queue:
    """The queue of one pool in one worker."""

    pool: Pool
    _lane: Scheduler
    _mailbox: Mailbox
    _turns: Turns = attrs.field(init=False)
    _waiting: deque[_Waiter] = attrs.field(factory=deque, init=False)
    _stop_looking: Callable[[], None] | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._turns = self.pool.turns()

    async def take(self, key: Key = None, exclude: tuple[Server, ...] = ()) -> Server | None:
        """A server with the work counted as started, as `Pool.take` has it, after a wait where that is configured.

        None if no server takes work, as many wait as may, or the wait took longer than `queue_timeout`. The session's
        deadline is this wait's afterwards: set another. By a session of the lane.
        """
        pool = self.pool
        server = None if self._somebody_waits() else pool.take(key, exclude)
        if server is not None or not pool.table.max_queued or not pool.is_full(exclude):
            return server
        waiter = self._enter()
        if waiter is None:
            self._turns.count(layout.Pool.QUEUE_REFUSED)
            return None
        session = self._lane.current
        session.expire_in(pool.table.queue_timeout)
        try:
            while True:
                if self._waiting[0] is waiter and self._is_next():
                    server = pool.take(key, exclude)
                    if server is not None or not pool.is_full(exclude):
                        return server
                waiter.woken.clear()
                await waiter.woken.wait()
        except Overdue:
            self._turns.count(layout.Pool.QUEUE_TIMEOUTS)
            return None
        finally:
            self._leave(waiter)

    def ended(self, server: Server) -> None:
        """`server.ended()`, and its place goes to who waits for it."""
        server.ended()
        self.wake_next()

    def wake_next(self) -> None:
        """Let the longest waiting look again, wherever it waits."""
        column = self._turns.first()
        if column == self._turns.column:
            self.look()
        elif column:
            self._mailbox.send(column, Room(self.pool.name))

    def look(self) -> None:
        """Wake the longest waiting of this worker."""
        if self._waiting:
            self._waiting[0].woken.set()

    def _somebody_waits(self) -> bool:
        return bool(self.pool.table.max_queued) and bool(self._turns.first())

    def _is_next(self) -> bool:
        return self._turns.first() == self._turns.column

    def _enter(self) -> _Waiter | None:
        if not self._turns.join(self.pool.table.max_queued):
            return None
        self._turns.count(layout.Pool.QUEUED)
        waiter = _Waiter(time.monotonic_ns(), Event(self._lane))
        self._waiting.append(waiter)
        if len(self._waiting) == 1:
            self._turns.show(waiter.ticket)
            self._stop_looking = self._lane.every(LOOK_SECONDS, self.look)
        return waiter

    def _leave(self, waiter: _Waiter) -> None:
        self._waiting.remove(waiter)
        self._turns.leave()
        self._turns.show(self._waiting[0].ticket if self._waiting else 0)
        if not self._waiting and self._stop_looking is not None:
            self._stop_looking()
            self._stop_looking = None
        self.wake_next()  # there may be room for more than one


@attrs.define(eq=False)
class Queues:
    """The queues of one worker, made as they are asked for."""

    _pools: Mapping[str, Pool]
    _lane: Scheduler
    _mailbox: Mailbox
    _queues: dict[str, Queue] = attrs.field(factory=dict, init=False)

    def of(self, pool: Pool) -> Queue:
        """The pool's queue; the same for as long as the pool is."""
        queue = self._queues.get(pool.name)
        if queue is None or queue.pool is not pool:
            queue = self._queues[pool.name] = Queue(pool, self._lane, self._mailbox)
        return queue

    def receive(self, room: Room) -> None:
        """Another worker gave a place back."""
        queue = self._queues.get(room.pool)
        if queue is not None:
            queue.look()
