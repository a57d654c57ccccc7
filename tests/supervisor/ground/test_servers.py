from __future__ import annotations

import attrs

from supervisor.ground.config import Bind, ServerTable
from supervisor.ground.servers import Server, server_name
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane


@attrs.define
class Owner:
    looks: int = 0
    streaks: list[int] = attrs.field(factory=list)

    def look(self) -> None:
        self.looks += 1

    def failed(self, server: Server, streak: int, now_ns: int) -> None:
        self.streaks.append(streak)


def make(plane: Plane, column: int = 2) -> tuple[Server, Owner]:
    owner = Owner()
    table = ServerTable(address=Bind("127.0.0.1", 8101))
    name = server_name("user", table)
    row = plane.allocate(Kind.SERVER, name)
    server = Server(
        name=name,
        row=row,
        family=table.address.family,
        sockaddr=table.address.sockaddr,
        base=plane.counters(Kind.SERVER, row, column),
        state=plane.state(Kind.SERVER, row),
        seed=0,
        pool=owner,
        cells=plane.cells,
        column=column,
    )
    return server, owner


def test_work_is_counted_while_it_lasts_and_for_ever(plane: Plane) -> None:
    server, _ = make(plane)
    other, _ = make(plane, 40)
    server.started()
    server.started()
    other.started()
    server.ended()
    assert server.in_flight() == other.in_flight() == 2
    assert plane.total(Kind.SERVER, server.row, layout.Server.REQUESTS) == 3


def test_the_bytes_of_a_round_are_added_once(plane: Plane) -> None:
    server, _ = make(plane)
    server.bytes_in, server.bytes_out = 5, 7
    for _ in range(2):
        server.settle()
        cells = plane.cells[server.base + layout.Server.BYTES_IN], plane.cells[server.base + layout.Server.BYTES_OUT]
        assert cells == (5, 7)


def test_failures_in_a_row_are_told_to_the_pool(plane: Plane) -> None:
    server, owner = make(plane)
    server.failed(1)
    server.failed(2)
    server.succeeded()
    server.failed(3)
    assert owner.streaks == [1, 2, 1]
    assert plane.total(Kind.SERVER, server.row, layout.Server.FAILURES) == 3


def test_work_that_outlives_its_row_does_no_harm(plane: Plane) -> None:
    server, _ = make(plane)
    server.started()
    plane.release(Kind.SERVER, server.row)
    server.ended()
    assert server.in_flight() == 0


def test_narrowed_sums_leave_out_columns_nobody_has(plane: Plane) -> None:
    server, _ = make(plane)
    assert len(server.flights) == layout.COLUMNS
    server.narrow(4)
    assert len(server.flights) == 5


def test_usable_asks_the_pool_to_look_first(plane: Plane) -> None:
    server, owner = make(plane)
    assert server.usable()
    server.takes = False
    assert not server.usable()
    assert owner.looks == 2
