"""Owner cells: handed from worker to worker through nobody, and never polled by two."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from supervisor.arbiter.ownership import NOBODY, Ownership

A, B, C = 2, 3, 4


def ownership(*alive: int) -> tuple[Ownership, list[int], set[int]]:
    cells, living = [0] * 4, set(alive)
    return Ownership(cells, living.__contains__), cells, living


def test_a_slot_that_nobody_holds_is_given_at_once() -> None:
    owners, cells, _ = ownership(A)
    assert owners.want({0: A, 1: A}) == {A}
    assert cells == [A, A, 0, 0]
    assert owners.want({0: A, 1: A}) == set(), "nothing new, nobody is disturbed"


def test_between_two_living_workers_the_slot_is_nobodys_until_the_old_one_says_so() -> None:
    owners, cells, _ = ownership(A, B)
    owners.want({0: A, 1: A})
    assert owners.want({1: B}) == {A}
    assert cells[:2] == [A, NOBODY]
    assert owners.holds(A)
    assert owners.released(A, owners.step) == {B}
    assert cells[:2] == [A, B]


def test_a_word_about_an_older_step_is_not_enough() -> None:
    owners, cells, _ = ownership(A, B)
    owners.want({0: A})
    early = owners.step
    owners.want({0: B})
    assert owners.released(A, early) == set()
    assert cells[0] == NOBODY
    assert owners.is_asked(A)


def test_a_dead_owner_is_not_asked() -> None:
    owners, cells, living = ownership(A, B)
    owners.want({0: A, 1: A})
    living.discard(A)
    owners.died(A)
    assert owners.want({0: B, 1: B}) == {B}
    assert cells == [B, B, 0, 0]


def test_a_hand_over_to_one_that_dies_goes_elsewhere_when_released() -> None:
    owners, cells, living = ownership(A, B, C)
    owners.want({0: A})
    owners.want({0: B})
    living.discard(B)
    owners.died(B)
    assert owners.want({0: C}) == set()
    assert owners.released(A, owners.step) == {C}
    assert cells[0] == C


def test_changing_ones_mind_gives_it_back() -> None:
    owners, cells, _ = ownership(A, B)
    owners.want({0: A})
    owners.want({0: B})
    assert owners.want({0: A}) == {A}
    assert cells[0] == A
    assert owners.released(A, owners.step) == set()
    assert cells[0] == A


def test_another_supervisor_goes_on_in_the_middle_of_a_hand_over() -> None:
    owners, cells, living = ownership(A, B, C)
    owners.want({0: A, 1: A, 2: B})
    owners.want({0: B})
    left = (owners.step, owners.asked, {cell: owners.holder(cell) for cell in range(4)})
    successor = Ownership(cells, living.__contains__)
    successor.restore(*left)
    assert successor.holds(A)
    assert successor.want({0: C, 1: A, 2: B}) == set(), "A may still poll it"
    assert successor.released(A, left[0]) == {C}
    assert cells == [C, A, B, NOBODY]


def test_a_silent_worker_is_passed_over_after_its_time() -> None:
    owners, cells, _ = ownership(A, B)
    owners.want({0: A})
    owners.want({0: B})
    asked = owners.step
    assert owners.overdue(A, asked - 1) == set(), "that was about something else"
    assert owners.overdue(A, asked) == {B}
    assert cells[0] == B


def test_giving_up_everything_ends_in_holding_nothing() -> None:
    owners, _, _ = ownership(A)
    owners.want({0: A})
    owners.want({0: NOBODY})
    assert owners.holds(A)
    owners.released(A, owners.step)
    assert not owners.holds(A)


def test_a_removed_listener_is_forgotten() -> None:
    owners, cells, _ = ownership(A, B)
    owners.want({0: A})
    owners.forget([0])
    assert cells[0] == NOBODY
    assert not owners.holds(A)
    assert owners.want({0: B}) == {B}


class Workers(RuleBasedStateMachine):
    """Workers that look and answer whenever they like, and die; the cells change under them."""

    columns = st.sampled_from([A, B, C])

    def __init__(self) -> None:
        super().__init__()
        self.owners, self.cells, self.living = ownership(A, B, C)
        self.polled: dict[int, set[int]] = {A: set(), B: set(), C: set()}
        self.inbox: dict[int, list[int]] = {A: [], B: [], C: []}
        self.answers: list[tuple[int, int]] = []
        self.wanted: dict[int, int] = {}

    def notify(self, columns: set[int]) -> None:
        for column in columns:
            if column in self.living:
                self.inbox[column].append(self.owners.step)

    @rule(wanted=st.dictionaries(st.integers(0, 3), columns, min_size=1))
    def want(self, wanted: dict[int, int]) -> None:
        wanted = {cell: column for cell, column in wanted.items() if column in self.living}
        self.wanted.update(wanted)
        self.notify(self.owners.want(wanted))

    @rule(column=columns)
    def look(self, column: int) -> None:
        if column in self.living:
            self.polled[column] = {cell for cell, owner in enumerate(self.cells) if owner == column}
            if self.inbox[column]:
                self.answers.append((column, self.inbox[column].pop(0)))

    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        if self.answers:
            column, step = self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1)))
            if column in self.living:
                self.notify(self.owners.released(column, step))

    @rule(column=columns)
    def die(self, column: int) -> None:
        if len(self.living) > 1 and column in self.living:
            self.living.discard(column)
            self.polled[column] = set()
            self.inbox[column] = []
            self.wanted = {cell: owner for cell, owner in self.wanted.items() if owner != column}
            self.notify(self.owners.died(column))

    @invariant()
    def no_slot_is_polled_twice(self) -> None:
        for cell in range(4):
            assert sum(cell in polled for polled in self.polled.values()) <= 1

    def teardown(self) -> None:
        while any(self.inbox[column] for column in self.living) or self.answers:
            for column in list(self.living):
                self.look(column)
            while self.answers:
                column, step = self.answers.pop(0)
                if column in self.living:
                    self.notify(self.owners.released(column, step))
        assert {cell: self.cells[cell] for cell in self.wanted} == self.wanted, "everyone has what it should have"


TestWorkers = Workers.TestCase
TestWorkers.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
