"""What all workers say, put together."""

from __future__ import annotations

from pooler.console import sockets
from pooler.messages import query
from pooler.orders import Ask, Kill, Told
from supervisor.plane.layout import ProcessState
from tests.pooler.console.operator import POOLER, Make, console


def test_other_workers_are_asked_and_one_that_is_silent_is_told_of(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    asked = console(playing)
    other = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(other, ProcessState.READY)
    asked.send(query("SHOW CLIENTS"))
    column, order, _ = playing.mailbox.sent[-1]
    assert (column, type(order)) == (other, Ask)
    row = ["C", "there", *[None] * (len(sockets.COLUMNS["clients"]) - 2)]
    for last in (False, True):
        playing.runtime.receive(Told(other, order.number, [row], last), ())
    playing.lane.run()
    assert [found["user"] for found in asked.taken()] == ["there", "there"]
    asked.send(query("SHOW CLIENTS"))
    playing.lane.advance(3)
    assert asked.kinds() == "NTCI"
    asked.send(query(f"KILL_CLIENT {other << 24 | 5}"))
    assert asked.kinds() == "CI"
    assert playing.mailbox.sent[-1][1] == Kill(other << 24 | 5)
    playing.plane.processes.free(other)


def test_a_long_answer_goes_in_parts_once_there_is_room(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    for _ in range(150):
        playing.client()
    playing.mailbox.full = True
    playing.runtime.receive(Ask(3, 9, "clients"), ())
    other = playing.plane.claim_column("pooler", 2)
    playing.plane.set_state(other, ProcessState.READY)
    playing.lane.advance(0.5)
    playing.mailbox.full = False
    playing.lane.advance(0.5)
    told = [order for _, order, _ in playing.mailbox.sent if isinstance(order, Told)]
    assert len(told) > 1
    assert [order.last for order in told] == [False] * (len(told) - 1) + [True]
    assert sum(len(order.rows) for order in told) == 150
    playing.plane.processes.free(other)
