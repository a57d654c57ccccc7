"""A client's SQL with its prepared statements called as the servers know them, and what is not for servers taken out.

A DEALLOCATE, which is ours alone to do, becomes a statement that does nothing but fail where it would have failed, in a
transaction that is aborted. A LISTEN or UNLISTEN, which another connection does for all clients, becomes the LISTEN of
a mark: a name of its own, which the server forgets if the transaction, or its savepoint, is rolled back. So which of
them held is asked of the server afterwards (`settling`), and what is wrong with one (25P02, a standby) the server says.
Their answers are given back their own tags.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping

import attrs

from pooler.errors import FEATURE_NOT_SUPPORTED, PeerError
from pooler.prepared import ABSENT, PREFIX, Statement, Step, by_sql
from pooler.sql import SHARED, Act, Kind, Pin, acts

DUPLICATE_PREPARED_STATEMENT = "42P05"
NOTHING = b"RESET portway.nothing"  # a placeholder that PostgreSQL makes on the spot
_FAILING = b'EXECUTE "' + ABSENT + b'"'
_CALLED = {
    Pin.TEMPORARY_TABLE: "a temporary table",
    Pin.ADVISORY_LOCK: "an advisory lock of the session",
    Pin.HELD_CURSOR: "a cursor WITH HOLD",
    Pin.SETTING: "set_config of a parameter whose name is not in the statement",
}
_TAGS = {Kind.LISTEN: b"LISTEN", Kind.UNLISTEN: b"UNLISTEN", Kind.UNLISTEN_ALL: b"UNLISTEN"}
# Nobody can guess it: a NOTIFY of this name would reach a client that did not ask for it.
_MARK = PREFIX + secrets.token_hex(8).encode() + b"_"
_numbers = itertools.count()


@attrs.frozen
class Rewritten:
    """What to send. `steps` are those of its statements, in order, or none if nothing about them matters."""

    sql: bytes
    steps: tuple[Step, ...] = ()
    needs: tuple[Statement, ...] = ()  # must be prepared before
    anew: tuple[Statement, ...] = ()  # is prepared by it, so must not be there before
    control: bool = False  # begins or ends transactions


@attrs.frozen
class Session:
    """What the meaning of a text hangs on."""

    names: Mapping[bytes, Statement]
    place: bytes  # what else the meaning of a statement hangs on
    refuses: Pin
    listens: bool = True  # there may be something that an UNLISTEN takes back


def rewrite(sql: bytes, session: Session) -> Rewritten:
    """The same text where nothing is to be changed."""
    found = acts(sql)
    if all(act.plain for act in found):
        return Rewritten(sql, control=any(act.kind is Kind.CONTROL for act in found))
    if not session.listens and any(act.kind is Kind.LISTEN for act in found):
        session = attrs.evolve(session, listens=True)
    names = dict(session.names)
    steps: list[Step] = []
    needs: list[Statement] = []
    anew: list[Statement] = []
    pieces: list[bytes] = []
    at = 0
    for act in found:
        step, text, statement = _rewrite(sql, act, names, session)
        steps.append(step)
        if statement is not None and statement not in anew:
            (anew if act.kind is Kind.PREPARE else needs).append(statement)
        if text is not None:
            pieces += sql[at : act.start], text
            at = act.end
    control = any(act.kind is Kind.CONTROL for act in found)
    return Rewritten(b"".join(pieces) + sql[at:], tuple(steps), tuple(needs), tuple(anew), control)


def _rewrite(
    sql: bytes, act: Act, names: dict[bytes, Statement], session: Session
) -> tuple[Step, bytes | None, Statement | None]:
    """What is noted of one statement, its new text if it is another, and the prepared statement that it uses or
    makes."""
    refused = act.makes & session.refuses
    if refused:
        return Step(act, error=_refusal(refused)), _FAILING, None
    if act.kind is Kind.UNREADABLE_CHANNEL:
        return Step(act, error=_UNREADABLE), _FAILING, None
    if act.kind in SHARED and session.listens:
        mark = _MARK + b"%d" % next(_numbers)
        return Step(act, tag=_TAGS[act.kind], mark=mark), b"LISTEN " + mark, None
    if act.kind in SHARED:
        return Step(attrs.evolve(act, kind=Kind.PLAIN)), None, None
    known = names.get(act.name)
    if act.kind is Kind.PREPARE:
        if known is not None:
            return Step(act, error=duplicate(act.name)), _FAILING, None
        names[act.name] = statement = by_sql(sql[act.name_end : act.end], session.place)
        return Step(act, statement=statement), _renamed(sql, act, statement), statement
    if act.kind is Kind.EXECUTE and known is not None:
        # What Parse has prepared may be any statement, a SET too.
        return (known.steps[0] if known.steps else Step(act)), _renamed(sql, act, known), known
    if act.kind is Kind.DEALLOCATE and known is not None:
        del names[act.name]
        return Step(act, tag=b"DEALLOCATE"), NOTHING, None
    if act.kind is Kind.DEALLOCATE_ALL:
        names.clear()
        return Step(act, tag=b"DEALLOCATE ALL"), NOTHING, None
    return Step(act), None, None


def _renamed(sql: bytes, act: Act, statement: Statement) -> bytes:
    return sql[act.start : act.name_at] + statement.name + sql[act.name_end : act.end]


def duplicate(name: bytes) -> bytes:
    """The ErrorResponse for a name that is taken, as PostgreSQL words it."""
    message = f'prepared statement "{name.decode("utf-8", "replace")}" already exists'
    return PeerError(DUPLICATE_PREPARED_STATEMENT, message, severity="ERROR").encode()


def failing(error: bytes) -> Rewritten:
    """A text that fails, as if it were with this error."""
    return Rewritten(_FAILING, (Step(error=error),))


_UNREADABLE = PeerError(
    FEATURE_NOT_SUPPORTED, 'the name of a channel can\'t be written as U&"..." here', severity="ERROR"
).encode()


def _refusal(refused: Pin) -> bytes:
    what = next(text for pin, text in _CALLED.items() if pin & refused)
    return PeerError(
        FEATURE_NOT_SUPPORTED,
        f"{what} does not outlive its transaction here",
        hint='The database has session_state = "refuse"; with "pin" the client would keep its server connection.',
        severity="ERROR",
    ).encode()
