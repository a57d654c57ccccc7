"""Connections that go from worker to worker."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import attrs
import pytest

from pooler.messages import query
from pooler.orders import Give, Want
from pooler.parameters import intern
from supervisor.ground.net.memory import MemoryConn
from supervisor.ground.wire import MAX_MESSAGE, decode, encode
from supervisor.plane.layout import Kind, LeasePool, ProcessState
from tests.pooler.fake_postgres import DEFAULTS
from tests.pooler.stage import ADDRESS, Stage

Make = Callable[..., Stage]


def test_an_idle_connection_is_asked_for(two: tuple[Stage, int, int]) -> None:
    playing, other, ticket = two
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    playing.plane.cells[ticket - LeasePool.OLDEST_TICKET + LeasePool.IDLE] = 1
    waiter.send(query("SELECT 1"))
    assert playing.mailbox.sent[0] == (other, Want("app/app"), ())
    holder.ask("COMMIT")


def test_a_want_is_answered_by_a_give(two: tuple[Stage, int, int]) -> None:
    playing, other, ticket = two
    (server,) = playing.pool.servers
    sock = server.conn.sock
    playing.runtime.receive(Want("app/app"), ())
    assert playing.mailbox.sent == []  # nobody waits any more
    playing.plane.cells[ticket] = playing.lane.now_ns
    playing.runtime.receive(Want("app/app"), ())
    ((column, order, fds),) = playing.mailbox.sent
    assert (column, order.pool, fds) == (other, "app/app", (77,))
    assert decode(encode(order)) == order
    assert playing.runtime.leases.holds(order.lease, other)
    assert sock.released
    assert not playing.pool.servers
    assert not playing.pool.idle
    assert playing.plane.total(Kind.LEASEPOOL, playing.pool.row, LeasePool.HANDED_OVER) == 1


@pytest.mark.parametrize("why", ["mailbox", "dead", "readable"])
def test_what_cannot_be_sent_stays(two: tuple[Stage, int, int], why: str) -> None:
    playing, other, ticket = two
    (server,) = playing.pool.servers
    playing.plane.cells[ticket] = playing.lane.now_ns
    if why == "mailbox":
        playing.mailbox.full = True
    elif why == "dead":
        playing.plane.set_state(other, ProcessState.GONE)
    else:
        server.conn.readable = True
    playing.runtime.receive(Want("app/app"), ())
    assert playing.pool.idle == [server]
    assert playing.runtime.leases.holds(server.lease, playing.worker.column)
    assert not server.conn.sock.released


def test_what_is_neither_sent_nor_ours_any_more_is_closed(two: tuple[Stage, int, int]) -> None:
    """Its taker died between the lease's move and the message: a successor will cancel what runs there."""
    playing, other, ticket = two
    (server,) = playing.pool.servers
    sock = server.conn.sock
    playing.plane.cells[ticket] = playing.lane.now_ns
    playing.mailbox.full = True
    playing.mailbox.meanwhile = lambda: playing.plane.reap(other)
    playing.runtime.receive(Want("app/app"), ())
    assert sock.released
    assert not playing.pool.servers
    assert playing.plane.total(Kind.LEASEPOOL, playing.pool.row, LeasePool.HANDED_OVER) == 0
    playing.lane.advance(1)
    assert playing.runtime.leases.open(playing.pool.row) == 0


def test_what_is_too_much_for_a_message_makes_place(two: tuple[Stage, int, int]) -> None:
    playing, _, ticket = two
    (server,) = playing.pool.servers
    server.settings = intern({**server.settings, "app.notes": "x" * MAX_MESSAGE})
    playing.plane.cells[ticket] = playing.lane.now_ns
    playing.runtime.receive(Want("app/app"), ())
    playing.lane.run()
    assert not playing.pool.servers
    assert playing.runtime.leases.open(playing.pool.row) == 0


def given(playing: Stage, holder: int) -> Give:
    """As another worker would send it; the lease is `holder`'s."""
    lease = playing.runtime.leases.take(playing.pool.row, holder, playing.worker.pools["pg"].servers[0].row)
    assert lease is not None
    playing.runtime.leases.bind(lease, 1, b"k001")
    return Give(
        "app/app",
        lease,
        "pg/127.0.0.1:5432",
        "app",
        1,
        b"k001",
        intern({**DEFAULTS, "TimeZone": "CET"}),
        intern(DEFAULTS),
        intern({"TimeZone": "CET", "client_encoding": "UTF8", "application_name": ""}),
        (b"portway_1",),
        (b"portway_2",),
        100.0,
    )


def test_what_comes_serves_who_waits(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    order = given(playing, playing.worker.column)
    waiter.send(query("SELECT 1"))
    near, far = playing.lane.pair()
    near.waiter = playing.lane.current
    far.waiter = None
    ours, theirs = socket.socketpair()
    theirs.close()

    def adopt(sock: socket.socket) -> MemoryConn:
        sock.close()
        return near

    playing.lane.adopt = adopt  # type: ignore[attr-defined]  # a rehearsal has no sockets to adopt
    playing.runtime.receive(order, (ours.detach(),))
    playing.lane.run()
    assert b"set_config(E'TimeZone',E'UTC',false)" in far.take()  # as its last user left it
    assert playing.pool.reported == DEFAULTS
    assert len(playing.pool.servers) == 2
    assert playing.lane.servers[ADDRESS] is not None


@pytest.mark.parametrize("why", ["no such pool", "no such server", "another database", "not ours"])
def test_what_has_no_place_here_is_closed(stage: Make, why: str) -> None:
    playing = stage(database="pool_size = 2")
    playing.client()
    other = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(other, ProcessState.READY)
    order = given(playing, other if why == "not ours" else playing.worker.column)
    if why == "no such pool":
        order = attrs.evolve(order, pool="gone/app")
    elif why == "no such server":
        order = attrs.evolve(order, server="pg/127.0.0.1:1")
    elif why == "another database":
        order = attrs.evolve(order, database="other")
    reader, writer = os.pipe()
    playing.runtime.receive(order, (reader,))
    with pytest.raises(OSError):
        os.fstat(reader)
    os.close(writer)
    assert playing.runtime.leases.open(playing.pool.row) == (2 if why == "not ours" else 1)
