"""A client of the console, from its greeting to its end.

Who is in `admin_users` may do everything, who is in `stats_users` may look. Cold: people, exporters and scripts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pooler.console import commands, shows, sockets
from pooler.console.conversation import Conversation, Steps
from pooler.console.grammar import Command, refusal
from pooler.console.results import Column, Result, columns
from pooler.errors import FEATURE_NOT_SUPPORTED, INVALID_AUTHORIZATION, PeerError, notice
from pooler.messages import READY_IDLE, TERMINATE, backend_key_data, take_from_client
from pooler.parameters import TRACKED, greeting

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.runtime import PoolerRuntime

DATABASES = ("portway", "pgbouncer")
MAX_COMMAND = 64 * 1024  # bytes of a message
READ = 16 * 1024

# What drivers want to be told, and may ask for by SHOW.
PARAMETERS = {
    "server_version": f"{shows.COMPATIBLE}/portway",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO",
    "TimeZone": "GMT",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "is_superuser": "on",
}
_SHOWN = {name.lower(): value for name, value in PARAMETERS.items()}
# Drivers set these at every login; nothing here depends on them.
_SETTABLE = frozenset({*TRACKED, "extra_float_digits"})
HELP = """Console usage
\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|SOCKETS|ACTIVE_SOCKETS|USERS|VERSION
\tSHOW HOLDERS (who holds which server connection, and why)
\tSHOW LISTS|MEM|STATE|STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS
\tRELOAD
\tPAUSE [<db>], RESUME [<db>]
\tDISABLE <db>, ENABLE <db>
\tRECONNECT [<db>], WAIT_CLOSE [<db>]
\tKILL [<db>], KILL_CLIENT <client_id>"""


def is_console(runtime: PoolerRuntime, database: str) -> bool:
    """Whether this name leads here: a database of the configuration goes first."""
    return database in DATABASES and database not in runtime.table.databases


def may_enter(runtime: PoolerRuntime, user: str) -> None:
    """Raises PeerError."""
    if user not in (*runtime.table.admin_users, *runtime.table.stats_users):
        raise PeerError(
            INVALID_AUTHORIZATION, f'user "{user}" may not use the console', hint="See admin_users and stats_users."
        )


async def greet(runtime: PoolerRuntime, client: Client, before: bytes) -> None:
    """What a client hears once it is logged in. Its key cancels nothing."""
    await client.conn.send(before + greeting(PARAMETERS) + backend_key_data(0, bytes(4)) + READY_IDLE)


async def serve(runtime: PoolerRuntime, client: Client, early: bytes) -> None:
    """Until it says Terminate or leaves. Raises PeerError, ClientLeft, OSError."""
    client.session.deadline = math.inf
    conversation = Conversation(columns_of)
    buffer = bytearray(early)
    while True:
        found = take_from_client(buffer, MAX_COMMAND)
        if found is None:
            data = client.take_early() or await client.conn.recv(READ)
            if not data:
                return
            buffer += data
            continue
        kind, payload = found
        if kind == TERMINATE[0]:
            return
        await _answer(runtime, client, conversation.receive(kind, payload))


async def _answer(runtime: PoolerRuntime, client: Client, steps: Steps) -> None:
    said = b""
    try:
        step = next(steps)
        while True:
            if isinstance(step, bytes):
                said += step
                step = next(steps)
                continue
            try:
                result = await _run(runtime, client, step)
            except PeerError as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration:
        if said:
            await client.conn.send(said)


def columns_of(command: Command) -> Sequence[Column]:
    """Which columns a command brings."""
    if command.verb != "SHOW":
        return ()
    what = command.argument
    if what in _SHOWN:
        return columns(what)
    return shows.COLUMNS.get(what) or sockets.COLUMNS.get(what) or ()


async def _run(runtime: PoolerRuntime, client: Client, command: Command) -> Result:
    if command.verb == "SET":
        if command.argument.lower() in _SETTABLE:
            return Result("SET")
        raise refusal(FEATURE_NOT_SUPPORTED, "settings are changed in the configuration file, then RELOAD")
    if command.verb == "SHOW":
        return await _show(runtime, command)
    if client.user not in runtime.table.admin_users:
        raise refusal("42501", "admin access needed")
    return await commands.run(runtime, client, command)


async def _show(runtime: PoolerRuntime, command: Command) -> Result:
    what = command.argument
    if what == "help":
        return Result("SHOW", before=notice("00000", HELP))
    if what in _SHOWN:
        return Result("SHOW", columns(what), [(_SHOWN[what],)])
    if what in shows.COLUMNS:
        return Result("SHOW", shows.COLUMNS[what], shows.show(runtime, what))
    if what in sockets.COLUMNS:
        rows, silent = await runtime.survey.ask(what)
        before = notice("01000", f"{silent} of the workers did not answer in time") if silent else b""
        return Result("SHOW", sockets.COLUMNS[what], rows, before)
    raise refusal("42601", f"invalid command 'SHOW {what}', use SHOW HELP;")
