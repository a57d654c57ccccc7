"""The head of a server's answer: judged and read in one pass, and made ready to leave for the client.

Servers are trusted more than clients, their bytes are not: an answer that two readers could end at different places
would let one client's answer run into the next one's. So framing is as strict here as in the guard; whatever breaks it
is a 502. What is left of a head leaves rebuilt; status lines and header lines are remembered like a request's.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from gateway.errors import PeerError
from gateway.fields import (
    CHUNKED,
    CLOSE,
    HOP_BY_HOP,
    KEEP_ALIVE,
    MAX_LENGTH_DIGITS,
    MAX_NAMES,
    NAMED,
    OLD,
    WANTS_UPGRADE,
    list_of,
    split_line,
)
from gateway.memo import PLAIN, VALUE_BYTES, Line, LineMemo

MAX_ANSWER_HEAD: Final = 64 * 1024  # bytes; cookies and policies make answers' heads the larger ones
MAX_ANSWER_FIELDS: Final = 200
MAX_STATUS_LINES: Final = 256  # remembered
MAX_HEADS: Final = 512  # whole heads remembered
MAX_KNOWN: Final = 1024  # bytes of such a head
DOUBT: Final = 32  # heads that were all new before remembering them is given up but for one in so many

ORDINARY: Final = PLAIN  # detail: None
LENGTH: Final = 1  # detail: the number
CODING: Final = 2
CONNECTION: Final = 3  # detail: (flags, names)
DROPPED: Final = 4
DATE: Final = 5

_KINDS: Final = {
    **dict.fromkeys(HOP_BY_HOP, DROPPED),
    b"te": DROPPED,
    b"upgrade": DROPPED,
    b"x-served-by": DROPPED,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"date": DATE,
    b"x-request-id": DROPPED,  # the one that stands in our log is the one the client gets
}
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?").fullmatch
_BARE = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)").search

# status, the line for the client, OLD or 0
StatusLine: TypeAlias = tuple[int, bytes, int]
# status, lines for the client (the status line first), flags, body length (-1: none given), has it a Date
Answer: TypeAlias = tuple[int, list[bytes], int, int, bool]
# the same with the lines joined, the last one without its CRLF
Known: TypeAlias = tuple[int, bytes, int, int, bool]


def parse_status_line(line: bytes) -> StatusLine:
    """RFC 9112 §4. A missing reason phrase is common and harmless."""
    match = _STATUS(line)
    if match is None:
        raise PeerError("bad_answer", "malformed status line")
    minor, status, reason = match.groups(b"")
    return int(status), b"HTTP/1.1 " + status + b" " + reason, OLD if minor == b"0" else 0


class AnswerParser:
    """Parses header lines of answers; remembers which names it has judged."""

    __slots__ = ("kinds",)

    def __init__(self) -> None:
        self.kinds: dict[bytes, int] = {}

    def __call__(self, line: bytes) -> Line:
        """The field on this line, without its CRLF; PeerError if it is none."""
        name, colon, value = line.partition(b":")
        kind = self.kinds.get(name)
        if kind is None or not colon:
            kind = self._kind(line)
        value = value.strip(b" \t")
        if value.translate(None, VALUE_BYTES):
            raise PeerError("bad_answer", "a header value contains control characters")
        forward = name + b": " + value
        if kind == LENGTH:
            if not value.isdigit() or len(value) > MAX_LENGTH_DIGITS:
                raise PeerError("bad_answer", "malformed Content-Length")
            return LENGTH, b"Content-Length: %d" % int(value), int(value)
        if kind == CODING and value.lower() != b"chunked":
            raise PeerError("bad_answer", "a transfer coding that was not asked for")
        if kind == CONNECTION:
            return CONNECTION, forward, _connection(value)
        return kind, forward, None

    def _kind(self, line: bytes) -> int:
        try:
            name, _ = split_line(line)
        except PeerError as error:
            raise PeerError("bad_answer", error.detail) from None
        kind = _KINDS.get(name.lower(), ORDINARY)
        if len(self.kinds) >= MAX_NAMES:
            self.kinds.clear()
        self.kinds[name] = kind
        return kind


def _connection(value: bytes) -> tuple[int, frozenset[bytes]]:
    flags = 0
    names = set()
    for option in list_of(value):
        if option == b"close":
            flags |= CLOSE
        elif option == b"keep-alive":
            flags |= KEEP_ALIVE
        elif option == b"upgrade":
            flags |= WANTS_UPGRADE
        elif option not in _KINDS and option != b"date":
            names.add(option)
            flags |= NAMED
    return flags, frozenset(names)


class AnswerReader:
    """Reads answers' heads for every connection of a worker, and remembers their lines."""

    __slots__ = ("_doubt", "_known", "_lookup", "_status_lines", "fields")

    def __init__(self) -> None:
        self.fields = LineMemo(AnswerParser())
        self._status_lines: dict[bytes, StatusLine] = {}
        self._lookup = self.fields.__getitem__
        self._known: dict[bytes, Known] = {}
        self._doubt = 0

    def judge(self, data: bytes, end: int) -> Answer:
        """The head `data[:end]`, where `end` is the start of its last CRLF; PeerError("bad_answer") if it is none."""
        if end > MAX_ANSWER_HEAD:
            raise PeerError("bad_answer", f"the answer's head exceeds {MAX_ANSWER_HEAD} bytes")
        lines = data[:end].split(b"\r\n")
        line = lines.pop(0)
        status, line, flags = self._status_lines.get(line) or self._status_line(line)
        if len(lines) > MAX_ANSWER_FIELDS:
            raise PeerError("bad_answer", f"the answer has more than {MAX_ANSWER_FIELDS} header fields")
        out = [line]
        forward_as_is = out.append
        length = -1
        dated = False
        named: frozenset[bytes] = frozenset()
        for kind, forward, detail in map(self._lookup, lines):
            if not kind:
                forward_as_is(forward)
            elif kind == LENGTH:
                if length >= 0:
                    raise PeerError("bad_answer", "Content-Length is repeated")
                length = detail
                forward_as_is(forward)
            elif kind == DATE:
                dated = True
                forward_as_is(forward)
            elif kind == CONNECTION:
                flags |= detail[0]
                if detail[0] & NAMED:
                    named |= detail[1]
            elif kind == CODING:
                if flags & CHUNKED:
                    raise PeerError("bad_answer", "Transfer-Encoding is repeated")
                flags |= CHUNKED
        if flags & CHUNKED:
            if length >= 0:
                raise PeerError("bad_answer", "Content-Length beside Transfer-Encoding")
            if flags & OLD:
                raise PeerError("bad_answer", "Transfer-Encoding in HTTP/1.0")
        if named:
            out[1:] = [line for line in out[1:] if line.partition(b":")[0].lower() not in named]
        return status, out, flags, length, dated

    def _status_line(self, line: bytes) -> StatusLine:
        found = parse_status_line(line)
        if len(self._status_lines) >= MAX_STATUS_LINES:
            self._status_lines.clear()
        self._status_lines[line] = found
        return found

    def remembers(self, head: bytes) -> bool:
        """Whether `recall` has met this head, and kept it."""
        return head in self._known

    def recall(self, head: bytes) -> Known:
        """The same for a whole head, joined; remembered, for within a second answers often differ in nothing above
        their bodies. Where they always differ (`_doubt`), only a few are tried."""
        known = self._known.get(head)
        if known is not None:
            self._doubt = 0
            return known
        status, out, flags, length, dated = self.judge(head, len(head))
        known = (status, b"\r\n".join(out), flags, length, dated)
        self._doubt += 1
        if len(head) <= MAX_KNOWN and (self._doubt < DOUBT or not self._doubt % DOUBT):
            if len(self._known) >= MAX_HEADS:
                self._known.clear()
            self._known[head] = known
        return known


def find_answer_end(data: bytes | bytearray) -> int:
    """Like guard.find_end, for answers: -1 while the head is incomplete, PeerError once it can't become one."""
    end = data.find(b"\r\n\r\n")
    if end >= 0:
        return end
    if len(data) > MAX_ANSWER_HEAD + 4:
        raise PeerError("bad_answer", f"the answer's head exceeds {MAX_ANSWER_HEAD} bytes")
    if _BARE(data):
        raise PeerError("bad_answer", "a line of the answer's head ends with a bare LF or contains a bare CR")
    if not (data.startswith(b"HTTP/1.") or b"HTTP/1.".startswith(bytes(data))):
        raise PeerError("bad_answer", "this is not HTTP/1")
    return -1


def has_no_body(status: int, head_request: bool) -> bool:
    """RFC 9112 §6.3, rules 1 and 2: these end with their head, whatever the head says about a length."""
    return head_request or status < 200 or status == 204 or status == 304
