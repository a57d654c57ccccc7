"""A drain: between transactions, and not all at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pooler.drain import due
from supervisor.ground import health
from supervisor.plane.layout import Admin, Kind
from tests.pooler.stage import Stage

Make = Callable[..., Stage]


def test_sessions_end_when_their_transaction_does(stage: Make) -> None:
    for mode in ("transaction", "session"):
        playing = stage(database=f'pool_mode = "{mode}"')
        client = playing.client()
        client.ask("BEGIN")
        playing.runtime.drain()
        playing.lane.advance(6)
        assert client.ask("SELECT 1") == "DCT"
        assert playing.runtime.holding()[0] == "client 127.0.0.1:50000 of app/app"
        assert client.ask("COMMIT") == "CIE"
        assert client.ended
        playing.lane.advance(1)
        assert playing.runtime.holding() == []
        playing.close()
        playing.plane.reap(playing.worker.column)


def test_the_silent_are_ended_in_the_second_half(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    clients = [playing.client() for _ in range(10)]
    half_in = playing.client(log_in=False)
    playing.runtime.drain()
    playing.lane.advance(4.5)
    assert not any(client.kinds() for client in clients)
    playing.lane.advance(3)
    told = [client.kinds() for client in clients].count("E")
    assert 2 <= told <= 8
    playing.lane.advance(3)
    assert told + [client.kinds() for client in clients].count("E") == 10
    assert half_in.ended
    assert playing.runtime.holding() == []


def test_who_waits_gets_its_turn_before_the_end(stage: Make) -> None:
    playing = stage()
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    assert waiter.ask("SELECT 1") == ""
    playing.runtime.drain()
    assert holder.ask("COMMIT") == "CIE"
    assert waiter.kinds() == "DCIE"


def test_as_many_as_will_be_gone_in_time() -> None:
    assert due(10, 4.9, 10, 0.1) == 0
    assert due(10, 5, 10, 0.1) == pytest.approx(0.2)
    assert due(100, 5, 10, 0.1) == pytest.approx(2)
    assert due(7, 9.95, 10, 0.1) == 7
    assert due(3, 20, 10, 0.1) == 3
    assert due(0, 9, 10, 0.1) == 0


# -- a server that is taken out by hand


def take_out(playing: Stage, value: int = Admin.DRAINING) -> None:
    """The one at port 5432, as the operator does."""
    plane = playing.plane
    row = plane.row(Kind.SERVER, "pg/127.0.0.1:5432")
    health.set_admin(plane, plane.row(Kind.POOL, "pg"), row, value, 0)
    playing.lane.advance(0.2)


def test_a_connection_to_a_server_that_drains_is_closed_when_its_transaction_ends(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    idle, busy = playing.client(), playing.client()
    busy.ask("BEGIN")
    assert idle.ask("SELECT 1") == "DCI"
    assert len(playing.postgres.alive) == 2
    take_out(playing)
    assert len(playing.postgres.alive) == 1
    assert busy.ask("SELECT 1") == "DCT"
    assert busy.ask("COMMIT") == "CI"
    playing.lane.advance(0.2)
    assert not playing.postgres.alive
    assert idle.ask("SELECT 1") == "E"  # there is no other server
    assert idle.ended
    take_out(playing, Admin.NORMAL)
    playing.lane.advance(20)
    assert busy.ask("SELECT 1") == "DCI"


def test_a_transaction_that_goes_on_when_the_time_is_over_is_ended(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    client.ask("BEGIN")
    take_out(playing, Admin.MAINTENANCE)
    playing.lane.advance(9)
    assert client.ask("SELECT 1") == "DCT"
    playing.lane.advance(1.5)
    error = client.error()
    assert (error["C"], error["S"]) == ("57P01", "FATAL")
    assert "drained" in error["M"]
    assert client.ended
    playing.settled()
    assert not playing.postgres.alive


def test_sessions_that_keep_their_server_end_in_the_second_half(stage: Make) -> None:
    playing = stage(database='pool_mode = "session"\npool_size = 10')
    clients = [playing.client() for _ in range(10)]
    for client in clients:
        assert client.ask("SELECT 1") == "DCI"
    clients[0].ask("BEGIN")
    take_out(playing)
    playing.lane.advance(4.5)
    assert not any(client.kinds() for client in clients)
    playing.lane.advance(3)
    ended = [client for client in clients if client.kinds() == "E"]
    assert 2 <= len(ended) <= 8
    assert clients[0] not in ended
    playing.lane.advance(3)
    assert clients[0].error()["C"] == "57P01"
    ended += [client for client in clients[1:] if client.kinds() == "E"]
    assert len(ended) == 9
    assert all(client.ended for client in clients)
    playing.settled()
