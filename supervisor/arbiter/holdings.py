"""What still holds a drain up: asked of the processes that drain, over the wire, for whoever asks for the status, and
each second for the admin, which may not ask by itself.

Nobody is waited for long: a process that hangs is left out, and says so by that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from supervisor.arbiter.children import Child
from supervisor.arbiter.crew import Crew
from supervisor.arbiter.loop import Loop, Timer
from supervisor.arbiter.roles import ADMIN
from supervisor.ground.orders import Held, Holding, WhatHolds
from supervisor.plane.layout import ProcessState
from supervisor.plane.memory import Plane

SHARE = 1.0  # seconds between looks for the admin
PATIENCE = 0.5  # seconds for all answers; a round of the lane takes milliseconds

Told = Callable[[Sequence[dict[str, Any]]], None]


@attrs.define(eq=False)
class Question:
    """One asked, and who has not answered."""

    waiting: set[int]  # process ids
    told: Told
    timer: Timer
    answers: list[dict[str, Any]] = attrs.field(factory=list)


@attrs.define(eq=False)
class Holdings:
    """The questions under way."""

    loop: Loop
    plane: Plane
    crew: Crew
    _questions: dict[int, Question] = attrs.field(factory=dict, init=False)
    _last: int = attrs.field(default=0, init=False)

    def ask(self, told: Told, tier: str | None = None) -> None:
        """`told` gets, for each process that drains: `process`, `pid`, `left` (how many), `holding` (some of them).
        With a `tier`, for each of its processes: what it would have to wait for if it drained now."""
        if tier is None:
            asked = [child for child in self.crew.children.values() if self._drains(child)]
        else:
            asked = [child for child in self.crew.of(tier) if child.ready]
        if not asked:
            told([])
            return
        self._last += 1
        number = self._last
        timer = self.loop.after(PATIENCE, lambda: self._end(number))
        self._questions[number] = Question({child.pid for child in asked}, told, timer)
        for child in asked:
            self.crew.tell(child, WhatHolds(number))

    def share(self) -> None:
        """Tell the admin, while anybody drains."""
        admins = [child for child in self.crew.of(ADMIN) if child.ready and not child.outbox]
        if admins and any(self._drains(child) for child in self.crew.children.values()):
            self.ask(lambda answers: self._tell(admins, answers))

    def _tell(self, admins: Sequence[Child], answers: Sequence[dict[str, Any]]) -> None:
        for admin in admins:
            for answer in answers if admin.pid in self.crew.children else ():
                held = Held(answer["process"], answer["pid"], answer["left"], tuple(answer["holding"]))
                self.crew.tell(admin, held)

    def answered(self, child: Child, answer: Holding) -> None:
        """By a process; too late is as good as never."""
        question = self._questions.get(answer.question)
        if question is None or child.pid not in question.waiting:
            return
        question.answers.append(
            {"process": child.title, "pid": child.pid, "left": answer.count, "holding": list(answer.lines)}
        )
        self._settle(child.pid, answer.question)

    def died(self, child: Child) -> None:
        """Nothing holds it any more."""
        for number in list(self._questions):
            self._settle(child.pid, number)

    def _settle(self, pid: int, number: int) -> None:
        question = self._questions[number]
        question.waiting.discard(pid)
        if not question.waiting:
            self._end(number)

    def _end(self, number: int) -> None:
        question = self._questions.pop(number)
        question.timer.cancel()
        question.told(sorted(question.answers, key=lambda answer: str(answer["process"])))

    def _drains(self, child: Child) -> bool:
        info = self.plane.process(child.column)
        return info is not None and info.state == ProcessState.DRAINING
