"""What one client listens to, and what waits for it."""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st

from pooler.listening import AT_ONCE, EVERYBODY, MAX_WAITING, OVERHEAD, Listening
from pooler.messages import message
from pooler.sql import Act, Kind, acts

KINDS = {"LISTEN": Kind.LISTEN, "UNLISTEN": Kind.UNLISTEN, "UNLISTEN *": Kind.UNLISTEN_ALL}


@attrs.define
class Stub:
    """As much of a client and of what it listens by as is asked here."""

    settings: dict[str, str] = attrs.field(factory=dict)
    server_encoding: str = "UTF8"
    left: set[bytes] = attrs.field(factory=set)

    def leave(self, client: Any, channels: set[bytes]) -> None:
        self.left |= channels


def listening(stub: Stub | None = None) -> Listening:
    client: Any = stub or Stub()
    return Listening(client, client)


def notification(channel: bytes, payload: str) -> bytes:
    return message(b"A", bytes(4) + channel + b"\0" + payload.encode() + b"\0")


def hear(one: Listening, text: str) -> None:
    """As if its transaction had held."""
    found = acts(text.encode())
    one.pending |= {one.channel(act.name) for act in found if act.kind is Kind.LISTEN}
    one.settle(found)


def test_only_what_is_listened_to_is_given_in_order() -> None:
    one = listening()
    hear(one, "LISTEN a; LISTEN b")
    for channel, payload in ((b"a", "1"), (b"c", "2"), (b"b", "3"), (EVERYBODY, "4")):
        assert one.deliver(channel, notification(channel, payload))
    assert one.take() == notification(b"a", "1") + notification(b"b", "3") + notification(EVERYBODY, "4")
    assert (one.take(), one.size) == (b"", 0)


def test_what_did_not_hold_is_left() -> None:
    stub = Stub()
    one = listening(stub)
    one.pending |= {b"a", b"b"}
    assert one.hears(b"a")
    one.settle(acts(b"LISTEN b"))
    assert (one.hears(b"a"), one.hears(b"b"), stub.left) == (False, True, {b"a"})


def test_names_are_cut_as_postgresql_cuts_them() -> None:
    one = listening()
    assert one.channel(b"x" * 70) == b"x" * 63
    assert one.channel("ü".encode() * 40) == "ü".encode() * 31


def test_text_is_in_the_encoding_of_the_client() -> None:
    one = listening(Stub({"client_encoding": "LATIN1"}))
    one.pending.add("ü".encode())
    one.settle([Act(Kind.LISTEN, 0, 1, "ü".encode("latin-1"))])
    one.deliver("ü".encode(), notification("ü".encode(), "ä"))
    assert one.take() == message(b"A", bytes(4) + "ü\0ä\0".encode("latin-1"))


def test_it_is_given_in_pieces_and_has_an_end() -> None:
    one = listening()
    hear(one, "LISTEN a")
    large = notification(b"a", "x" * 8_000)
    count = 0
    while one.deliver(b"a", large):
        count += 1
    assert count == MAX_WAITING // (len(large) + OVERHEAD)
    assert AT_ONCE <= len(one.take()) <= AT_ONCE + len(large)


@given(st.lists(st.tuples(st.sampled_from([*KINDS]), st.sampled_from([b"a", b"b"])), max_size=8), st.data())
def test_property_it_listens_to_what_a_set_would(statements: list[tuple[str, bytes]], data: st.DataObject) -> None:
    one, expected = listening(), set[bytes]()
    found = [Act(KINDS[word], 0, 0, name) for word, name in statements]
    one.pending |= {act.name for act in found if act.kind is Kind.LISTEN}
    held = [act for act in found if data.draw(st.booleans())]
    for act in held:
        if act.kind is Kind.LISTEN:
            expected.add(act.name)
        elif act.kind is Kind.UNLISTEN:
            expected.discard(act.name)
        else:
            expected.clear()
    one.settle(held)
    assert one.channels == expected
    assert not one.pending
