"""What PostgreSQL says of itself, and how it stands in the plane."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.plane.layout import Kind, Role, ServerState
from supervisor.plane.memory import Plane
from supervisor.prober.standing import Standing, note, parse


@pytest.fixture
def plane() -> Iterator[Plane]:
    plane = Plane.create()
    yield plane
    plane.close()


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ((b"0", b"50331648", b"0", b"3"), Standing(Role.PRIMARY, 50331648, 0, 3)),
        ((b"1", b"50331648.0", b"1500", b"0"), Standing(Role.REPLICA, 50331648, 1500, 0)),
        ((b"1", None, b"4000000000000", b"0"), Standing(Role.REPLICA, 0, 4_000_000_000_000, 0)),
        ((b"1",), None),
        ((b"t", b"0", b"0", b"0"), None),
    ],
)
def test_an_answer_is_read_and_anything_else_is_none(row: tuple[bytes | None, ...], found: Standing | None) -> None:
    assert parse(row) == found


def test_it_stands_in_the_plane(plane: Plane) -> None:
    at = plane.state(Kind.SERVER, plane.allocate(Kind.SERVER, "pg/127.0.0.1:5432"))
    note(plane.cells, at, 77, Standing(Role.REPLICA, 1 << 40, 1500, 0))
    fields = (ServerState.ROLE, ServerState.ROLE_ASKED, ServerState.WAL, ServerState.LAG_MS, ServerState.TIMELINE)
    assert [plane.cells[at + field] for field in fields] == [Role.REPLICA, 77, 1 << 40, 1500, 0]


FIGURES = st.one_of(
    st.none(), st.binary(max_size=6), st.floats().map(lambda number: str(number).encode()),
    st.integers().map(lambda number: b"%d" % number), st.sampled_from([b"inf", b"1e400", b"-1", b"9" * 400]),
)  # fmt: skip


@given(st.lists(FIGURES, max_size=5))
def test_property_any_row_is_a_standing_that_fits_the_plane_or_none(row: list[bytes | None]) -> None:
    found = parse(row)
    if found is not None:
        note(memoryview(bytearray(8 * 64)).cast("Q"), 0, 1, found)
