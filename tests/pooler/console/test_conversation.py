"""The console's protocol, message by message."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pooler.console.conversation import Conversation
from pooler.console.grammar import Command, refusal
from pooler.console.results import Column, Result, columns
from pooler.errors import PeerError, decode
from pooler.messages import HEAD, HEAD_SIZE

TWO = columns("name count:4")


def columns_of(command: Command) -> Sequence[Column]:
    return TWO if command.verb == "SHOW" else ()


def run(command: Command) -> Result:
    if command.argument == "nothing":
        raise refusal("42601", "no such thing")
    if command.verb == "SHOW":
        return Result("SHOW", TWO, [("a", 1), ("b", 2), ("c", 3)])
    return Result(command.verb)


def say(conversation: Conversation, kind: str, payload: bytes = b"") -> bytes:
    said = b""
    steps = conversation.receive(ord(kind), payload)
    try:
        step = next(steps)
        while True:
            if isinstance(step, bytes):
                said += step
                step = next(steps)
            else:
                try:
                    result = run(step)
                except PeerError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(result)
    except StopIteration:
        return said


def kinds(data: bytes) -> str:
    found = ""
    while data:
        kind, length = HEAD.unpack_from(data)
        found += chr(kind)
        data = data[length + 1 :]
    return found


@pytest.fixture
def conversation() -> Conversation:
    return Conversation(columns_of)


def test_a_query_brings_rows_and_several_bring_several(conversation: Conversation) -> None:
    assert kinds(say(conversation, "Q", b"SHOW POOLS\0")) == "TDDDCZ"
    assert kinds(say(conversation, "Q", b"SHOW POOLS; PAUSE; \0")) == "TDDDCCZ"
    assert kinds(say(conversation, "Q", b" ;\0")) == "IZ"


def test_an_error_ends_the_query_and_not_the_session(conversation: Conversation) -> None:
    assert kinds(say(conversation, "Q", b"PAUSE; SHOW nothing; PAUSE\0")) == "CEZ"
    assert kinds(say(conversation, "Q", b"PAUSE\0")) == "CZ"


def test_the_extended_protocol_as_drivers_speak_it(conversation: Conversation) -> None:
    assert kinds(say(conversation, "P", b"s1\0SHOW POOLS\0\0\0")) == "1"
    assert kinds(say(conversation, "D", b"Ss1\0")) == "tT"
    assert kinds(say(conversation, "B", b"\0s1\0" + b"\0\0\0\0\0\x01\0\x01")) == "2"
    described = say(conversation, "D", b"P\0")
    assert described.endswith(b"\0\x01")  # binary, as it was bound
    assert kinds(say(conversation, "E", b"\0\0\0\0\x02")) == "DDs"
    assert kinds(say(conversation, "E", b"\0\0\0\0\0")) == "DC"
    assert kinds(say(conversation, "C", b"Ss1\0")) == "3"
    assert kinds(say(conversation, "S")) == "Z"
    assert kinds(say(conversation, "E", b"\0\0\0\0\0")) == "E"  # the Sync has ended the portal


def test_an_empty_statement_and_one_without_rows(conversation: Conversation) -> None:
    for sql, described, executed in ((b"", "tn", "I"), (b"RESUME", "tn", "C")):
        assert kinds(say(conversation, "P", b"\0" + sql + b"\0\0\0")) == "1"
        assert kinds(say(conversation, "D", b"S\0")) == described
        assert kinds(say(conversation, "B", b"\0\0" + bytes(6))) == "2"
        assert kinds(say(conversation, "E", b"\0\0\0\0\0")) == executed


@pytest.mark.parametrize(
    ("kind", "payload", "sqlstate"),
    [
        ("P", b"\0SELECT 1\0\0\0", "42601"),
        ("P", b"\0PAUSE; RESUME\0\0\0", "42601"),
        ("B", b"\0nosuch\0" + bytes(6), "26000"),
        ("D", b"Snosuch\0", "26000"),
        ("E", b"nosuch\0\0\0\0\0", "34000"),
    ],
)
def test_a_batch_that_fails_is_skipped_to_its_sync(
    conversation: Conversation, kind: str, payload: bytes, sqlstate: str
) -> None:
    said = say(conversation, kind, payload)
    assert decode(said[HEAD_SIZE:])["C"] == sqlstate
    assert say(conversation, "P", b"\0PAUSE\0\0\0") == b""
    assert kinds(say(conversation, "S")) == "Z"
    assert kinds(say(conversation, "P", b"\0PAUSE\0\0\0")) == "1"


def test_parameters_are_refused(conversation: Conversation) -> None:
    say(conversation, "P", b"\0SHOW POOLS\0\0\0")
    assert kinds(say(conversation, "B", b"\0\0\0\0\0\x01\0\0\0\x01x\0\0")) == "E"


def test_statements_are_bounded(conversation: Conversation) -> None:
    for number in range(256):
        assert kinds(say(conversation, "P", b"s%d\0PAUSE\0\0\0" % number)) == "1"
    assert kinds(say(conversation, "P", b"more\0PAUSE\0\0\0")) == "E"


@given(st.lists(st.tuples(st.sampled_from("QPBDECSHXdcfpF"), st.binary(max_size=40))))
def test_only_peer_errors_escape(messages: list[tuple[str, bytes]]) -> None:
    conversation = Conversation(columns_of)
    fatal = True
    try:
        for kind, payload in messages:
            kinds(say(conversation, kind, payload))
    except PeerError as error:
        fatal = error.severity == "FATAL"
    assert fatal
