"""Names of prepared statements, changed in passing."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pooler.errors import PeerError
from pooler.messages import HEAD_SIZE, SYNC, message, query
from pooler.prepared import ServerStatements, parsed
from pooler.renaming import execute, rename
from pooler.states import Outstanding

STATEMENT = parsed(b"SELECT $1", b"\0\0", b"")
NAMES = {b"mine": STATEMENT}
EXECUTE = message(b"E", bytes(5))


def bind(name: bytes, rest: bytes = b"\0\0\0\1\0\0\0\3abc\0\0") -> bytes:
    return message(b"B", b"portal\0" + name + b"\0" + rest)


def there() -> ServerStatements:
    return ServerStatements({STATEMENT.name: True})


def test_only_names_and_lengths_change() -> None:
    sent = bind(b"mine") + message(b"D", b"Smine\0") + message(b"D", b"Pportal\0") + EXECUTE + SYNC
    renamed = rename(sent, NAMES, there(), parsed=False)
    assert renamed is not None
    assert renamed.data == (
        bind(STATEMENT.name) + message(b"D", b"S" + STATEMENT.name + b"\0") + sent[sent.index(b"D\0\0\0\x0cP") :]
    )


def test_a_large_bind_is_cut_anywhere_behind_its_names() -> None:
    sent = bind(b"mine", b"x" * 1000)
    renamed = rename(sent[:50], NAMES, there(), parsed=False)
    assert renamed is not None
    assert renamed.data == bind(STATEMENT.name, b"x" * 1000)[: 50 + len(STATEMENT.name) - len(b"mine")]


@pytest.mark.parametrize(
    "sent",
    [bind(b"other"), bind(b""), message(b"P", b"mine\0SELECT 1\0\0\0"), message(b"C", b"Smine\0"), query("SET x = 1"),
     bind(b"mine")[:8], message(b"P", b"\0SELECT 1\0\0\0") + SYNC],
)  # fmt: skip
def test_whatever_needs_more_than_a_name_is_left_alone(sent: bytes) -> None:
    assert rename(sent, NAMES, there(), parsed=False) is None


def test_a_statement_that_the_server_lacks_is_left_alone() -> None:
    assert rename(bind(b"mine"), NAMES, ServerStatements(), parsed=False) is None
    assert rename(bind(b"mine"), NAMES, ServerStatements({STATEMENT.name: False}), parsed=False) is None


@given(st.binary(max_size=60), st.booleans())
def test_property_only_peer_error_escapes(data: bytes, known: bool) -> None:
    try:
        rename(data if known else b"B" + data, NAMES, there(), known)
    except PeerError:
        pass


@attrs.define(eq=False)
class Holder:
    """Of a client's names, and of a server's statements."""

    outstanding: Outstanding = attrs.field(factory=lambda: Outstanding(watching=True))
    statements: ServerStatements = attrs.field(factory=there)
    names: Any = attrs.field(factory=lambda: dict(NAMES))

    @property
    def translation(self) -> Holder:
        return self


BATCH = message(b"B", b"\0mine\0\0\0\0\1\0\0\0\3abc\0\0") + message(b"D", b"P\0") + EXECUTE + SYNC


def executed(holder: Holder, data: bytes) -> bytes:
    anything: Any = holder
    return execute(anything, anything, data)


def test_a_batch_that_the_server_can_execute_goes_at_one_look() -> None:
    holder = Holder()
    renamed = executed(holder, BATCH)
    assert renamed == BATCH.replace(b"mine", STATEMENT.name).replace(BATCH[:5], renamed[:5])
    out = holder.outstanding
    assert not out.free
    assert out.bytes_in == len(renamed)


def test_a_batch_that_needs_more_does_not() -> None:
    doubtful = Holder()
    doubtful.outstanding.doubtful = True
    for holder in (doubtful, Holder(statements=ServerStatements()), Holder(names={})):
        assert executed(holder, BATCH) == b""
        assert holder.outstanding.free


PARTS = [
    BATCH, BATCH[: -len(SYNC)], bind(b"mine"), message(b"B", b"\0mine\0" + bytes(6)), message(b"B", bytes(8)),
    message(b"B", b"\0other\0" + bytes(6)), message(b"D", b"P\0"), message(b"D", b"Smine\0"), EXECUTE, SYNC,
    EXECUTE + SYNC, query("SELECT 1"),
]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=5), st.integers(0, 3), st.booleans())
def test_property_at_one_look_it_is_the_same(parts: list[bytes], cut: int, busy: bool) -> None:
    data = b"".join(parts)
    data = data[: len(data) - cut] if cut < 3 else data
    assume(len(data) >= HEAD_SIZE)  # less than a header is not looked at
    quick, slow = Holder(), Holder()
    for holder in (quick, slow):
        if busy:
            holder.outstanding.sent(query("SELECT 1") + EXECUTE)
    found = executed(quick, data)
    if found:
        renamed = rename(data, NAMES, slow.statements, parsed=False)
        assert renamed is not None
        assert found == renamed.data
        slow.outstanding.watching = False
        assert slow.outstanding.sent(found) == len(found)
        slow.outstanding.watching = True
        assert attrs.asdict(quick.outstanding) == attrs.asdict(slow.outstanding)
    else:
        assert attrs.asdict(quick.outstanding) == attrs.asdict(slow.outstanding)
