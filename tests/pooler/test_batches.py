"""A batch that is known at one look is what its messages one by one would have been."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler import batches
from pooler.batches import executed, remember, usual
from pooler.errors import PeerError
from pooler.messages import message
from pooler.states import BOUND, IDLE, REMEMBERED, SYNC, Outstanding

PARSE = message(b"P", b"\0SELECT $1\0\0\0")
BIND = message(b"B", b"\0\0\0\0\0\x01\0\0\0\x02ab\0\0")
END = message(b"D", b"P\0") + message(b"E", b"\0\0\0\0\0") + message(b"S", b"")


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    """Every session of the process remembers in one place."""
    batches._known.clear()


def test_only_the_whole_batch_without_names_is_known() -> None:
    assert not usual(PARSE + BIND + END)
    remember(PARSE)
    assert usual(PARSE + BIND + END)
    for other in (
        b"", END, PARSE + END, BIND + END, PARSE + BIND, PARSE + BIND + BIND + END, PARSE + PARSE + BIND + END,
        PARSE + message(b"B", b"\0a\0\0\0\0\0\0\0") + END, PARSE + message(b"B", b"a\0\0\0\0\0\0\0\0") + END,
        message(b"P", b"\0SELECT 2\0\0\0") + BIND + END, PARSE + BIND + END + END, PARSE[:-1] + BIND + END,
        PARSE + message(b"B", b"") + END, PARSE[:5] + END,
    ):  # fmt: skip
        assert not usual(other)


def test_only_the_whole_batch_of_a_prepared_statement_is_known() -> None:
    bind, execute = message(b"B", b"\0mine\0\0\0\0\0\0\0"), message(b"E", b"\0\0\0\0\0") + message(b"S", b"")
    assert executed(bind + END) == executed(bind + execute) == b"mine"
    for other in (
        bind, END, bind + bind + END, bind + END + END, bind[:-1] + END, BIND + END, PARSE + bind + END,
        bind + message(b"E", b"\0\0\0\0\1") + message(b"S", b""), message(b"B", b"a\0mine\0\0\0\0\0\0\0") + END,
        message(b"B", b"") + END, bind + execute[:-1],
    ):  # fmt: skip
        assert executed(other) == b""


def test_what_is_remembered_is_bounded() -> None:
    for number in range(batches.MAX_KNOWN + 10):
        remember(b"P%d" % number)
    assert len(batches._known) <= batches.MAX_KNOWN
    remember(b"P" * (batches.MAX_KNOWN_SIZE + 1))
    assert b"P" * (batches.MAX_KNOWN_SIZE + 1) not in batches._known


MESSAGES = [
    PARSE, BIND, *(message(kind, body) for kind, body in [
        (b"D", b"P\0"), (b"E", b"\0\0\0\0\0"), (b"S", b""), (b"Q", b"SELECT 1\0"), (b"P", b"a\0SELECT 1\0\0\0"),
        (b"B", b"\0a\0\0\0\0\0\0\0"), (b"D", b"S\0"), (b"H", b""), (b"P", b"\0SET a = 1\0\0\0"), (b"X", b""),
    ]), PARSE + BIND + END,
]  # fmt: skip
STATES = st.fixed_dictionaries({
    "status": st.just(IDLE), "unsynced": st.booleans(), "unnamed": st.sampled_from([0, BOUND, REMEMBERED]),
    "copy_in": st.booleans(), "skipping": st.booleans(), "client_left": st.sampled_from([0, 0, 3]),
})  # fmt: skip


@given(STATES, st.lists(st.sampled_from(MESSAGES), max_size=8), st.integers(0, 9))
def test_property_what_is_noted_is_the_same(state: dict[str, int], parts: list[bytes], cut: int) -> None:
    data = b"".join(parts)
    data = data[: len(data) - cut] if cut < 3 else data
    outcomes = []
    for knows in (True, False):
        batches._known.clear()
        if knows:
            remember(PARSE)
        out = Outstanding(watching=True, **state)  # type: ignore[arg-type]
        try:
            outcomes.append((out.sent(data), list(out.fifo), out.opened, out.unsynced, out.unnamed, out.noticed,
                             out.client_left, out.free, out.bytes_in, out.terminated))  # fmt: skip
        except PeerError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_such_a_batch_waits_for_one_answer() -> None:
    remember(PARSE)
    out = Outstanding(watching=True)
    assert out.sent(PARSE + BIND + END) == len(PARSE + BIND + END)
    assert list(out.fifo) == [SYNC]
    assert not out.free
