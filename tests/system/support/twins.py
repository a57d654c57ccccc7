"""A client of the pooler and its twin, which has a connection of its own to PostgreSQL: both do the same at random, and
must see the same.

A step is drawn by the twin's own generator, so what one client does hangs on its seed alone, not on the others.
"""

from __future__ import annotations

import random
import select
import threading
from collections.abc import Callable
from typing import Any

import psycopg
from psycopg import pq

from tests.system.support.pooler import vanish

Connection = psycopg.Connection[tuple[Any, ...]]
Outcome = tuple[Any, ...]
Do = Callable[[Connection], Outcome]

PARAMETERS = {
    "work_mem": ("1MB", "77MB", "64kB"),
    "statement_timeout": ("60s", "90s"),
    "search_path": ("public", "app, public", '"Other", pg_catalog'),
    "TimeZone": ("UTC", "Asia/Tokyo"),
    "application_name": ("one", "two"),
    "DateStyle": ("ISO, DMY", "German"),
    "default_transaction_isolation": ("serializable", "'read committed'"),
}
STATEMENTS = (
    "SELECT 1", "SELECT $1::int", "SELECT current_setting('work_mem')", "SELECT count(*) FROM pg_class LIMIT 0",
    "SET work_mem = '3MB'", "SELECT 1/0", "VALUES (1, 'a'), (2, 'b')",
)  # fmt: skip
NAMES = ("a", "b", "c")
SEEN = ",".join(f"current_setting('{name}')" for name in PARAMETERS)
STATE = (
    f"SELECT {SEEN}, current_setting('transaction_isolation'),"
    " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),"
    " (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'),"
    " (SELECT count(*) FROM pg_cursors WHERE name = 'held')"
)


class Twins:
    """One client, twice."""

    def __init__(self, seed: int, pooled: Callable[[], Connection], direct: Callable[[], Connection]) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.makers = pooled, direct
        self.pair = pooled(), direct()
        self.trace: list[str] = []

    def step(self) -> None:
        """Do one thing with both. AssertionError when they differ."""
        name, do = self._draw()
        self.trace.append(name)
        seen = [do(connection) for connection in self.pair]
        states = [connection.pgconn.transaction_status for connection in self.pair]
        reports = [[connection.info.parameter_status(name) for name in ("TimeZone", "application_name", "DateStyle")]
                   for connection in self.pair]  # fmt: skip
        if seen[0] != seen[1] or states[0] != states[1] or reports[0] != reports[1]:
            told = "\n".join(self.trace[-120:])
            raise AssertionError(
                f"seed {self.seed}, step {len(self.trace)}:\n{told}\npooled {seen[0]} {states[0]!r} {reports[0]}\n"
                f"direct {seen[1]} {states[1]!r} {reports[1]}"
            )

    def close(self) -> None:
        for connection in self.pair:
            connection.close()

    def _draw(self) -> tuple[str, Do]:
        draw = self.random
        kind = draw.randrange(100)
        if kind < 3:
            return self._leave()
        if kind < 5:
            return "cancel", cancelled
        if kind < 15:
            return self._protocol()
        if kind < 20:
            return self._pipeline()
        sql = self._sql()
        if draw.randrange(3) == 0 and ";" not in sql:
            return f"extended: {sql}", lambda c: ask(c, lambda: c.pgconn.send_query_params(sql.encode(), None))
        return sql, lambda c: ask(c, lambda: c.pgconn.send_query(sql.encode()))

    def _sql(self) -> str:
        draw = self.random
        name = draw.choice(list(PARAMETERS))
        value, prepared = draw.choice(PARAMETERS[name]), draw.choice(NAMES)
        value = value if "'" in value or '"' in value or "," in value else f"'{value}'"
        in_transaction = self.pair[1].pgconn.transaction_status != pq.TransactionStatus.IDLE
        ending = ("COMMIT", "ROLLBACK", "COMMIT", "END; BEGIN", "ROLLBACK TO s", "RELEASE s", "SAVEPOINT s")
        return draw.choice(
            [
                STATE, STATE,
                f"SET {name} TO {value}", f"SET SESSION {name} = {value}", f"set local {name} to {value}",
                f"SELECT set_config('{name}', $${value.strip(chr(39))}$$, {draw.choice(['true', 'false'])})",
                # In a transaction, RESET of what the client began with is not exact.
                STATE if in_transaction else f"RESET {name}",
                draw.choice(["RESET statement_timeout" if in_transaction else "RESET ALL", "DISCARD ALL",
                             "SET TIME ZONE 'CET'"]),
                f"PREPARE {prepared} AS {draw.choice(STATEMENTS[:1] + STATEMENTS[2:4])}", f"EXECUTE {prepared}",
                f"EXECUTE {prepared}; {STATE}", f"DEALLOCATE {draw.choice([prepared, prepared, 'ALL'])}",
                f"PREPARE {prepared} AS SELECT 2; EXECUTE {prepared}; SET work_mem = '2MB'",
                f"SET work_mem = '9MB'; {draw.choice(['SELECT 1', 'SELECT 1/0', 'COMMIT', 'ROLLBACK'])}",
                "SELECT 1/0", "SELECT 'nothing'", "/* a comment */ SELECT 2 -- and another", "",
                draw.choice(["CREATE TEMP TABLE t (n int)", "DROP TABLE IF EXISTS t", "INSERT INTO t VALUES (1)",
                             "SELECT pg_advisory_lock_shared(1)", "SELECT pg_advisory_unlock_all()",
                             "DECLARE held CURSOR WITH HOLD FOR SELECT 1", "CLOSE held", "FETCH held"]),
                *(ending if in_transaction else ("BEGIN", "BEGIN ISOLATION LEVEL SERIALIZABLE")),
                *(ending[:3] if in_transaction else ("BEGIN", "ROLLBACK")),
            ]
        )  # fmt: skip

    def _protocol(self) -> tuple[str, Do]:
        draw = self.random
        name, sql = draw.choice(NAMES), draw.choice(STATEMENTS)
        arguments = [b"7"] if "$1" in sql or draw.randrange(8) == 0 else []
        what = draw.choice(["prepare", "execute", "execute", "describe", "close"])
        if draw.randrange(4) == 0:  # without a name: behind a Sync, as lib/pq uses it
            before = self.pair[1].pgconn.transaction_status == pq.TransactionStatus.INERROR

            def unnamed(connection: Connection) -> Outcome:
                pgconn, failed, outcomes = connection.pgconn, before, []
                for number in range(3):
                    outcomes += ask(
                        connection,
                        (lambda: pgconn.send_query_prepared(b"", arguments))
                        if number
                        else (lambda: pgconn.send_prepare(b"", sql.encode())),
                        failed,
                    )
                    failed |= outcomes[-1][0] == pq.ExecStatus.FATAL_ERROR
                return tuple(outcomes)

            return f"unnamed {sql}", unnamed
        failed = self.pair[1].pgconn.transaction_status == pq.TransactionStatus.INERROR
        encoded = name.encode()
        if what == "prepare":
            return f"Parse {name} {sql}", lambda c: ask(c, lambda: c.pgconn.send_prepare(encoded, sql.encode()), failed)
        if what == "describe" and not failed:  # then, what is not on the server can't be prepared in passing
            return f"Describe {name}", lambda c: ask(c, lambda: c.pgconn.send_describe_prepared(encoded), failed)
        if what == "close" and pq.version() >= 170000:
            return f"Close {name}", lambda c: ask(c, lambda: c.pgconn.send_close_prepared(encoded))
        return f"Bind {name} {arguments}", lambda c: ask(
            c, lambda: c.pgconn.send_query_prepared(encoded, arguments), failed
        )

    def _pipeline(self) -> tuple[str, Do]:
        draw = self.random
        texts = [draw.choice([*STATEMENTS, "BEGIN", "COMMIT", "ROLLBACK"]) for _ in range(draw.randrange(1, 5))]
        names = [draw.choice(["", "", *NAMES]) for _ in texts]
        syncs = [draw.randrange(3) == 0 for _ in texts]

        before = self.pair[1].pgconn.transaction_status == pq.TransactionStatus.INERROR

        def do(connection: Connection) -> Outcome:
            pgconn = connection.pgconn
            pgconn.enter_pipeline_mode()
            owed = 0
            failed = before
            for text, name, sync in zip(texts, names, syncs, strict=True):
                arguments = [b"7"] if "$1" in text else None
                if name:
                    pgconn.send_prepare(name.encode(), text.encode())
                    pgconn.send_query_prepared(name.encode(), arguments)
                else:
                    pgconn.send_query_params(text.encode(), arguments)
                if sync:
                    pgconn.pipeline_sync()
                    owed += 1
            pgconn.pipeline_sync()
            owed += 1
            outcomes: list[Outcome] = []
            while owed:
                result = next_result(pgconn)
                if result is not None:
                    outcomes.append(outcome(result, failed))
                    failed |= result.status == pq.ExecStatus.FATAL_ERROR
                    owed -= result.status == pq.ExecStatus.PIPELINE_SYNC
            pgconn.exit_pipeline_mode()
            return tuple(outcomes)

        return f"pipeline {list(zip(names, texts, syncs, strict=True))}", do

    def _leave(self) -> tuple[str, Do]:
        roughly = self.random.randrange(2) == 0

        def do(_: Connection) -> Outcome:
            return ()

        for connection in self.pair:
            vanish(connection) if roughly else connection.close()
        self.pair = self.makers[0](), self.makers[1]()
        return "leave", do


def outcome(result: Any, failed: bool = False) -> Outcome:
    """What a client sees of a result."""
    rows = [[result.get_value(row, column) for column in range(result.nfields)] for row in range(result.ntuples)]
    code = result.error_field(pq.DiagnosticField.SQLSTATE)
    text = result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY)
    if code in (b"08P01", b"42601"):  # arguments that don't fit: the server tells the name that it knows
        text = None
    if code and failed:  # which of two errors comes first in a transaction that has failed
        code = text = None
    columns = [result.fname(column) for column in range(result.nfields)]
    return int(result.status), result.command_status, columns, rows, code, text, result.nparams


def next_result(pgconn: Any) -> Any:
    """The next result or None, as `get_result`, which would keep all threads waiting."""
    while pgconn.is_busy():
        select.select([pgconn.socket], [], [])
        pgconn.consume_input()
    return pgconn.get_result()


def ask(connection: Connection, send: Callable[[], object], failed: bool = False) -> Outcome:
    """Send something; all its outcomes."""
    send()
    outcomes = []
    while (result := next_result(connection.pgconn)) is not None:
        outcomes.append(outcome(result, failed))
    return tuple(outcomes)


def cancelled(connection: Connection) -> Outcome:
    """A query that sleeps, and is cancelled as soon as that has an effect."""
    done = threading.Event()

    def cancel() -> None:
        while not done.wait(0.05):
            connection.cancel_safe()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    seen = ask(connection, lambda: connection.pgconn.send_query(b"SELECT pg_sleep(30)"))
    done.set()
    canceller.join()
    return seen


def drive(twins: list[Twins], steps: int) -> None:
    """So many steps of all together, each client in a thread. Raises the first difference."""
    failures: list[BaseException] = []

    def run(one: Twins) -> None:
        try:
            for _ in range(steps // len(twins)):
                if failures:
                    return
                one.step()
        except BaseException as error:
            failures.append(error)
        finally:
            one.close()

    threads = [threading.Thread(target=run, args=[one]) for one in twins]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
