"""The operator's commands."""

from __future__ import annotations

from pooler.messages import query
from tests.pooler.console.operator import POOLER, Make, console


def test_pause_waits_for_transactions_and_resume_lets_go_on(stage: Make) -> None:
    playing = stage(pooler=POOLER, database="pool_size = 2")
    holder, idler, asked = playing.client(), playing.client(), console(playing)
    holder.ask("BEGIN")
    idler.ask("SELECT 1")
    asked.send(query("PAUSE app"))
    playing.lane.advance(1)
    assert asked.kinds() == ""
    assert len(playing.postgres.alive) == 1
    idler.send(query("SELECT 2"))
    playing.lane.advance(1)
    assert idler.kinds() == ""
    assert holder.ask("COMMIT") == "CI"
    playing.lane.advance(1)
    assert asked.kinds() == "CI"
    assert playing.postgres.alive == []
    assert asked.rows("SHOW DATABASES")[0]["paused"] == "1"
    assert asked.rows("SHOW STATE")[1] == {"key": "paused", "value": "yes"}
    playing.lane.advance(5)
    assert idler.kinds() == "N"
    asked.send(query("RESUME app"))
    playing.lane.advance(1)
    assert asked.kinds() == "CI"
    assert idler.kinds() == "DCI"
    assert "not paused" in asked.refused("RESUME")["M"]
    assert asked.refused("PAUSE nosuch")["C"] == "3D000"


def test_reconnect_closes_what_was_open_before_and_wait_close_waits(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    holder, asked = playing.client(), console(playing)
    holder.ask("BEGIN")
    asked.send(query("RECONNECT"))
    assert asked.kinds() == "CI"
    asked.send(query("WAIT_CLOSE"))
    playing.lane.advance(1)
    assert asked.kinds() == ""
    assert holder.ask("COMMIT") == "CI"
    playing.lane.advance(1)
    assert asked.kinds() == "CI"
    assert holder.ask("SELECT 1") == "DCI"
    assert [backend.closed for backend in playing.postgres.backends] == [True, False]


def test_kill_ends_everybody_until_resume(stage: Make) -> None:
    playing = stage(pooler=POOLER, database="pool_size = 2")
    one, two, asked = playing.client(), playing.client(), console(playing)
    one.ask("BEGIN")
    two.ask("SELECT 1")
    asked.send(query("KILL app"))
    playing.lane.advance(8)
    assert asked.kinds() == "CI"
    assert (one.error()["C"], two.error()["C"]) == ("57P01", "57P01")
    assert playing.postgres.alive == []
    later = playing.client()
    later.send(query("SELECT 1"))
    playing.lane.advance(1)
    assert later.kinds() == ""
    asked.send(query("RESUME app"))
    playing.lane.advance(1)
    assert later.kinds() == "DCI"


def test_a_disabled_database_takes_nobody_in(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    inside, asked = playing.client(), console(playing)
    asked.send(query("DISABLE app"))
    playing.lane.run()
    refused = playing.client(log_in=False)
    refused.send(b"\0\0\0\x12\0\x03\0\0user\0app\0\0")
    assert "disabled" in refused.error()["M"]
    assert inside.ask("SELECT 1") == "DCI"
    asked.send(query("ENABLE app"))
    playing.lane.run()
    assert playing.client().ask("SELECT 1") == "DCI"


def test_an_operator_that_leaves_waits_no_longer(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    holder, asked = playing.client(), console(playing)
    holder.ask("BEGIN")
    asked.send(query("PAUSE"))
    asked.conn.close()
    playing.lane.advance(1)
    assert [client.database for client in playing.runtime.clients] == ["app"]
