"""A canceled statement: its error, its ReadyForQuery, and everything behind it untouched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.errors import PeerError
from pooler.messages import READY_IDLE, message
from pooler.refusal import CANCELED, Refusal

ERROR = CANCELED.encode()
Q, S, X = message(b"Q", b"SELECT 1\0"), message(b"S"), message(b"X")
BATCH = message(b"P", b"x" * 50) + message(b"B") + message(b"E")

CASES = {
    "a query": (Q, ERROR + READY_IDLE, b""),
    "a query before another": (Q + Q, ERROR + READY_IDLE, Q),
    "a function call": (message(b"F", b"x"), ERROR + READY_IDLE, b""),
    "a batch": (BATCH + S, ERROR + READY_IDLE, b""),
    "a batch before a query": (BATCH + S + Q, ERROR + READY_IDLE, Q),
    "a query inside a batch is skipped": (BATCH + Q + S, ERROR + READY_IDLE, b""),
    "a sync alone": (S, READY_IDLE, b""),
    "terminate inside a batch": (BATCH + X, ERROR, X),
}


@pytest.mark.parametrize(("data", "answer", "rest"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_cases(data: bytes, answer: bytes, rest: bytes, piece: int) -> None:
    refusal = Refusal()
    said = held = b""
    at = 0
    while not refusal.done:
        held += data[at : at + piece]
        at += piece
        more, held = refusal.take(held)
        said += more
    assert said == answer
    assert held + data[at:] == rest


def test_a_batch_without_its_sync_is_not_done() -> None:
    refusal = Refusal()
    assert refusal.take(BATCH) == (ERROR, b"")
    assert not refusal.done


def test_what_is_no_message() -> None:
    with pytest.raises(PeerError):
        Refusal().take(b"Q\0\0\0\x03")


@given(st.binary(max_size=60))
def test_property_only_peer_error_escapes(data: bytes) -> None:
    try:
        Refusal().take(data)
    except PeerError:
        pass
