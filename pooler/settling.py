"""What a transaction has done to its session, found out before the server connection goes to somebody else.

Parameters that PostgreSQL reports come by themselves. For the others, and for what can't leave its connection
(temporary tables, locks, cursors), the server is asked, in one round trip, and only after statements that may have
changed them: so rollbacks, savepoints and functions need not be understood. What was found decides whether the client
keeps its server (a pin), and what it listens to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pooler.journal import CHECKS, MARKS, Journal
from pooler.parameters import TRACKED, intern, quoted
from pooler.sql import Pin

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.server import ServerConnection


async def settle(client: Client, server: ServerConnection) -> None:
    """Find out what is left of what the client has done: its settings, the server's, its pins. The server is free, and
    free again afterwards. Raises ServerError."""
    assert client.translation is not None
    journal = client.translation.journal
    names, pins = journal.question(server.reported)
    values: dict[str, str | None] = {}
    marked = any(mark for _, mark in journal.listens)
    marks: list[str] = []
    if names or pins or marked:
        wanted = [f"pg_catalog.current_setting({quoted(name)}, true)" for name in names] + [CHECKS[pin] for pin in pins]
        row = await server.ask("SELECT " + ", ".join(wanted + [MARKS] * marked) + "; UNLISTEN *" * marked)
        if marked:
            marks = (row.pop() or "").split(",")
        values = dict(zip(names, row, strict=False))
        found = Pin.NONE
        for pin, there in zip(pins, row[len(names) :], strict=False):
            if there == "t":
                found |= pin
        client.pins = (client.pins & ~journal.checks) | found
    client.pins |= journal.checks & Pin.SETTING
    if client.listening is not None:
        client.listening.settle(act for act, mark in journal.listens if not mark or mark.decode() in marks)
    _keep(client, server, journal, values)
    journal.clear()


def _keep(client: Client, server: ServerConnection, journal: Journal, values: dict[str, str | None]) -> None:
    """Settings as they are now: the client's, where what it began with counts, and the server's."""
    dropped = {TRACKED.get(name, name) for name in journal.dropped}
    if journal.all_dropped:
        dropped |= client.settings.keys() | client.base.keys()
    if not dropped and not values:
        return
    mine, its = dict(client.settings), dict(server.settings)
    for name in dropped:
        base = client.base.get(name)
        if name not in server.reported:
            its.pop(name, None)
            mine.pop(name, None)
        if base is not None:
            mine[name] = base
    for name, value in values.items():
        for settings in (mine, its):
            if value is None:
                settings.pop(name, None)
            else:
                settings[name] = value
    client.settings, server.settings = intern(mine), intern(its)
