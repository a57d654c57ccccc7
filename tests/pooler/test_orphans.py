"""Leases of dead workers."""

from __future__ import annotations

from collections.abc import Callable

from pooler.messages import query
from supervisor.plane.layout import ProcessState
from tests.pooler.stage import Stage

Make = Callable[..., Stage]


def test_what_a_dead_worker_left_running_is_cancelled_before_its_place_is_used(stage: Make) -> None:
    playing = stage()
    client = playing.client()
    victim = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(victim, ProcessState.READY)
    server = playing.pool.idle.pop()
    playing.pool.servers.discard(server)
    assert playing.runtime.leases.move(server.lease, victim)
    backend = playing.postgres.backends[0]
    backend.sleeping = True
    playing.lane.advance(0.2)
    client.send(query("SELECT 1"))
    playing.lane.advance(1)
    assert client.kinds() == ""
    playing.plane.reap(victim)
    playing.lane.advance(0.2)
    assert playing.postgres.cancels == [b"\0\0\0\x01k001"]
    assert backend.canceled == 1
    assert client.kinds() == ""  # it gets a moment to end
    playing.lane.advance(0.5)
    assert client.kinds() == "DCI"
    assert playing.runtime.leases.open(playing.pool.row) == 1
    server.conn.close()


def test_a_lease_without_a_key_or_a_server_is_freed_too(stage: Make) -> None:
    playing = stage(database="pool_size = 3")
    playing.client()
    victim = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(victim, ProcessState.READY)
    for server_row in (playing.worker.pools["pg"].servers[0].row, 999):
        assert playing.runtime.leases.take(playing.pool.row, victim, server_row) is not None
    playing.plane.reap(victim)
    playing.lane.advance(1)
    assert playing.runtime.leases.open(playing.pool.row) == 1
    assert not playing.postgres.cancels
