"""Who may poll a slot now: owner cells changed so that two living workers never poll the same slot.

A cell names the column that polls its slot. Where the owner changes between two living workers, the cell first names
nobody, the old one is asked to look and says that it has let go, and only then is the new one named; meanwhile the
kernel queues. A dead owner needs no asking. What to write is decided here, without a clock and without the wire.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, MutableSequence

import attrs

NOBODY = 0  # column 0 is the supervisor, which polls nothing


@attrs.define(eq=False)
class Ownership:
    """All owner cells of all listeners. Every method that can change one returns the columns that must look."""

    _cells: MutableSequence[int] | memoryview[int]
    _alive: Callable[[int], bool]  # whether a process lives in the column
    _wanted: dict[int, int] = attrs.field(factory=dict, init=False)  # cell -> column
    _holders: dict[int, int] = attrs.field(factory=dict, init=False)  # cell -> column that may still poll it
    _asked: dict[int, int] = attrs.field(factory=dict, init=False)  # column -> the step it must have seen
    _step: int = attrs.field(default=0, init=False)

    @property
    def step(self) -> int:
        """The number of the last change."""
        return self._step

    @property
    def asked(self) -> Mapping[int, int]:
        """The columns whose word is waited for, and the step that it must be about."""
        return self._asked

    def holder(self, cell: int) -> int:
        """The column that may still poll the slot."""
        return self._holders.get(cell, NOBODY)

    def restore(self, step: int, asked: Mapping[int, int], holders: Mapping[int, int]) -> None:
        """Go on where another supervisor has left: an answer that it waited for is waited for still."""
        self._step = step
        self._asked = dict(asked)
        self._holders = {cell: column for cell, column in holders.items() if column != NOBODY}
        self._wanted = {cell: self._cells[cell] for cell in holders}

    def want(self, wanted: Mapping[int, int]) -> set[int]:
        """These cells are to name these columns."""
        self._wanted.update(wanted)
        return self._settle(wanted)

    def forget(self, cells: Collection[int]) -> None:
        """The listener of these cells is gone, and its workers close it by themselves."""
        for cell in cells:
            self._wanted.pop(cell, None)
            self._holders.pop(cell, None)
            self._cells[cell] = NOBODY

    def released(self, column: int, step: int) -> set[int]:
        """A process has looked at the cells as of `step`."""
        if step < self._asked.get(column, 0):
            return set()
        return self._let_go(column)

    def overdue(self, column: int, step: int) -> set[int]:
        """A process that did not say so in time: it hangs, and if it wakes up it will look first."""
        return self._let_go(column) if self._asked.get(column) == step else set()

    def died(self, column: int) -> set[int]:
        """Nobody lives in the column any more."""
        for cell, wanted in self._wanted.items():
            if wanted == column:
                self._wanted[cell] = NOBODY
        return self._let_go(column)

    def holds(self, column: int) -> bool:
        """Whether the process may still poll anything."""
        return column in self._holders.values()

    def is_asked(self, column: int) -> bool:
        """Whether its word is waited for."""
        return column in self._asked

    def _let_go(self, column: int) -> set[int]:
        self._asked.pop(column, None)
        free = [cell for cell, holder in self._holders.items() if holder == column and self._wanted.get(cell) != column]
        for cell in free:
            del self._holders[cell]
        return self._settle(free)

    def _settle(self, cells: Collection[int]) -> set[int]:
        """Write what can be written now; the columns whose slots changed."""
        changed: set[int] = set()
        for cell in cells:
            wanted, holder = self._wanted.get(cell, NOBODY), self._holders.get(cell, NOBODY)
            if holder and holder != wanted and self._alive(holder):
                if self._cells[cell] != NOBODY:
                    self._cells[cell] = NOBODY
                    changed.add(holder)
                    self._asked[holder] = self._step + 1
            elif self._cells[cell] != wanted:
                self._cells[cell] = wanted
                if wanted:
                    self._holders[cell] = wanted
                    changed.add(wanted)
                else:
                    self._holders.pop(cell, None)
        if changed:
            self._step += 1
        return changed
