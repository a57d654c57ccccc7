"""What every worker says about its own connections: asked for over the wire, put together by who asked.

An answer may be longer than a message: it comes in parts, the last one marked. A worker that does not answer in time is
named, and what the others said is shown.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

from pooler.console import sockets
from pooler.console.results import Row
from pooler.orders import Ask, Told
from supervisor.ground.lane import Event, Overdue

if TYPE_CHECKING:
    from pooler.runtime import PoolerRuntime

PART = 24 * 1024  # characters of JSON; a message has 60 KiB, and wider characters take more
SILENCE = 2.0  # seconds without a part from anybody
FULL = 0.1  # seconds until a full mailbox is tried again
MAX_TRIES = 100  # of those, for one part


@attrs.define(eq=False)
class Question:
    """One survey under way."""

    stirred: Event
    missing: set[int]  # columns that have not finished
    rows: list[Row] = attrs.field(factory=list)


@attrs.define(eq=False)
class Survey:
    """Of one worker: what it asks, and what it answers others."""

    runtime: PoolerRuntime
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)
    _questions: dict[int, Question] = attrs.field(factory=dict)

    async def ask(self, what: str) -> tuple[list[Row], int]:
        """The rows of all workers, sorted, and how many workers did not answer."""
        runtime, worker = self.runtime, self.runtime.worker
        others = [column for column in worker.plane.live(worker.tier) if column != worker.column]
        number = next(self._numbers)
        question = Question(Event(runtime.lane), set())
        self._questions[number] = question
        session = runtime.lane.current
        try:
            silent = 0
            for column in others:
                if worker.mailbox.send(column, Ask(worker.column, number, what)):
                    question.missing.add(column)
                else:
                    silent += 1
            question.rows += sockets.show(runtime, what)
            while question.missing:
                session.expire_in(SILENCE)
                await question.stirred.wait()
                question.stirred.clear()
        except Overdue:
            # One that has ended meanwhile has nothing to say.
            silent += len(question.missing & {*worker.plane.live(worker.tier)})
        finally:
            del self._questions[number]
            session.deadline = float("inf")
        return sorted(question.rows, key=lambda row: [str(cell) for cell in row[:3]]), silent

    def asked(self, order: Ask) -> None:
        """Another worker wants to know."""
        self.runtime.lane.spawn(self._answer(order), "survey")

    def told(self, order: Told) -> None:
        """Another worker's answer, or a part of it."""
        question = self._questions.get(order.number)
        if question is not None:
            question.rows += order.rows
            if order.last:
                question.missing.discard(order.column)
            question.stirred.set()

    async def _answer(self, order: Ask) -> None:
        runtime, worker = self.runtime, self.runtime.worker
        rows = sockets.show(runtime, order.what) if order.what in sockets.COLUMNS else []
        parts = [*_parts(rows)] or [[]]
        for number, part in enumerate(parts, 1):
            told = Told(worker.column, order.number, part, number == len(parts))
            for _ in range(MAX_TRIES):
                if worker.mailbox.send(order.column, told) or order.column not in worker.plane.live(worker.tier):
                    break
                await runtime.lane.sleep(FULL)


def _parts(rows: Sequence[Row]) -> Iterator[list[Row]]:
    part: list[Row] = []
    size = 0
    for row in rows:
        added = len(json.dumps(row))
        if part and size + added > PART:
            yield part
            part, size = [], 0
        part.append(row)
        size += added
    if part:
        yield part
