"""A bounded memory of parsed lines: the exact bytes of a line, and what parsing them gave.

Header lines repeat from request to request, so most of them are never parsed twice. Correctness does not depend on it:
the outcome is a function of the bytes alone, and the memory is simply emptied when it is full. It is a dict with
`__missing__`, so that looking up all lines of a head is one `map` in C. Remembering costs more than parsing a plain
line once, so of a plain field only so many values are kept: one that differs in every request fills nothing.
"""

from __future__ import annotations

from typing import Any, Final, Protocol, TypeAlias

# (kind, forward, detail), see fields.py. A plain tuple, because one is unpacked for every line of every head.
Line: TypeAlias = tuple[int, bytes, Any]

PLAIN: Final = 0  # the kind of lines that are forwarded without a look

MAX_LINES: Final = 4096  # lines
MAX_BYTES: Final = 1 << 20  # bytes of remembered lines; their outcomes take about twice as much again
MAX_LINE: Final = 2048  # bytes; an RS256 token is about 800, longer lines are rare and parsed each time
MAX_VALUES: Final = 32  # plain lines of one name

VALUE_BYTES: Final = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])  # RFC 9110 §5.5, obs-text with them


class LineParser(Protocol):
    """What turns a line into its outcome; raises for one that has none."""

    def __call__(self, line: bytes) -> Line: ...


class LineMemo(dict[bytes, Line]):
    """`memo[line]` is `parse(line)`, remembered if it did not raise and is likely to come again."""

    __slots__ = ("as_is", "crowded", "parse", "size", "values_of")

    def __init__(self, parse: LineParser) -> None:
        super().__init__()
        self.parse = parse
        self.size = 0
        self.values_of: dict[bytes, int] = {}
        self.as_is: set[bytes] = set()  # of the remembered, the plain ones whose outcome is the line itself
        self.crowded: set[bytes] = set()  # names of plain fields with so many values that no more are kept

    def __missing__(self, line: bytes) -> Line:
        outcome = self.parse(line)
        length = len(line)
        if length > MAX_LINE:
            return outcome
        if outcome[0] == PLAIN:
            name = line.partition(b":")[0]
            number = self.values_of.get(name, 0)
            if number >= MAX_VALUES:
                self.crowded.add(name)
                return outcome
            self.values_of[name] = number + 1
            if outcome[1] == line:
                self.as_is.add(line)
        if len(self) >= MAX_LINES or self.size + length > MAX_BYTES:
            self.forget()
        self[line] = outcome
        self.size += length
        return outcome

    def forget(self) -> None:
        """Begin anew."""
        self.clear()
        self.values_of.clear()
        self.as_is.clear()
        self.crowded.clear()
        self.size = 0
