"""The table of states, as RFC 9113 §5.1 draws it."""

from __future__ import annotations

import itertools

import pytest

from gateway.http2.streams import (
    CLOSED,
    HALF_CLOSED_LOCAL,
    HALF_CLOSED_REMOTE,
    IDLE,
    NEXT,
    OPEN,
    RECV_END,
    RECV_HEADERS,
    RESET,
    SEND_END,
)


@pytest.mark.parametrize("order", list(itertools.permutations([RECV_END, SEND_END])))
def test_a_stream_closes_when_both_sides_have_ended(order: tuple[int, int]) -> None:
    state = NEXT[IDLE][RECV_HEADERS]
    assert state == OPEN
    half = NEXT[state][order[0]]
    assert half == (HALF_CLOSED_REMOTE if order[0] == RECV_END else HALF_CLOSED_LOCAL)
    assert NEXT[half][order[1]] == CLOSED


@pytest.mark.parametrize("state", [OPEN, HALF_CLOSED_LOCAL, HALF_CLOSED_REMOTE])
def test_a_reset_closes_at_once(state: int) -> None:
    assert NEXT[state][RESET] == CLOSED


def test_nothing_ends_twice_or_begins_again() -> None:
    assert RECV_END not in NEXT[HALF_CLOSED_REMOTE]
    assert SEND_END not in NEXT[HALF_CLOSED_LOCAL]
    assert not NEXT[CLOSED]
    assert all(RECV_HEADERS not in NEXT[state] for state in NEXT if state != IDLE)
    assert set(NEXT[IDLE]) == {RECV_HEADERS}
