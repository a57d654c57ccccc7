from __future__ import annotations

from collections import Counter
from typing import Any

import attrs
import pytest

from supervisor.ground import balance, choices
from supervisor.ground.choices import Choice, make


@attrs.define(eq=False)
class Fake:
    """Of a Server what choices look at."""

    name: str
    weight: int = 1
    flights: tuple[int, ...] = (0,)

    @property
    def seed(self) -> int:
        return balance.seed(self.name)


def servers(count: int) -> list[Any]:
    return [Fake(f"user/127.0.0.1:{8100 + number}") for number in range(count)]


def arranged(way: str, among: list[Any]) -> Choice:
    table = balance.maglev([one.name for one in among], [one.weight for one in among]) if way == "maglev" else ()
    choice = make(way, 0, among, table)
    choice.arrange(among)
    return choice


WAYS = ["round_robin", "least_connections", "source_hash", "maglev", "random_two"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", [None, "10.0.0.1", b"alice", 7])
def test_every_way_picks_a_candidate_by_any_key(way: str, key: Any) -> None:
    among = servers(3)
    choice = arranged(way, among)
    assert all(choice.pick(key) in among for _ in range(5))
    assert choice.among(key, among[1:]) in among[1:]
    assert choice.among(key, among[2:]) is among[2]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("key", [None, "10.0.0.1"])
def test_no_way_picks_from_nothing(way: str, key: Any) -> None:
    among = servers(3)
    choice = arranged(way, among)
    choice.arrange([])
    assert choice.pick(key) is None


@pytest.mark.parametrize("way", WAYS)
def test_candidates_that_come_and_go_are_followed(way: str) -> None:
    among = servers(4)
    choice = arranged(way, among)
    choice.arrange(among[:1])
    assert {choice.pick("10.0.0.1") for _ in range(8)} == {among[0]}
    choice.arrange(among)
    picked = Counter(choice.pick(f"10.0.0.{number}") for number in range(200))
    assert set(picked) == set(among)


@pytest.mark.parametrize("way", ["source_hash", "maglev"])
def test_a_key_without_its_first_choice_goes_where_it_would_go_if_that_were_down(way: str) -> None:
    among = servers(5)
    for number in range(50):
        key = f"10.0.0.{number}"
        choice = arranged(way, among)
        first = choice.pick(key)
        rest = [one for one in among if one is not first]
        second = choice.among(key, rest)
        choice.arrange(rest)
        assert choice.pick(key) is second


def test_a_large_pool_compares_a_bounded_number_of_loads() -> None:
    among = servers(100)
    choice = arranged("least_connections", among)
    looked: set[int] = set()

    class Watched(tuple[int, ...]):
        def __iter__(self) -> Any:
            looked.add(id(self))
            return super().__iter__()

    for one in among:
        one.flights = Watched((0,))
    choice.pick(None)
    assert len(looked) == choices.MAX_COMPARED
