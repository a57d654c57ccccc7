import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.ground import balance
from supervisor.ground.balance import MAGLEV_SIZE, key_hash, least, maglev, probe, rank, schedule, seed

NAMES = [f"game/10.0.0.{number}:7000" for number in range(1, 11)]
SEEDS = [seed(name) for name in NAMES]
EVEN = [1] * len(NAMES)


def test_equal_weights_go_round() -> None:
    assert schedule([1, 1, 1]) == [0, 1, 2]
    assert schedule([7, 7]) == [0, 1]
    assert schedule([]) == []


def test_turns_of_a_heavy_server_are_spread_over_the_round() -> None:
    assert schedule([3, 1]) == [0, 0, 1, 0]
    assert schedule([4, 4, 1]) == [0, 1, 0, 1, 2, 0, 1, 0, 1]


@given(st.lists(st.integers(1, 256), min_size=1, max_size=12))
def test_property_a_round_gives_each_its_weight_and_no_long_runs(weights: list[int]) -> None:
    turns = schedule(weights)
    assert len(turns) <= balance.MAX_SCHEDULE
    counts = Counter(turns)
    scale = len(turns) / sum(weights)
    for index, weight in enumerate(weights):
        assert abs(counts[index] - weight * scale) <= 1 + 0.02 * weight * scale
        places = [place for place, turn in enumerate(turns) if turn == index]
        gap = len(turns) / counts[index]
        assert all(after - before <= 2 * gap + len(weights) for before, after in pairwise(places))


def test_the_least_loaded_for_its_weight_wins() -> None:
    assert least([3, 2, 5], [1, 1, 1]) == 1
    assert least([3, 2, 5], [1, 1, 4]) == 2
    assert least([0, 0], [1, 2]) == 1


def test_ties_go_round() -> None:
    assert [least([0, 0, 0], [1, 1, 1], start) for start in range(4)] == [0, 1, 2, 0]


def test_the_same_key_hashes_the_same_in_every_process() -> None:
    code = "from supervisor.ground.balance import key_hash, seed; print(key_hash('10.1.2.3'), seed('a/b:1'))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.split() == [str(key_hash("10.1.2.3")), str(seed("a/b:1"))]


def test_a_mapped_address_counts_as_the_address_it_maps() -> None:
    assert key_hash("::ffff:10.1.2.3") == key_hash("10.1.2.3") == key_hash(b"10.1.2.3")
    assert key_hash("::1") != key_hash("10.1.2.3") != key_hash(5)


def test_these_picks_are_fixed_for_all_time() -> None:
    """A change here moves every client of every user at the next restart."""
    assert key_hash("192.0.2.1") == 0xDB610037
    assert [rank(slot, SEEDS, EVEN)[0] for slot in range(8)] == [5, 2, 1, 4, 5, 6, 8, 4]
    assert list(maglev(NAMES, EVEN)[:8]) == [6, 7, 5, 9, 2, 9, 3, 0]


def test_a_removed_server_moves_only_its_own_slots() -> None:
    gone = 3
    left = [index for index in range(len(NAMES)) if index != gone]
    for slot in range(2000):
        before = rank(slot, SEEDS, EVEN)
        after = rank(slot, [SEEDS[index] for index in left], [1] * len(left))
        assert [left[index] for index in after] == [index for index in before if index != gone]


@pytest.mark.parametrize("weights", [EVEN, [2, 1, 1, 1, 1, 1, 1, 1, 1, 4]])
def test_slots_are_spread_as_the_weights_say(weights: list[int]) -> None:
    counts = Counter(rank(slot, SEEDS, weights)[0] for slot in range(balance.SOURCE_SLOTS))
    for index, weight in enumerate(weights):
        expected = balance.SOURCE_SLOTS * weight / sum(weights)
        assert abs(counts[index] - expected) < 0.1 * expected


def test_neighbouring_addresses_are_spread() -> None:
    slots = Counter(
        rank(key_hash(f"10.0.{third}.{last}") % balance.SOURCE_SLOTS, SEEDS, EVEN)[0]
        for third in range(8)
        for last in range(256)
    )
    assert max(slots.values()) < 1.35 * min(slots.values())


def test_maglev_is_even_and_full() -> None:
    counts = Counter(maglev(NAMES, EVEN))
    assert set(counts) == set(range(10))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_maglev_follows_weights() -> None:
    counts = Counter(maglev(NAMES[:3], [1, 2, 5]))
    assert [round(counts[index] / MAGLEV_SIZE, 3) for index in range(3)] == [0.125, 0.25, 0.625]


def test_maglev_moves_about_one_nth_when_one_of_n_goes() -> None:
    before = maglev(NAMES, EVEN)
    after = maglev(NAMES[:4] + NAMES[5:], EVEN[:-1])
    names = NAMES[:4] + NAMES[5:]
    moved = sum(NAMES[one] != names[other] for one, other in zip(before, after, strict=True))
    assert 0.1 <= moved / MAGLEV_SIZE < 0.16


def test_maglev_does_not_depend_on_the_order_of_the_configuration() -> None:
    shuffled = NAMES[5:] + NAMES[:5]
    one, other = maglev(NAMES, EVEN), maglev(shuffled, EVEN)
    assert [NAMES[index] for index in one[:3000]] == [shuffled[index] for index in other[:3000]]


def test_a_server_that_is_down_moves_only_its_own_keys() -> None:
    table = maglev(NAMES, EVEN)
    heirs = Counter[int]()
    for key in (key_hash(f"10.0.{third}.{last}") for third in range(20) for last in range(250)):
        home = probe(table, key, lambda index: True)
        heir = probe(table, key, lambda index: index != 2)
        if home != 2:
            assert heir == home
        else:
            heirs[heir] += 1
    assert set(heirs) == set(range(10)) - {2}
    assert max(heirs.values()) < 2.5 * min(heirs.values())


def test_a_table_of_servers_that_are_all_down_gives_none() -> None:
    assert probe(maglev(NAMES, EVEN), 7, lambda index: False) == -1
