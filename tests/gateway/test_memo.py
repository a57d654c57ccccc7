"""The memory of parsed lines stays bounded, keeps what repeats, and never remembers a failure."""

from __future__ import annotations

import pytest

from gateway import memo
from gateway.memo import PLAIN, Line, LineMemo


class Parser:
    """Remembers what it was asked; lines that begin with "S" are special."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def __call__(self, line: bytes) -> Line:
        self.asked.append(line)
        if line == b"bad":
            raise ValueError(line)
        return (1 if line.startswith(b"S") else PLAIN), line, None


def test_a_line_is_parsed_once() -> None:
    parser = Parser()
    lines = LineMemo(parser)
    assert lines[b"X: 1"] == lines[b"X: 1"] == (PLAIN, b"X: 1", None)
    assert parser.asked == [b"X: 1"]


def test_a_failure_is_not_remembered() -> None:
    lines = LineMemo(Parser())
    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            lines[b"bad"]
    assert not lines


def test_a_plain_field_with_ever_new_values_fills_nothing() -> None:
    lines = LineMemo(Parser())
    for number in range(1000):
        assert lines[b"X: %d" % number][1] == b"X: %d" % number
    assert len(lines) == memo.MAX_VALUES
    assert lines[b"Y: 1"]
    assert b"Y: 1" in lines
    assert lines.crowded == {b"X"}


def test_remembered_lines_that_go_on_as_they_came_are_known_apart() -> None:
    lines = LineMemo(lambda line: (PLAIN, line.replace(b":  ", b": "), None))
    assert lines[b"X:  1"][1] == lines[b"X: 1"][1] == b"X: 1"
    assert lines.as_is == {b"X: 1"}
    lines.forget()
    assert not lines.as_is


def test_number_and_size_are_bounded() -> None:
    lines = LineMemo(Parser())
    for number in range(memo.MAX_LINES * 2):
        assert lines[b"S: %d" % number]
        assert lines[b"X%d: 1" % number]
    assert len(lines) <= memo.MAX_LINES
    assert len(lines.values_of) <= memo.MAX_LINES
    for number in range(2 * memo.MAX_BYTES // memo.MAX_LINE):
        assert lines[b"S: %d" % number + b"x" * (memo.MAX_LINE - 10)]
        assert lines.size <= memo.MAX_BYTES
    assert lines.size == sum(map(len, lines))


def test_a_long_line_is_parsed_each_time() -> None:
    lines = LineMemo(Parser())
    assert lines[b"S" * (memo.MAX_LINE + 1)]
    assert not lines
