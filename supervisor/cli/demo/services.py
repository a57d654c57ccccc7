"""The demo's services: user, feed and payment, as processes that ask the database through the pooler.

Run as `python -m supervisor.cli.demo.services KIND NAME PORT`, the database's address in PORTWAY_DEMO_DATABASE. They
believe X-User-Id, because only the gateway can reach them, and say who they are, so that one sees which instance
answered. Standard library and psycopg: what a service looks like doesn't matter here.
"""

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import dict_row

Row = dict[str, Any]
PAY = "INSERT INTO payments (login, amount) VALUES (%s, %s) RETURNING id, amount"
PAID = "SELECT id, amount FROM payments WHERE login = %s ORDER BY id DESC LIMIT 5"
MAX_BODY = 65536  # bytes; a checkout is a line of JSON


class Database:
    """One connection to the pooler, shared by the service's threads, made again when it was lost."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.lock = threading.Lock()
        self.connection: psycopg.Connection[Row] | None = None

    def query(self, sql: str, *values: object) -> list[Row]:
        """Run one statement in a transaction of its own."""
        with self.lock:
            try:
                return self._query(sql, values)
            except psycopg.OperationalError:
                self.connection = None  # the pooler or the server went away: once more, on a new connection
                return self._query(sql, values)

    def _query(self, sql: str, values: tuple[object, ...]) -> list[Row]:
        if self.connection is None:
            # A transaction pool gives each transaction another server connection: nothing may be prepared by name.
            self.connection = psycopg.connect(
                self.dsn, autocommit=True, connect_timeout=5, prepare_threshold=None, row_factory=dict_row
            )
        cursor = self.connection.execute(sql.encode(), values)
        return cursor.fetchall() if cursor.description else []


def user(database: Database, login: str, method: str, body: bytes) -> Any:
    """Who the caller is."""
    rows = database.query("SELECT login, name, email FROM users WHERE login = %s", login)
    return rows[0] if rows else None


def feed(database: Database, login: str, method: str, body: bytes) -> Any:
    """The newest posts, read from the replica."""
    posts = database.query("SELECT author, text FROM posts ORDER BY id DESC LIMIT 3")
    replica = database.query("SELECT pg_is_in_recovery() AS replica")[0]["replica"]
    return {"posts": posts, "read_from": "replica" if replica else "primary"}


def payment(database: Database, login: str, method: str, body: bytes) -> Any:
    """A POST pays, and anything else lists the last payments."""
    if method == "POST":
        amount = int(json.loads(body or b"{}").get("amount", 0))
        return database.query(PAY, login, amount)[0]
    return {"payments": database.query(PAID, login)}


KINDS = {"user": user, "feed": feed, "payment": payment}


class Handler(BaseHTTPRequestHandler):
    """One connection from the gateway."""

    protocol_version = "HTTP/1.1"
    server: "Service"

    def do_GET(self) -> None:
        """Answer with JSON: the health check, or what the service is for."""
        length = min(MAX_BODY, int(self.headers.get("Content-Length") or 0))
        body = self.rfile.read(length)
        if urlsplit(self.path).path == "/healthz":
            self.answer(200, {"healthy": self.server.name})
            return
        login = self.headers.get("X-User-Id") or ""
        try:
            found = self.server.work(self.server.database, login, self.command, body)
        except (ValueError, AttributeError) as error:
            self.answer(400, {"error": str(error)})
        except psycopg.Error as error:
            self.answer(503, {"error": str(error).strip()})
        else:
            told = {"service": self.server.name, "user": login, "request_id": self.headers.get("X-Request-Id")}
            self.answer(200 if found is not None else 404, {**told, "answer": found})

    do_POST = do_GET

    def answer(self, status: int, told: Row) -> None:
        """Send JSON, one line."""
        body = json.dumps(told).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The gateway's access log tells it already."""


class Service(ThreadingHTTPServer):
    """An instance of one service."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, kind: str, name: str, port: int, dsn: str) -> None:
        self.name = name
        self.work = KINDS[kind]
        self.database = Database(dsn)
        super().__init__(("127.0.0.1", port), Handler)


if __name__ == "__main__":
    Service(sys.argv[1], sys.argv[2], int(sys.argv[3]), os.environ["PORTWAY_DEMO_DATABASE"]).serve_forever()
