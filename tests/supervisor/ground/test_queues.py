"""Two workers with a pool in common, on schedulers that the test drives by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest

from supervisor.ground import health
from supervisor.ground import pools as pools_module
from supervisor.ground.config import Bind, Duration, PoolTable, ServerTable, SupervisorTable
from supervisor.ground.lane import Scheduler, Session
from supervisor.ground.pools import Pools
from supervisor.ground.queues import LOOK_SECONDS, Queue, Queues, Room
from supervisor.ground.servers import Server
from supervisor.plane import layout
from supervisor.plane.layout import Admin, Kind
from supervisor.plane.memory import Plane


@attrs.frozen
class Configured:
    pools: dict[str, PoolTable]
    supervisor: SupervisorTable = attrs.Factory(SupervisorTable)


@attrs.define(eq=False)
class FakeMailbox:
    sent: list[tuple[int, Any]] = attrs.field(factory=list)

    def send(self, column: int, message: object) -> bool:
        self.sent.append((column, message))
        return True


@attrs.define(eq=False)
class House:
    """One worker."""

    plane: Plane
    column: int
    pools: Pools
    lane: Scheduler = attrs.field(factory=Scheduler)
    mailbox: Any = attrs.field(factory=FakeMailbox)
    queues: Queues = attrs.field(init=False)
    served: list[tuple[str, Server | None]] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.queues = Queues(self.pools, self.lane, self.mailbox)

    @property
    def queue(self) -> Queue:
        return self.queues.of(self.pools["user"])

    def come(self, name: str) -> Session:
        async def client() -> None:
            self.served.append((name, await self.queue.take()))

        session = self.lane.spawn(client())
        self.turn()
        return session

    def turn(self) -> None:
        for _ in range(5):
            self.lane.turn()

    def later(self, seconds: float) -> None:
        self.lane.now += seconds
        self.lane.sweep()
        self.turn()

    def count(self, field: int) -> int:
        return self.plane.total(Kind.POOL, self.plane.row(Kind.POOL, "user"), field)

    def names(self) -> list[str]:
        return [name for name, server in self.served if server is not None]


Pair = Callable[..., tuple[House, House]]


@pytest.fixture
def houses(plane: Plane) -> Iterator[Pair]:
    """Make two workers with a pool of these keys; what still waits at the end is cancelled."""
    made: list[House] = []

    def make(**more: Any) -> tuple[House, House]:
        one, two = _houses(plane, **more)
        made.extend((one, two))
        return one, two

    yield make
    for house in made:
        house.lane.end_all()


def _houses(plane: Plane, **more: Any) -> tuple[House, House]:
    server = ServerTable(address=Bind("127.0.0.1", 8100), max_connections=1)
    config: Any = Configured({"user": PoolTable(servers=(server,), **{"max_queued": 3, **more})})
    for kind, name in pools_module.rows(config):
        plane.allocate(kind, name)
    columns = [plane.claim_column("edge", number) for number in (1, 2)]
    one, two = (House(plane, column, Pools(config, plane, column)) for column in columns)
    return one, two


@pytest.fixture
def pair(houses: Pair) -> tuple[House, House]:
    return houses()


def release(house: House, to: House | None = None) -> None:
    """Give the place back where it was taken, and carry the message if there is one."""
    server = house.served[-1][1] or house.pools["user"].servers[0]
    house.queue.ended(server)
    house.turn()
    for column, message in house.mailbox.sent:
        assert isinstance(message, Room)
        assert to is not None
        assert column == to.column
        to.queues.receive(message)
        to.turn()
    house.mailbox.sent.clear()


def test_a_place_is_had_at_once_when_there_is_one(pair: tuple[House, House]) -> None:
    pair[0].come("a")
    assert pair[0].names() == ["a"]
    assert pair[0].count(layout.Pool.QUEUED) == 0


def test_the_next_is_served_when_the_place_comes_back(pair: tuple[House, House]) -> None:
    one, _ = pair
    one.come("a")
    one.come("b")
    assert one.names() == ["a"]
    assert one.count(layout.Pool.WAITING) == 1
    release(one)
    assert one.names() == ["a", "b"]
    assert one.count(layout.Pool.WAITING) == 0
    assert one.pools["user"].servers[0].in_flight() == 1


def test_who_came_first_is_served_first_over_all_workers(pair: tuple[House, House]) -> None:
    one, two = pair
    one.come("a")
    two.come("b")
    one.come("c")
    release(one, two)
    assert two.names() == ["b"]
    assert one.names() == ["a"]
    two.queue.ended(two.pools["user"].servers[0])
    [(column, message)] = two.mailbox.sent[-1:]
    assert column == one.column
    one.queues.receive(message)
    one.turn()
    assert one.names() == ["a", "c"]


def test_a_newcomer_does_not_pass_those_who_wait(pair: tuple[House, House]) -> None:
    one, two = pair
    one.come("a")
    one.come("b")
    one.pools["user"].servers[0].ended()  # a release that wakes nobody
    two.come("c")
    assert two.names() == []
    one.later(LOOK_SECONDS + 0.01)
    assert one.names() == ["a", "b"]


def test_no_more_wait_than_may(pair: tuple[House, House]) -> None:
    one, two = pair
    for name in "abcd":
        one.come(name)
    two.come("e")
    assert two.served == [("e", None)]
    assert one.count(layout.Pool.QUEUE_REFUSED) == 1


def test_a_wait_ends_with_its_time(houses: Pair) -> None:
    one, _ = houses(queue_timeout=Duration(2))
    one.come("a")
    one.come("b")
    one.later(1.9)
    assert len(one.served) == 1
    one.later(0.2)
    one.later(0.2)
    assert one.served[1] == ("b", None)
    assert one.count(layout.Pool.QUEUE_TIMEOUTS) == 1
    assert one.count(layout.Pool.WAITING) == one.count(layout.Pool.OLDEST_TICKET) == 0


def test_one_who_leaves_lets_the_next_come(pair: tuple[House, House]) -> None:
    one, _ = pair
    one.come("a")
    waiting = one.come("b")
    one.come("c")
    waiting.cancel()
    one.turn()
    release(one)
    assert one.names() == ["a", "c"]


def test_without_a_queue_a_full_server_is_refused_at_once(houses: Pair) -> None:
    one, two = houses(max_queued=0)
    one.come("a")
    two.come("b")
    assert two.served == [("b", None)]
    assert one.count(layout.Pool.QUEUED) == 0


def test_where_no_server_takes_work_nobody_waits(plane: Plane, houses: Pair) -> None:
    one, _ = houses(on_all_down="refuse")
    one.come("a")
    pool_row, row = plane.row(Kind.POOL, "user"), one.pools["user"].servers[0].row
    health.set_admin(plane, pool_row, row, Admin.MAINTENANCE, layout.SUPERVISOR)
    one.come("b")
    assert one.served[1] == ("b", None)
