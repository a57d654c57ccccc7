"""A client's connections, counted over all workers, dead ones left out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.plane import layout, locks
from supervisor.plane.guests import REFUSED, UNCOUNTED, Guests
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane
from supervisor.plane.quotas import Quotas
from tests.supervisor.plane.children import child_that, stop


def worker(plane: Plane, number: int = 1) -> tuple[Guests, int]:
    plane.allocate(Kind.TIER, "edge")
    column = plane.claim_column("edge", number)
    return Guests(plane, "edge", column), column


def digest(plane: Plane, key: bytes) -> bytes:
    return Quotas(plane).digests("l")(key)


def test_a_client_has_as_many_as_it_may_and_another_its_own(plane: Plane) -> None:
    guests, _ = worker(plane)
    alice, bob = digest(plane, b"alice"), digest(plane, b"bob")
    places = [guests.enter(alice, 2) for _ in range(3)]
    assert min(places[:2]) >= 0
    assert places[2] == REFUSED
    assert guests.enter(bob, 2) >= 0
    guests.leave(places[0])
    assert guests.enter(alice, 2) >= 0
    assert guests.enter(alice, 2) == REFUSED


def test_workers_count_together_and_the_dead_do_not(plane: Plane) -> None:
    first, _ = worker(plane)
    second, column = worker(plane, 2)
    alice = digest(plane, b"alice")
    assert first.enter(alice, 3) >= 0
    assert [second.enter(alice, 3) >= 0 for _ in range(3)] == [True, True, False]
    assert first.enter(alice, 3) == REFUSED
    plane.reap(column)
    assert [first.enter(alice, 3) >= 0 for _ in range(3)] == [True, True, False]
    third, again = worker(plane, 3)
    assert again == column
    assert third.enter(alice, 4) >= 0
    assert first.enter(alice, 4) == REFUSED


def test_one_that_only_begins_to_count_is_seen(plane: Plane) -> None:
    plane.allocate(Kind.TIER, "edge")
    columns = [plane.claim_column("edge", number) for number in (1, 2)]
    first = Guests(plane, "edge", columns[0])
    alice = digest(plane, b"alice")
    assert first.enter(alice, 2) >= 0
    second = Guests(plane, "edge", columns[1])
    assert second.enter(alice, 2) >= 0
    assert first.enter(alice, 2) == REFUSED


def test_a_full_bucket_admits_without_a_count(plane: Plane) -> None:
    guests, _ = worker(plane)
    low = (7).to_bytes(8, "little")
    digests = [high.to_bytes(8, "little") + low for high in range(1, 2 * layout.BUCKET_ROWS + 3, 2)]
    places = [guests.enter(one, 1) for one in digests]
    assert places.index(UNCOUNTED) == layout.BUCKET_ROWS
    guests.leave(UNCOUNTED)
    guests.leave(places[3])
    assert guests.enter(digests[-1], 1) == places[3]


def test_a_stopped_process_with_the_lock_lets_others_in(plane: Plane) -> None:
    guests, _ = worker(plane)
    low = 7
    held = locks.lock(plane, low % layout.QUOTA_LOCKS)
    with child_that(held.acquire) as pid:
        stop(pid)
        assert guests.enter(bytes(8) + low.to_bytes(8, "little"), 1) == UNCOUNTED


@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([b"a", b"b", b"c"]), st.booleans()), max_size=60))
@settings(max_examples=20)  # a plane for each
def test_property_it_counts_as_a_dictionary_would(moves: list[tuple[int, bytes, bool]]) -> None:
    plane = Plane.create()
    workers = [worker(plane, number)[0] for number in (1, 2)]
    held: dict[bytes, list[tuple[int, int]]] = {b"a": [], b"b": [], b"c": []}
    for who, key, comes in moves:
        if comes:
            place = workers[who].enter(digest(plane, key), 3)
            assert (place >= 0) is (len(held[key]) < 3)
            if place >= 0:
                held[key].append((who, place))
        elif held[key]:
            who, place = held[key].pop()
            workers[who].leave(place)
    plane.close()
