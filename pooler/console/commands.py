"""The operator's commands over pools. They stand in the plane, so that every worker obeys, its successors too.

PAUSE and KILL return when every server connection of the database is closed, WAIT_CLOSE when those are that were open
at the last RECONNECT. What each worker does when it finds an order stands in `standing`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pooler.config import REPLICAS
from pooler.console.grammar import Command, refusal
from pooler.console.results import Result
from pooler.errors import INVALID_CATALOG_NAME
from pooler.keys import column_of
from pooler.orders import Kill
from supervisor.ground.config import unknown_name
from supervisor.plane.layout import Kind, LeasePoolState

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.runtime import PoolerRuntime

LOOK = 0.1  # seconds between looks at what is still open
NOT_IN_STATE = "55000"


async def run(runtime: PoolerRuntime, client: Client, command: Command) -> Result:
    """Carry out a command that changes something. Raises PeerError, which ends nothing; ClientLeft."""
    worker = runtime.worker
    worker.log.info("console command", command=command.verb, argument=command.argument, user=client.user)
    match command.verb:
        case "RELOAD":
            await _reload(runtime)
            return Result(command.verb)
        case "KILL_CLIENT":
            _kill_client(runtime, command.argument)
            return Result(command.verb)
    rows = _rows(runtime, command.argument)
    now = time.time_ns()
    match command.verb:
        case "PAUSE":
            _set(runtime, rows, LeasePoolState.PAUSED, 1)
            await _until(runtime, client, lambda: not any(runtime.leases.open(row) for row in rows))
        case "RESUME":
            if not any(_read(runtime, row, LeasePoolState.PAUSED) for row in rows):
                raise refusal(NOT_IN_STATE, f"{_named(command.argument)} is not paused")
            _set(runtime, rows, LeasePoolState.PAUSED, 0)
        case "KILL":
            _set(runtime, rows, LeasePoolState.PAUSED, 1)
            _set(runtime, rows, LeasePoolState.KILLED, now)
            await _until(runtime, client, lambda: not any(runtime.leases.open(row) for row in rows))
        case "RECONNECT":
            _set(runtime, rows, LeasePoolState.STALE, now)
        case "WAIT_CLOSE":
            await _until(runtime, client, lambda: not any(_stale(runtime, row) for row in rows))
        case "DISABLE" | "ENABLE":
            _set(runtime, rows, LeasePoolState.DISABLED, int(command.verb == "DISABLE"))
    return Result(command.verb)


def _named(argument: str) -> str:
    return f'database "{argument}"' if argument else "the pooler"


def _rows(runtime: PoolerRuntime, database: str) -> list[int]:
    """The pools of a database, or of all. Raises PeerError."""
    databases = runtime.table.databases
    if database and database not in databases:
        raise refusal(INVALID_CATALOG_NAME, unknown_name("database", database, databases))
    names = runtime.worker.plane.names(Kind.LEASEPOOL)
    meant = (database, database + REPLICAS)
    return [row for name, row in names.items() if not database or name.partition("/")[0] in meant]


def _set(runtime: PoolerRuntime, rows: Iterable[int], field: int, value: int) -> None:
    for row in rows:
        runtime.worker.plane.cells[runtime.worker.plane.state(Kind.LEASEPOOL, row) + field] = value


def _read(runtime: PoolerRuntime, row: int, field: int) -> int:
    return runtime.worker.plane.cells[runtime.worker.plane.state(Kind.LEASEPOOL, row) + field]


def _stale(runtime: PoolerRuntime, row: int) -> bool:
    """Whether a connection is open that RECONNECT has meant."""
    before = _read(runtime, row, LeasePoolState.STALE)
    return any(held.since < before for held in runtime.leases.held(row)) if runtime.leases.open(row) else False


async def _until(runtime: PoolerRuntime, client: Client, done: Callable[[], bool]) -> None:
    """Wait, as long as the one who asked does. Raises ClientLeft."""
    while not done():
        client.listen(1)
        await runtime.lane.sleep(LOOK)


async def _reload(runtime: PoolerRuntime) -> None:
    """Raises PeerError with the first of the reasons."""
    errors = await runtime.petitions.reload()
    if errors:
        raise refusal("F0000", f"RELOAD failed: {errors[0]}")


def _kill_client(runtime: PoolerRuntime, argument: str) -> None:
    """Raises PeerError."""
    pid = int(argument) if argument.isdecimal() else 0
    column = column_of(pid)
    if column == runtime.worker.column:
        if not runtime.kill(pid):
            raise refusal("42704", f"client not found: {argument}")
    elif column not in runtime.worker.plane.live(runtime.worker.tier) or not pid:
        raise refusal("42704", f"client not found: {argument}; its number is in the column id of SHOW CLIENTS")
    else:
        runtime.worker.mailbox.send(column, Kill(pid))
