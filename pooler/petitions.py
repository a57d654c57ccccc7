"""What this worker asks of the supervisor over the wire, a reload or a row of the plane; the answer has its number."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

from supervisor.ground.lane import Event, Overdue
from supervisor.ground.orders import Reloaded, ReloadWanted, RowAnswer, RowWanted
from supervisor.plane import layout
from supervisor.plane.layout import Kind

if TYPE_CHECKING:
    from supervisor.ground.tier import Worker

RELOAD_WITHIN = 60.0  # seconds: all processes have ten to prepare, and one reload may be ahead
ROW_WITHIN = 5.0  # seconds; the supervisor answers at once, unless it is busy with a reload


@attrs.define(eq=False)
class Petitions:
    """Those under way."""

    worker: Worker
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)
    _asked: dict[int, Event] = attrs.field(factory=dict)
    _answers: dict[int, Sequence[str]] = attrs.field(factory=dict)

    async def reload(self) -> Sequence[str]:
        """The errors: none if the file was taken."""
        return await self._ask(ReloadWanted, RELOAD_WITHIN)

    async def row(self, name: str) -> Sequence[str]:
        """A lease pool of this name has a row in the plane from now on; else the errors."""
        if name in self.worker.plane.names(Kind.LEASEPOOL):
            return ()
        return await self._ask(lambda number: RowWanted(number, Kind.LEASEPOOL.value, name), ROW_WITHIN)

    async def _ask(self, make: Callable[[int], object], within: float) -> Sequence[str]:
        number = next(self._numbers)
        session = self.worker.lane.current
        before = session.deadline
        self._asked[number] = answered = Event(self.worker.lane)
        try:
            if not self.worker.mailbox.send(layout.SUPERVISOR, make(number)):
                return ("the supervisor does not listen",)
            session.expire_in(within)
            await answered.wait()
            return self._answers.pop(number)
        except Overdue:
            return (f"no answer within {within:g} seconds",)
        finally:
            session.deadline = before
            del self._asked[number]

    def answered(self, order: Reloaded | RowAnswer) -> None:
        """The supervisor's word."""
        if order.number in self._asked:
            self._answers[order.number] = order.errors
            self._asked[order.number].set()
