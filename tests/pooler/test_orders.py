"""What workers say to each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pooler.orders import Give
from pooler.parameters import intern
from supervisor.ground.wire import Undecodable, decode, encode

WORDS = st.text(st.characters(exclude_characters="\0"), max_size=20)
VALUES = st.dictionaries(WORDS, WORDS, max_size=5).map(intern)
NAMES = st.lists(st.binary(min_size=1, max_size=32).filter(lambda name: b"\0" not in name), max_size=5).map(tuple)
PLAIN = st.text(st.characters(codec="utf-8"), max_size=20)
GIVES = st.builds(
    Give,
    pool=PLAIN,
    lease=st.integers(0, (1 << 32) - 1),
    server=PLAIN,
    database=PLAIN,
    pid=st.integers(0, (1 << 32) - 1),
    secret=st.binary(max_size=256),
    reported=VALUES,
    greeting=VALUES,
    settings=VALUES,
    statements=NAMES,
    stale=NAMES,
    expires_in=st.floats(allow_nan=False),
)


@given(GIVES)
def test_a_connection_arrives_as_it_left(order: Give) -> None:
    found = decode(encode(order))
    assert found == order
    assert isinstance(found, Give)
    assert found.settings is order.settings  # interned


@given(GIVES, st.integers(0, 400), st.binary(max_size=8))
def test_other_bytes_are_undecodable_or_a_connection(order: Give, at: int, noise: bytes) -> None:
    data = encode(order)
    try:
        found = decode(data[:at] + noise + data[at + len(noise) :])
    except Undecodable:
        return
    assert isinstance(found, Give)


@given(GIVES, st.integers(1, 50))
def test_one_cut_short_is_undecodable(order: Give, missing: int) -> None:
    data = encode(order)
    try:
        decode(data[:-missing])
    except Undecodable:
        return
    raise AssertionError("decoded")
