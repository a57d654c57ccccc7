"""What the supervisor is asked for."""

from __future__ import annotations

from pooler.messages import query
from supervisor.ground.orders import Reloaded, ReloadWanted, RowAnswer, RowWanted
from tests.pooler.console.operator import POOLER, Make, console


def test_a_reload_is_the_supervisors(stage: Make) -> None:
    playing = stage(pooler=POOLER)
    asked = console(playing)
    for errors, kinds in (((), "CI"), (("portway.toml:1: bad",), "EI")):
        asked.send(query("RELOAD"))
        column, order, _ = playing.mailbox.sent[-1]
        assert column == 0
        assert isinstance(order, ReloadWanted)
        playing.runtime.receive(Reloaded(order.number, errors), ())
        playing.lane.run()
        assert asked.kinds() == kinds
    asked.send(query("RELOAD"))
    playing.lane.advance(62)
    assert "no answer" in asked.error()["M"]


def test_a_row_that_is_there_is_not_asked_for(stage: Make) -> None:
    playing = stage()
    outcomes: list[object] = []

    async def ask() -> None:
        outcomes.append(await playing.runtime.petitions.row("app/app"))
        outcomes.append(await playing.runtime.petitions.row("app/found"))

    playing.lane.spawn(ask())
    playing.lane.run()
    assert outcomes == [()]
    (_, order, _), *_ = playing.mailbox.sent
    assert order == RowWanted(order.number, "leasepool", "app/found")
    playing.runtime.receive(RowAnswer(order.number, ("full",)), ())
    playing.lane.run()
    assert outcomes == [(), ("full",)]
