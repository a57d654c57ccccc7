"""What a replication connection is doing, from its server's messages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.errors import ServerError
from pooler.messages import message
from pooler.walsender import Replication, Stage, Walsender

IDLE, COMMAND, STREAMING = Stage


def test_stages_follow_the_messages() -> None:
    one = Walsender(Replication.PHYSICAL)
    assert one.endless
    one.sent()
    assert (one.stage, one.endless) == (COMMAND, False)
    for kind, stage in ((b"W", STREAMING), (b"d", STREAMING), (b"c", COMMAND), (b"C", COMMAND), (b"Z", IDLE)):
        data = message(kind, b"x")
        assert one.received(data) == len(data)
        assert one.stage is stage
    one.received(message(b"E", b"x"))
    assert one.failing


@given(st.lists(st.tuples(st.sampled_from([b"d", b"W", b"Z", b"c"]), st.binary(max_size=40)), min_size=1), st.data())
def test_property_pieces_come_to_the_same(messages: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    """A header is never cut, and nothing is lost, wherever the bytes were cut before."""
    whole = b"".join(message(*one) for one in messages)
    walsender, tail, sent = Walsender(Replication.LOGICAL), b"", b""
    at = 0
    while at < len(whole):
        end = data.draw(st.integers(at + 1, len(whole)))
        piece, at = tail + whole[at:end], end
        cut = walsender.received(piece)
        sent, tail = sent + piece[:cut], piece[cut:]
        assert len(tail) < 5
    assert (sent, tail, walsender.left) == (whole, b"", 0)
    last = [kind for kind, _ in messages if kind != b"d"][-1:]
    assert walsender.stage is {b"W": STREAMING, b"Z": IDLE, b"c": COMMAND}.get(b"".join(last), IDLE)


def test_what_is_no_message_is_an_error() -> None:
    with pytest.raises(ServerError):
        Walsender(Replication.LOGICAL).received(b"d\0\0\0\3xxx")
