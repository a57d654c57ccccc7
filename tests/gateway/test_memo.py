"""The memory of parsed lines stays bounded and never remembers a failure."""

from __future__ import annotations

import pytest

from gateway import memo
from gateway.memo import LineMemo


def test_a_line_is_parsed_once() -> None:
    parsed: list[bytes] = []
    lines: LineMemo[int] = LineMemo(lambda line: parsed.append(line) or len(line))  # type: ignore[func-returns-value]
    assert [lines[b"abc"], lines[b"abc"]] == [3, 3]
    assert parsed == [b"abc"]


def test_a_failure_is_not_remembered() -> None:
    def parse(line: bytes) -> int:
        raise ValueError(line)

    lines: LineMemo[int] = LineMemo(parse)
    for _ in range(2):
        with pytest.raises(ValueError, match="x"):
            lines[b"x"]
    assert not lines


def test_number_and_size_are_bounded() -> None:
    lines: LineMemo[int] = LineMemo(len)
    for number in range(memo.MAX_LINES * 2):
        assert lines[b"%d" % number]
    assert len(lines) <= memo.MAX_LINES
    for number in range(2 * memo.MAX_BYTES // memo.MAX_LINE):
        assert lines[b"%d" % number + b"x" * (memo.MAX_LINE - 10)]
        assert lines.size <= memo.MAX_BYTES
    assert lines.size == sum(map(len, lines))


def test_a_long_line_is_parsed_each_time() -> None:
    lines: LineMemo[int] = LineMemo(len)
    assert lines[b"x" * (memo.MAX_LINE + 1)] == memo.MAX_LINE + 1
    assert not lines
