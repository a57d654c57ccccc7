"""The connections of one worker as rows: SHOW CLIENTS, SERVERS, SOCKETS and HOLDERS are these of all workers together.

A client's `ptr` is the process id of its cancel key, a server connection's the number of its lease; `link` names the
other side. `id` is what KILL_CLIENT takes.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pooler.console.results import Column, Row, columns
from pooler.journal import reasons
from pooler.messages import HEAD, HEAD_SIZE
from pooler.sql import Pin
from pooler.states import EXECUTE, FAILED_TRANSACTION, IDLE, IN_TRANSACTION, PARSE, QUERY

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.fanout import Fanout
    from pooler.pool import ServerPool
    from pooler.runtime import PoolerRuntime
    from pooler.server import ServerConnection

MAX_QUERY = 200  # characters of a query: a line for people
MAX_TEXT = 200  # of anything else

_SOCKET = (
    "type user database replication state addr port:4 local_addr local_port:4 connect_time request_time wait:4 "
    "wait_us:4 close_needed:4 ptr link remote_pid:4 tls application_name prepared_statements:4 id:4"
)
# Of PgBouncer's buffers: here a connection at rest has none.
_BUFFERS = "recv_pos:4 pkt_pos:4 pkt_remain:4 send_pos:4 send_remain:4 pkt_avail:4 send_avail:4"
_EMPTY = (0,) * 7
_STATE = 4  # the column
COLUMNS: Mapping[str, tuple[Column, ...]] = {
    "clients": columns(_SOCKET),
    "servers": columns(_SOCKET),
    "sockets": columns(f"{_SOCKET} {_BUFFERS}"),
    "active_sockets": columns(f"{_SOCKET} {_BUFFERS}"),
    "holders": columns(
        "database user client_addr client_port:4 client_id:4 application_name worker:4 server server_pid:4 since "
        "seconds:8 transaction reason query"
    ),
}


def show(runtime: PoolerRuntime, what: str) -> list[Row]:
    """This worker's rows of one of COLUMNS."""
    return _ROWS[what](runtime)


def _clients(runtime: PoolerRuntime) -> list[Row]:
    waiting = {client for pool in runtime.pools.values() for client in pool.waiters}
    return [_client(runtime, client, pool, client in waiting) for client in runtime.clients if (pool := client.pool)]


def _client(runtime: PoolerRuntime, client: Client, pool: ServerPool, waits: bool) -> Row:
    server = client.server
    wait = max(0, runtime.lane.now_ns - client.ticket) // 1000 if waits else 0
    state = "waiting" if waits else "active" if server is not None else "idle"
    asked = runtime.lane.wall - wait / 1e6 if waits else server.began if server is not None else client.connected
    link = "" if server is None else _server_ptr(server)
    return (
        "C", client.user, client.database, _replication(client), state, *_addresses(client.conn, client.address),
        when(client.connected), when(asked), wait // 1_000_000, wait % 1_000_000, int(pool.leaving),
        f"{client.key:#x}", link, _peer_pid(client.conn), _tls(client.conn),
        client.settings.get("application_name", "")[:MAX_TEXT], 0, client.key,
    )  # fmt: skip


def _servers(runtime: PoolerRuntime) -> list[Row]:
    holders = {client.server: client for client in runtime.clients if client.server is not None}
    held = [
        _server(runtime, server, holders.get(server), pool)
        for pool in runtime.pools.values()
        for server in pool.servers
    ]
    return held + [_listening(one, server) for one in runtime.fanouts.values() if (server := one.connection)]


def _server(runtime: PoolerRuntime, server: ServerConnection, client: Client | None, pool: ServerPool) -> Row:
    state = "active" if client is not None else "being_canceled" if server.cancels else "idle"
    if client is None and server.conn.waiter is not None:
        state = "tested"  # what its last client left is brought to its end, or it is reset
    host, port = server.server.sockaddr[:2]
    opened = runtime.leases.since(server.lease) / 1e9
    return (
        "S", pool.user, pool.database, _replication(client), state, host, port, *_local(server.conn),
        when(opened), when(server.began or opened),
        0, 0, int(server.expires <= runtime.lane.now), _server_ptr(server),
        "" if client is None else f"{client.key:#x}", server.pid, _tls(server.conn),
        server.settings.get("application_name", "")[:MAX_TEXT], 0, server.lease & 0x7FFFFFFF,
    )  # fmt: skip


def _listening(fanout: Fanout, server: ServerConnection) -> Row:
    """The connection that listens for all clients of a database: nobody's, and of no pool."""
    host, port = server.server.sockaddr[:2]
    user = "" if fanout.pool is None else fanout.pool.user
    return (
        "S", user, fanout.database, "none", "listening", host, port, *_local(server.conn), when(server.since),
        when(server.since), 0, 0, 0, f"{server.pid:#x}", "", server.pid, _tls(server.conn), "", 0, server.pid,
    )  # fmt: skip


def _sockets(runtime: PoolerRuntime) -> list[Row]:
    return [(*row, *_EMPTY) for row in _clients(runtime) + _servers(runtime)]


def _holders(runtime: PoolerRuntime) -> list[Row]:
    rows: list[Row] = []
    for client in runtime.clients:
        server, pool = client.server, client.pool
        if server is None or pool is None:
            continue
        began = server.began or runtime.lane.wall
        host, port, _, _ = _addresses(client.conn, client.address)
        rows.append((
            client.database, client.user, host, port, client.key,
            client.settings.get("application_name", "")[:MAX_TEXT], runtime.worker.number, server.server.name,
            server.pid, when(began), int(max(0.0, runtime.lane.wall - began)), transaction(server),
            "replication" if client.replicating else reason(server, pool.sticky, client.pins),
            last_query(server.asked),
        ))  # fmt: skip
    return rows


def transaction(server: ServerConnection) -> str:
    """In which it is, as the server's last ReadyForQuery said."""
    status = {IDLE: "none", IN_TRANSACTION: "open", FAILED_TRANSACTION: "failed"}
    return status.get(server.outstanding.status, "none")


def reason(server: ServerConnection, sticky: bool, pins: Pin) -> str:
    """Why a server connection is not free: what is to happen before it can serve another client."""
    out = server.outstanding
    if out.unknown:
        return "what it still owes is unknown: closed afterwards"
    if out.copy_in:
        return "COPY FROM STDIN"
    if out.fifo:
        return "query running"
    if out.status != IDLE:
        return "in a transaction"
    if out.unsynced:
        return "waits for a Sync"
    if out.client_left:
        return "half a message"
    if pins:
        return f"pinned: {reasons(pins)}"
    return "session mode" if sticky else "between statements"


def last_query(data: bytes) -> str:
    """The text of the last Query or Parse in what was sent; shown on one line."""
    at, found = 0, ""
    while at + HEAD_SIZE <= len(data):
        kind, length = HEAD.unpack_from(data, at)
        body = data[at + HEAD_SIZE : at + 1 + length]
        if kind == QUERY:
            found = _shown(body)
        elif kind == PARSE:
            found = _shown(body.partition(b"\0")[2])
        elif kind == EXECUTE and not found:
            found = "(a prepared statement)"
        at += 1 + max(length, 4)
    return found


def _shown(text: bytes) -> str:
    return " ".join(text.partition(b"\0")[0][: 4 * MAX_QUERY].decode("utf-8", "replace").split())[:MAX_QUERY]


def _replication(client: Client | None) -> str:
    return "none" if client is None or client.replicating is None else client.replicating.kind.value


def when(wall: float) -> str:
    """Seconds since the epoch, as PgBouncer shows a time."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(wall))


def _server_ptr(server: ServerConnection) -> str:
    return f"{server.lease:#x}"


def _addresses(conn: Any, address: Any) -> tuple[str, int, str, int]:
    host, port = (str(address[0]), int(address[1])) if isinstance(address, tuple) else ("unix", 0)
    return host, port, *_local(conn)


def _local(conn: Any) -> tuple[str, int]:
    sock: socket.socket | None = getattr(conn, "sock", None)
    if sock is None:
        return "", 0
    try:
        name = sock.getsockname()
    except OSError:  # it has just been closed
        return "", 0
    return (name[0], name[1]) if isinstance(name, tuple) else ("unix", 0)


def _peer_pid(conn: Any) -> int:
    """Of a client on a Unix socket."""
    sock: socket.socket | None = getattr(conn, "sock", None)
    if sock is None or sock.family != socket.AF_UNIX:
        return 0
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")


def _tls(conn: Any) -> str:
    version: Callable[[], str] | None = getattr(conn, "version", None)
    return "" if version is None else version()


_ROWS: Mapping[str, Callable[[PoolerRuntime], list[Row]]] = {
    "clients": _clients,
    "servers": _servers,
    "sockets": _sockets,
    "active_sockets": lambda runtime: [row for row in _sockets(runtime) if row[_STATE] != "idle"],
    "holders": _holders,
}
