"""Cancel requests: to the right query or to none."""

from __future__ import annotations

from collections.abc import Callable

from pooler.keys import column_of
from pooler.messages import query
from pooler.orders import Cancel, Canceled
from supervisor.plane.layout import ProcessState
from tests.pooler.stage import Player, Stage

Make = Callable[..., Stage]


def cancel(playing: Stage, key: bytes) -> Player:
    """The connection that brings a cancel request."""
    request = playing.client(log_in=False)
    request.send((8 + len(key)).to_bytes(4, "big") + (80877102).to_bytes(4, "big") + key)
    return request


def test_a_running_query_is_cancelled(stage: Make) -> None:
    for minor in (0, 2):
        playing = stage()
        client = playing.client(minor=minor)
        client.send(query("SLEEP"))
        request = cancel(playing, client.key)
        playing.lane.advance(0.2)
        assert client.error()["C"] == "57014"
        assert request.ended
        assert client.ask("SELECT 1") == "DCI"
        playing.lane.finish()
        playing.plane.reap(playing.worker.column)


def test_an_idle_client_and_a_wrong_key_cancel_nothing(stage: Make) -> None:
    playing = stage()
    idle, busy = playing.client(), playing.client()
    busy.send(query("SLEEP"))
    for key in (idle.key, busy.key[:4] + bytes(4), b"\0\0\0\x01abcd", b"\xff\xff\xff\xffabcd"):
        assert cancel(playing, key).ended
    playing.lane.advance(1)
    assert not playing.postgres.cancels
    assert busy.kinds() == ""


def test_who_waits_leaves_the_queue_and_stays_connected(stage: Make) -> None:
    playing = stage()
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    for sent, kinds in ((query("SELECT 1"), "EI"), (waiter.batch("SELECT 1"), "EI")):
        waiter.send(sent)
        assert cancel(playing, waiter.key).ended
        assert waiter.kinds() == kinds
    waiter.send(query("SELECT 1") + query("SELECT 2"))
    cancel(playing, waiter.key)
    assert waiter.kinds() == "EI"
    assert holder.ask("COMMIT") == "CI"
    assert waiter.kinds() == "DCI"
    assert playing.postgres.backends[0].queries == ["BEGIN", "COMMIT", "SELECT 2"]


def test_a_server_goes_to_nobody_while_a_cancel_is_on_its_way(stage: Make) -> None:
    playing = stage()
    client, other = playing.client(), playing.client()
    client.send(query("SLEEP"))
    backend = playing.postgres.backends[0]
    held = []

    def accept(conn):  # type: ignore[no-untyped-def]
        """Takes the cancel request and keeps its connection open."""
        held.append(conn)

    playing.lane.servers[("127.0.0.1", 5432)] = accept
    request = cancel(playing, client.key)
    backend.canceled += 1  # the query ends, for whatever reason
    playing.lane.advance(0.2)
    assert client.kinds() == "EI"
    assert other.ask("SELECT 1") == ""
    assert not request.ended
    held[0].close()
    playing.lane.run()
    assert other.kinds() == "DCI"
    assert request.ended


def test_a_command_of_ours_is_not_the_clients_to_cancel(stage: Make) -> None:
    playing = stage(database='pool_mode = "session"', pooler='server_reset_query = "SLEEP"')
    client = playing.client()
    client.ask("SELECT 1")
    server = next(iter(playing.pool.servers))
    client.send(query("SELECT 2"))
    server.own = True
    cancel(playing, client.key)
    assert not playing.postgres.cancels
    server.own = False


def test_a_key_of_another_worker_is_sent_there(stage: Make) -> None:
    playing = stage()
    other = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(other, ProcessState.READY)
    key = (other << 24 | 5).to_bytes(4, "big") + b"abcd"
    assert column_of(int.from_bytes(key[:4], "big")) == other
    request = cancel(playing, key)
    ((column, order, _),) = playing.mailbox.sent
    assert column == other
    assert isinstance(order, Cancel)
    assert (order.pid, order.secret, order.column) == (other << 24 | 5, b"abcd".hex(), playing.worker.column)
    assert not request.ended
    playing.runtime.receive(Canceled(order.number + 1), ())
    playing.lane.run()
    assert not request.ended
    playing.runtime.receive(Canceled(order.number), ())
    playing.lane.run()
    assert request.ended


def test_a_worker_that_does_not_answer_is_not_waited_for(stage: Make) -> None:
    playing = stage()
    other = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(other, ProcessState.READY)
    request = cancel(playing, (other << 24).to_bytes(4, "big") + b"abcd")
    playing.lane.advance(7)
    assert request.ended


def test_another_workers_order_is_carried_out_and_answered(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    client.send(query("SLEEP"))
    pid, secret = int.from_bytes(client.key[:4], "big"), client.key[4:].hex()
    playing.runtime.receive(Cancel(pid, secret, 9, 77), ())
    playing.lane.advance(0.2)
    assert client.error()["C"] == "57014"
    assert playing.mailbox.sent == [(9, Canceled(77), ())]
