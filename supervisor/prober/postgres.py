"""The postgres check: log in and run a query, with psycopg's own generators driven by trio.

psycopg's generators say which descriptor to wait for and how; nothing here blocks and no thread runs. The connection is
closed without a word when the check is over or its time is, as the server expects of clients that went away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import psycopg
import trio
from psycopg import generators
from psycopg.conninfo import make_conninfo
from psycopg.pq import ExecStatus
from psycopg.waiting import Ready, Wait

from supervisor.ground.config import Bind, HealthTable
from supervisor.prober import standing
from supervisor.prober.failure import CheckFailed
from supervisor.prober.standing import Standing

QUERY = b"SELECT 1"
DEFAULT_USER = "postgres"
NO_FILE = "/nonexistent/portway"  # neither a password nor a service of whoever runs the daemon may slip in

R = TypeVar("R")
Noted = Callable[[int, Standing], None]  # monotonic ns before it was asked, and what it said


async def check_postgres(address: Bind, check: HealthTable, noted: Noted | None = None) -> None:
    """Raises CheckFailed, psycopg.Error; the time limit is the caller's. Whoever wants to know more is told of a server
    that passes, unless it is none that could say it."""
    user = check.user or DEFAULT_USER
    conninfo = make_conninfo(
        hostaddr=address.host,  # not host: nothing to resolve
        port=address.port,
        user=user,
        password=None if check.password is None else check.password.value,
        dbname=check.database or user,
        passfile=NO_FILE,
        application_name="portway health check",
        gssencmode="disable",  # a ticket cache would be asked, and that blocks
    )
    connection = await _connect(generators.connect(conninfo))
    try:
        connection.send_query(QUERY)
        results = await _drive(generators.execute(connection), connection.socket)
        if not results or results[-1].status != ExecStatus.TUPLES_OK:
            message = results[-1].get_error_message() if results else "no result"
            raise CheckFailed(f"query failed: {message}")
        if noted is not None:
            asked = time.monotonic_ns()
            connection.send_query(standing.QUERY)
            results = await _drive(generators.execute(connection), connection.socket)
            if results and results[-1].status == ExecStatus.TUPLES_OK and results[-1].ntuples == 1:
                found = standing.parse([results[-1].get_value(0, at) for at in range(results[-1].nfields)])
                if found is not None:
                    noted(asked, found)
    finally:
        connection.finish()


async def _connect(steps: Generator[tuple[int, Wait], Any, R]) -> R:
    """Run a generator that says with each step which descriptor it means: it changes while TLS is tried."""
    try:
        fd, wait = next(steps)
        while True:
            fd, wait = steps.send(await _ready(fd, wait))
    except StopIteration as stop:
        result: R = stop.value
        return result
    finally:
        steps.close()


async def _drive(steps: Generator[Wait, Any, R], fd: int) -> R:
    try:
        wait = next(steps)
        while True:
            wait = steps.send(await _ready(fd, wait))
    except StopIteration as stop:
        result: R = stop.value
        return result
    finally:
        steps.close()


async def _ready(fd: int, wait: Wait) -> Ready:
    """Wait as asked; which of it came true."""
    if wait == Wait.R:
        await trio.lowlevel.wait_readable(fd)
        return Ready.R
    if wait == Wait.W:
        await trio.lowlevel.wait_writable(fd)
        return Ready.W
    came = Ready(0)

    async def first(waiting: Any, ready: Ready) -> None:
        nonlocal came
        await waiting(fd)
        came = ready
        either.cancel_scope.cancel()

    async with trio.open_nursery() as either:
        either.start_soon(first, trio.lowlevel.wait_readable, Ready.R)
        either.start_soon(first, trio.lowlevel.wait_writable, Ready.W)
    return came


def cause(error: psycopg.Error) -> str:
    """libpq's messages are paragraphs; a log line takes their first line, without the repeated address."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].removeprefix("connection failed: ")
