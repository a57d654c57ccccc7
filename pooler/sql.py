"""What a SQL text does to the session that runs it, statement by statement.

Owns the few statements whose effect outlives their transaction: SET, PREPARE, LISTEN, temporary tables and the like;
everything else is PLAIN. What a function does inside is not seen. Pure, and remembered by exact bytes; the cheap look
that decides whether a text comes here at all stands in `glance`. Source: the pages of PostgreSQL's SQL commands.
"""

from __future__ import annotations

import re
from enum import Enum, Flag, auto
from functools import lru_cache
from itertools import pairwise

import attrs

from pooler.tokens import Token, statements

MAX_REMEMBERED = 1024  # texts: those that come here are few at any site
MAX_REMEMBERED_SIZE = 4096  # bytes of one: longer ones seldom come again


class Kind(Enum):
    PLAIN = auto()
    CONTROL = auto()  # begins or ends a transaction, or a part of one
    SET = auto()
    RESET = auto()
    RESET_ALL = auto()
    PREPARE = auto()
    EXECUTE = auto()
    DEALLOCATE = auto()
    DEALLOCATE_ALL = auto()
    DISCARD_ALL = auto()
    LISTEN = auto()
    UNLISTEN = auto()
    UNLISTEN_ALL = auto()
    UNREADABLE_CHANNEL = auto()  # LISTEN U&"...": a name that only the server can read


SHARED = frozenset((Kind.LISTEN, Kind.UNLISTEN, Kind.UNLISTEN_ALL))  # what a connection for all clients does


class Pin(Flag):
    """What can't leave the server connection on which it came to be."""

    NONE = 0
    TEMPORARY_TABLE = auto()
    ADVISORY_LOCK = auto()
    HELD_CURSOR = auto()
    SETTING = auto()  # of a parameter whose name is not known


EVERY_PIN = Pin.TEMPORARY_TABLE | Pin.ADVISORY_LOCK | Pin.HELD_CURSOR | Pin.SETTING


@attrs.frozen
class Act:
    """One statement, `start` to `end` in its text. `name` is a prepared statement or a channel, and where it stands;
    `parameters` are those that SET and RESET name."""

    kind: Kind
    start: int
    end: int
    name: bytes = b""
    name_at: int = 0
    name_end: int = 0
    parameters: tuple[str, ...] = ()
    makes: Pin = Pin.NONE  # what may be there afterwards that was not there before
    lifts: Pin = Pin.NONE  # what may be gone afterwards

    @property
    def plain(self) -> bool:
        """Whether nothing of it outlives the transaction."""
        return self.kind in (Kind.PLAIN, Kind.CONTROL) and not (self.makes or self.lifts)


_LOCK = re.compile(rb"\bpg_(?:try_)?advisory_lock(?:_shared)?\b", re.IGNORECASE)
_UNLOCK = re.compile(rb"\bpg_advisory_unlock(?:_shared|_all)?\b", re.IGNORECASE)
_SET_CONFIG = re.compile(rb"\bset_config\s*\(\s*", re.IGNORECASE)
_LITERAL = re.compile(rb"'([\w.]+)'\s*,")
_LOCAL = re.compile(rb"[^,()]*,[^,()]*,\s*(?:true|'(?:t|true|on|1)')\s*\)", re.IGNORECASE)
_FLEETING_TABLE = re.compile(rb"\bon\s+commit\s+drop\b", re.IGNORECASE)
_INTO_TEMPORARY = re.compile(rb"\binto\s+(?:local\s+|global\s+)?temp(?:orary)?\b", re.IGNORECASE)
_CONTROL = frozenset((b"begin", b"start", b"commit", b"end", b"rollback", b"abort", b"savepoint", b"release"))
# These end with the transaction, however they are set; and the seed of random() can't be read back.
_FLEETING = frozenset(("transaction_isolation", "transaction_read_only", "transaction_deferrable", "seed"))
_CHARACTERISTICS = tuple(f"default_transaction_{name}" for name in ("isolation", "read_only", "deferrable"))
_SPELLED_OTHERWISE = {b"names": "client_encoding", b"schema": "search_path"}
_NAME = re.compile(rb"[a-z_\x80-\xff]")
_NO_TOKEN = Token(b"", b"", 0, 0)


def acts(text: bytes) -> tuple[Act, ...]:
    """The statements of a text, empty ones left out."""
    return _remembered(text) if len(text) <= MAX_REMEMBERED_SIZE else _acts(text)


def _acts(text: bytes) -> tuple[Act, ...]:
    return tuple(_act(text, found) for found in statements(text))


_remembered = lru_cache(MAX_REMEMBERED)(_acts)


def _act(text: bytes, tokens: list[Token]) -> Act:
    start, end = tokens[0].start, tokens[-1].end
    padded = [*tokens[:8], *[_NO_TOKEN] * 4]
    first, second = tokens[0].word, padded[1].word

    def named(kind: Kind, token: Token) -> Act:
        return Act(kind, start, end, token.text, token.start, token.end)

    if first == b"set" or first == b"reset":
        return _setting(start, end, padded)
    if first == b"prepare":
        return Act(Kind.CONTROL, start, end) if second == b"transaction" else named(Kind.PREPARE, padded[1])
    if first == b"execute":
        return named(Kind.EXECUTE, padded[1])
    if first == b"deallocate":
        token = padded[2] if second == b"prepare" and len(tokens) > 2 else padded[1]
        return Act(Kind.DEALLOCATE_ALL, start, end) if token.word == b"all" else named(Kind.DEALLOCATE, token)
    if first == b"discard" and second == b"all":
        return Act(Kind.DISCARD_ALL, start, end)
    if first == b"listen" or first == b"unlisten":
        if second == b"*" and len(tokens) == 2 and first == b"unlisten":
            return Act(Kind.UNLISTEN_ALL, start, end)
        if second == b"u" and padded[2].word == b"&":
            return Act(Kind.UNREADABLE_CHANNEL, start, end)
        if len(tokens) == 2 and (_NAME.match(second) or (not second and text[padded[1].start :].startswith(b'"'))):
            return named(Kind.LISTEN if first == b"listen" else Kind.UNLISTEN, padded[1])
        return Act(Kind.PLAIN, start, end)  # the server will say what is wrong with it
    if first == b"explain" or first == b"create":
        executed = _executed(tokens)
        if executed is not None:
            return attrs.evolve(named(Kind.EXECUTE, executed), makes=_makes(text[start:end], first, padded))
    return _other(text[start:end], start, tokens, padded)


def _setting(start: int, end: int, tokens: list[Token]) -> Act:
    """SET and RESET. SET LOCAL ends with its transaction."""
    first, second, third = (token.word for token in tokens[:3])
    kind = Kind.SET if first == b"set" else Kind.RESET
    if kind is Kind.RESET and second == b"all":
        return Act(Kind.RESET_ALL, start, end)
    if kind is Kind.SET and second in (b"local", b"constraints", b"transaction"):
        return Act(Kind.PLAIN, start, end)
    at = 1
    if second == b"session" and third not in (b"=", b"to", b".", b"authorization"):
        at = 2
    word = tokens[at].word
    if word == b"characteristics":
        return Act(kind, start, end, parameters=_CHARACTERISTICS)
    if word == b"session" and tokens[at + 1].word == b"authorization":
        return Act(kind, start, end, parameters=("session_authorization", "role"))
    if word == b"time" and tokens[at + 1].word == b"zone":
        return Act(kind, start, end, parameters=("timezone",))
    name = tokens[at].text.decode("utf-8", "replace").lower()
    while tokens[at + 1].word == b"." and at + 3 < len(tokens):
        at += 2
        name += "." + tokens[at].text.decode("utf-8", "replace").lower()
    if tokens[at + 1].word not in (b"=", b"to"):
        name = _SPELLED_OTHERWISE.get(word, name)
    elif kind is Kind.SET and tokens[at + 2].word == b"default":
        kind = Kind.RESET
    return Act(Kind.PLAIN, start, end) if name in _FLEETING else Act(kind, start, end, parameters=(name,))


def _executed(tokens: list[Token]) -> Token | None:
    """The name in EXPLAIN ... EXECUTE name, CREATE TABLE ... AS EXECUTE name."""
    for before, token, name in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if token.word == b"execute" and before.word in (b"explain", b"as", b"analyze", b"verbose", b")"):
            return name
    return None


def _other(statement: bytes, start: int, tokens: list[Token], padded: list[Token]) -> Act:
    first = tokens[0].word
    lifts = Pin.NONE
    if first == b"close":
        lifts = Pin.HELD_CURSOR
    elif first == b"drop" or first == b"discard":
        lifts = Pin.TEMPORARY_TABLE
    elif _UNLOCK.search(statement):
        lifts = Pin.ADVISORY_LOCK
    makes = _makes(statement, first, padded)
    if first == b"declare" and any(one.word == b"with" and two.word == b"hold" for one, two in pairwise(tokens)):
        makes |= Pin.HELD_CURSOR
    kind, parameters = Kind.CONTROL if first in _CONTROL else Kind.PLAIN, []
    for call in _SET_CONFIG.finditer(statement):
        literal = _LITERAL.match(statement, call.end())
        if literal is not None:
            parameters.append(literal[1].decode("ascii", "replace").lower())
        elif not _LOCAL.match(statement, call.end()):
            makes |= Pin.SETTING
    kept = tuple(name for name in parameters if name not in _FLEETING)
    return Act(Kind.SET if kept else kind, start, start + len(statement), parameters=kept, makes=makes, lifts=lifts)


def _makes(statement: bytes, first: bytes, padded: list[Token]) -> Pin:
    makes = Pin.NONE
    if _LOCK.search(statement):
        makes |= Pin.ADVISORY_LOCK
    if first == b"create":
        temporary = any(token.word in (b"temp", b"temporary") for token in padded[1:5])
        if temporary and not _FLEETING_TABLE.search(statement):
            makes |= Pin.TEMPORARY_TABLE
    elif _INTO_TEMPORARY.search(statement):
        makes |= Pin.TEMPORARY_TABLE
    return makes
