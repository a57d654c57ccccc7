"""Sums over the columns, and the fold that keeps them when a process is gone.

Counters of a dead process move into the retired column, row by row, between two steps of the FOLDING cell: a reader
that sees it odd, or changed, reads again, so that a total never jumps. Gauges are zeroed: what they counted is gone.
"""

from __future__ import annotations

from supervisor.plane import layout
from supervisor.plane.layout import Header, Kind, Process
from supervisor.plane.names import Names
from supervisor.plane.region import Region

MAX_READS = 10_000  # tries of a total; a fold of one row takes about 20 µs, unless the supervisor is stopped in it


def total(region: Region, kind: Kind, row: int, field: int) -> int:
    """The sum over all columns, the retired one included."""
    cells = region.cells
    at = layout.COUNTERS_AT[kind] + row * layout.TABLES[kind].counter_cells + field
    column = cells[at : at + (layout.COLUMNS - 1) * layout.COLUMN_CELLS + 1 : layout.COLUMN_CELLS]
    value = 0
    for _ in range(MAX_READS):
        before = cells[Header.FOLDING]
        value = sum(column)
        if not before & 1 and cells[Header.FOLDING] == before:
            break
    return value


def row_totals(region: Region, kind: Kind, row: int) -> list[int]:
    """All counters of a row at once, summed over the columns: what a page of metrics needs."""
    cells = region.cells
    width = layout.TABLES[kind].counter_cells
    at = layout.COUNTERS_AT[kind] + row * width
    totals: list[int] = []
    for _ in range(MAX_READS):
        before = cells[Header.FOLDING]
        # A free column was folded before it was freed. To read it would back its pages with memory.
        starts = [at + column * layout.COLUMN_CELLS for column in _used(cells)]
        columns = [cells[start : start + width].tolist() for start in starts]
        totals = [sum(values) for values in zip(*columns, strict=True)]
        if not before & 1 and cells[Header.FOLDING] == before:
            break
    return totals


def _used(cells: memoryview[int]) -> list[int]:
    """The columns that may hold counts: the supervisor's, the retired one, those of processes."""
    first = layout.PROCESSES_AT + Process.INCARNATION
    incarnations = cells[first : first + (layout.COLUMNS - 1) * layout.PROCESS_CELLS + 1 : layout.PROCESS_CELLS]
    always = (layout.SUPERVISOR, layout.RETIRED)
    return [column for column, value in enumerate(incarnations.tolist()) if value or column in always]


def fold(region: Region, names: Names, column: int) -> None:
    """Move the column's counters into the retired one and zero its gauges. Supervisor only, after the process died."""
    cells = region.cells
    if cells[Header.FOLDING] & 1:  # a supervisor that was replaced in the middle of a fold
        cells[Header.FOLDING] += 1
    for kind, table in layout.TABLES.items():
        width, gauges = table.counter_cells, table.gauges
        base = layout.COUNTERS_AT[kind]
        for row in names.all(kind).values():
            source = base + column * layout.COLUMN_CELLS + row * width
            retired = base + layout.RETIRED * layout.COLUMN_CELLS + row * width
            values = cells[source : source + width].tolist()
            if not any(values):
                continue
            cells[Header.FOLDING] += 1
            for field, value in enumerate(values):
                if value:
                    cells[source + field] = 0
                    if field not in gauges:
                        cells[retired + field] += value
            cells[Header.FOLDING] += 1
