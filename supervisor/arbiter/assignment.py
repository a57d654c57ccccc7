"""Slots to workers, carried out: who is ready decides (`slots`), the cells change in order (`ownership`), orders go.

A tier's first workers start together; slots wait a moment for all of them, so that the first to be ready does not get
everything only to hand half of it back.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import attrs

from supervisor.arbiter import slots
from supervisor.arbiter.children import Child
from supervisor.arbiter.crew import Crew
from supervisor.arbiter.estate import HeldListener
from supervisor.arbiter.listeners import Key, Listeners
from supervisor.arbiter.loop import Loop
from supervisor.arbiter.ownership import Ownership
from supervisor.ground.orders import Slots
from supervisor.plane.heirs import name_heirs
from supervisor.plane.layout import Kind, ListenerState
from supervisor.plane.memory import Plane

RELEASE_PATIENCE = 1.0  # seconds for a worker to let go of slots; a round of the lane takes milliseconds
TOGETHER = 2.0  # seconds after the first ready worker in which its fellows may still share from the start


@attrs.define(eq=False)
class Assignment:
    """The owner cells of every listener."""

    loop: Loop
    plane: Plane
    crew: Crew
    listeners: Listeners
    _ownership: Ownership = attrs.field(init=False)
    _homes: dict[str, list[int]] = attrs.field(factory=dict, init=False)  # by row: worker numbers
    _owners: dict[str, list[int]] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._ownership = Ownership(self.plane.cells, lambda column: self.crew.in_column(column) is not None)

    def update(self, tier: str) -> None:
        """Workers of the tier came, went or became ready, or its listeners changed."""
        # A predecessor stands before its successor among the children: of two that serve, the successor counts.
        serving = {child.role.number: child.column for child in self.crew.of(tier) if child.serving}
        if self._waits_for_fellows(tier, serving):
            return
        numbers = {role.number for role in self.crew.wanted if role.name == tier}
        wanted: dict[int, int] = {}
        for key in self.listeners.keys(tier):
            nobody = [slots.NOBODY] * self.listeners.slots
            homes = slots.settle(self._homes.get(key.row, nobody), numbers)
            owners = slots.assign(self._owners.get(key.row, nobody), homes, serving.keys())
            self._homes[key.row], self._owners[key.row] = homes, owners
            columns = [serving.get(number, 0) for number in owners]
            wanted |= dict(zip(self._cells(key), columns, strict=True))
            name_heirs(self.plane, self.plane.row(Kind.LISTENER, key.row), columns)  # before anybody lets go
        self._notify(self._ownership.want(wanted))

    # -- over an upgrade

    def describe(self, key: Key) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of each slot the home (a worker's number) and the column that may poll it."""
        nobody = [slots.NOBODY] * self.listeners.slots
        homes = self._homes.get(key.row, nobody)
        return tuple(homes), tuple(self._ownership.holder(cell) for cell in self._cells(key))

    @property
    def pending(self) -> tuple[int, dict[int, int]]:
        """The last step, and whose word about which step is waited for."""
        return self._ownership.step, dict(self._ownership.asked)

    def restore(self, step: int, asked: Mapping[int, int], held: Iterable[HeldListener]) -> None:
        """Go on as another supervisor has left it; its children are in the crew. Listeners that are no more belong to
        nobody from now on."""
        numbers = {child.column: child.role.number for child in self.crew.children.values()}
        still = {key.row for key in self.listeners.all()}
        holders: dict[int, int] = {}
        for listener in held:
            cells = self._cells(listener.key)
            if listener.key.row not in still:
                self._ownership.forget(cells)
                continue
            if not listener.holders:  # new, and perhaps on another address under an old name
                continue
            holders |= dict(zip(cells, listener.holders, strict=False))
            self._homes[listener.key.row] = list(listener.homes)
            self._owners[listener.key.row] = [numbers.get(column, slots.NOBODY) for column in listener.holders]
        self._ownership.restore(step, asked, holders)
        for column in asked:
            child = self.crew.in_column(column)
            if child is not None:
                self._expect(column, child.incarnation, asked[column])

    # -- who says what

    def retitle(self, tier: str) -> None:
        """The number of a tier's workers has changed, and with it the titles of all."""
        for child in self.crew.of(tier):
            title = self.crew.title(child.role)
            if child.title != title and not child.retiring:
                child.title = title
                self.crew.tell(child, Slots(self._ownership.step, title))

    def released(self, child: Child, step: int) -> None:
        """A worker has looked at the cells."""
        self._notify(self._ownership.released(child.column, step))

    def died(self, child: Child) -> None:
        """After its column was reaped."""
        self._ownership.died(child.column)
        self.update(child.role.name)

    def forget(self, keys: Iterable[Key]) -> None:
        """Listeners that are gone."""
        for key in keys:
            self._ownership.forget(self._cells(key))
            self._homes.pop(key.row, None)
            self._owners.pop(key.row, None)

    def holds(self, child: Child) -> bool:
        """Whether it may still poll anything."""
        return self._ownership.holds(child.column)

    def _waits_for_fellows(self, tier: str, serving: dict[int, int]) -> bool:
        if not serving or any(any(self._owners.get(key.row, ())) for key in self.listeners.keys(tier)):
            return False
        fellows = [child for child in self.crew.of(tier) if not child.retiring]
        if all(child.ready for child in fellows):
            return False
        first = min(child.ready_at for child in fellows if child.ready_at is not None)
        remaining = first + TOGETHER - time.monotonic()
        if remaining <= 0:
            return False
        self.loop.after(remaining, lambda: self.update(tier))
        return True

    def _notify(self, columns: Iterable[int]) -> None:
        step = self._ownership.step
        for column in columns:
            child = self.crew.in_column(column)
            if child is None:
                continue
            self.crew.tell(child, Slots(step, child.title))
            if self._ownership.is_asked(column):
                self._expect(column, child.incarnation, step)

    def _expect(self, column: int, incarnation: int, step: int) -> None:
        def overdue() -> None:
            child = self.crew.in_column(column)
            if child is not None and child.incarnation == incarnation:
                self._notify(self._ownership.overdue(column, step))

        self.loop.after(RELEASE_PATIENCE, overdue)

    def _cells(self, key: Key) -> range:
        start = self.plane.state(Kind.LISTENER, self.plane.row(Kind.LISTENER, key.row)) + ListenerState.OWNER
        return range(start, start + self.listeners.slots)
