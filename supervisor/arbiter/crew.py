"""All children: every wanted role filled by one process, the dead succeeded, the superfluous retired.

What a process is made of is the daemon's to say (`birth`); what its readiness or death means to slots and reloads is
told to it (`on_ready`, `on_death`).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence

import attrs
from structlog.typing import FilteringBoundLogger

from supervisor.arbiter.backoff import Backoff
from supervisor.arbiter.children import Child, Death, fork, in_flight, wait
from supervisor.arbiter.loop import Loop, Timer
from supervisor.arbiter.roles import Role, count
from supervisor.ground import worker
from supervisor.ground.wire import Mailbox, Wire
from supervisor.ground.worker import Birth
from supervisor.plane import layout
from supervisor.plane.layout import Kind, ProcessState
from supervisor.plane.memory import Plane
from supervisor.plane.region import PlaneFullError

RETRY = 1.0  # seconds before the next try when no column or no process was to be had
RESEND = 0.02  # seconds before an order is offered again to a full mailbox
LOOK = 0.5  # seconds between looks at the children's states
START_PATIENCE = 60.0  # seconds from the fork to `ready`; a slow machine starting many takes 5
HUNG_AFTER = 30.0  # seconds without a heartbeat, of which there is one a second
ABORT_PATIENCE = 2.0  # seconds for the dump of where it hung

BirthOf = Callable[[Role, str, int, int], Birth]  # role, title, column, incarnation


@attrs.define(eq=False)
class Crew:
    """The children by process id."""

    loop: Loop
    plane: Plane
    wire: Wire
    mailbox: Mailbox
    log: FilteringBoundLogger
    birth: BirthOf
    on_ready: Callable[[Child], None]
    on_death: Callable[[Child, Death], None]
    retire: Callable[[Child], None]  # a child whose role is no longer wanted
    children: dict[int, Child] = attrs.field(factory=dict, init=False)
    wanted: list[Role] = attrs.field(factory=list, init=False)
    closed: bool = attrs.field(default=False, init=False)  # no successors any more
    paused: bool = attrs.field(default=False, init=False)  # no births now; `fill` afterwards
    _backoffs: dict[Role, Backoff] = attrs.field(factory=dict, init=False)
    _waiting: dict[Role, Timer] = attrs.field(factory=dict, init=False)
    _last_look: float = attrs.field(factory=time.monotonic, init=False)
    _resending: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.loop.every(LOOK, self.look)

    # -- who there is

    def of(self, name: str) -> Iterator[Child]:
        """The children of a tier, or of what exists once."""
        return (child for child in self.children.values() if child.role.name == name)

    def in_column(self, column: int) -> Child | None:
        return next((child for child in self.children.values() if child.column == column), None)

    def complete(self) -> bool:
        """Whether every wanted role is filled by a process that is ready."""
        ready = {child.role for child in self.children.values() if child.serving and not child.predecessor}
        return ready >= set(self.wanted)

    def predecessors(self) -> list[Child]:
        """Those of the code before an upgrade that have no successor yet."""
        return [child for child in self.children.values() if child.predecessor and not child.retiring]

    # -- who there should be

    def settle(self, wanted: Sequence[Role]) -> None:
        """These roles, from now on."""
        self.wanted = list(wanted)
        for role in [role for role in self._waiting if role not in self.wanted]:
            self._waiting.pop(role).cancel()
        for child in list(self.children.values()):
            if not child.retiring and child.role not in self.wanted:
                self.retire(child)
        self.fill()

    def fill(self) -> None:
        """A process for every wanted role that has none and doesn't wait for one."""
        if self.closed or self.paused:
            return
        filled = {child.role for child in self.children.values() if not child.retiring and not child.predecessor}
        for role in self.wanted:
            if role not in filled and role not in self._waiting:
                self._spawn(role)

    def title(self, role: Role) -> str:
        return role.title(count(self.wanted, role.name))

    def close(self) -> None:
        """Who dies now has no successor."""
        self.closed = True
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()

    # -- orders

    def tell(self, child: Child, order: object, fds: tuple[int, ...] = ()) -> None:
        """Send an order; one that the mailbox does not take now follows as soon as it does, in order."""
        child.outbox.append((order, fds))
        self._send(child)

    def _send(self, child: Child) -> None:
        while child.outbox:
            order, fds = child.outbox[0]
            if not self.mailbox.send(child.column, order, fds):
                if not self._resending:
                    self._resending = True
                    self.loop.after(RESEND, self._resend)
                return
            child.outbox.popleft()

    def _resend(self) -> None:
        self._resending = False
        for child in self.children.values():
            self._send(child)

    # -- births and deaths

    def _spawn(self, role: Role) -> None:
        title = self.title(role)
        try:
            column = self.plane.claim_column(role.name, role.number)
        except PlaneFullError as error:
            self._later(role, RETRY, str(error))
            return
        incarnation = self.plane.incarnation(column)
        birth = self.birth(role, title, column, incarnation)
        try:
            pid = fork(lambda: worker.main(birth))
        except OSError as error:  # EAGAIN, ENOMEM
            self.plane.reap(column)
            self._later(role, RETRY, f"can't fork: {error.strerror}")
            return
        self.plane.started(column, pid)
        self.adopt(Child(role, title, pid, os.pidfd_open(pid), column, incarnation, time.monotonic()))
        self.log.info("process started", child=title, child_pid=pid)

    def adopt(self, child: Child) -> None:
        """A process that lives already, and is a child of this one."""
        self.children[child.pid] = child
        self.loop.watch(child.pidfd, lambda: self._reap(child))

    def _later(self, role: Role, seconds: float, reason: str) -> None:
        self.log.warning("process waits for its start", child=self.title(role), seconds=seconds, reason=reason)

        def now() -> None:
            del self._waiting[role]
            self.fill()

        if role in self._waiting:
            self._waiting[role].cancel()
        self._waiting[role] = self.loop.after(seconds, now)

    def _reap(self, child: Child) -> None:
        """Its pidfd has fired: it is dead."""
        death, now = Death.from_status(wait(child.pid)), time.monotonic()
        try:
            self._look_at(child, now)  # it may have become ready just before
        finally:  # whatever fails here and below, it is not waited for twice
            self.loop.forget(child.pidfd)
            os.close(child.pidfd)
            del self.children[child.pid]
        # One that is told to end before it can listen to signals is ended by the signal.
        expected = child.retiring and (death.code == worker.DONE or death.signal in (signal.SIGTERM, signal.SIGQUIT))
        (self.log.info if expected else self.log.error)(
            "process ended" if expected else "process died",
            child=child.title,
            child_pid=child.pid,
            cause=str(death),
            ready=child.ready,
            lived=round(now - child.born, 3),
            in_flight=in_flight(self.plane, child.column),
        )
        self.plane.reap(child.column)
        self.wire.empty(child.column)
        self._reckon(child, death, now)  # first: what the death means to others may fill every role that does not wait
        self.on_death(child, death)
        self.fill()

    def _reckon(self, child: Child, death: Death, now: float) -> None:
        """Whether its successor has to wait."""
        role = child.role
        if self.closed or child.retiring or child.predecessor or role not in self.wanted:
            return
        tier = self.plane.counters(Kind.TIER, self.plane.row(Kind.TIER, role.name), layout.SUPERVISOR)
        self.plane.cells[tier + layout.Tier.RESPAWNS] += 1
        if death.code == worker.DONE:  # somebody ended it by hand; nothing is wrong with it
            return
        ready_at = child.ready_at
        state, wait = self._backoffs.get(role, Backoff()).after(
            was_ready=ready_at is not None, killed=death.killed, lived=0.0 if ready_at is None else now - ready_at
        )
        self._backoffs[role] = state
        if wait:
            self._later(role, wait, f"{state.failures} failures in a row")

    # -- looking after them

    def look(self) -> None:
        """Each child's state as it stands in the plane: what a lost message would have told, and who hangs. And who is
        missing, should a fault of ours have kept a death from being answered."""
        now = time.monotonic()
        stood_still, self._last_look = now - self._last_look > 10 * LOOK, now
        for child in list(self.children.values()):
            self._look_at(child, now)
            # If the supervisor itself was stopped, so were perhaps all; then a heartbeat's age says nothing.
            if not stood_still:
                self._judge(child, now)
        self.fill()

    def _look_at(self, child: Child, now: float) -> None:
        info = self.plane.process(child.column)
        if info is None or info.incarnation != child.incarnation:
            return
        if info.state >= ProcessState.READY and not child.ready:
            child.ready_at = now
            self.on_ready(child)
        if info.state == ProcessState.DRAINING and not child.retiring:
            # Sent TERM by somebody else; it drains by itself and needs a successor.
            self.log.warning("process drains, and not by the supervisor's order", child=child.title)
            self.retire(child)
            self.fill()

    def _judge(self, child: Child, now: float) -> None:
        info = self.plane.process(child.column)
        if info is None or child.suspected:
            return
        silent = now - info.heartbeat / 1e9
        if silent < (HUNG_AFTER if child.ready else START_PATIENCE):
            return
        self.log.error("process hangs", child=child.title, child_pid=child.pid, silent=round(silent, 1))
        child.suspected = True
        child.signal(signal.SIGABRT)  # faulthandler writes where each thread stands
        self.loop.after(ABORT_PATIENCE, lambda: child.signal(signal.SIGKILL) if child.pid in self.children else None)
