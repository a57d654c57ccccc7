"""How a client gets in: its first packets, who it is, which pool it uses, and the greeting.

Cold: once in the life of a connection. Source: PostgreSQL 55.2.1 "Start-up".
"""

from __future__ import annotations

import pwd
import socket
from typing import TYPE_CHECKING, Any

from pooler import replication, standing, startup
from pooler.acquaintance import acquaint
from pooler.authentication import OK, Authentication, Channel, Method, request
from pooler.binding import common_name, end_point
from pooler.console import session as console
from pooler.errors import (
    CANNOT_CONNECT_NOW,
    INVALID_AUTHORIZATION,
    INVALID_CATALOG_NAME,
    PROTOCOL_VIOLATION,
    TOO_MANY_CONNECTIONS,
    PeerError,
)
from pooler.hba import origin
from pooler.listener import ALPN
from pooler.messages import (
    MAX_PASSWORD_MESSAGE,
    READY_IDLE,
    backend_key_data,
    negotiate_protocol_version,
    take_from_client,
)
from pooler.parameters import changed, greeting, intern, settable
from pooler.startup import PROTOCOL_3_2, CancelRequest, SSLRequest, Startup
from pooler.users import Users
from pooler.walsender import Replication
from supervisor.ground.lane import Conn
from supervisor.plane.layout import Listener

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.pool import ServerPool
    from pooler.runtime import PoolerRuntime

READ = 16 * 1024  # bytes: a startup packet, or a password, at once


async def admit(runtime: PoolerRuntime, client: Client) -> bytes | None:
    """Until the client is logged in: what it has sent beyond that. None if it did not want a session. Raises
    PeerError."""
    client.session.expire_in(runtime.table.client_login_timeout)
    buffer = bytearray()
    wanted = await _first(runtime, client, buffer)
    if wanted is None:
        return None
    to_console = console.is_console(runtime, wanted.database)
    if not to_console and runtime.full(client):
        raise PeerError(TOO_MANY_CONNECTIONS, "no more connections allowed (max_client_conn)")
    client.user, client.database = wanted.user, wanted.database
    if wanted.to_negotiate:
        await client.conn.send(negotiate_protocol_version(wanted.spoken, list(wanted.protocol_options)))
    last = await _authenticate(runtime, client, buffer, wanted.replication is Replication.PHYSICAL)
    if last is None:
        return None
    if to_console:
        console.may_enter(runtime, wanted.user)
        await console.greet(runtime, client, last)
        return bytes(buffer)
    await runtime.make_room(wanted.database, wanted.user)
    pool = runtime.pool(wanted.database, wanted.user)
    if pool is None:
        raise PeerError(
            INVALID_CATALOG_NAME,
            f'database "{wanted.database}" does not exist',
            hint=replication.HINT if wanted.replication is Replication.PHYSICAL else "",
        )
    if standing.disabled(pool):
        raise PeerError(
            CANNOT_CONNECT_NOW, f'database "{wanted.database}" is disabled', hint="By the console's DISABLE."
        )
    if wanted.replication is not Replication.NONE:
        await replication.greet(runtime, client, pool, wanted, last)
    else:
        await _greet(runtime, client, pool, wanted, last)
    return bytes(buffer) + client.take_early()


async def _first(runtime: PoolerRuntime, client: Client, buffer: bytearray) -> Startup | None:
    """The startup packet, behind whatever comes before it."""
    seen: set[type] = set()
    listener = client.listener
    secure = False
    if listener.offers_tls and await listener.starts_with_tls(plain(client)):
        await _secure(runtime, client, direct=True)
        secure = True
    while True:
        first = startup.receive(buffer)
        if first is None:
            data = await client.conn.recv(READ)
            if not data:
                return None
            buffer += data
        elif isinstance(first, Startup):
            if listener.demands_tls and not secure:
                raise PeerError(INVALID_AUTHORIZATION, "connections to this port must use TLS")
            return first
        elif isinstance(first, CancelRequest):
            await runtime.cancel(first)
            return None
        else:
            if type(first) in seen:
                raise PeerError(PROTOCOL_VIOLATION, "encryption was asked for twice")
            seen.add(type(first))
            if isinstance(first, SSLRequest) and listener.offers_tls and not secure:
                await client.conn.send(startup.ACCEPTED_TLS)
                await _secure(runtime, client, direct=False)
                secure = True
            else:
                await client.conn.send(startup.REFUSED)


async def _secure(runtime: PoolerRuntime, client: Client, direct: bool) -> None:
    """Put TLS under what follows. Raises OSError, PeerError."""
    try:
        client.conn = client.secured = secured = await client.listener.secure(plain(client))
    except OSError:
        runtime.cells[client.counters + Listener.HANDSHAKE_FAILURES] += 1
        raise
    # Without it, a client of another protocol could be led to talk to us (the ALPACA attack).
    if direct and secured.alpn() != ALPN:
        raise PeerError(PROTOCOL_VIOLATION, "direct TLS without the ALPN protocol postgresql")


def plain(client: Client) -> Conn:
    """The client's connection while it is still the socket's."""
    assert isinstance(client.conn, Conn)
    return client.conn


async def _authenticate(runtime: PoolerRuntime, client: Client, buffer: bytearray, physical: bool) -> bytes | None:
    """The proof; what is still to be sent of it, or None if the client went away. Raises PeerError."""
    users = runtime.users
    if users.find(client.user) is None and runtime.asks_for_users:
        known = await runtime.lookup.find(client)
        buffer += client.take_early()
        if known is not None:
            users = Users({known.name: known}, users.key)
    try:
        exchange = Authentication(client.user, _method(runtime, client, physical), users, _channel(client))
        answer = exchange.begin()
        while not exchange.proved:
            await client.conn.send(answer)
            while (found := take_from_client(buffer, MAX_PASSWORD_MESSAGE)) is None:
                data = await client.conn.recv(READ)
                if not data:
                    return None
                buffer += data
            answer = exchange.answer(*found)
    except PeerError:
        runtime.cells[client.counters + Listener.LOGINS_REFUSED] += 1
        runtime.lookup.forget(client.database, client.user)
        raise
    return answer + request(OK)


def _method(runtime: PoolerRuntime, client: Client, physical: bool) -> Method:
    """How this client is to prove itself. Raises PeerError."""
    rules = runtime.rules
    if rules is None:
        return runtime.method
    where = origin(client.address, client.secured is not None)
    rule = rules.find(where, client.database, client.user, physical)
    if rule is None:
        host = where.address or "[local]"
        what = "replication" if physical else f'database "{client.database}"'
        raise PeerError(
            INVALID_AUTHORIZATION,
            f'no rule lets host "{host}", user "{client.user}", {what} in',
            hint="See the file that [pooler.auth] hba names.",
        )
    return rule.method


def _channel(client: Client) -> Channel:
    """What the connection says of its client."""
    secured = client.secured
    if secured is None:
        return Channel(peer=peer_name(client.conn))
    return Channel(True, end_point(secured.certificate()), common_name(secured.peer_certificate()))


def peer_name(conn: Any) -> str | None:
    """The operating system's user at the other end of a Unix socket."""
    sock: socket.socket | None = getattr(conn, "sock", None)
    if sock is None or sock.family != socket.AF_UNIX:
        return None
    uid = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[4:8], "little")
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


async def _greet(runtime: PoolerRuntime, client: Client, pool: ServerPool, wanted: Startup, before: bytes) -> None:
    """Parameters, cancel key, ready. The first client of a pool waits for a server to tell the parameters."""
    if pool.reported is None:
        await client.conn.send(before)  # whoever waits long is told so, which libpq takes only behind this
        before = b""
    while (reported := pool.reported) is None:
        await acquaint(pool, client)
    settings = startup.admit(wanted.settings, reported, runtime.ignored)
    client.base = intern(settings)
    client.settings = changed(settable(reported), settings)
    client.pool = client.home = pool
    client.key, secret = runtime.keys.give(client, long=wanted.spoken >= PROTOCOL_3_2)
    pool.clients.add(client)
    said = greeting({name: client.settings.get(name, value) for name, value in reported.items()}) + backend_key_data(
        client.key, secret
    )
    await client.conn.send(before + said + READY_IDLE)
