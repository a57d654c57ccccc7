"""The connections of a worker as rows."""

from __future__ import annotations

import pytest

from pooler.console import sockets
from pooler.messages import message, query
from tests.pooler.console.operator import POOLER, Make, console


def test_holders_say_who_and_why(stage: Make) -> None:
    playing = stage(pooler=POOLER, database="pool_size = 3")
    idle, busy, copying = playing.client(application_name="mine"), playing.client(), playing.client()
    idle.ask("BEGIN")
    idle.ask("SELECT  'what I\n did'")
    busy.send(query("SLEEP"))
    copying.send(query("COPY x FROM STDIN"))
    playing.lane.advance(2)
    asked = console(playing)
    held = {row["query"]: row for row in asked.rows("SHOW HOLDERS")}
    assert held["SELECT 'what I did'"]["reason"] == "in a transaction"
    assert held["SELECT 'what I did'"]["application_name"] == "mine"
    assert held["SELECT 'what I did'"]["transaction"] == "open"
    assert held["SLEEP"]["reason"] == "query running"
    assert int(held["SLEEP"]["seconds"]) >= 1
    assert held["COPY x FROM STDIN"]["reason"] == "COPY FROM STDIN"
    assert {row["state"] for row in asked.rows("SHOW CLIENTS")} == {"active"}
    asked.send(query(f"KILL_CLIENT {held['SLEEP']['client_id']}"))
    playing.lane.advance(6)
    assert asked.kinds() == "CI"
    assert busy.error()["C"] == "57P01"
    assert asked.refused("KILL_CLIENT 7")["C"] == "42704"


def test_active_sockets_are_those_that_are_not_idle(stage: Make) -> None:
    playing = stage(pooler=POOLER, database="pool_size = 3")
    idle, busy = playing.client(), playing.client()
    busy.ask("BEGIN")
    idle.ask("SELECT 1")
    asked = console(playing)
    everyone = sorted((str(row["type"]), str(row["state"]), row["recv_pos"]) for row in asked.rows("SHOW SOCKETS"))
    assert everyone == [("C", "active", "0"), ("C", "idle", "0"), ("S", "active", "0"), ("S", "idle", "0")]
    active = asked.rows("SHOW ACTIVE_SOCKETS")
    assert sorted((str(row["type"]), str(row["state"])) for row in active) == [("C", "active"), ("S", "active")]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (query("SELECT  1"), "SELECT 1"),
        (query("BEGIN") + query("SELECT 2"), "SELECT 2"),
        (message(b"P", b"s\0SELECT $1\0\0\0") + message(b"S"), "SELECT $1"),
        (message(b"B", bytes(8)) + message(b"E", bytes(5)) + message(b"S"), "(a prepared statement)"),
        (query("x" * 500), "x" * 200),
        (query("SELECT 1")[:9], "SELE"),
        (b"\0\0\0\0\0\0", ""),
        (b"", ""),
    ],
)
def test_the_last_query_of_what_was_sent(data: bytes, shown: str) -> None:
    assert sockets.last_query(data) == shown
