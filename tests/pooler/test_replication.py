"""Replication connections: a server connection each, which nobody gets afterwards."""

from __future__ import annotations

from collections.abc import Callable

from pooler.messages import message, query
from tests.pooler.stage import Player, Stage

Make = Callable[..., Stage]
WAL = message(b"d", b"w" + bytes(60_000))


def replicate(playing: Stage, kind: str = "database", capacity: int = 1 << 16) -> Player:
    client = playing.client(log_in=False, capacity=capacity)
    client.log_in(replication=kind, application_name="standby")
    return client


def test_it_has_a_connection_of_its_own_that_begins_with_its_packet(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    one = replicate(playing, "true")
    (backend,) = playing.postgres.backends
    assert backend.startup == {"user": "app", "database": "app", "replication": "true", "application_name": "standby"}
    assert one.ask("SELECT 1") == "DCI"
    assert playing.client().ask("SELECT 2") == "DCI"
    assert [found.queries for found in playing.postgres.backends] == [["SELECT 1"], ["SELECT 2"]]
    one.send(message(b"X"))
    one.conn.close()
    playing.lane.advance(0.2)
    assert len(playing.postgres.alive) == 1


def test_wal_flows_both_ways_and_a_slow_client_holds_it_up(stage: Make) -> None:
    playing = stage()
    client = replicate(playing)
    client.send(query("STREAM"))
    assert client.kinds() == "W"
    backend = playing.postgres.backends[0]
    for _ in range(20):
        taken = backend.conn.send_nowait(WAL)
        playing.lane.run()
    assert taken < len(WAL)  # no more than the buffers and two reads
    assert {kind for kind, _ in client.receive()} == {"d"}
    client.send(message(b"d", b"r" + bytes(33)))
    assert backend.received == 1


def test_it_waits_for_a_place_and_makes_room_for_itself(stage: Make) -> None:
    playing = stage(pooler='query_wait_timeout = "8s"')
    other = playing.client()
    assert other.ask("SELECT 1") == "DCI"
    first = replicate_later(playing)  # takes the place of the connection that is idle
    playing.lane.advance(1)
    assert "Z" in [kind for kind, _ in first.receive()]
    second = replicate_later(playing)
    playing.lane.advance(9)
    assert second.error()["M"].startswith("query_wait_timeout: no place")
    first.conn.close()
    playing.lane.advance(1)
    assert other.ask("SELECT 2") == "DCI"


def replicate_later(playing: Stage) -> Player:
    client = playing.client(log_in=False)
    words = b"user\0app\0database\0app\0replication\0true\0\0"
    client.send((len(words) + 8).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + words)
    return client


def test_a_cancel_reaches_its_command(stage: Make) -> None:
    playing = stage()
    client = replicate(playing)
    client.send(query("SLEEP"))
    canceler = playing.client(log_in=False)
    canceler.send((16).to_bytes(4, "big") + (80877102).to_bytes(4, "big") + client.key)
    playing.lane.advance(1)
    assert client.error()["C"] == "57014"


def test_what_is_under_way_is_cancelled_when_its_client_vanishes(stage: Make) -> None:
    playing = stage()
    client = replicate(playing)
    client.send(query("SLEEP"))
    client.conn.close()
    playing.lane.advance(1)
    assert playing.postgres.cancels
    assert not playing.postgres.alive
    playing.settled()


def test_a_server_that_refuses_is_quoted(stage: Make) -> None:
    playing = stage(database='pool_size = 1\nuser = "app"')
    playing.postgres.dead = True
    client = replicate_later(playing)
    playing.lane.advance(1)
    assert client.error()["M"] == "server login failed: pg/127.0.0.1:5432 closed the connection during login"
    playing.postgres.dead = False
    assert playing.client().ask("SELECT 1") == "DCI"


def test_a_drain_ends_what_has_no_end_and_lets_a_command_go_on(stage: Make) -> None:
    playing = stage(database="pool_size = 3")
    streaming, busy = replicate(playing), replicate(playing)
    streaming.send(query("STREAM"))
    assert streaming.kinds() == "W"
    busy.send(query("SLEEP"))
    playing.runtime.drain()
    playing.postgres.backends[0].conn.send_nowait(message(b"d", b"k"))
    playing.lane.advance(0.5)
    assert streaming.error()["C"] == "57P01"
    assert streaming.ended
    assert not busy.receive()
    playing.postgres.backends[1].canceled += 1
    playing.lane.advance(10)
    assert busy.kinds() == "EIE"


def test_tools_for_physical_replication_are_told_what_is_missing(stage: Make) -> None:
    client = stage().client(log_in=False)
    words = b"user\0app\0database\0replication\0replication\0true\0\0"
    client.send((len(words) + 8).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + words)
    assert "[pooler.databases.replication]" in client.error()["H"]
