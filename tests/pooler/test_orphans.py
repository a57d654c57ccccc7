"""Leases of dead workers, and of connections that never came."""

from __future__ import annotations

from collections.abc import Callable

from pooler.messages import query
from pooler.orphans import STRAY_SECONDS
from supervisor.plane.layout import LeaseState, ProcessState
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


def test_a_lease_whose_connection_was_lost_on_the_way_is_ended(stage: Make) -> None:
    """Its sender was killed between moving it and sending the message."""
    playing = stage()
    client = playing.client()
    sender = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(sender, ProcessState.READY)
    playing.lane.advance(0.2)
    server = playing.pool.idle.pop()
    playing.pool.servers.discard(server)
    assert playing.runtime.leases.move(server.lease, sender)
    assert playing.runtime.leases.move(server.lease, playing.worker.column)
    playing.plane.reap(sender)
    client.send(query("SELECT 1"))
    playing.lane.advance(STRAY_SECONDS / 2)
    assert not playing.postgres.cancels  # it may be on its way yet
    playing.lane.advance(STRAY_SECONDS)
    assert playing.postgres.cancels == [b"\0\0\0\x01k001"]
    playing.lane.advance(0.5)
    assert client.kinds() == "DCI"
    assert playing.runtime.leases.open(playing.pool.row) == 1
    server.conn.close()


def test_a_lease_is_found_without_any_death(stage: Make) -> None:
    """The message came, but the descriptor did not: this process had too many files open."""
    playing = stage(database="pool_size = 2")
    playing.client()
    leases = playing.runtime.leases
    lost = leases.take(playing.pool.row, playing.worker.column, playing.worker.pools["pg"].servers[0].row)
    assert lost is not None
    leases.bind(lost, 1, b"k001")
    playing.lane.advance(15)
    assert not leases.holds(lost, playing.worker.column)
    assert leases.open(playing.pool.row) == 1


def test_what_comes_at_last_is_no_stray(stage: Make) -> None:
    playing = stage()
    playing.client()
    server = playing.pool.idle.pop()
    playing.pool.servers.discard(server)
    playing.plane.claim_column("pooler", 2)
    playing.lane.advance(STRAY_SECONDS / 2)
    playing.pool.admit(server)
    playing.lane.advance(30)
    assert playing.pool.idle == [server]
    assert not playing.postgres.cancels


def test_an_orphan_that_is_being_ended_takes_no_late_connection(stage: Make) -> None:
    playing = stage()
    playing.client()
    leases, mine = playing.runtime.leases, playing.worker.column
    (server,) = playing.pool.servers
    assert leases.disown(server.lease, mine)
    assert leases.adopt(server.lease, mine)
    assert [held.state for held in leases.held(playing.pool.row)] == [LeaseState.TAKEN]
    assert not leases.holds(server.lease, mine)
