"""Reload as a state machine: who is waited for, who asked, and what to do next. No file, process or clock in here.

A reload is prepared by every process beside what it runs, and committed only when all have; one refusal, one death
or one late answer and nothing changes. Once committed nothing can stop it: it is done when all have swapped, or gone.
Reloads asked for meanwhile are merged into one that starts when this one has ended, because the file may have changed
after this one read it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from enum import Enum
from typing import Any

import attrs

PATIENCE = 10.0  # seconds for all processes to prepare; compiling routes and reading keys takes milliseconds


SWAP_PATIENCE = 2.0  # seconds for all to swap; they will, so this only bounds how long the askers wait


class Verdict(Enum):
    COMMIT = "commit"
    ABORT = "abort"
    DONE = "done"


@attrs.frozen
class Outcome:
    """How a reload ended, as its askers are told."""

    errors: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    acknowledged: tuple[str, ...] = ()  # titles of the processes that have it

    @property
    def ok(self) -> bool:
        return not self.errors

    def answer(self) -> dict[str, object]:
        return {
            "ok": self.ok,
            "changed": list(self.changed),
            "errors": list(self.errors),
            "processes": len(self.acknowledged),
            "acknowledged": list(self.acknowledged),
        }


@attrs.define(eq=False)
class Reload:
    """At most one reload under way, and at most one more to follow it."""

    _asked: list[Hashable] = attrs.field(factory=list, init=False)  # of the one under way
    _next: list[Hashable] = attrs.field(factory=list, init=False)  # of the one to follow
    _again: bool = attrs.field(default=False, init=False)
    _waiting: dict[Hashable, str] = attrs.field(factory=dict, init=False)
    _errors: list[str] = attrs.field(factory=list, init=False)
    _titles: tuple[str, ...] = attrs.field(default=(), init=False)  # of those who were asked
    _committed: bool = attrs.field(default=False, init=False)
    active: bool = attrs.field(default=False, init=False)

    def ask(self, asker: Hashable | None) -> bool:
        """A reload is wanted (by nobody in particular for a signal); True when it should start now."""
        wanted_by = self._next if self.active else self._asked
        if asker is not None:
            wanted_by.append(asker)
        if self.active:
            self._again = True
            return False
        self.active = True
        return True

    def askers(self) -> list[Any]:
        """Who waits for the one under way or about to begin."""
        return list(self._asked) + list(self._next)

    def prepare(self, processes: Iterable[tuple[Hashable, str]]) -> Verdict | None:
        """All of these (id, title) must answer; the verdict at once when there is none."""
        self._waiting = dict(processes)
        self._titles = tuple(self._waiting.values())
        self._errors, self._committed = [], False
        return None if self._waiting else Verdict.COMMIT

    def prepared(self, process: Hashable) -> Verdict | None:
        """A process has the new configuration beside the old."""
        if self._committed or self._waiting.pop(process, None) is None or self._waiting:
            return None
        return Verdict.COMMIT

    def commit(self, processes: Iterable[tuple[Hashable, str]]) -> Verdict | None:
        """The generation has been flipped; these swap now."""
        self._waiting, self._committed = dict(processes), True
        return None if self._waiting else Verdict.DONE

    def swapped(self, process: Hashable) -> Verdict | None:
        """A process runs the new configuration, or is gone."""
        if not self._committed or self._waiting.pop(process, None) is None or self._waiting:
            return None
        return Verdict.DONE

    def refused(self, process: Hashable, reasons: Iterable[str]) -> Verdict | None:
        """A process can't take the new configuration."""
        title = self._waiting.get(process)
        return None if title is None or self._committed else self._abort(f"{title}: {reason}" for reason in reasons)

    def died(self, process: Hashable) -> Verdict | None:
        """A process that is waited for is gone."""
        if self._committed:
            return self.swapped(process)
        title = self._waiting.get(process)
        return None if title is None else self._abort([f"{title}: died while it prepared"])

    def overdue(self) -> Verdict | None:
        """`PATIENCE`, or after the commit `SWAP_PATIENCE`, is over."""
        if not self._waiting:
            return None
        if self._committed:
            return Verdict.DONE
        return self._abort(f"{title}: did not answer within {PATIENCE:g}s" for title in self._waiting.values())

    def withdraw(self, reason: str) -> Verdict | None:
        """It is no longer wanted."""
        return None if self._committed else self._abort([reason])

    def finish(self, outcome: Outcome) -> tuple[Outcome, list[Hashable], bool]:
        """The end: the outcome with what the processes said, whom to tell, and whether another follows now."""
        told, self._asked, self._next = self._asked, self._next, []
        errors = (*outcome.errors, *self._errors)
        outcome = attrs.evolve(outcome, errors=errors, acknowledged=() if errors else self._titles)
        self._waiting, self._errors, self._titles, self._committed = {}, [], (), False
        self.active, self._again = self._again, False
        return outcome, told, self.active

    def _abort(self, reasons: Iterable[str]) -> Verdict:
        self._errors.extend(reasons)
        self._waiting = {}
        return Verdict.ABORT
