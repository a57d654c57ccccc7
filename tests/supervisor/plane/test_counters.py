import os
import signal

from supervisor.plane import counters, layout
from supervisor.plane.layout import Header, Kind, Server
from supervisor.plane.memory import Plane
from supervisor.plane.names import Names
from tests.supervisor.plane.children import run_child, wait_child


def test_a_total_is_the_sum_over_all_columns(plane: Plane) -> None:
    row = plane.allocate(Kind.SERVER, "a/b:1")
    columns = [layout.SUPERVISOR, layout.RETIRED, *(plane.claim_column("edge", number) for number in range(30))]
    for column in columns:
        plane.cells[plane.counters(Kind.SERVER, row, column) + Server.REQUESTS] = 1
    assert plane.total(Kind.SERVER, row, Server.REQUESTS) == len(columns)
    assert plane.row_totals(Kind.SERVER, row)[Server.REQUESTS] == len(columns)
    assert plane.total(Kind.SERVER, row, Server.FAILURES) == 0


def test_a_total_never_jumps_while_the_dead_are_folded(plane: Plane) -> None:
    """A reader in another process looks on while a column is filled and folded again and again."""
    row = plane.allocate(Kind.SERVER, "a/b:1")
    column = plane.claim_column("edge", 1)
    base = plane.counters(Kind.SERVER, row, column)
    retired = plane.counters(Kind.SERVER, row, layout.RETIRED)
    plane.cells[base + Server.REQUESTS] = 1000
    looks = 500

    def read() -> int:
        while True:
            if plane.total(Kind.SERVER, row, Server.REQUESTS) != 1000:
                return 1
            if plane.row_totals(Kind.SERVER, row)[Server.REQUESTS] != 1000:
                return 2
            plane.cells[looks] += 1

    reader = run_child(read)
    while plane.cells[looks] < 300:
        assert os.waitpid(reader, os.WNOHANG) == (0, 0), "a reader saw another total"
        counters.fold(plane, Names(plane), column)
        # Undone as it was done, under the same seal, for the next round.
        plane.cells[Header.FOLDING] += 1
        plane.cells[retired + Server.REQUESTS] = 0
        plane.cells[base + Server.REQUESTS] = 1000
        plane.cells[Header.FOLDING] += 1
    os.kill(reader, signal.SIGKILL)
    assert wait_child(reader) == -signal.SIGKILL


def test_a_fold_that_was_cut_off_does_not_blind_readers(plane: Plane) -> None:
    row = plane.allocate(Kind.SERVER, "a/b:1")
    plane.cells[plane.counters(Kind.SERVER, row, 2) + Server.REQUESTS] = 5
    plane.cells[Header.FOLDING] = 7
    assert plane.total(Kind.SERVER, row, Server.REQUESTS) == 5
    counters.fold(plane, Names(plane), 2)
    assert plane.cells[Header.FOLDING] % 2 == 0
    assert plane.total(Kind.SERVER, row, Server.REQUESTS) == 5
