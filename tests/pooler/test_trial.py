"""How an answer of a replica is judged before the client gets any of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.errors import PeerError
from pooler.messages import message
from pooler.trial import MAX_HELD, Trial, may_be_refused

COLUMNS = message(b"T", b"\0\0")
REFUSED = PeerError("25006", "cannot execute INSERT in a read-only transaction", severity="ERROR").encode()
FAILED = PeerError("42601", "syntax error", severity="ERROR").encode()
BATCH = message(b"P", b"s\0SELECT w()\0\0\0") + message(b"B", b"\0s\0" + bytes(6)) + message(b"E", bytes(5))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (REFUSED, True),
        (COLUMNS + REFUSED, True),
        (message(b"1") + message(b"2") + message(b"t", b"\0\0") + message(b"n") + message(b"N", b"\0") + REFUSED, True),
        (FAILED, False),
        (COLUMNS + FAILED, False),
        (COLUMNS, True),
        (COLUMNS + message(b"D", b"\0\0"), False),
        (COLUMNS + message(b"D", b"\0\0") + REFUSED, False),
        (message(b"1") + message(b"2") + message(b"C", b"SELECT 0\0") + REFUSED, False),
        (message(b"S", b"a\0b\0"), False),
    ],
)
def test_a_refusal_is_known_before_anything_was_said(answer: bytes, expected: bool) -> None:
    assert may_be_refused(answer) is expected
    trial = Trial(b"")
    said = b"".join(trial.received(answer[at : at + 1]) for at in range(len(answer)))
    assert trial.judged is not expected
    assert said == (b"" if expected else answer)
    assert trial.received(b"more") == (b"" if expected else b"more")


def test_no_more_is_kept_back_than_descriptions_take() -> None:
    trial = Trial(b"")
    long = message(b"T", bytes(MAX_HELD))
    assert trial.received(long[:MAX_HELD]) == b""
    assert trial.received(long[MAX_HELD:]) == long
    assert trial.judged


@given(st.lists(st.binary(max_size=40)))
def test_whatever_is_said_is_said_whole_or_not_at_all(pieces: list[bytes]) -> None:
    trial = Trial(b"")
    said = b"".join([trial.received(piece) for piece in pieces])
    assert said == (b"".join(pieces) if trial.judged else b"")


def test_what_was_prepared_before_the_refusal_is_prepared_again() -> None:
    client: Any = SimpleNamespace(insists=False, translation=SimpleNamespace(names={b"s": 1, b"later": 2, b"other": 3}))
    trial = Trial(BATCH + message(b"P", b"later\0SELECT 1\0\0\0") + message(b"S"))
    assert trial.again(client) == trial.batch
    assert client.insists
    assert client.translation.names == {b"later": 2, b"other": 3}
