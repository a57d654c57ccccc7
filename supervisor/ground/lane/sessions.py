"""Sessions and their scheduler: who runs next, who is overdue, who waits for whom.

Owns the coroutines, the run queue, deadlines, events and child scopes. Knows no descriptor and no clock: `now` is given
to it, so tests drive it by hand. What a session may await ends in `PARK`, the only thing that is ever yielded; a
coroutine that yields anything else awaited something foreign (trio, asyncio) and gets a TypeError at that very place.
"""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NoReturn, TypeVarTuple, cast

Ts = TypeVarTuple("Ts")

TURN_READS = 16  # reads of up to 64 KiB a session may do before others get their turn: about 1 MiB, under 1 ms
SCAN_EVERY = 1.0  # seconds between looks at every session's deadline; nearer deadlines are listed apart
LAST_TURNS = 8  # once all are cancelled: a `finally` may wait for its children once or twice; more is refused
_NEVER = math.inf

PARKED = object()

Crashed = Callable[["Session | None", BaseException], None]  # told of errors that nobody expected or watched


class Cancelled(BaseException):
    """Thrown into a session that is to end now: clean up and let it pass."""


class _Stopped(Cancelled):
    """A scope's own way to end its block, when a child has failed. A cancellation from outside replaces it."""


class Overdue(Exception):
    """Thrown into a session whose deadline has passed. The deadline is cleared; the session may set another."""


class _Park:
    """Each wait is a new iterator over the one token, made in C: half of what calling a generator costs."""

    __slots__ = ()
    __await__ = (PARKED,).__iter__


PARK: Final = cast("Awaitable[None]", _Park())
"""Awaited, it waits to be resumed: by a socket this session owns, an event, a deadline. Only a hint: look, then park
again."""


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
        pending = self.pending
        if self.done or (
            isinstance(pending, Cancelled) and not (type(pending) is _Stopped and type(error) is Cancelled)
        ):
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
        self.at_round_end: list[Callable[[], None]] = []  # what is to be done at the end of this round, once
        self.lulls: list[Callable[[bool], None]] = []  # called between rounds, see `lull`
        self._queue: deque[Session] = deque()
        self._next_scan = now + SCAN_EVERY
        self._timers: list[list[Any]] = []  # [due, interval, function]
        self._sleeping: dict[Session, float] = {}  # until when

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
        await PARK

    async def sleep(self, seconds: float) -> None:
        """Rest for `seconds`, to a tenth. The session's own deadline still holds."""
        session = self.current
        self._sleeping[session] = until = self.now + seconds
        try:
            while self.now < until:
                await PARK
        finally:
            del self._sleeping[session]

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

    def finish_round(self) -> None:
        """End the round: do what was put off until the many of it can be done as one."""
        for function in self.at_round_end:
            self.call(function)
        self.at_round_end.clear()

    def step(self, session: Session) -> None:
        """Resume `session` until it parks or ends."""
        if session.done:
            return
        self.current = session
        self.credit = TURN_READS
        try:
            if session.pending is None or inspect.getcoroutinestate(session.coro) == inspect.CORO_CREATED:
                token = session.resume(None)  # what is thrown at its very start would pass by its `finally` blocks
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
            elif session.pending is not None:
                self.wake(session)

    def foreign(self, session: Session, token: object) -> None:
        """The session awaited something that is not the lane's: a TypeError, right there, at its next turn (at once
        would let one that insists run for ever)."""
        # trio's own waits have noted whom to wake, which is the task that runs us all: they must forget it.
        forget = getattr(token, "abort_func", None)
        if forget is not None:
            forget(_nobody_cancelled)
        session.throw(TypeError(f"a session awaits only the lane, not {token!r}; use lane.offload for trio"))

    def report(self, session: Session | None, error: BaseException) -> None:
        """Tell of an error that nobody expected: not of cancellations, deadlines and peers that are gone."""
        if self.crashed is not None and not isinstance(error, Cancelled | Overdue | OSError):
            self.crashed(session, error)

    def call(self, function: Callable[[*Ts], object], *args: *Ts) -> None:
        """Call `function` outside of any session: what it raises is reported like a session's, and ends nothing."""
        self.current = None  # type: ignore[assignment]  # as at the beginning
        try:
            function(*args)
        except Exception as error:
            self.called(error)

    def called(self, error: Exception) -> None:
        """What was called outside of any session has raised this."""
        if self.crashed is not None:
            self.crashed(None, error)

    def _ended(self, session: Session, error: BaseException | None) -> None:
        session.done = True
        self.sessions.discard(session)
        self.soon.discard(session)
        watchers, session.watchers = session.watchers, None
        if watchers is not None:
            if not isinstance(error, Cancelled):
                session.error = error
            for watcher in watchers:
                self.call(watcher, session)
        elif error is not None:
            self.report(session, error)

    def sweep(self) -> None:
        """Throw Overdue into whoever is overdue, wake who has slept enough, run the timers. Call it about ten times a
        second."""
        now = self.now
        if now >= self._next_scan:
            self._next_scan = now + SCAN_EVERY
            horizon = now + SCAN_EVERY
            self.soon = {session for session in self.sessions if session.deadline < horizon}
        for session in [session for session in self.soon if session.deadline <= now]:
            if session.pending is None:  # else it is told after that
                session.deadline = _NEVER
                self.soon.discard(session)
                session.throw(Overdue())
        for session, until in self._sleeping.items():
            if until <= now:
                self.wake(session)
        for timer in [timer for timer in self._timers if timer[0] <= now]:
            if timer in self._timers:  # no other has stopped it meanwhile
                timer[0] = now + timer[1]
                self.call(timer[2])
        self.finish_round()

    def lull(self, quiet: bool) -> None:
        """Some milliseconds after any event: nothing has come since (quiet), or there has always been more."""
        for function in self.lulls:
            self.call(function, quiet)

    def end_all(self) -> None:
        """Cancel every session and let its `finally` blocks run."""
        for session in list(self.sessions):
            session.cancel()
        for _ in range(LAST_TURNS):
            if not self._queue:
                break
            self.turn()
        for session in list(self.sessions):
            try:
                session.coro.close()
            except BaseException as error:
                self._ended(session, error)
            else:
                self._ended(session, None)
        self.finish_round()


def _nobody_cancelled() -> NoReturn:
    raise Cancelled


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
                await PARK
        finally:
            self.waiting.remove(session)


class Scope:
    """Child sessions that live no longer than a block. Leaving it waits for them; an error in the block or in a child
    cancels the rest, and the first error is raised, later ones reported. A cancellation from outside goes first."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._children: set[Session] = set()
        self._error: BaseException | None = None  # the first child's that failed
        self._owner: Session | None = None
        self._leaving = False
        self._stopped: _Stopped | None = None  # what we threw into the block

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
        owner = self._owner
        if child.error is not None:
            if self._error is None:
                self._error = child.error
                self.cancel()
                if owner is not None and not self._leaving:
                    self._stopped = _Stopped()
                    owner.throw(self._stopped)
            else:
                self._scheduler.report(child, child.error)
        if not self._children and owner is not None:
            self._scheduler.wake(owner)

    async def __aenter__(self) -> Scope:
        self._owner = self._scheduler.current
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._leaving = True
        owner, stopped = self._scheduler.current, self._stopped
        if stopped is not None and owner.pending is stopped:
            owner.pending = None  # not delivered, and no longer needed
        if error is not None:
            self.cancel()
        own = None if error is stopped else error
        first = self._error or own
        cancelled = own if isinstance(own, Cancelled) else None
        while self._children:
            try:
                await PARK
            except (Exception, Cancelled) as again:  # the children must end first
                if isinstance(again, Cancelled):
                    cancelled = again
                first = first or self._error or again
                self.cancel()
        self._owner = None
        outcome = cancelled or first or self._error
        if self._error is not None and outcome is not self._error:
            self._scheduler.report(owner, self._error)
        if outcome is not None and outcome is not error:
            raise outcome
