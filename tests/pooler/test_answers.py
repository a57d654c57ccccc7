"""Answers to translated messages: what the client sees of them, however they are cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pooler.answers import Answers, Expected
from pooler.messages import message
from pooler.prepared import Step
from pooler.sql import acts
from pooler.states import BIND, EXECUTE, PARSE, QUERY, SYNC

ERROR = message(b"E", b"SERROR\0C26000\0Mno\0\0")
OTHER = message(b"E", b"SERROR\0C25P02\0Maborted\0\0")
READY = message(b"Z", b"I")
ROW = message(b"D", b"\0\1\0\0\0\3abc")
DONE = message(b"C", b"RESET\0")


class Player:
    """Answers, and what they report."""

    def __init__(self, *expected: Expected) -> None:
        self.done: list[Step] = []
        self.batches: list[tuple[int, bool]] = []
        self.answers = Answers(self.done.append, self.batch)
        for one in expected:
            self.answers.expect(one)

    def batch(self, status: int, failed: bool) -> bytes:
        self.batches.append((status, failed))
        return b""


def test_hidden_answers_are_hidden_and_ours_come_in_their_place() -> None:
    player = Player(
        Expected(PARSE, hidden=True), Expected(BIND), Expected(0, answer=message(b"3")), Expected(EXECUTE),
        Expected(SYNC),
    )  # fmt: skip
    seen = player.answers.received(message(b"1") + message(b"2") + ROW + DONE + READY)
    assert seen == message(b"2") + message(b"3") + ROW + DONE + READY
    assert player.batches == [(ord("I"), False)]


def test_an_error_takes_back_what_it_skips() -> None:
    undone: list[int] = []
    player = Player(
        Expected(BIND, error=b"instead"), Expected(PARSE, undo=lambda: undone.append(1)),
        Expected(0, answer=b"never", undo=lambda: undone.append(2)), Expected(SYNC),
    )  # fmt: skip
    assert player.answers.received(ERROR + READY) == b"instead" + READY
    assert undone == [2, 1]
    assert player.batches == [(ord("I"), True)]


def test_an_error_that_was_not_provoked_is_shown() -> None:
    player = Player(Expected(BIND, error=b"instead"), Expected(SYNC))
    assert player.answers.received(OTHER + READY) == OTHER + READY


def test_tags_and_statements_of_ours_in_a_query() -> None:
    (act,) = acts(b"DEALLOCATE a")
    steps = (Step(), Step(act, tag=b"DEALLOCATE"), Step(act, error=b"double"))
    player = Player(Expected(QUERY, steps=steps))
    seen = player.answers.received(DONE + DONE + ERROR + READY)
    assert seen == message(b"C", b"DEALLOCATE\0") + b"double" + READY
    assert player.done == list(steps[:2])


@given(st.lists(st.integers(0, 200), max_size=12))
def test_property_it_does_not_matter_where_answers_are_cut(cuts: list[int]) -> None:
    said = message(b"1") + message(b"2") + ROW * 3 + DONE + message(b"N", b"x" * 30) + ERROR + READY
    seen = []
    for places in ([], sorted(cuts)):
        player = Player(
            Expected(PARSE, hidden=True), Expected(BIND),
            Expected(EXECUTE, steps=(Step(acts(b"SET x = 1")[0], b"SET"),)),
            Expected(0, answer=message(b"3")), Expected(BIND, error=b"instead"), Expected(SYNC),
        )  # fmt: skip
        edges = [0, *(min(place, len(said)) for place in places), len(said)]
        pieces = [said[one:two] for one, two in pairwise(edges)]
        # ReadyForQuery comes whole.
        if pieces and len(pieces[-1]) < len(READY):
            pieces = [said]
        seen.append((b"".join(player.answers.received(piece) for piece in pieces), player.batches))
    assert seen[0] == seen[1]
    assert (
        seen[0][0]
        == message(b"2")
        + ROW * 3
        + message(b"C", b"SET\0")
        + message(b"3")
        + message(b"N", b"x" * 30)
        + b"instead"
        + READY
    )
