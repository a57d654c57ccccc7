"""SQL as PostgreSQL's scanner cuts it, as far as it takes to know where statements and names begin and end.

Knows strings, quoted names, dollar quotes and nested comments; numbers and operators are cut anywhere, which nobody
here minds. Never fails: what is not closed reaches to the end of the text, where the server will refuse it. Source:
PostgreSQL documentation 4.1 "Lexical Structure".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import attrs

_TOKEN = re.compile(
    rb"""
    (?P<space>[\s\x00]+|--[^\n]*)
  | (?P<comment>/\*)
  | (?P<string>[eE]'(?:[^'\\]|\\.|'')*(?:'|\\?\Z)|(?:[bBnNxX]|[uU]&)?'(?:[^']|'')*(?:'|\Z))
  | (?P<quoted>"(?:[^"]|"")*(?:"|\Z))
  | (?P<dollar>\$(?P<tag>(?:[A-Za-z_\x80-\xff][\w\x80-\xff]*)?)\$.*?(?:\$(?P=tag)\$|\Z))
  | (?P<word>[A-Za-z_\x80-\xff][\w$\x80-\xff]*)
  | (?P<sign>\$?\d[\w.]*|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE = re.compile(rb"/\*|\*/")


@attrs.frozen
class Token:
    """A word in lower case, a sign, or what stood in quotes; `start` to `end` in the text. `word` is empty for what
    was quoted: no keyword."""

    text: bytes
    word: bytes
    start: int
    end: int


def statements(text: bytes) -> Iterator[list[Token]]:
    """The tokens of each statement, without the semicolons; empty statements are left out."""
    found: list[Token] = []
    depth = 0  # of parentheses
    atomic = False  # in the body of a function in SQL (CREATE FUNCTION ... BEGIN ATOMIC): its semicolons end nothing
    for token in tokens(text):
        if token.word == b";" and depth <= 0 and not atomic:
            if found:
                yield found
            found, depth = [], 0
            continue
        if token.word == b"(":
            depth += 1
        elif token.word == b")":
            depth -= 1
        elif token.word == b"atomic" and found and found[-1].word == b"begin":
            atomic = True  # to the end of the text: whose END ends it, only a parser knows
        found.append(token)
    if found:
        yield found


def tokens(text: bytes) -> Iterator[Token]:
    """All that is neither white space nor comment."""
    at, size = 0, len(text)
    while at < size:
        found = _TOKEN.match(text, at)
        assert found is not None  # its last alternative takes anything
        start, at = at, found.end()
        kind = found.lastgroup
        if kind == "comment":
            at = _after_comment(text, at)
        elif kind == "word" or kind == "sign":
            folded = found[0].lower()
            yield Token(folded, folded, start, at)
        elif kind == "quoted":
            yield Token(found[0][1:-1].replace(b'""', b'"'), b"", start, at)
        elif kind != "space":
            yield Token(found[0], b"", start, at)


def _after_comment(text: bytes, at: int) -> int:
    """Comments nest."""
    depth = 1
    while depth:
        found = _COMMENT_EDGE.search(text, at)
        if found is None:
            return len(text)
        depth += 1 if found[0] == b"/*" else -1
        at = found.end()
    return at
