"""Which transactions go to a replica: by the rule of the database, and only if the client will see what it has written.

A replica is far enough when it has replayed what the primary had written at a check that began after the client's last
transaction there: no question is put to any server for it. Owns the look at a transaction's first bytes; what it can't
be sure of goes to the primary.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pooler.messages import HEAD, HEAD_SIZE
from pooler.states import BIND, CLOSE, DESCRIBE, ERROR, EXECUTE, FLUSH, PARSE, QUERY, SYNC
from supervisor.plane.layout import Role, ServerState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pooler.client import Client
    from pooler.pool import ServerPool
    from pooler.prepared import Statement

_READ_ONLY = re.compile(rb"\s*(?:BEGIN|START\s+TRANSACTION)\b[^;]*\bREAD\s+ONLY\b", re.IGNORECASE)
_BEGIN = re.compile(rb"\s*(?:BEGIN|START\s+TRANSACTION)\b", re.IGNORECASE)
_SELECT = re.compile(rb"\s*SELECT\b", re.IGNORECASE)
# What makes a SELECT more than reading, or several statements of one. A function that writes can't be seen from here.
_MORE = re.compile(
    rb";\s*\S|\bFOR\s+(?:NO\s+KEY\s+)?(?:UPDATE|SHARE|KEY)\b|\bINTO\b|\b(?:nextval|setval|lastval|currval|set_config|"
    rb"pg_(?:try_)?advisory\w*|pg_notify|lo_\w+|txid_current|pg_current_xact_id)\s*\(",
    re.IGNORECASE,
)
_BESIDE = frozenset((CLOSE, DESCRIBE, EXECUTE, FLUSH))
_DESCRIBED = frozenset(b"TN")  # RowDescription, NoticeResponse
_NONE: Mapping[bytes, Statement] = {}


def reads(data: bytes, auto: bool, prepared: Mapping[bytes, Statement] = _NONE) -> bool:
    """Whether these first bytes of a transaction begin one that only reads. `auto`: single SELECTs, too, where they are
    whole; `prepared` has what the client has named before."""
    kind, length = HEAD.unpack_from(data)
    if kind == QUERY:
        sql = data[HEAD_SIZE:length]  # without its zero
        return bool(_READ_ONLY.match(sql)) or (auto and len(data) == length + 1 and _selects(sql))
    at, found = 0, False
    here: set[bytes] = set()  # prepared by these bytes, and seen to read
    while at + HEAD_SIZE <= len(data):
        kind, length = HEAD.unpack_from(data, at)
        if kind in (PARSE, BIND):
            first, _, rest = data[at + HEAD_SIZE : at + length + 1].partition(b"\0")
            name = first if kind == PARSE else rest.partition(b"\0")[0]
            sql = rest.partition(b"\0")[0] if kind == PARSE else _text(prepared.get(name))
            if kind == PARSE or name not in here:
                if _READ_ONLY.match(sql) and not found:
                    return True
                if not (auto and _selects(sql)):
                    return False
                here.add(name)
            found = True
        elif kind == SYNC:
            return found and at + length + 1 == len(data)
        elif kind not in _BESIDE:
            return False
        at += length + 1
    return False


def _text(statement: Statement | None) -> bytes:
    """The SQL in the Parse that prepares it on servers; nothing for one that is not known."""
    return b"" if statement is None else statement.preparing[HEAD_SIZE:].partition(b"\0")[2].partition(b"\0")[0]


def _selects(sql: bytes) -> bool:
    return bool(_SELECT.match(sql)) and not _MORE.search(sql)


def route(client: Client, primary: ServerPool, data: bytes) -> ServerPool:
    """The pool for the transaction that begins with `data`."""
    readers = primary.readers
    if readers is None:  # a reload has taken them away
        return primary
    if client.insists:
        client.insists, client.wrote = False, True
        return primary
    translation = client.translation
    read = reads(data, primary.settings.auto_reads, _NONE if translation is None else translation.names)
    if not read and client.settings.get("default_transaction_read_only") == "on":
        read = not _BEGIN.search(data[:64])  # a BEGIN may say READ WRITE
    if not read:
        client.wrote = True
        return primary
    if client.wrote:
        # When the last transaction ended is not known, but that it has.
        client.wrote, client.written_ns, client.needs = False, primary.lane.now_ns, 0
    if client.written_ns and not _seen(client, primary, readers):
        return primary
    return readers if _able(readers) else primary


def refused(answer: bytes) -> bool:
    """Whether this beginning of an answer is a replica's 25006, or may still become it: a function that writes was
    called, and nothing was done. A SELECT's columns are described before."""
    at = 0
    while at + HEAD_SIZE <= len(answer):
        kind, length = HEAD.unpack_from(answer, at)
        if kind == ERROR:
            return b"\0C25006\0" in answer[at : at + length + 1]
        if kind not in _DESCRIBED:
            return False
        at += length + 1
    return at == len(answer)


def _seen(client: Client, primary: ServerPool, readers: ServerPool) -> bool:
    """Whether every replica that may answer shows what this client has written."""
    cells = primary.cells
    if not client.needs:
        for server in primary.group.servers:
            state = server.state
            if (
                cells[state + ServerState.ROLE] == Role.PRIMARY
                and cells[state + ServerState.ROLE_ASKED] > client.written_ns
            ):
                client.needs = max(client.needs, cells[state + ServerState.WAL])
    replicas = [server.state for server in readers.group.servers if server.takes]
    return bool(client.needs) and all(cells[state + ServerState.WAL] >= client.needs for state in replicas)


def _able(readers: ServerPool) -> bool:
    """Whether a replica can be had; if the last login failed, `sweep` tries again, and clients don't wait for it."""
    return readers.failure is None and not readers.leaving
