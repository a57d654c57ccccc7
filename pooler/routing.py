"""Which transactions go to a replica: by the rule of the database, and only if the client will see what it has written.

A replica is far enough when it has replayed what the primary had written at a check that began after the client's last
transaction there: no question is put to any server for it. Owns the look at a transaction's first bytes; what it can't
be sure of goes to the primary.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING

from pooler.messages import HEAD, HEAD_SIZE
from pooler.states import BIND, CLOSE, DESCRIBE, EXECUTE, FLUSH, PARSE, QUERY, SYNC
from pooler.trial import Trial
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
_NONE: Mapping[bytes, Statement] = {}


class Reading(Enum):
    """What these first bytes of a transaction are."""

    NOT = 0  # or not for sure
    BEGUN = 1  # the beginning of a transaction that only reads
    ALONE = 2  # SELECTs, whole, and nothing else


def reads(data: bytes, auto: bool, prepared: Mapping[bytes, Statement] = _NONE) -> Reading:
    """Whether a transaction that begins with these bytes only reads. `auto`: single SELECTs, too, where they are whole;
    `prepared` has what the client has named before."""
    kind, length = HEAD.unpack_from(data)
    if kind == QUERY:
        sql = data[HEAD_SIZE:length]  # without its zero
        if _READ_ONLY.match(sql):
            return Reading.BEGUN
        return Reading.ALONE if auto and len(data) == length + 1 and _selects(sql) else Reading.NOT
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
                    return Reading.BEGUN
                if not (auto and _selects(sql)):
                    return Reading.NOT
                here.add(name)
            found = True
        elif kind == SYNC:
            return Reading.ALONE if found and at + length + 1 == len(data) else Reading.NOT
        elif kind not in _BESIDE:
            return Reading.NOT
        at += length + 1
    return Reading.NOT


def _text(statement: Statement | None) -> bytes:
    """The SQL in the Parse that prepares it on servers; nothing for one that is not known."""
    return b"" if statement is None else statement.preparing[HEAD_SIZE:].partition(b"\0")[2].partition(b"\0")[0]


def _selects(sql: bytes) -> bool:
    return bool(_SELECT.match(sql)) and not _MORE.search(sql)


def route(client: Client, primary: ServerPool, data: bytes) -> tuple[ServerPool, Trial | None]:
    """The pool for the transaction that begins with `data`; with a trial if a replica may refuse what that is."""
    readers = primary.readers
    if readers is None:  # a reload has taken them away
        return primary, None
    if client.insists:
        client.insists, client.wrote = False, True
        return primary, None
    translation = client.translation
    reading = reads(data, primary.settings.auto_reads, _NONE if translation is None else translation.names)
    if reading is Reading.NOT and not (
        client.settings.get("default_transaction_read_only") == "on"
        and not _BEGIN.search(data[:64])  # which may say READ WRITE
    ):
        client.wrote = True
        return primary, None
    if client.wrote:
        # When the last transaction ended is not known, but that it has.
        client.wrote, client.written_ns, client.needs = False, primary.lane.now_ns, 0
    if client.written_ns and not _seen(client, primary, readers):
        return primary, None
    if not _able(readers):
        return primary, None
    return readers, Trial(data) if reading is Reading.ALONE else None


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
