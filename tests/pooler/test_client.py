"""How sessions end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

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


BATCH = message(b"P", b"\0SELECT 1\0\0\0") + message(b"B", bytes(8)) + message(b"E", bytes(5)) + message(b"S")
# What a client sends before it ends its side, and what it gets of that.
ANSWERED = {
    "a query": (query("SELECT 1"), "DCI"),
    "queries": (query("SELECT 1") * 3, "DCIDCIDCI"),
    "batches": (BATCH + BATCH, "12DCI12DCI"),
    "a transaction that it does not end": (query("BEGIN") + query("SELECT 1"), "CTDCT"),
    "a query and half another": (query("SELECT 1") + query("SELECT 2")[:4], "DCI"),
    "a query and Terminate": (query("SELECT 1") + message(b"X"), "DCI"),
}


@pytest.mark.parametrize(("sent", "answered"), ANSWERED.values(), ids=ANSWERED)
@pytest.mark.parametrize("waiting", ["for an answer", "in the queue"])
def test_what_was_sent_before_the_end_is_answered(stage: Make, sent: bytes, answered: str, waiting: str) -> None:
    playing = stage()
    other, client = playing.client(), playing.client()
    backend = playing.postgres.backends[0]
    if waiting == "in the queue":
        other.ask("BEGIN")
        client.send(sent)
    else:
        client.send(query("SLEEP") + sent)
        answered = "EI" + answered
    client.conn.shutdown_write()
    playing.lane.run()
    if waiting == "in the queue":
        other.ask("COMMIT")
    else:
        backend.canceled += 1
    playing.lane.advance(1)
    assert client.kinds().removeprefix("S") == answered
    assert client.ended
    assert other.ask("SELECT after") == "DCI"
    assert not playing.postgres.cancels
    assert playing.postgres.alive == [backend]
    assert ("ROLLBACK" in backend.queries) == answered.endswith("T")
    other.send(message(b"X"))
    playing.settled()


@pytest.mark.parametrize("waiting", ["for an answer", "in the queue"])
def test_who_is_gone_after_all_is_owed_nothing(stage: Make, waiting: str) -> None:
    """The end of its side comes first, the reset later."""
    playing = stage()
    other, client = playing.client(), playing.client()
    if waiting == "in the queue":
        other.ask("BEGIN")
    client.send(query("SLEEP"))
    client.conn.shutdown_write()
    playing.lane.advance(1)
    assert client.kinds() == "S"  # is it still there?
    assert len(playing.runtime.clients) == 2
    client.conn.close()
    playing.lane.advance(1)
    assert len(playing.runtime.clients) == 1
    assert len(playing.postgres.cancels) == (waiting == "for an answer")
    if waiting == "in the queue":
        other.ask("COMMIT")
    assert other.ask("SELECT 1") == "DCI"
    other.send(message(b"X"))
    playing.settled()


UNFINISHED = {
    "nothing": b"",
    "half a message": query("SELECT 1")[:7],
    "half a large message": query("SELECT " + "x" * 100_000)[:70_000],
    "no Sync": BATCH[:-5],
    "half a copy": query("COPY") + message(b"d", b"data"),
}


@pytest.mark.parametrize("sent", UNFINISHED.values(), ids=UNFINISHED)
def test_who_ends_its_side_in_the_middle_is_owed_nothing(stage: Make, sent: bytes) -> None:
    playing = stage()
    client = playing.client()
    for at in range(0, len(sent), 1 << 15):
        client.send(sent[at : at + (1 << 15)])
    client.kinds()
    client.conn.shutdown_write()
    playing.lane.advance(1)
    assert client.ended
    playing.settled()


def test_nothing_is_said_in_the_middle_of_a_message(stage: Make) -> None:
    playing = stage()
    client = playing.client(capacity=10_000)
    client.send(query("BIG 300000") + query("SELECT 1"))
    client.conn.shutdown_write()
    playing.lane.run()
    assert client.kinds().replace("S", "") == "DCIDCI"
    assert client.ended
    playing.settled()
