from supervisor.plane import layout
from supervisor.plane.layout import Kind


def test_sections_start_on_pages_and_do_not_overlap() -> None:
    starts = sorted(
        [*layout.SECTIONS.values(), *layout.NAMES_AT.values(), *layout.STATE_AT.values(), layout.TOTAL_CELLS]
    )
    assert len(set(starts)) == len(starts)
    assert all(start % layout.PAGE_CELLS == 0 for start in starts)


def test_every_field_lies_within_its_row() -> None:
    for table in layout.TABLES.values():
        assert all(at < table.counter_cells for at in layout.fields(table.counters).values())
        assert all(at < table.state_cells for at in layout.fields(table.state).values())
        assert all(gauge in layout.fields(table.counters).values() for gauge in table.gauges)


def test_no_two_fields_share_a_cell() -> None:
    for table in layout.TABLES.values():
        for holder in (table.state, table.counters):
            offsets = list(layout.fields(holder).values())
            assert len(set(offsets)) == len(offsets)


def test_route_ranges_fit_the_row() -> None:
    assert max(layout.fields(layout.Route).values()) < layout.Route.LATENCY
    assert layout.Route.LATENCY + layout.Route.LATENCY_BUCKETS <= layout.Route.REASONS
    assert layout.TABLES[Kind.ROUTE].counter_cells >= layout.Route.REASONS + layout.Route.MAX_REASONS


def test_listener_owner_cells_fit_the_row() -> None:
    assert layout.ListenerState.OWNER + layout.MAX_SLOTS <= layout.ListenerState.SLOTS


def test_rows_fit_the_words_that_name_them() -> None:
    assert layout.TABLES[Kind.SERVER].rows < 1 << 16
    assert layout.TABLES[Kind.LEASEPOOL].rows < 1 << 16
    assert layout.COLUMNS <= 1 << 8
    assert layout.Lease.SECRET + 256 // layout.CELL <= layout.LEASE_CELLS


def test_the_region_stays_small_enough_to_map_anywhere() -> None:
    assert layout.TOTAL_BYTES <= 320 << 20
