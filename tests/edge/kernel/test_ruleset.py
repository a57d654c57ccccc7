from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.kernel.ruleset import MAGLEV_SLOTS, SOURCE_SLOTS, Front, Target, slots, transaction


def target(number: int, weight: int = 1) -> Target:
    return Target(f"p/10.0.0.{number}:80", number, f"10.0.0.{number}", 80, weight)


def front(balance: str = "round_robin", *servers: Target, **more: Any) -> Front:
    servers = servers or (target(1), target(2))
    keys = {"name": "web", "row": 7, "host": "192.0.2.1", "port": 80, "protocol": "tcp", "usable": servers, **more}
    return Front(balance=balance, servers=servers, **keys)


def commands(*fronts: Front, before: tuple[Front, ...] | None = None) -> list[tuple[str, str, str]]:
    """Verb, kind and name of each, rules by their chain."""
    found = []
    for command in transaction("portway_x", fronts, before)["nftables"]:
        [(verb, thing)] = command.items()
        [(kind, value)] = thing.items()
        assert value.get("table", value.get("name")) == "portway_x"
        found.append((verb, kind, value.get("chain", value.get("name", ""))))
    return found


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("nft"), reason="nft's own check of the rules needs root")
def test_nft_takes_every_form() -> None:
    six = [Target(f"p/[fd00::{number}]:80", number, f"fd00::{number}", 80) for number in (1, 2)]
    fronts = [
        front(),
        front("source_hash", row=8, protocol="udp", host="0.0.0.0", masquerade=False),
        front("maglev", *six, row=9, host="::", port=81),
        front("maglev", six[0], row=10, host="fd01::1"),
        front(row=11, usable=()),
    ]
    text = json.dumps(transaction("portway_test", fronts, None))
    done = subprocess.run(["nft", "-j", "-c", "-f", "-"], input=text.encode(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_the_first_transaction_takes_whatever_was_there() -> None:
    assert commands(front())[:3] == [("add", "table", "portway_x"), ("delete", "table", "portway_x"),
                                     ("add", "table", "portway_x")]  # fmt: skip


def test_a_change_keeps_the_counters_and_deletes_what_nobody_needs() -> None:
    two, one = front(), front("round_robin", target(1))
    told = commands(one, before=(two,))
    assert told[:2] == [("add", "table", "portway_x"), ("flush", "table", "portway_x")]
    deleted = [(kind, name) for verb, kind, name in told if verb == "delete"]
    assert deleted == [
        ("chain", "listener_7_server_2"),
        ("counter", "listener_7_server_2_new"),
        ("counter", "listener_7_server_2_in"),
        ("counter", "listener_7_server_2_out"),
    ]
    # What jumps there goes before: the flush comes first, the deletions last.
    assert [verb for verb, _, _ in told[-4:]] == ["delete"] * 4


def test_without_listeners_the_table_goes() -> None:
    assert commands() == [("add", "table", "portway_x"), ("delete", "table", "portway_x")]


def test_a_listener_without_usable_servers_is_left_to_the_workers_and_still_counted() -> None:
    chains = [name for verb, kind, name in commands(front(usable=())) if kind == "rule"]
    assert "prerouting" not in chains
    assert "listener_7" in chains


def test_round_robin_spreads_by_weight() -> None:
    assert Counter(server.row for server in slots(front("round_robin", target(1, 3), target(2)))) == {1: 3, 2: 1}


def drop(one: Front, index: int) -> Front:
    return attrs.evolve(one, usable=one.usable[:index] + one.usable[index + 1 :])


@pytest.mark.parametrize(("balance", "size"), [("maglev", MAGLEV_SLOTS), ("source_hash", SOURCE_SLOTS)])
def test_a_server_that_goes_moves_its_own_clients_only(balance: str, size: int) -> None:
    one = front(balance, *(target(number) for number in range(1, 11)))
    before, after = slots(one), slots(drop(one, 3))
    assert len(before) == len(after) == size
    moved = [old.row for old, new in zip(before, after, strict=True) if old is not new]
    assert set(moved) == {4}
    assert 0.07 < len(moved) / size < 0.13
    # Those that move are spread over the others.
    new = Counter(slots(drop(one, 3))[at].row for at, server in enumerate(before) if server.row == 4)
    assert len(new) == 9


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=6), st.data())
def test_every_slot_has_a_usable_server(weights: list[int], data: st.DataObject) -> None:
    servers = tuple(target(number + 1, weight) for number, weight in enumerate(weights))
    usable = tuple(data.draw(st.lists(st.sampled_from(servers), min_size=1, unique=True)))
    for balance in ("round_robin", "source_hash", "maglev"):
        assert set(slots(front(balance, *servers, usable=usable))) <= set(usable)
