"""How sessions end."""

from __future__ import annotations

from collections.abc import Callable

from pooler.messages import message, query
from supervisor.plane.layout import Kind, Listener
from tests.pooler.stage import Stage

Make = Callable[..., Stage]


def test_an_idle_client_is_ended_after_its_time(stage: Make) -> None:
    for mode in ("transaction", "session"):
        playing = stage(database=f'pool_mode = "{mode}"', pooler='client_idle_timeout = "5s"')
        client = playing.client()
        client.ask("BEGIN")
        playing.lane.advance(10)  # in a transaction it is not idle
        assert client.ask("COMMIT") == "CI"
        playing.lane.advance(4)
        assert client.ask("SELECT 1") == "DCI"
        playing.lane.advance(7)
        assert client.error()["M"] == "terminating connection due to client_idle_timeout"
        assert client.ended
        playing.settled()
        playing.close()
        playing.plane.reap(playing.worker.column)


def test_a_client_that_takes_no_farewell_is_closed(stage: Make) -> None:
    playing = stage(database='pool_mode = "statement"')
    client = playing.client(capacity=1)
    client.send(query("BEGIN"))
    client.kinds()
    playing.lane.advance(8)
    assert not playing.runtime.clients


def test_counts_come_back_to_zero(stage: Make) -> None:
    playing = stage()
    clients = [playing.client() for _ in range(5)]
    row = playing.plane.row(Kind.LISTENER, "pooler/main")
    assert playing.plane.total(Kind.LISTENER, row, Listener.ACTIVE) == 5
    for number, client in enumerate(clients):
        if number % 2:
            client.conn.abort()
        else:
            client.send(message(b"X"))
    playing.lane.run()
    assert playing.plane.total(Kind.LISTENER, row, Listener.ACTIVE) == 0
    assert playing.plane.total(Kind.LISTENER, row, Listener.RESETS) == 2
    playing.settled()
