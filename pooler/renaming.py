"""A client's messages with the server's names for its prepared statements, where nothing else about them differs.

The quick way of clients that use prepared statements: as long as the server has them, nothing is prepared in passing
and no answer has to be looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from pooler.batches import executed
from pooler.errors import PROTOCOL_VIOLATION, PeerError
from pooler.messages import HEAD, HEAD_SIZE
from pooler.prepared import ServerStatements, Statement
from pooler.sql import acts
from pooler.states import BIND, CLOSE, DESCRIBE, FUNCTION_CALL, MAX_MESSAGE, PARSE, QUERY, SYNC

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.server import ServerConnection

_unpack = HEAD.unpack_from


@attrs.frozen
class Renamed:
    """The bytes to send; `parsed`: the statement without a name is the client's own, made on this connection."""

    data: bytes
    parsed: bool


def execute(client: Client, server: ServerConnection, data: bytes) -> bytes:
    """What to send, noted already, where `data` is the batch that executes a prepared statement which the server has;
    else b"". Nothing of a message before it is still to come."""
    translation, out = client.translation, server.outstanding
    name = executed(data)
    if not name or translation is None or out.doubtful:
        return b""
    statement = translation.names.get(name)
    if statement is None or statement.steps or not server.statements.use(statement.name):
        return b""
    end = HEAD_SIZE + 1 + len(name)
    bind = HEAD.pack(BIND, _unpack(data)[1] + len(statement.name) - len(name)) + b"\0" + statement.name
    renamed = bind + data[end:]
    out.sent_batch(len(renamed))
    return renamed


def rename(data: bytes, names: Mapping[bytes, Statement], statements: ServerStatements, parsed: bool) -> Renamed | None:
    """None if there is more to it, or not enough of it. `parsed` as in `Renamed`, before. Raises PeerError."""
    pieces: list[bytes] = []
    at, done, size = 0, 0, len(data)
    pending = False  # a Parse to which nothing is bound yet
    while at + HEAD_SIZE <= size:
        kind, length = _unpack(data, at)
        if not 4 <= length <= MAX_MESSAGE:
            raise PeerError(PROTOCOL_VIOLATION, "invalid message length")
        start = 0  # of a statement's name
        if kind == BIND:
            start = data.find(b"\0", at + HEAD_SIZE) + 1
            if not start:
                return None
        elif kind == DESCRIBE:
            if data[at + HEAD_SIZE : at + HEAD_SIZE + 1] == b"S":
                start = at + HEAD_SIZE + 1
        elif kind in (PARSE, QUERY):
            if _matters(data, at, at + length + 1):
                return None
            parsed = pending = kind == PARSE  # a Query ends the statement without a name
        elif kind in (CLOSE, FUNCTION_CALL) or (kind == SYNC and pending):
            return None
        if start:
            end = data.find(b"\0", start)
            if end < 0:
                return None
            if end > start:
                statement = names.get(data[start:end])
                if statement is None or statement.steps or not statements.use(statement.name):
                    return None
                name = statement.name
                head = HEAD.pack(kind, length + len(name) + start - end)
                pieces += data[done:at], head, data[at + HEAD_SIZE : start], name
                done = end
            elif not parsed:
                return None
            else:
                pending = False
        at += length + 1
    pieces.append(data[done:])
    return Renamed(b"".join(pieces), parsed)


def _matters(data: bytes, at: int, end: int) -> bool:
    """Whether this Query, or Parse, does anything to the session. One that is not all there may."""
    start, stop = at + HEAD_SIZE, end - 1
    if data[at] == PARSE:
        start += 1
        stop = data.find(b"\0", start)
        if data[start - 1 : start] != b"\0":
            return True
    return end > len(data) or any(not act.plain for act in acts(data[start:stop]))
