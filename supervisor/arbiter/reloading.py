"""Reload, carried out: the file judged, everything made ready, every process asked, then all swapped or nothing.

What is decided when stands in `reload`; here are the sockets, rows, orders and answers. The flip of the plane's
generation cell is the one moment in which a reload happens.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from structlog.typing import FilteringBoundLogger

from supervisor.arbiter.access import CannotLog
from supervisor.arbiter.changes import changes
from supervisor.arbiter.children import Child
from supervisor.arbiter.control import Reply
from supervisor.arbiter.crew import Crew
from supervisor.arbiter.listeners import CannotListen, Key, Listeners, open_plain
from supervisor.arbiter.loop import Loop, Timer
from supervisor.arbiter.notify import Notifier
from supervisor.arbiter.reload import PATIENCE, SWAP_PATIENCE, Outcome, Reload, Verdict
from supervisor.arbiter.rows import Row, Rows, newcomers, rows_of
from supervisor.ground import cargo, health
from supervisor.ground.config import Config, ConfigError, Located, Problem
from supervisor.ground.orders import MAX_REASON, Abort, Commit, Prepare, Prepared, Refused, Reloaded, Sockets, Swapped
from supervisor.ground.tier import Tier
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from supervisor.plane.region import PlaneError

MAX_REASONS = 5  # of a refused reload, for who asked through a tier; the log has them all
FIRST_GENERATION = 1  # the configuration that the daemon started with

# What the processes were born with, and nothing can hand them another of.
_FIXED = ("user", "group", "control", "pid_file")


class CannotReload(Exception):
    """The reasons, a line each."""

    def __init__(self, reasons: Iterable[str]) -> None:
        self.reasons = tuple(reasons)
        super().__init__(*self.reasons)


@attrs.frozen
class Step:
    """A reload under way: what was opened and allocated for it."""

    config: Config
    generation: int
    cargo: int
    opened: dict[Key, list[socket.socket]]
    admin: socket.socket | None  # another than before
    rows: Sequence[Row]
    removed: Sequence[Key]
    changed: tuple[str, ...]


@attrs.frozen
class Committed:
    """What the daemon still has to do after a commit."""

    old: Config
    new: Config
    removed: Sequence[Key]
    admin: socket.socket | None


def keys_of(config: Config, tiers: Sequence[Tier]) -> list[Key]:
    """Every listener that a configuration asks for."""
    return [Key(tier.name, spec) for tier in tiers for spec in tier.listeners(config)]


@attrs.define(eq=False)
class Reloading:
    """Owns the configuration that runs."""

    loop: Loop
    plane: Plane
    crew: Crew
    listeners: Listeners
    rows: Rows
    tiers: Sequence[Tier]
    log: FilteringBoundLogger
    load: Callable[[], Config]
    config: Config
    shown_path: Path  # as the user named the file
    make_log: Callable[[Config], None]  # raises CannotLog
    committed: Callable[[Committed], None]
    notifier: Notifier = attrs.Factory(Notifier)
    _state: Reload = attrs.field(factory=Reload, init=False)
    _step: Step | None = attrs.field(default=None, init=False)
    _swapping: Step | None = attrs.field(default=None, init=False)  # committed, not everywhere yet
    _timer: Timer | None = attrs.field(default=None, init=False)
    last_generation: int = attrs.field(default=FIRST_GENERATION, init=False)
    _held: bool = attrs.field(default=False, init=False)  # an upgrade is under way
    _postponed: bool = attrs.field(default=False, init=False)

    @property
    def under_way(self) -> bool:
        """Whether processes are preparing or swapping."""
        return self._step is not None or self._swapping is not None

    @property
    def postponed(self) -> list[Reply] | None:
        """Who waits for a reload that waits for an upgrade; None without one."""
        return self._state.askers() if self._postponed else None

    def hold(self) -> None:
        """No reload begins before `release`."""
        self._held = True

    def release(self) -> None:
        """What was asked for meanwhile begins now."""
        self._held = False
        if self._postponed:
            self._postponed = False
            self._begin()

    def ask(self, reply: Reply | None = None) -> None:
        """A reload, please; the reply comes when it has ended."""
        if self._state.ask(reply):
            self.notifier.reloading()
            self._begin()

    def ask_for(self, child: Child, number: int) -> None:
        """A process has been asked for one by an operator: it is told how that ended."""

        def reply(answer: Mapping[str, Any]) -> None:
            errors = tuple(str(error)[:MAX_REASON] for error in answer["errors"][:MAX_REASONS])
            self.crew.tell(child, Reloaded(number, errors))

        self.ask(reply)

    @property
    def active(self) -> bool:
        """Whether one is under way."""
        return self._state.active

    def renewed(self, config: Config) -> None:
        """The same configuration with other certificates, for those who are born from now on. Not while one is under
        way."""
        self.config = config

    def stop(self) -> None:
        """The daemon ends: what is under way comes to nothing."""
        if self._step is not None:
            self._decide(self._state.withdraw("the daemon is ending"))

    # -- what processes say

    def prepared(self, child: Child, answer: Prepared) -> None:
        if self._step is not None and answer.generation == self._step.generation:
            self._decide(self._state.prepared(child.incarnation))

    def refused(self, child: Child, answer: Refused) -> None:
        if self._step is not None and answer.generation == self._step.generation:
            self._decide(self._state.refused(child.incarnation, answer.reasons))

    def swapped(self, child: Child, answer: Swapped) -> None:
        if self._swapping is not None and answer.generation == self._swapping.generation:
            self._decide(self._state.swapped(child.incarnation))

    def died(self, child: Child) -> None:
        self._decide(self._state.died(child.incarnation))

    def look(self) -> None:
        """What a lost `Prepared` would have said stands in the plane."""
        generation = None if self._step is None else self._step.generation
        for child in list(self.crew.children.values()):
            info = self.plane.process(child.column)
            if info is not None and info.acknowledged == generation:
                self._decide(self._state.prepared(child.incarnation))

    # -- the two phases

    def _begin(self) -> None:
        if self._held:
            self._postponed = True
            return
        try:
            step = self._make_ready()
        except ConfigError as error:
            self._finish(Outcome(errors=tuple(str(problem) for problem in error.problems)))
            return
        except CannotReload as error:
            self._finish(Outcome(errors=error.reasons))
            return
        except Exception as error:  # a fault of ours in a new file's corner must not end the old one's service
            self.log.exception("reload failed")
            self._finish(Outcome(errors=(f"{type(error).__name__}: {error}",)))
            return
        if step is None:
            self._finish(Outcome())
            return
        self._step = step
        self.crew.paused = True  # who is born now would be born to the old configuration, and not be asked
        asked = [child for child in self.crew.children.values() if not child.retiring]
        for child in asked:
            self._send(step, child)
        self._timer = self.loop.after(PATIENCE, lambda: self._decide(self._state.overdue()))
        self._decide(self._state.prepare((child.incarnation, child.title) for child in asked))

    def _send(self, step: Step, child: Child) -> None:
        tier = child.role.name
        for key, sockets in step.opened.items():
            if key.tier == tier:
                order = Sockets(step.generation, key.spec.name, 0)
                self.crew.tell(child, order, tuple(sock.fileno() for sock in sockets))
        removed = tuple(key.spec.name for key in step.removed if key.tier == tier)
        self.crew.tell(child, Prepare(step.generation, removed), (step.cargo,))

    def _make_ready(self) -> Step | None:
        """All that can fail here fails before anybody is asked. None if the file is what runs already."""
        new = self.load()
        old = self.config
        if new == old:
            return None
        if problems := [*self._refusals(old, new)]:
            raise CannotReload(problems)
        with contextlib.ExitStack() as undo:
            try:
                admin, bind = None, new.supervisor.admin
                if bind is not None and bind != old.supervisor.admin:
                    admin = undo.enter_context(open_plain("supervisor.admin", bind, activated=self.listeners.activated))
                wanted = keys_of(new, self.tiers)
                opened = self.listeners.open(wanted)
                undo.callback(close, opened)
                self.make_log(new)
                rows = self.rows.allocate(rows_of(new, self.tiers))
                undo.callback(self.rows.release, rows)
            except (CannotListen, CannotLog, PlaneError) as error:
                raise CannotReload([str(error)]) from error
            step = Step(
                config=new,
                generation=self.last_generation + 1,
                cargo=cargo.pack(new, "portway-configuration"),
                opened=opened,
                admin=admin,
                rows=rows,
                removed=[key for key in self.listeners.all() if key not in wanted],
                changed=tuple(changes(old, new)),
            )
            undo.pop_all()
        self.last_generation += 1
        return step

    def _refusals(self, old: Config, new: Config) -> Iterator[str]:
        def located(problem: Problem) -> str:
            return str(Located(str(self.shown_path), new.line(problem.path), problem.path, problem.message))

        for name in _FIXED:
            if getattr(old.supervisor, name) != getattr(new.supervisor, name):
                yield located(Problem(("supervisor", name), "can't be changed by a reload; restart the daemon"))
        for tier in self.tiers:
            for problem in tier.refuse(old, new):
                yield located(problem)

    def _decide(self, verdict: Verdict | None) -> None:
        match verdict:
            case Verdict.COMMIT:
                self._commit()
            case Verdict.ABORT:
                self._abort()
            case Verdict.DONE:
                self._done()

    def _abort(self) -> None:
        step = self._close_step()
        for child in self.crew.children.values():
            self._withdraw(child)
            self.crew.tell(child, Abort(step.generation))
        close(step.opened)
        if step.admin is not None:
            step.admin.close()
        self.rows.changed(step.rows, rows_of(self.config, self.tiers), time.monotonic())
        self.crew.fill()
        self._finish(Outcome())

    def _commit(self) -> None:
        step = self._close_step()
        old, self.config = self.config, step.config
        for name in newcomers(step.rows):  # before anybody commits: a worker looks at a server's start as it swaps
            health.join(self.plane, self.plane.row(Kind.SERVER, name))
        self.plane.generation = step.generation
        self._swapping = step
        swapping = [child for child in self.crew.children.values() if not child.retiring]
        for child in swapping:
            self.crew.tell(child, Commit(step.generation))
        self.listeners.keep(step.opened)
        self.listeners.close(step.removed)
        self.rows.changed(rows_of(old, self.tiers), rows_of(step.config, self.tiers), time.monotonic())
        self.committed(Committed(old, step.config, step.removed, step.admin))
        self._timer = self.loop.after(SWAP_PATIENCE, lambda: self._decide(self._state.overdue()))
        self._decide(self._state.commit((child.incarnation, child.title) for child in swapping))

    def _done(self) -> None:
        step, self._swapping = self._swapping, None
        assert step is not None, "only what was committed is done"
        if self._timer is not None:
            self._timer.cancel()
        self._finish(Outcome(changed=step.changed))

    def _close_step(self) -> Step:
        """Nobody is waited for any more; births go on."""
        step, self._step = self._step, None
        assert step is not None, "a verdict is on a reload under way"
        if self._timer is not None:
            self._timer.cancel()
        os.close(step.cargo)
        self.crew.paused = False
        return step

    def _withdraw(self, child: Child) -> None:
        """Orders of this reload that never left: their descriptors are about to be closed."""
        for entry in [entry for entry in child.outbox if isinstance(entry[0], Sockets | Prepare)]:
            child.outbox.remove(entry)

    def _finish(self, outcome: Outcome) -> None:
        outcome, told, again = self._state.finish(outcome)
        tier = self.plane.counters(Kind.TIER, self.plane.row(Kind.TIER, "supervisor"), layout.SUPERVISOR)
        self.plane.cells[tier + (layout.Tier.RELOADS if outcome.ok else layout.Tier.RELOADS_REFUSED)] += 1
        if outcome.ok:
            self.log.info("reloaded", changed=list(outcome.changed), generation=self.plane.generation)
        else:
            self.log.error("reload refused, nothing has changed", errors=list(outcome.errors))
        if not again:
            # Before anybody is answered: systemd takes a reload command's end for the end of the reload.
            status = f"running generation {self.plane.generation}"
            self.notifier.reloaded(status if outcome.ok else f"{status}; the last reload was refused")
        for reply in told:
            assert callable(reply)
            reply(outcome.answer())
        if again:
            self._begin()


def close(opened: Mapping[Key, Sequence[socket.socket]]) -> None:
    """What was opened for nothing."""
    for sockets in opened.values():
        for sock in sockets:
            sock.close()
