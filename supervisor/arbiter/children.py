"""One child: how it is forked, how its death reads, and what it had in hand."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Callable
from typing import NoReturn

import attrs

from supervisor.arbiter.estate import HeldChild
from supervisor.arbiter.roles import Role
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane

MAX_SHOWN = 20  # entries of what was in flight; the log line of a death is for people

# Not what a process holds, but how things are.
_NOT_HELD = {
    (Kind.SERVER, layout.Server.STREAK),
    (Kind.LEASEPOOL, layout.LeasePool.OLDEST_TICKET),
    (Kind.POOL, layout.Pool.OLDEST_TICKET),
    (Kind.LEASEPOOL, layout.LeasePool.IDLE),
    (Kind.TIER, layout.Tier.SESSIONS),  # as of the last heartbeat
}


@attrs.define(eq=False)
class Child:
    """A living process, as the supervisor knows it."""

    role: Role
    title: str
    pid: int
    pidfd: int
    column: int
    incarnation: int
    born: float  # monotonic seconds
    ready_at: float | None = None
    retiring: bool = False  # its end is wanted
    dismissed: bool = False  # and it was told
    predecessor: bool = False  # of the code before an upgrade: it serves until its successor is ready
    suspected: bool = False  # it hung, and has been sent ABRT
    outbox: deque[tuple[object, tuple[int, ...]]] = attrs.field(factory=deque)  # orders its full mailbox did not take

    @classmethod
    def of(cls, held: HeldChild) -> Child:
        """A child that an earlier supervisor in this process has forked."""
        return cls(
            role=Role(held.role, held.number),
            title=held.title,
            pid=held.pid,
            pidfd=held.pidfd,
            column=held.column,
            incarnation=held.incarnation,
            born=held.born,
            ready_at=held.ready_at,
            retiring=held.retiring,
            dismissed=held.dismissed,
            predecessor=True,
        )

    def held(self) -> HeldChild:
        """For the next supervisor in this process."""
        return HeldChild(
            role=self.role.name,
            number=self.role.number,
            title=self.title,
            pid=self.pid,
            pidfd=self.pidfd,
            column=self.column,
            incarnation=self.incarnation,
            born=self.born,
            ready_at=self.ready_at,
            retiring=self.retiring,
            dismissed=self.dismissed,
        )

    @property
    def ready(self) -> bool:
        return self.ready_at is not None

    @property
    def serving(self) -> bool:
        """Ready, and to stay."""
        return self.ready and not self.retiring

    def signal(self, number: signal.Signals) -> None:
        """By its pidfd: never to a stranger who got the same number. A process that has ended is fine."""
        try:
            signal.pidfd_send_signal(self.pidfd, number)
        except ProcessLookupError:
            pass


@attrs.frozen
class Descriptor:
    """A bare descriptor that a child must not hold."""

    fd: int

    def close(self) -> None:
        os.close(self.fd)


@attrs.frozen
class Death:
    """How a process ended, from its wait status (wait(2))."""

    code: int | None
    signal: int | None

    @classmethod
    def from_status(cls, status: int) -> Death:
        if os.WIFSIGNALED(status):
            return cls(None, os.WTERMSIG(status))
        return cls(os.waitstatus_to_exitcode(status), None)

    @property
    def killed(self) -> bool:
        return self.signal == signal.SIGKILL

    def __str__(self) -> str:
        if self.signal is None:
            return f"exit code {self.code}"
        try:
            return f"signal {self.signal} ({signal.Signals(self.signal).name})"
        except ValueError:  # a real-time signal has no name
            return f"signal {self.signal}"


# Whom this process has forked and not waited for. As PID 1 it becomes the parent of others, too.
_forked: set[int] = set()


def fork(child: Callable[[], NoReturn]) -> int:
    """The process id of a child that runs `child`. Raises OSError.

    Signals wait meanwhile: one that came between the fork and the child's own handlers would write into the
    supervisor's wake-up descriptor, which both then hold.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if not pid:
            child()
        _forked.add(pid)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def is_forked(pid: int) -> bool:
    """Whether it is one of `fork`'s that is still to be waited for."""
    return pid in _forked


def wait(pid: int) -> int:
    """Wait for a child; its status (wait(2))."""
    _, status = os.waitpid(pid, 0)
    _forked.discard(pid)
    return status


def in_flight(plane: Plane, column: int) -> dict[str, int]:
    """What a process had in hand, by its gauges: `{"server user/127.0.0.1:1 in_flight": 3}`. Before it is reaped."""
    held: dict[str, int] = {}
    for kind, table in layout.TABLES.items():
        gauges = [
            (name, field)
            for name, field in layout.fields(table.counters).items()
            if field in table.gauges and (kind, field) not in _NOT_HELD
        ]
        if not gauges:
            continue
        for row_name, row in plane.names(kind).items():
            base = plane.counters(kind, row, column)
            for name, field in gauges:
                if value := plane.cells[base + field]:
                    held[f"{kind.value} {row_name} {name}"] = value
                    if len(held) >= MAX_SHOWN:
                        return held
    return held
