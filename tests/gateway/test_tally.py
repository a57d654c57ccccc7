"""What a round did on a route, on its way to the plane."""

from __future__ import annotations

from gateway.tally import Tally
from supervisor.plane.layout import Listener, Route

ROUTE, ONE, TWO = 0, 100, 200


def test_a_round_is_added_once_and_by_class() -> None:
    cells = memoryview(bytearray(8 * 300)).cast("q")
    tally = Tally(cells, ROUTE)
    tally.listener = ONE
    tally.settle()
    assert not any(cells)
    for status in (200, 404, 204, 101):
        tally.requests += 1
        tally.bytes_in += 10
        tally.bytes_out += 20
        tally.micros += 3
        if status // 100 != 2:
            tally.other(status)
    for _ in range(2):
        tally.settle()
        assert [cells[ROUTE + at] for at in (Route.REQUESTS, Route.RESPONSES_1XX, Route.RESPONSES_2XX)] == [4, 1, 2]
        assert cells[ROUTE + Route.RESPONSES_4XX] == 1
        assert [cells[ROUTE + at] for at in (Route.BYTES_IN, Route.BYTES_OUT, Route.LATENCY_SUM)] == [40, 80, 12]
        assert [cells[ONE + at] for at in (Listener.BYTES_IN, Listener.BYTES_OUT)] == [40, 80]
