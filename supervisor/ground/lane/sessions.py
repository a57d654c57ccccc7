"""Sessions and their scheduler: who runs next, who is overdue, who waits for whom.

Owns the coroutines, the run queue, deadlines, events and child scopes. Knows no descriptor and no clock: `now` is given
to it, so tests drive it by hand. What a session may await ends in `park()`, the only thing that is ever yielded; a
coroutine that yields anything else awaited something foreign (trio, asyncio) and gets a TypeError at that very place.
"""

from __future__ import annotations

import math
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

T = TypeVar("T")

TURN_READS = 16  # reads of up to 64 KiB a session may do before others get their turn: about 1 MiB, under 1 ms
SCAN_EVERY = 1.0  # seconds between looks at every session's deadline; nearer deadlines are listed apart
LAST_TURNS = 8  # once all are cancelled: a `finally` may wait for its children once or twice; more is refused
_NEVER = math.inf

PARKED = object()

Crashed = Callable[["Session | None", BaseException], None]  # told of errors that nobody expected or watched


class Cancelled(BaseException):
    """Thrown into a session that is to end now: clean up and let it pass."""


class Overdue(Exception):
    """Thrown into a session whose deadline has passed. The deadline is cleared; the session may set another."""


@types.coroutine
def park() -> Generator[object, None, None]:
    """Wait to be resumed: by a socket this session owns, an event, a deadline. Only a hint: look, then park again."""
    yield PARKED


class Session:
    """One coroutine on the lane. `deadline` is in seconds of the lane's clock; assign it freely when it lies at least
    a second ahead (`Scheduler` scans once a second), and use `expire_in` for anything nearer."""

    __slots__ = ("__weakref__", "coro", "deadline", "done", "error", "name", "pending", "queued", "resume", "scheduler",
                 "watchers")  # fmt: skip

    def __init__(self, scheduler: Scheduler, coro: Coroutine[Any, Any, Any], name: str) -> None:
        self.scheduler = scheduler
        self.coro = coro
        self.resume: Callable[[None], object] = coro.send
        self.name = name
        self.deadline: float = _NEVER
        self.queued = False
        self.done = False
        self.pending: BaseException | None = None  # thrown in at its next turn
        self.error: BaseException | None = None  # what it ended with, kept for whoever watches it; not a cancellation
        self.watchers: list[Callable[[Session], None]] | None = None

    def expire_in(self, seconds: float) -> None:
        """Set the deadline `seconds` ahead, however near."""
        scheduler = self.scheduler
        self.deadline = scheduler.now + seconds
        if seconds < SCAN_EVERY:
            scheduler.soon.add(self)

    def cancel(self) -> None:
        """End it: `Cancelled` is thrown at its await in the next round. Does nothing to one that has ended."""
        self.throw(Cancelled())

    def throw(self, error: BaseException) -> None:
        """Throw `error` at its await, in the next round. Cancellation is never replaced by anything milder."""
        if self.done or isinstance(self.pending, Cancelled):
            return
        self.pending = error
        self.scheduler.wake(self)

    def when_done(self, callback: Callable[[Session], None]) -> None:
        """Call back once it has ended; at once if it has already."""
        if self.done:
            callback(self)
        elif self.watchers is None:
            self.watchers = [callback]
        else:
            self.watchers.append(callback)


class Scheduler:
    """Runs sessions in turns. Subclasses add where wake-ups come from (epoll, or a test's script)."""

    def __init__(self, now: float = 0.0, crashed: Crashed | None = None) -> None:
        self.now = now  # monotonic seconds, read once a round
        self.now_ns = int(now * 1e9)
        self.wall = 0.0  # seconds since the epoch, read once a round
        self.current: Session = None  # type: ignore[assignment]  # none outside of a turn, where nobody asks
        self.credit = TURN_READS  # reads left to the running session in this turn
        self.sessions: set[Session] = set()
        self.soon: set[Session] = set()
        self.crashed = crashed
        self._queue: deque[Session] = deque()
        self._next_scan = now + SCAN_EVERY
        self._timers: list[list[Any]] = []  # [due, interval, function]

    # -- what sessions and tiers call

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str = "") -> Session:
        """Make a session of `coro`; its first turn is in this round."""
        session = Session(self, coro, name)
        self.sessions.add(session)
        self.wake(session)
        return session

    def wake(self, session: Session) -> None:
        """Give `session` a turn, soon. More than once before that turn counts once."""
        if not session.queued:
            session.queued = True
            self._queue.append(session)
            self.kick()

    def kick(self) -> None:
        """Called when there is work for a scheduler that may be asleep."""

    def every(self, seconds: float, function: Callable[[], None]) -> Callable[[], None]:
        """Call `function` from the sweeper about every `seconds`. Returns what ends it."""
        timer = [self.now + seconds, seconds, function]
        self._timers.append(timer)

        def stop() -> None:
            if timer in self._timers:
                self._timers.remove(timer)

        return stop

    async def pause(self) -> None:
        """Let the others have a turn. No new edge would wake a session that stopped by its budget: it queues itself."""
        self.wake(self.current)
        await park()

    async def sleep(self, seconds: float) -> None:
        """Rest for `seconds`, to a tenth. The session's own deadline still holds."""
        session = self.current
        until, before = self.now + seconds, session.deadline
        if before <= until:
            await Event(self).wait()  # the deadline comes first
        session.expire_in(seconds)
        try:
            while self.now < until:
                await park()
        except Overdue:
            if self.now < until:
                raise
        finally:
            session.deadline = before

    def scope(self) -> Scope:
        """A block whose child sessions end with it."""
        return Scope(self)

    # -- what drives it

    def turn(self) -> None:
        """Give one turn to each session that is queued now; those queued meanwhile wait for the next."""
        queue = self._queue
        for _ in range(len(queue)):
            session = queue.popleft()
            session.queued = False
            self.step(session)

    def step(self, session: Session) -> None:
        """Resume `session` until it parks or ends."""
        if session.done:
            return
        self.current = session
        self.credit = TURN_READS
        try:
            if session.pending is None:
                token = session.resume(None)
            else:
                error, session.pending = session.pending, None
                token = session.coro.throw(error)
        except StopIteration:
            self._ended(session, None)
        except BaseException as error:
            self._ended(session, error)
        else:
            if token is not PARKED:
                self.foreign(session, token)

    def foreign(self, session: Session, token: object) -> None:
        """The session awaited something that is not the lane's: a TypeError, right there."""
        session.pending = TypeError(f"a session awaits only the lane, not {token!r}; use lane.offload for trio")
        self.step(session)

    def _ended(self, session: Session, error: BaseException | None) -> None:
        session.done = True
        self.sessions.discard(session)
        self.soon.discard(session)
        watchers, session.watchers = session.watchers, None
        if watchers is not None:
            if not isinstance(error, Cancelled):
                session.error = error
            for watcher in watchers:
                watcher(session)
        elif error is not None and self.crashed is not None and not isinstance(error, Cancelled | Overdue | OSError):
            self.crashed(session, error)

    def sweep(self) -> None:
        """Throw Overdue into whoever is overdue; run the timers. Call it about ten times a second."""
        now = self.now
        if now >= self._next_scan:
            self._next_scan = now + SCAN_EVERY
            horizon = now + SCAN_EVERY
            self.soon = {session for session in self.sessions if session.deadline < horizon}
        for session in [session for session in self.soon if session.deadline <= now]:
            session.deadline = _NEVER
            self.soon.discard(session)
            if session.pending is None:
                session.throw(Overdue())
        for timer in [timer for timer in self._timers if timer[0] <= now]:
            timer[0] = now + timer[1]
            timer[2]()

    def end_all(self) -> None:
        """Cancel every session and let its `finally` blocks run."""
        for session in list(self.sessions):
            session.cancel()
        for _ in range(LAST_TURNS):
            if not self._queue:
                break
            self.turn()
        for session in list(self.sessions):
            session.coro.close()


class Event:
    """A flag that sessions wait for. Set once; `clear` to use it again."""

    __slots__ = ("is_set", "scheduler", "waiting")

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.is_set = False
        self.waiting: list[Session] = []

    def set(self) -> None:
        self.is_set = True
        for session in self.waiting:
            self.scheduler.wake(session)

    def clear(self) -> None:
        self.is_set = False

    async def wait(self) -> None:
        if self.is_set:
            return
        session = self.scheduler.current
        self.waiting.append(session)
        try:
            while not self.is_set:
                await park()
        finally:
            self.waiting.remove(session)


class Scope:
    """Child sessions that live no longer than a block. Leaving it waits for them; an error in the block or in a child
    cancels the rest, and the first error is raised."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._children: set[Session] = set()
        self._error: BaseException | None = None
        self._owner: Session | None = None

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str = "") -> Session:
        child = self._scheduler.spawn(coro, name)
        self._children.add(child)
        child.when_done(self._child_ended)
        return child

    def cancel(self) -> None:
        """Cancel the children; the block itself goes on."""
        for child in self._children:
            child.cancel()

    def _child_ended(self, child: Session) -> None:
        self._children.discard(child)
        if child.error is not None and self._error is None:
            self._error = child.error
            self.cancel()
            if self._owner is not None:
                self._owner.cancel()
        if not self._children and self._owner is not None:
            self._scheduler.wake(self._owner)

    async def __aenter__(self) -> Scope:
        self._owner = self._scheduler.current
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.cancel()
        owner = self._scheduler.current
        interrupted: BaseException | None = None
        while self._children:
            try:
                await park()
            except (Cancelled, Overdue) as again:  # the children must end first
                interrupted = interrupted or again
                self.cancel()
        self._owner = None
        if owner.pending is not None and self._error is not None:
            owner.pending = None  # our own cancel, not yet delivered
        if self._error is not None:
            raise self._error
        if interrupted is not None and error is None:
            raise interrupted
