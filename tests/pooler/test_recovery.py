"""Clients that vanish, at every point: the server is used again where that is safe, and closed where it is not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pooler.messages import message, query
from supervisor.plane.memory import Plane
from tests.pooler.stage import Player, Stage

Make = Callable[..., Stage]

# What the client has sent when it vanishes; whether its server survives; what was done to it before the next client.
BOUND = message(b"B", bytes(8))
VANISHED = {
    "idle": (query("SELECT 1"), True, []),
    "in a transaction": (query("BEGIN"), True, ["ROLLBACK"]),
    "in a failed transaction": (query("BEGIN") + query("FAIL"), True, ["ROLLBACK"]),
    "in a query": (query("SLEEP"), True, []),
    "in a query in a transaction": (query("BEGIN") + query("SLEEP"), True, ["ROLLBACK"]),
    "in a copy": (query("COPY") + message(b"d", b"data"), True, []),
    "before a sync": (message(b"P", b"\0SELECT 1\0\0\0") + BOUND, True, ["ROLLBACK"]),
    "before a sync, after an error": (
        message(b"P", b"\0FAIL\0\0\0") + BOUND + message(b"E"),
        True,
        [],
    ),
    "in a copy by execute": (message(b"P", b"\0COPY\0\0\0") + BOUND + message(b"E"), True, []),
    "in half a message": (query("BEGIN") + query("SELECT " + "x" * 100)[:50], True, ["ROLLBACK"]),
    "in half a large message": (query("SELECT " + "x" * 100_000)[:70_000], False, []),
    "in a sync within a copy": (query("COPY") + message(b"S") + message(b"d", b"bad\n"), False, []),
}


@pytest.mark.parametrize(("sent", "survives", "done"), VANISHED.values(), ids=VANISHED)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_vanished(stage: Make, sent: bytes, survives: bool, done: list[str], how: str) -> None:
    playing = stage()
    victim, other = playing.client(), playing.client()
    for at in range(0, len(sent), 1 << 15):
        victim.send(sent[at : at + (1 << 15)])
    before = len(playing.postgres.backends[0].queries)
    victim.conn.close() if how == "close" else victim.conn.abort()
    playing.lane.advance(0.3)
    assert other.ask("SELECT after") == "DCI"
    assert [backend.closed for backend in playing.postgres.backends] == ([False] if survives else [True, False])
    if survives:
        assert playing.postgres.backends[0].queries[before:] == [*done, "SELECT after"]
    other.send(message(b"X"))
    playing.settled()


def test_a_query_that_cannot_be_cancelled_costs_its_connection(stage: Make) -> None:
    playing = stage()
    victim, other = playing.client(), playing.client()
    victim.send(query("SLEEP"))
    playing.postgres.backends[0].sleeping = False  # deaf to cancels
    victim.conn.close()
    other.send(query("SELECT 1"))
    playing.lane.advance(4)
    assert other.kinds() == ""
    playing.lane.advance(8)
    assert other.kinds() in ("DCI", "NDCI")
    assert len(playing.postgres.cancels) >= 1
    assert len(playing.postgres.backends) == 2


def test_who_leaves_while_a_statement_is_held_back_is_noticed(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    client.send(query("SLEEP"))
    client.send(query("SET x = 1"))  # waits until the server has answered
    client.conn.abort()
    playing.lane.advance(1)
    assert len(playing.postgres.cancels) == 1
    playing.settled()


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_what_follows_a_statement_that_is_held_back_keeps_its_order(stage: Make, piece: int) -> None:
    playing = stage()
    client = playing.client()
    client.send(query("SLEEP"))
    client.send(query("SET x = 1") + query("SELECT a") + query("SET x = 2") + query("SELECT b")[:9], piece)
    backend = playing.postgres.backends[0]
    backend.canceled += 1
    playing.postgres.wake()
    client.send(query("SELECT b")[9:])
    playing.lane.advance(1)
    assert client.kinds() == "EICIDCICIDCI"
    asked = [sql for sql in backend.queries if sql.startswith(("SET x", "SELECT a", "SELECT b"))]
    assert asked == ["SET x = 1", "SELECT a", "SET x = 2", "SELECT b"]


def test_terminate_does_not_cancel(stage: Make) -> None:
    playing = stage()
    client, other = playing.client(), playing.client()
    client.send(query("BEGIN") + query("SLEEP") + message(b"X"))
    client.conn.close()
    other.send(query("SELECT 1"))
    playing.lane.advance(20)
    assert not playing.postgres.cancels
    assert not playing.postgres.backends[0].closed
    backend = playing.postgres.backends[0]
    backend.canceled += 1
    playing.lane.advance(0.2)
    assert other.kinds() == "NDCI"
    assert backend.queries[-2:] == ["ROLLBACK", "SELECT 1"]


@pytest.mark.parametrize("how", ["Terminate", "half-closed"])
def test_a_limit_of_time_holds_for_who_has_said_goodbye(stage: Make, how: str) -> None:
    playing = stage(pooler='query_timeout = "2s"')
    client = playing.client()
    client.send(query("SLEEP") + (message(b"X") if how == "Terminate" else b""))
    client.conn.shutdown_write()
    playing.lane.advance(1)
    assert not playing.postgres.cancels
    playing.lane.advance(4)
    assert len(playing.postgres.cancels) == 1
    assert "query_timeout" in client.error()["M"]
    assert client.ended
    playing.settled()


def test_a_reset_that_fails_costs_the_connection(stage: Make) -> None:
    playing = stage(database='pool_mode = "session"', pooler='server_reset_query = "DIE"')
    client = playing.client()
    client.ask("SELECT 1")
    client.send(message(b"X"))
    playing.lane.advance(0.2)
    assert playing.client().ask("SELECT 2") == "DCI"
    assert len(playing.postgres.backends) == 2


def test_a_server_that_does_not_close_is_given_up(stage: Make) -> None:
    playing = stage(pooler='server_idle_timeout = "1s"')
    client = playing.client()
    client.ask("SELECT 1")
    backend = playing.postgres.backends[0]
    backend.conn.waiter = None  # it reads no more
    playing.lane.advance(3)
    assert playing.runtime.leases.open(playing.pool.row) == 1  # not free before it is gone
    playing.lane.advance(5)
    assert playing.runtime.leases.open(playing.pool.row) == 0


ACTIONS = st.sampled_from(
    ["BEGIN", "COMMIT", "SELECT 1", "FAIL", "SLEEP", "COPY", "DIE", "data", "done", "batch", "parse", "sync", "half",
     "cancel", "close", "reset", "terminate", "wait"]
)  # fmt: skip


@settings(deadline=None)
@given(st.sampled_from(["transaction", "session"]), st.lists(st.tuples(st.integers(0, 3), ACTIONS), max_size=40))
def test_property_whatever_clients_do_nothing_leaks(
    tmp_path_factory: pytest.TempPathFactory, mode: str, actions: list[tuple[int, str]]
) -> None:
    plane = Plane.create()
    lines = {"database": f'pool_mode = "{mode}"\npool_size = 2', "pooler": 'query_wait_timeout = "30s"'}
    playing = Stage(tmp_path_factory.mktemp("stage"), plane, **lines)
    everybody = [playing.client() for _ in range(4)]
    clients: list[Player | None] = [*everybody]
    for number, action in actions:
        client = clients[number]
        if client is None:
            continue
        try:
            act(playing, client, action)
        except OSError:
            client.conn.close()
            clients[number] = None
        if action in ("close", "reset", "terminate"):
            clients[number] = None
    for client in everybody:
        client.conn.close()
    for _ in range(len(actions)):  # whoever said Terminate behind a query gets it done
        playing.lane.advance(6)
        for backend in playing.postgres.alive:
            backend.canceled += 1
    playing.settled()
    witness = playing.client()
    assert witness.ask("SELECT witness") == "DCI"
    witness.conn.close()
    playing.settled()
    playing.close()
    plane.close()


def act(playing: Stage, client: Player, action: str) -> None:
    data = {
        "data": message(b"d", b"data"),
        "done": message(b"c"),
        "batch": client.batch("SELECT 1"),
        "parse": client.batch("SELECT 1", sync=False),
        "sync": message(b"S"),
        "half": query("SELECT " + "x" * 50)[:30],
        "terminate": message(b"X"),
    }
    match action:
        case "close":
            client.conn.close()
            playing.lane.run()
        case "reset":
            client.conn.abort()
            playing.lane.run()
        case "wait":
            playing.lane.advance(1)
        case "cancel":
            request = playing.client(log_in=False)
            request.send(b"\0\0\0\x10\x04\xd2\x16\x2e" + client.key)
            request.conn.close()
        case _:
            client.send(data.get(action) or query(action))
            client.receive()
