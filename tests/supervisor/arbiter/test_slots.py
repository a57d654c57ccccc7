"""Slot assignment: even, stable, and the same slots return to a successor."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from supervisor.arbiter.slots import NOBODY, assign, settle

counts = st.integers(1, 64)
numbers = st.sets(st.integers(1, 12), min_size=1)


def fresh(slots: int, workers: set[int]) -> list[int]:
    return settle([NOBODY] * slots, workers)


def moves(old: list[int], new: list[int]) -> int:
    return sum(a != b for a, b in zip(old, new, strict=True))


def test_two_workers_share_eight_slots() -> None:
    assert Counter(fresh(8, {1, 2})) == {1: 4, 2: 4}


def test_nobody_live_means_nobody_owns() -> None:
    assert assign([1, 2], [1, 2], set()) == [NOBODY, NOBODY]


def test_a_dead_workers_slots_go_to_the_others_and_come_back() -> None:
    homes = fresh(9, {1, 2, 3})
    without = assign(homes, homes, {1, 3})
    assert 2 not in without
    assert all(now == home for now, home in zip(without, homes, strict=True) if home != 2)
    assert assign(without, homes, {1, 2, 3}) == homes


def test_a_second_death_moves_only_what_the_second_polled() -> None:
    homes = fresh(8, {1, 2, 3, 4})
    first = assign(homes, homes, {2, 3, 4})
    second = assign(first, homes, {2, 3})
    assert all(after == before for before, after in zip(first, second, strict=True) if before != 4)


def test_a_third_worker_takes_only_its_share() -> None:
    homes = fresh(9, {1, 2})
    wider = settle(homes, {1, 2, 3})
    assert moves(homes, wider) == 3
    assert Counter(wider) == {1: 3, 2: 3, 3: 3}


@given(counts, numbers, numbers)
def test_property_even_and_only_live_owners(slots: int, before: set[int], live: set[int]) -> None:
    homes = fresh(slots, before)
    owners = assign(homes, homes, live)
    load = Counter(dict.fromkeys(live, 0) | Counter(owners))
    assert set(owners) <= live
    assert max(load.values()) - min(load.values()) <= 1


@given(counts, numbers, numbers)
def test_property_no_more_moves_than_an_even_spread_needs(slots: int, before: set[int], live: set[int]) -> None:
    homes = fresh(slots, before)
    owners = assign(homes, homes, live)
    # The best possible keeps for each survivor at most the larger share, the larger shares given to whom has most.
    kept = Counter(owner for owner in homes if owner in live)
    share, larger = divmod(slots, len(live))
    best = 0
    for rank, (_, held) in enumerate(kept.most_common()):
        best += min(held, share + (rank < larger))
    assert slots - moves(homes, owners) == best


@given(counts, numbers, st.data())
def test_property_a_successor_gets_back_what_was_its(slots: int, workers: set[int], data: st.DataObject) -> None:
    homes = fresh(slots, workers)
    owners = homes
    for live in data.draw(st.lists(st.sets(st.sampled_from(sorted(workers))), max_size=4)):
        owners = assign(owners, homes, live)
    assert assign(owners, homes, workers) == homes
