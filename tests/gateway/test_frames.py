"""Frames of a server are followed to their borders, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.frames import Frames

OPCODES = st.sampled_from([0x81, 0x01, 0x00, 0x80, 0x82, 0xC1, 0x89, 0x8A])


def frame(first: int, size: int) -> bytes:
    if size < 126:
        return bytes((first, size)) + b"x" * size
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + b"x" * size
    return bytes((first, 127)) + size.to_bytes(8, "big") + b"x" * size


@given(
    st.lists(st.tuples(OPCODES, st.sampled_from([0, 1, 125, 126, 300, 70_000])), max_size=6),
    st.lists(st.integers(1, 4000), min_size=1, max_size=20),
)
def test_property_borders_are_found_at_any_cut(shapes: list[tuple[int, int]], cuts: list[int]) -> None:
    built = [frame(first, size) for first, size in shapes]
    stream = b"".join(built)
    borders = {sum(len(one) for one in built[:number]) for number in range(len(built) + 1)}
    frames, at, turn = Frames(), 0, 0
    while at < len(stream):
        piece = stream[at : at + cuts[turn % len(cuts)]]
        assert frames.follow(piece) == len(piece)
        at, turn = at + len(piece), turn + 1
        assert frames.between == (at in borders)
    assert not frames.strange


def test_the_first_border_is_where_it_stops_when_it_is_told_to() -> None:
    frames = Frames()
    whole = frame(0x81, 5)
    assert frames.follow(whole[:3]) == 3
    assert frames.follow(whole[3:] + whole, True) == 4
    assert frames.follow(whole, True) == 0
    assert frames.between


@pytest.mark.parametrize("data", [b"hello", b"\x83\x00", b"\xa1\x00", b"\x91\x00", b"\x81\x80abcd", b"\x0b"])
def test_what_no_server_sends_is_strange_and_has_no_borders(data: bytes) -> None:
    frames = Frames()
    assert frames.follow(data, True) == (0 if frames.between else len(data))
    frames.follow(data)
    assert frames.strange
    assert not frames.between
    assert frames.follow(b"\x81\x00", True) == 2


def test_a_close_frame_of_the_server_s_is_seen() -> None:
    frames = Frames()
    frames.follow(b"\x88\x02\x03")
    assert frames.closed
    assert not frames.between
