"""One worker's runtime: reload, messages, and what it holds."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from pooler.messages import query
from pooler.orders import Want
from pooler.tier import TIER
from supervisor.plane.layout import Kind
from tests.pooler.stage import Stage

Make = Callable[..., Stage]


def reload(playing: Stage, **lines: str) -> None:
    config = playing.configure(**lines)
    playing.runtime.commit(playing.runtime.prepare(config))


def test_a_larger_pool_serves_who_waits(stage: Make) -> None:
    playing = stage()
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    assert waiter.ask("SELECT 1") == ""
    reload(playing, database="pool_size = 2")
    playing.lane.advance(0.2)
    assert waiter.kinds() == "DCI"


def test_another_mode_holds_from_the_next_transaction_on(stage: Make) -> None:
    playing = stage(database="pool_size = 1")
    one, two = playing.client(), playing.client()
    one.ask("SELECT 1")
    reload(playing, database='pool_mode = "session"\npool_size = 1')
    one.ask("SELECT 1")
    assert two.ask("SELECT 2") == ""


def test_another_database_behind_the_name_means_other_connections(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    client.ask("BEGIN")
    reload(playing, database='database = "other"')
    assert client.ask("COMMIT") == "CI"
    assert client.ask("SELECT 1") == "DCI"
    assert [backend.closed for backend in playing.postgres.backends] == [True, False]
    reload(playing)  # while it is idle
    assert client.ask("SELECT 2") == "DCI"
    assert [len(backend.queries) for backend in playing.postgres.backends] == [2, 1, 1]


def test_who_listens_follows_the_database_too(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    client = playing.client()
    assert client.ask("LISTEN a") == "CI"
    reload(playing, database='database = "other"\npool_size = 2')
    playing.lane.advance(3)
    assert [one.startup["database"] for one in playing.postgres.alive if one.channels] == ["other"]
    assert client.kinds() == "N"


def test_a_login_that_a_reload_overtakes_is_not_used(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    playing.postgres.silent = True
    waiter.send(query("SELECT 1"))
    reload(playing, database='database = "other"\npool_size = 2')
    playing.postgres.silent = False
    playing.postgres.wake()
    playing.lane.advance(0.2)
    assert waiter.kinds() == "DCI"
    assert [backend.queries for backend in playing.postgres.backends] == [["BEGIN"], [], ["SELECT 1"]]
    assert holder.ask("COMMIT") == "CI"


def test_a_user_that_is_gone_ends_between_transactions(stage: Make) -> None:
    playing = stage()
    idle, busy = playing.client(), playing.client()
    idle.ask("LISTEN a")
    busy.ask("BEGIN")
    (playing.folder / "users.txt").write_text('"other" "secret"\n')
    config = playing.configure()
    (playing.folder / "users.txt").write_text('"app" "secret"\n"other" "secret"\n')
    playing.runtime.commit(playing.runtime.prepare(config))
    playing.lane.run()
    assert idle.kinds() == "E"
    assert busy.ask("COMMIT") == "CIE"
    fresh = playing.client(log_in=False)
    fresh.send(b"\0\0\0\x12\0\x03\0\0user\0app\0\0")
    assert fresh.error()["C"] == "28000"
    assert playing.runtime.pools.keys() == {"app/app"}
    playing.runtime._sweep()
    assert playing.runtime.pools == {}, "with the last of its sessions the pool is gone"
    assert playing.runtime.fanouts == {}
    playing.lane.advance(0.2)
    assert playing.postgres.listener is None
    reload(playing)
    assert playing.client().ask("SELECT 1") == "DCI"


def test_the_rows_and_listeners_that_the_supervisor_makes(stage: Make) -> None:
    playing = stage()
    assert [(spec.name, spec.bind.port) for spec in TIER.listeners(playing.config)] == [("main", 6432)]
    pools = [(Kind.LEASEPOOL, "app/app"), (Kind.LEASEPOOL, "app/other")]
    assert list(TIER.rows(playing.config)) == [*pools, (Kind.DATABASE, "app")]


def test_messages_that_lead_nowhere_cost_nothing(stage: Make) -> None:
    playing = stage()
    playing.runtime.receive(Want("nosuch/app"), ())
    reader, writer = os.pipe()
    playing.runtime.receive(object(), (reader, writer))
    with pytest.raises(OSError):
        os.fstat(reader)


def test_closing_ends_everything_at_once(stage: Make) -> None:
    playing = stage(database="pool_size = 3")
    clients = [playing.client() for _ in range(4)]
    for client, sql in zip(clients, ("BEGIN", "SLEEP", "SELECT 1", "BEGIN"), strict=True):
        client.send(query(sql))
    row = playing.pool.row
    playing.close()
    assert all(client.ended or client.kinds() for client in clients)
    assert playing.runtime.leases.open(row) == 0
