"""Which worker's client gets a connection."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pooler import sharing
from pooler.messages import query
from pooler.orders import Give, Want
from supervisor.plane.layout import Kind, LeasePool, ProcessState
from tests.pooler.stage import Movable, Player, Stage

Make = Callable[..., Stage]
MS = 1_000_000  # ns


def contested(playing: Stage) -> tuple[Player, Player]:
    """A client in a transaction, and one that waits for its connection, for 1 ms so far."""
    holder, waiter = playing.client(), playing.client()
    holder.ask("BEGIN")
    waiter.send(query("SELECT 1"))
    playing.pool.waiters[0].ticket -= MS
    return holder, waiter


def gives(playing: Stage) -> int:
    return sum(isinstance(order, Give) for _, order, _ in playing.mailbox.sent)


def wants(playing: Stage) -> int:
    return sum(isinstance(order, Want) for _, order, _ in playing.mailbox.sent)


def test_a_released_connection_goes_to_who_came_first_anywhere(two: tuple[Stage, int, int]) -> None:
    playing, _, ticket = two
    holder, waiter = contested(playing)
    playing.plane.cells[ticket] = playing.lane.now_ns - sharing.TOLERANCE - 2 * MS
    playing.lane.lull(quiet=False)
    holder.ask("COMMIT")
    assert gives(playing) == 1
    assert waiter.kinds() == ""


def test_hardly_older_is_not_worth_the_way(two: tuple[Stage, int, int]) -> None:
    playing, _, ticket = two
    holder, waiter = contested(playing)
    playing.plane.cells[ticket] = playing.lane.now_ns - sharing.TOLERANCE
    playing.lane.lull(quiet=False)
    holder.ask("COMMIT")
    assert waiter.kinds() == "DCI"


def test_who_has_been_served_meanwhile_is_owed_nothing(two: tuple[Stage, int, int]) -> None:
    playing, _, ticket = two
    holder, waiter = contested(playing)
    playing.plane.cells[ticket] = playing.lane.now_ns - 1000 * MS
    playing.lane.lull(quiet=False)
    playing.plane.cells[ticket] = playing.lane.now_ns
    holder.ask("COMMIT")
    assert waiter.kinds() == "DCI"
    assert gives(playing) == 0


@pytest.mark.parametrize("steady", [True, False])
def test_where_clients_wait_longer_all_the_time_there_are_too_few_connections(
    two: tuple[Stage, int, int], steady: bool
) -> None:
    playing, _, ticket = two
    holder, waiter = contested(playing)
    for step in range(12):  # each time with another who has come up, in both workers
        first = playing.pool.waiters[0].ticket
        wait = playing.lane.now_ns - first
        playing.plane.cells[ticket] = playing.lane.now_ns - (wait if step == 6 and not steady else 3 * wait)
        playing.lane.lull(quiet=False)
        playing.lane.advance(0.001)
        playing.pool.waiters[0].ticket = playing.lane.now_ns - 2 * MS
    holder.ask("COMMIT")
    assert waiter.kinds() == ("" if steady else "DCI")


@pytest.mark.parametrize("quiet", [True, False])
def test_what_nobody_wants_here_goes_to_who_has_waited_a_little(two: tuple[Stage, int, int], quiet: bool) -> None:
    playing, _, ticket = two
    client = playing.client()
    playing.plane.cells[ticket] = playing.lane.now_ns
    client.ask("SELECT 1")
    assert gives(playing) == 0
    playing.lane.lull(quiet=False)
    assert gives(playing) == 0
    if quiet:
        playing.lane.lull(quiet=True)
    else:
        playing.plane.cells[ticket] -= sharing.PATIENCE + MS
        playing.lane.lull(quiet=False)
    assert gives(playing) == 1
    assert not playing.pool.idle


def test_a_release_sees_who_has_waited_a_little(two: tuple[Stage, int, int]) -> None:
    playing, _, ticket = two
    client = playing.client()
    client.ask("BEGIN")
    playing.plane.cells[ticket] = playing.lane.now_ns - sharing.PATIENCE - MS
    client.ask("COMMIT")
    assert gives(playing) == 1


@pytest.mark.parametrize("quiet", [True, False])
def test_what_is_idle_elsewhere_is_asked_for_once_by_who_has_waited_a_little(
    two: tuple[Stage, int, int], quiet: bool
) -> None:
    playing, other, ticket = two
    holder, waiter = playing.client(), playing.client()
    waiter.ask("SELECT 1")  # so one was released a moment ago
    holder.ask("BEGIN")
    playing.plane.cells[ticket - LeasePool.OLDEST_TICKET + LeasePool.IDLE] = 1
    waiter.send(query("SELECT 1"))
    playing.lane.lull(quiet=False)
    assert wants(playing) == 0
    if not quiet:
        playing.pool.waiters[0].ticket -= sharing.PATIENCE + MS
    for _ in range(2):
        playing.lane.lull(quiet)
    assert playing.mailbox.sent == [(other, Want("app/app"), ())]
    holder.ask("COMMIT")


def test_the_sweep_gives_what_a_lost_want_asked_for(two: tuple[Stage, int, int]) -> None:
    playing, _, ticket = two
    playing.plane.cells[ticket] = playing.lane.now_ns
    playing.lane.advance(0.2)
    assert [type(order) for _, order, _ in playing.mailbox.sent] == [Give]


def test_one_ticket_gets_one_connection(stage: Make) -> None:
    playing = stage(database="pool_size = 2")
    clients = [playing.client(), playing.client()]
    other = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(other, ProcessState.READY)
    for client in clients:
        client.ask("BEGIN")
    for client in clients:
        client.ask("COMMIT")
    playing.lane.advance(0.2)
    for server in playing.pool.servers:
        server.conn = Movable(server.conn)
    cells = playing.plane.counters(Kind.LEASEPOOL, playing.pool.row, other)
    playing.plane.cells[cells + LeasePool.OLDEST_TICKET] = playing.lane.now_ns
    playing.runtime.receive(Want("app/app"), ())
    playing.runtime.receive(Want("app/app"), ())
    assert len(playing.mailbox.sent) == 1
