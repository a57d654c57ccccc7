"""Rows by name: the table that says which row of a kind is whose.

The supervisor alone allocates and releases; every process looks up, from a cache that a version cell keeps true, so
that names added by a reload are found by workers forked before it. A released row is zeroed in every column.
"""

from __future__ import annotations

import attrs

from supervisor.plane import layout
from supervisor.plane.layout import Header, Kind
from supervisor.plane.region import PlaneError, PlaneFullError, Region

_VERSION_AT = {kind: Header.NAMES_VERSION + index for index, kind in enumerate(Kind)}


@attrs.define(eq=False)
class Names:
    _region: Region
    _cache: dict[Kind, tuple[int, dict[str, int]]] = attrs.field(factory=dict)

    def all(self, kind: Kind) -> dict[str, int]:
        """Name to row; the cache itself, not to be changed."""
        cells = self._region.cells
        version = cells[_VERSION_AT[kind]]
        cached = self._cache.get(kind)
        if cached is None or cached[0] != version:
            cached = (version, self._read(kind))
            self._cache[kind] = cached
        return cached[1]

    def row(self, kind: Kind, name: str) -> int:
        """Raises KeyError."""
        return self.all(kind)[name]

    def allocate(self, kind: Kind, name: str) -> int:
        """The row of that name, new if there is none. Supervisor only. Raises PlaneError, PlaneFullError."""
        known = self.all(kind)
        if name in known:
            return known[name]
        encoded = name.encode()
        if not encoded or len(encoded) > layout.MAX_NAME:
            raise PlaneError(f"{kind.value} name of {len(encoded)} bytes; 1 to {layout.MAX_NAME} are possible")
        cells = self._region.cells
        start, count = layout.NAMES_AT[kind], layout.TABLES[kind].rows
        for row in range(count):
            at = start + row * layout.NAME_CELLS
            if not cells[at]:
                break
        else:
            raise PlaneFullError(f"no row left for {kind.value} {name!r}; there are {count}")
        for index in range(0, len(encoded), layout.CELL):
            piece = encoded[index : index + layout.CELL].ljust(layout.CELL, b"\0")
            cells[at + 1 + index // layout.CELL] = int.from_bytes(piece, "little")
        cells[at] = len(encoded)  # last: a reader sees no row or all of it
        cells[_VERSION_AT[kind]] += 1
        return row

    def release(self, kind: Kind, row: int) -> None:
        """Free the row, and zero what it counted. Supervisor only, when no generation uses it any more."""
        cells = self._region.cells
        cells[layout.NAMES_AT[kind] + row * layout.NAME_CELLS] = 0
        cells[_VERSION_AT[kind]] += 1
        table = layout.TABLES[kind]
        _zero(cells, layout.STATE_AT[kind] + row * table.state_cells, table.state_cells)
        for column in range(layout.COLUMNS):
            at = layout.COUNTERS_AT[kind] + column * layout.COLUMN_CELLS + row * table.counter_cells
            _zero(cells, at, table.counter_cells)

    def _read(self, kind: Kind) -> dict[str, int]:
        cells = self._region.cells
        found: dict[str, int] = {}
        start = layout.NAMES_AT[kind]
        for row in range(layout.TABLES[kind].rows):
            at = start + row * layout.NAME_CELLS
            size = cells[at]
            if size:
                encoded = cells[at + 1 : at + layout.NAME_CELLS].tobytes()[:size]
                found[encoded.decode()] = row
        return found


def _zero(cells: memoryview[int], at: int, count: int) -> None:
    """Only what isn't zero yet: a store would back an untouched page with memory."""
    for index in range(at, at + count):
        if cells[index]:
            cells[index] = 0
