"""A bounded memory of parsed lines: the exact bytes of a line, and what parsing them gave.

Header lines repeat from request to request, so most of them are never parsed twice. Correctness does not depend on it:
the outcome is a function of the bytes alone, and the memory is simply emptied when it is full. It is a dict with
`__missing__`, so that looking up all lines of a head is one `map` in C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

Outcome = TypeVar("Outcome")

MAX_LINES: Final = 4096  # lines; a header that varies per request fills it every few thousand requests
MAX_BYTES: Final = 1 << 20  # bytes of remembered lines; their outcomes take about twice as much again
MAX_LINE: Final = 2048  # bytes; an RS256 token is about 800, longer lines are rare and parsed each time


class LineMemo(dict[bytes, Outcome]):
    """`memo[line]` is `parse(line)`, remembered if it did not raise."""

    __slots__ = ("parse", "size")

    def __init__(self, parse: Callable[[bytes], Outcome]) -> None:
        super().__init__()
        self.parse = parse
        self.size = 0

    def __missing__(self, line: bytes) -> Outcome:
        outcome = self.parse(line)
        length = len(line)
        if length <= MAX_LINE:
            if len(self) >= MAX_LINES or self.size + length > MAX_BYTES:
                self.clear()
                self.size = 0
            self[line] = outcome
            self.size += length
        return outcome
