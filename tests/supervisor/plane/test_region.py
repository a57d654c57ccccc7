import os

import pytest

from supervisor.plane import layout, region
from supervisor.plane.memory import Plane
from supervisor.plane.region import ForeignPlaneError, check_identity
from tests.leftovers import open_files


def test_a_region_is_sparse_and_of_the_layouts_size() -> None:
    fd = region.make_memory()
    assert os.fstat(fd).st_size == layout.TOTAL_BYTES
    assert os.fstat(fd).st_blocks == 0
    os.close(fd)


def test_cells_are_whole_words_at_the_address_given(plane: Plane) -> None:
    plane.cells[600] = 0x0102030405060708
    assert os.pread(plane.fd, 8, 600 * layout.CELL) == bytes([8, 7, 6, 5, 4, 3, 2, 1])
    assert plane.address % 4096 == 0


def test_the_secret_differs_from_plane_to_plane(plane: Plane) -> None:
    other = Plane.create()
    at = slice(layout.Header.SECRET, layout.Header.SECRET + 4)
    assert plane.cells[at].tolist() != other.cells[at].tolist()
    assert all(plane.cells[at].tolist())
    other.close()


def test_a_closed_or_short_descriptor_is_no_plane() -> None:
    fd = os.memfd_create("short")
    os.write(fd, b"PORTWAY\0")
    with pytest.raises(ForeignPlaneError):
        check_identity(fd)
    os.close(fd)
    with pytest.raises(ForeignPlaneError):
        check_identity(fd)


def test_closing_leaves_no_descriptor_even_if_a_part_is_held() -> None:
    before = open_files()
    one = Plane.create()
    part = one.cells[600:700]
    one.close()
    assert open_files() <= before + 1  # the mapping's own duplicate goes with `part`
    part.release()
