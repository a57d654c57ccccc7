"""A drain: between transactions, and not all at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pooler.drain import due
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
