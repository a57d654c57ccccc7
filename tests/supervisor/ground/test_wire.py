"""The wire: types, incarnations, descriptors, a full mailbox, and that bad bytes cost only themselves."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.ground import wire
from tests.leftovers import open_files


@wire.message("test.note")
@attrs.frozen
class Note:
    text: str
    numbers: tuple[int, ...] = ()
    secret: bytes = b""
    ratio: float | None = None


@wire.message("test.packed")
@attrs.frozen
class Short:
    number: int

    def pack(self) -> bytes:
        return self.number.to_bytes(8, "little")

    @classmethod
    def unpack(cls, data: bytes) -> Short:
        if len(data) != 8:
            raise ValueError("not 8 bytes")
        return cls(int.from_bytes(data, "little"))


@attrs.frozen
class Unregistered:
    text: str


@pytest.fixture
def living() -> dict[int, int]:
    return {0: 11, 2: 12, 3: 13}


@pytest.fixture
def line() -> Iterator[wire.Wire]:
    line = wire.Wire.create(4)
    yield line
    line.close()


def mailbox(line: wire.Wire, living: dict[int, int], column: int) -> wire.Mailbox:
    return line.mailbox(column, living[column], lambda other: living.get(other, 0))


def test_a_message_arrives_with_its_types_and_the_senders_process_id(line: wire.Wire, living: dict[int, int]) -> None:
    sender, receiver = mailbox(line, living, 2), mailbox(line, living, 3)
    note = Note("hello", (1, 2), b"\x00\xff", 0.5)
    assert sender.send(3, note)
    assert receiver.receive() == wire.Letter(note, [], os.getpid())
    assert receiver.receive() is None


def test_a_message_may_pack_itself(line: wire.Wire, living: dict[int, int]) -> None:
    sender, receiver = mailbox(line, living, 2), mailbox(line, living, 3)
    assert sender.send(3, Short(0x5B << 56 | 0x5B))
    assert receiver.receive() == wire.Letter(Short(0x5B << 56 | 0x5B), [], os.getpid())


@pytest.mark.parametrize("data", [b"test.packed", b"test.packed\0short", b"test.note\0", b"\xff\0", b""])
def test_what_nobody_has_packed_is_no_message(data: bytes) -> None:
    with pytest.raises(wire.Undecodable):
        wire.decode(data)


def test_the_last_word_before_a_message_leaves_is_the_senders(line: wire.Wire, living: dict[int, int]) -> None:
    sender, receiver = mailbox(line, living, 2), mailbox(line, living, 3)
    assert not sender.send(3, Note("kept"), before=lambda: False)
    assert receiver.receive() is None
    assert sender.send(3, Note("sent"), before=lambda: True)
    letter = receiver.receive()
    assert letter is not None
    assert letter.message == Note("sent")


def test_descriptors_arrive_as_the_receivers_own(line: wire.Wire, living: dict[int, int]) -> None:
    read, write = os.pipe()
    assert mailbox(line, living, 0).send(2, Note("pipe"), (write,))
    os.close(write)
    letter = mailbox(line, living, 2).receive()
    assert letter is not None
    (received,) = letter.fds
    assert not os.get_inheritable(received)
    os.write(received, b"through")
    os.close(received)
    assert os.read(read, 100) == b"through"
    os.close(read)


def test_a_message_for_an_earlier_incarnation_is_dropped_with_its_descriptors(
    line: wire.Wire, living: dict[int, int]
) -> None:
    sender = mailbox(line, living, 0)
    read, write = os.pipe()
    before = open_files()
    assert sender.send(2, Note("late"), (write,))
    living[2] = 99
    assert sender.send(2, Note("current"))
    successor = mailbox(line, living, 2)
    letter = successor.receive()
    assert letter is not None
    assert letter.message == Note("current")
    assert successor.stale == 1
    assert open_files() <= before
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)


def test_nobody_is_sent_nothing(line: wire.Wire, living: dict[int, int]) -> None:
    sender = mailbox(line, living, 0)
    del living[3]
    assert not sender.send(3, Note("lost"))
    assert (sender.sent, sender.dropped) == (0, 1)
    assert line.empty(3) == 0


def test_a_full_mailbox_refuses_without_waiting_and_works_again_when_read(
    line: wire.Wire, living: dict[int, int]
) -> None:
    sender, receiver = mailbox(line, living, 2), mailbox(line, living, 3)
    big = Note("x" * 50_000)
    while sender.send(3, big):
        pass
    assert sender.dropped == 1
    sent = sender.sent
    assert sent >= 3
    while receiver.receive():
        pass
    assert sender.send(3, big)
    assert mailbox(line, living, 0).send(2, big), "another's mailbox is not concerned"


def test_more_than_ten_small_messages_wait_at_once(line: wire.Wire, living: dict[int, int]) -> None:
    # net.unix.max_dgram_qlen is 10 on many machines; it must not be our bound.
    sender = mailbox(line, living, 2)
    assert all(sender.send(3, Note("n")) for _ in range(200))
    assert line.empty(3) == 200


def test_an_unregistered_class_and_an_oversized_message_are_programming_errors(
    line: wire.Wire, living: dict[int, int]
) -> None:
    sender = mailbox(line, living, 2)
    with pytest.raises(TypeError, match="Unregistered"):
        sender.send(3, Unregistered("x"))
    with pytest.raises(ValueError, match=r"test\.note"):
        sender.send(3, Note("x" * wire.MAX_MESSAGE))


def test_two_classes_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match=r"test\.note"):
        wire.message("test.note")(Unregistered)


def test_garbage_is_counted_and_skipped(line: wire.Wire, living: dict[int, int]) -> None:
    stamp = (13).to_bytes(8, "little")
    raw: socket.socket = line._senders[3]
    for bad in (
        b"",
        b"short",
        stamp,
        stamp + b"{",
        stamp + b'["unknown",{}]',
        stamp + b'["test.note",{}]',
        stamp + b'["test.note",[1]]',
        stamp + b"[]",
    ):
        raw.send(bad)
    mailbox(line, living, 2).send(3, Note("good"))
    receiver = mailbox(line, living, 3)
    letter = receiver.receive()
    assert letter is not None
    assert letter.message == Note("good")
    assert receiver.malformed == 8


def test_emptying_a_dead_mailbox_closes_the_descriptors_in_flight(line: wire.Wire, living: dict[int, int]) -> None:
    sender = mailbox(line, living, 0)
    read, write = os.pipe()
    for _ in range(3):
        assert sender.send(2, Note("left behind"), (write,))
    os.close(write)
    assert line.empty(2) == 3
    assert os.read(read, 1) == b"", "no copy of the writing end is left"
    os.close(read)


def test_a_child_keeps_only_its_own_receiving_end(line: wire.Wire, living: dict[int, int]) -> None:
    receiver = mailbox(line, living, 2)
    line.keep_only(2)
    assert receiver.fileno() >= 0
    assert [end.fileno() >= 0 for end in line._receivers] == [False, False, True, False]
    assert all(end.fileno() >= 0 for end in line._senders)


@given(
    st.builds(
        Note,
        st.text(max_size=200),
        st.lists(st.integers()).map(tuple),
        st.binary(max_size=200),
        st.none() | st.floats(allow_nan=False),
    )
)
def test_property_what_is_encoded_decodes_to_the_same(note: Note) -> None:
    assert wire.decode(wire.encode(note)) == note


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: f'["test.note",{text}]'.encode()))
def test_property_only_undecodable_escapes(data: bytes) -> None:
    try:
        wire.decode(data)
    except wire.Undecodable:
        pass
