"""SHOW, as far as the plane answers it."""

from __future__ import annotations

from pooler.messages import query
from tests.pooler.console.operator import POOLER, Make, console


def test_pools_and_stats_count(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    holder, waiter, asked = playing.client(), playing.client(), console(playing)
    holder.ask("BEGIN")
    waiter.send(query("SELECT 1"))
    playing.lane.advance(2)
    (pool,) = asked.rows("SHOW POOLS")
    assert (pool["database"], pool["user"], pool["pool_mode"]) == ("app", "app", "transaction")
    assert [pool[name] for name in ("cl_active", "cl_waiting", "sv_active", "sv_idle")] == ["1", "1", "1", "0"]
    holder.ask("COMMIT")
    playing.lane.advance(61)
    stats = {row["database"]: row for row in asked.rows("SHOW STATS")}
    assert (stats["app"]["total_xact_count"], stats["app"]["total_query_count"]) == ("2", "3")
    assert 1_500_000 <= int(stats["app"]["total_xact_time"]) <= 3_000_000
    playing.lane.advance(60)
    assert asked.rows("SHOW STATS_AVERAGES")[0]["query_count"] == "0"
