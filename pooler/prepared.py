"""Prepared statements that clients share: by content, under one name on every server connection.

A client's name for a statement is its own (`Translation.names`); on servers a statement is named after its content, so
that any client that prepares the same finds it there, in any worker. Owns that name, the messages that prepare a
statement, and which of them a server connection has: the least recently used goes when there are too many.
"""

from __future__ import annotations

import hashlib
import re
from weakref import WeakValueDictionary

import attrs

from pooler.messages import message
from pooler.sql import Act

PREFIX = b"portway_"
ABSENT = PREFIX  # a name that no statement ever has
# feature_not_supported is how "cached plan must not change result type" comes; that a shared statement is not there
# (26000) means that somebody has done something to this connection that was not seen.
COMPLAINT = re.compile(rb"\0C0A000\0|\0C26000\0.*portway_[0-9a-f]{24}", re.DOTALL)
_DIGEST = 12  # bytes: two of 10^9 statements share a name with a probability of 10^-11
_COUNT = b"\0\0"  # of formats, of parameters: none


@attrs.frozen(eq=False)
class Statement:
    """One content. `preparing` is sent where it is missing and answered by `completions`."""

    name: bytes  # on servers
    preparing: bytes = attrs.field(repr=False)
    completions: bytes  # the kinds of the messages in `preparing`
    steps: tuple[Step, ...] = ()  # what its execution does to the session, if it does anything


@attrs.frozen
class Step:
    """One statement on its way to the server: what it does when it completes, and what the client is to see."""

    act: Act | None = None  # None: ours, and its completion is not shown
    tag: bytes = b""  # shown instead of the server's
    statement: Statement | None = None  # that PREPARE makes
    error: bytes = b""  # shown instead of the server's
    mark: bytes = b""  # the channel that the server listens to in its place, for as long as its transaction holds


@attrs.frozen(eq=False)
class Unnamed:
    """The statement without a name."""

    parse: bytes = attrs.field(repr=False)  # the message
    steps: tuple[Step, ...] = ()


_known: WeakValueDictionary[bytes, Statement] = WeakValueDictionary()


def parsed(sql: bytes, types: bytes, place: bytes, original: bytes = b"", steps: tuple[Step, ...] = ()) -> Statement:
    """The statement of a Parse: its SQL, and its parameter types as they stand in the message. `place` is what else its
    meaning hangs on (search_path), `original` what the client wrote if that was another."""
    name = _name(b"P", sql, types, place, original)
    statement = _known.get(name)
    if statement is None:
        parse = message(b"P", name + b"\0" + sql + b"\0" + types)
        statement = _known.setdefault(name, Statement(name, parse, b"P", steps))
    return statement


def by_sql(definition: bytes, place: bytes) -> Statement:
    """The statement of a PREPARE; `definition` is what stands behind the name: types, AS, the statement."""
    name = _name(b"Q", definition, place)
    statement = _known.get(name)
    if statement is None:
        # By messages, not by a Query: a Query would end the transaction of a pipeline.
        sql = b"PREPARE " + name + b" " + definition
        ours = PREFIX + b"prepare\0"
        preparing = (
            message(b"P", ours + sql + b"\0" + _COUNT)
            + message(b"B", ours + ours + _COUNT + _COUNT + _COUNT)
            + message(b"E", ours + bytes(4))
            + closing(ours[:-1], b"P")
            + closing(ours[:-1])
        )
        statement = _known.setdefault(name, Statement(name, preparing, b"PBECC"))
    return statement


def closing(name: bytes, what: bytes = b"S") -> bytes:
    """A Close."""
    return message(b"C", what + name + b"\0")


def _name(*parts: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST)
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return PREFIX + digest.hexdigest().encode()


@attrs.define(eq=False)
class ServerStatements:
    """What one server connection has prepared, the least recently used first. False: it has, or may have, and it is to
    be made anew."""

    names: dict[bytes, bool] = attrs.field(factory=dict)

    def use(self, name: bytes) -> bool:
        """Whether it is there; if so, it is the most recently used now."""
        fresh = self.names.pop(name, None)
        if fresh is not None:
            self.names[name] = fresh
        return bool(fresh)

    def doubt(self) -> None:
        """The server complained about one of them (its tables have changed): all are to be made anew."""
        for name in self.names:
            self.names[name] = False

    def add(self, name: bytes, limit: int) -> list[bytes]:
        """It is prepared now. Those that are to be closed: itself if it was there, and whoever is too many."""
        closed = []
        if self.names.pop(name, None) is not None:
            closed.append(name)
        while len(self.names) >= limit:
            oldest = next(iter(self.names))
            del self.names[oldest]
            closed.append(oldest)
        self.names[name] = True
        return closed
