"""Greeting clients where this worker has no server connection."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from pooler.messages import query
from pooler.orders import Introduce, Introduced
from supervisor.ground.wire import decode, encode
from supervisor.plane.layout import Kind, LeasePool, LeasePoolState, ProcessState
from tests.pooler.fake_postgres import DEFAULTS
from tests.pooler.stage import Player, Stage

Make = Callable[..., Stage]
START = b"\0\0\0\x12\0\x03\0\0user\0app\0\0"
TOLD = Introduced("app/app", "pg", "app", {**DEFAULTS, "server_version": "17.0"})


def another(playing: Stage) -> int:
    """Another worker; its column."""
    column = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(column, ProcessState.READY)
    return column


def newcomer(playing: Stage) -> Player:
    client = playing.client(log_in=False)
    client.send(START)
    return client


def test_another_worker_is_asked_and_its_word_is_enough(stage: Make) -> None:
    playing = stage()
    playing.postgres.silent = True
    other = another(playing)
    clients = [newcomer(playing) for _ in range(3)]
    assert [client.kinds() for client in clients] == ["R"] * 3
    question = Introduce("app/app", "pg", "app", playing.worker.column)
    assert playing.mailbox.sent.count((other, question, ())) == 1
    assert decode(encode(question)) == question
    assert decode(encode(TOLD)) == TOLD
    playing.runtime.receive(TOLD, ())
    playing.lane.run()
    assert dict(playing.pool.reported) == TOLD.reported
    assert [client.kinds()[-2:] for client in clients] == ["KI"] * 3
    assert not playing.pool.waiters
    assert not playing.pool.strangers
    assert not playing.plane.cells[playing.pool.base + LeasePool.OLDEST_TICKET]
    playing.postgres.silent = False
    playing.postgres.wake()
    assert [client.ask("SELECT 1") for client in clients] == ["DCI"] * 3


def test_it_is_asked_again_while_it_knows_nothing(stage: Make) -> None:
    playing = stage()
    playing.postgres.silent = True
    another(playing)
    newcomer(playing)
    playing.mailbox.sent.clear()
    playing.lane.advance(0.2)
    assert Introduce("app/app", "pg", "app", playing.worker.column) in [order for _, order, _ in playing.mailbox.sent]


def test_who_knows_tells_who_asks(stage: Make) -> None:
    playing = stage()
    asked = Introduce("app/app", "pg", "app", another(playing))
    playing.runtime.receive(asked, ())  # of a pool that nobody has used here
    playing.client()
    playing.mailbox.sent.clear()
    for wrong in (attrs.evolve(asked, group="other"), attrs.evolve(asked, database="other")):
        playing.runtime.receive(wrong, ())
    assert playing.mailbox.sent == []
    playing.runtime.receive(asked, ())
    assert playing.mailbox.sent == [(asked.column, Introduced("app/app", "pg", "app", DEFAULTS), ())]


@pytest.mark.parametrize("wrong", [{"group": "other"}, {"database": "other"}])
def test_word_of_where_a_reload_leads_no_more_counts_for_nothing(stage: Make, wrong: dict[str, str]) -> None:
    playing = stage()
    playing.postgres.silent = True
    another(playing)
    client = newcomer(playing)
    playing.runtime.receive(attrs.evolve(TOLD, **wrong), ())
    playing.lane.run()
    assert client.kinds() == "R"
    assert playing.pool.reported is None


def test_late_word_changes_nothing(stage: Make) -> None:
    playing = stage()
    playing.client()
    playing.runtime.receive(TOLD, ())
    assert dict(playing.pool.reported) == DEFAULTS


def test_one_login_at_a_server_greets_all(stage: Make) -> None:
    playing = stage(database="pool_size = 4")
    playing.postgres.silent = True
    clients = [newcomer(playing) for _ in range(3)]
    playing.postgres.silent = False
    first, *others = playing.postgres.backends
    assert first.session is not None
    playing.lane.wake(first.session)
    playing.lane.run()
    assert len(others) == 2
    assert [client.kinds()[-2:] for client in clients] == ["KI"] * 3


def test_who_leaves_while_waiting_is_forgotten(stage: Make) -> None:
    playing = stage()
    playing.postgres.silent = True
    client = newcomer(playing)
    client.conn.close()
    playing.lane.run()
    assert not playing.pool.strangers
    assert not playing.pool.waiters


def test_a_client_gets_in_while_the_database_is_paused(stage: Make) -> None:
    playing = stage()
    another(playing)
    row = playing.plane.row(Kind.LEASEPOOL, "app/app")
    playing.plane.cells[playing.plane.state(Kind.LEASEPOOL, row) + LeasePoolState.PAUSED] = 1
    client = newcomer(playing)
    playing.runtime.receive(TOLD, ())
    playing.lane.run()
    assert client.kinds()[-2:] == "KI"
    client.send(query("SELECT 1"))
    assert client.kinds() == ""
    assert not playing.postgres.backends
