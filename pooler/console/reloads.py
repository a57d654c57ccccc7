"""RELOAD: the supervisor is asked over the wire, and answers when every process has swapped or one has refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

from supervisor.ground.lane import Event, Overdue
from supervisor.ground.orders import Reloaded, ReloadWanted
from supervisor.plane import layout

if TYPE_CHECKING:
    from supervisor.ground.tier import Worker


@attrs.define(eq=False)
class Reloads:
    """Those that this worker's consoles have asked for."""

    worker: Worker
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)
    _asked: dict[int, Event] = attrs.field(factory=dict)
    _answers: dict[int, Sequence[str]] = attrs.field(factory=dict)

    async def ask(self, within: float) -> Sequence[str]:
        """The errors: none if the file was taken."""
        number = next(self._numbers)
        session = self.worker.lane.current
        self._asked[number] = answered = Event(self.worker.lane)
        try:
            if not self.worker.mailbox.send(layout.SUPERVISOR, ReloadWanted(number)):
                return ("the supervisor does not listen",)
            session.expire_in(within)
            await answered.wait()
            return self._answers.pop(number)
        except Overdue:
            return (f"no answer within {within:g} seconds",)
        finally:
            session.deadline = float("inf")
            del self._asked[number]

    def answered(self, order: Reloaded) -> None:
        """The supervisor's word."""
        if order.number in self._asked:
            self._answers[order.number] = order.errors
            self._asked[order.number].set()
