"""Silent connections end over the second half of a drain, those at work don't."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from gateway.connection import Connection
from gateway.drain import Drain
from gateway.forwarded import Client
from gateway.tunnel import Farewell
from supervisor.ground.lane import PARK, Session
from supervisor.ground.net.memory import Rehearsal


def test_silent_connections_end_one_after_the_other_and_busy_ones_stay() -> None:
    lane = Rehearsal()
    nobody: Any = None
    live: dict[Session, Connection] = {}

    async def session() -> None:
        while True:
            await PARK

    for number in range(12):
        one = lane.spawn(session())
        live[one] = Connection(nobody, nobody, Client("192.0.2.1", "http", False), lane.now)
        live[one].busy = number >= 10
        one.when_done(live.pop)
    lane.advance(1)
    Drain(lane, 10.0, lambda: live)
    left = []
    for _ in range(10):
        lane.advance(1)
        left.append(len(live))
    assert left[:4] == [12] * 4
    assert left[-1] == 2
    assert all(0 <= before - after <= 3 for before, after in pairwise(left))
    lane.finish()


def test_who_had_something_to_do_since_the_drain_began_is_not_silent() -> None:
    connection = Connection(None, None, Client("192.0.2.1", "http", False), 5.0)  # type: ignore[arg-type]
    assert connection.silent(5.0)
    connection.seen = 6.0
    assert not connection.silent(5.0)


def test_websockets_are_told_one_after_the_other_in_the_first_half() -> None:
    lane = Rehearsal()
    nobody: Any = None
    live: dict[Session, Connection] = {}

    async def session() -> None:
        while True:
            await PARK

    for _ in range(10):
        connection = live[lane.spawn(session())] = Connection(nobody, nobody, Client("192.0.2.1", "http", False), 0.0)
        connection.busy, connection.farewell = True, Farewell()
    lane.advance(1)
    Drain(lane, 10.0, lambda: live)
    told = []
    for _ in range(6):
        lane.advance(1)
        told.append(sum(one.farewell is not None and one.farewell.asked for one in live.values()))
    assert told[4] == 10
    assert all(1 <= after - before <= 3 for before, after in pairwise([0, *told[:5]]))
    for one in list(live):
        one.cancel()
    lane.finish()
