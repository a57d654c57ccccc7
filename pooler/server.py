"""One connection to a PostgreSQL server: how it is opened, used for our own commands, and closed.

Owns the connection and what is known of it; who uses it, and when, is the pool's affair (`pool`), moving a client's
bytes over it the relay's.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from pooler import errors
from pooler.binding import end_point
from pooler.encryption import certificate_of
from pooler.errors import CANNOT_CONNECT, CONNECTION_FAILURE, ServerError
from pooler.login import Login, cancel_request
from pooler.messages import TERMINATE, columns, parse_parameter_status, query, take_from_server
from pooler.parameters import SETTABLE, Values, changed, intern, settable
from pooler.prepared import ServerStatements
from pooler.states import Outstanding
from supervisor.ground.lane import Cancelled, Overdue
from supervisor.plane import layout

if TYPE_CHECKING:
    from pooler.encryption import Encryption
    from pooler.settings import PoolSettings
    from supervisor.ground.lane import Conn, Lane
    from supervisor.ground.pools import Server

GOODBYE = 5.0  # seconds a server gets to close after Terminate, before we do: its slot is free only when it is gone
LIFETIME_JITTER = 0.1  # of server_lifetime: connections opened together must not all be opened anew together
_NO_STARTUP: Mapping[str, str] = {}
CANCEL_TIMEOUT = 5.0  # seconds for a CancelRequest; PostgreSQL closes as soon as the signal is sent


@attrs.define(eq=False)
class ServerConnection:
    """A connection that is logged in. It is idle, used by a client, or used by ourselves."""

    conn: Conn
    server: Server  # of the pool that the configuration names
    lease: int
    pid: int
    secret: bytes = attrs.field(repr=False)
    reported: Values
    greeting: Values  # what it reported at login
    settings: Values  # what clients have set: of `reported`, and what else is not as at login
    opened_by: PoolSettings  # a reload may lead elsewhere
    expires: float  # on the lane's clock
    good_until: float = 0.0  # until then, a release needs no second look at this connection
    outstanding: Outstanding = attrs.field(factory=Outstanding)
    statements: ServerStatements = attrs.field(factory=ServerStatements)
    spoiled: bool = False  # has what its client left, and nobody else may see: it needs DISCARD ALL
    cancels: int = 0  # cancel connections under way: until they have closed, nobody else may use it
    parked: bool = False  # released, but for those
    own: bool = False  # a command of ours is running, which no client may cancel
    listener: int = 0  # counters of the listener through which its last client came
    tail: bytes = b""  # the beginning of a message from the server, when its client left in the middle
    since: float = 0.0  # idle since, or opened
    began: float = (
        0.0  # wall clock: since when a client holds it, without a transaction's end between; as sweeps see it
    )
    still: float = 0.0  # on the lane's clock: since when sweeps have seen no answer end, for limits of time
    working: bool = False  # something was running then
    asked: bytes = attrs.field(default=b"", repr=False)  # what a client has sent last: a read of it, at most

    def count(self, cells: memoryview[int], base: int) -> None:
        """Bring the counters up to what this connection has done. Bytes of all listeners go to that of its last
        client."""
        out = self.outstanding
        cells[base + layout.LeasePool.QUERIES] += out.queries
        cells[base + layout.LeasePool.TRANSACTIONS] += out.transactions
        cells[base + layout.LeasePool.BYTES_IN] += out.bytes_in
        cells[base + layout.LeasePool.BYTES_OUT] += out.bytes_out
        cells[self.server.base + layout.Server.BYTES_IN] += out.bytes_in
        cells[self.server.base + layout.Server.BYTES_OUT] += out.bytes_out
        if self.listener:
            cells[self.listener + layout.Listener.BYTES_IN] += out.bytes_in
            cells[self.listener + layout.Listener.BYTES_OUT] += out.bytes_out
        out.queries = out.transactions = out.bytes_in = out.bytes_out = 0

    def note(self, payloads: list[bytes]) -> dict[str, str]:
        """ParameterStatus that came: kept, and returned."""
        news = dict(parse_parameter_status(payload) for payload in payloads)
        payloads.clear()
        self.reported = changed(self.reported, news)
        self.settings = changed(self.settings, {name: news[name] for name in news if name in SETTABLE})
        return news

    def keep(self, differing: Mapping[str, str | None]) -> None:
        """These have been set (None: reset); what is reported, it has reported."""
        settings = dict(self.settings)
        for name, value in differing.items():
            if name not in self.reported:
                settings.pop(name, None)
                if value is not None:
                    settings[name] = value
        self.settings = intern(settings)

    def discarded(self) -> None:
        """DISCARD ALL was executed."""
        self.settings = settable(self.reported)
        self.statements.names.clear()
        self.spoiled = False

    async def command(self, sql: str) -> None:
        """Run a statement of ours to its ReadyForQuery. Raises ServerError: afterwards it is usable only if `free`."""
        await self.ask(sql)

    async def ask(self, sql: str) -> list[str | None]:
        """The same; the last row that came."""
        out, conn = self.outstanding, self.conn
        watching, out.watching = out.watching, False
        self.own = True
        row = b""
        try:
            data = query(sql)
            out.sent(data)
            await conn.send(data)
            failure: ServerError | None = None
            buffer = bytearray()
            while out.fifo:
                data = await conn.recv()
                if not data:
                    raise ServerError("server closed the connection unexpectedly")
                buffer += data
                while (found := take_from_server(buffer)) is not None:
                    kind, payload = found
                    out.received(bytes((kind,)) + (len(payload) + 4).to_bytes(4, "big") + payload)
                    if kind == ord("D"):
                        row = payload
                    elif kind == ord("E"):
                        fields = errors.decode(payload)
                        failure = ServerError(fields.get("M", ""), fields.get("C", CONNECTION_FAILURE))
            if buffer:
                out.unknown = True  # the beginning of something that nobody asked for
        except OSError as error:
            out.unknown = True
            raise ServerError(f"connection to the server lost: {error.strerror}") from error
        except BaseException:
            out.unknown = True
            raise
        finally:
            self.own = False
            out.watching = watching
        if out.parameters:
            self.note(out.parameters)
        if failure is not None:
            raise failure
        return columns(row) if row else []

    async def close(self, lane: Lane) -> None:
        """Say Terminate and wait until the server is gone, for a time."""
        conn = self.conn
        try:
            lane.current.deadline = lane.now + GOODBYE
            conn.waiter = lane.current
            conn.send_nowait(TERMINATE)
            conn.shutdown_write()
            while await conn.recv():
                pass
        except (OSError, Overdue):
            pass
        finally:
            lane.current.deadline = float("inf")
            conn.close()


async def connect(lane: Lane, server: Server, within: float, encryption: Encryption | None) -> Conn:
    """A connection, not logged in yet. Raises ServerError 08001. The session's deadline holds for what comes after,
    too."""
    lane.current.expire_in(within)
    conn = None
    try:
        conn = await lane.connect(server.family, server.sockaddr)
        if encryption is not None:
            plain, conn = conn, None
            try:
                conn = await encryption.start(plain, server.sockaddr[0], server.name)
            finally:
                if conn is None:
                    plain.close()
        return conn
    except OSError as error:
        reason = error.strerror or errno.errorcode.get(error.errno or 0, "unknown")
        raise ServerError(f"could not connect to {server.name}: {reason}", CANNOT_CONNECT) from None
    except Overdue:
        raise ServerError(f"could not connect to {server.name}: timeout", CANNOT_CONNECT) from None


async def log_in(
    lane: Lane, server: Server, lease: int, settings: PoolSettings, startup: Mapping[str, str] = _NO_STARTUP
) -> ServerConnection:
    """A new connection, ready for use, `server_connect_timeout` for all of it; `startup` stands in its startup packet.
    Raises ServerError."""
    conn = await connect(lane, server, settings.server_connect_timeout, settings.encryption)
    secured = certificate_of(conn)
    try:
        login = Login(settings.user, settings.database, secured is not None, end_point(secured), startup)
        await conn.send(login.begin())
        buffer = bytearray()
        while not login.ready:
            data = await conn.recv()
            if not data:
                raise ServerError(f"{server.name} closed the connection during login")
            buffer += data
            while not login.ready and (found := take_from_server(buffer)) is not None:
                answer = login.receive(*found)
                if answer:
                    await conn.send(answer)
        if buffer:
            raise ServerError(f"{server.name} sent more than a login")
    except Overdue:
        conn.close()
        raise ServerError(f"{server.name} did not finish the login in time", CANNOT_CONNECT) from None
    except OSError as error:
        conn.close()
        raise ServerError(f"{server.name} closed the connection during login: {error.strerror}") from None
    except (Exception, Cancelled):
        conn.close()
        raise
    finally:
        lane.current.deadline = float("inf")
    reported = intern(login.parameters)
    expires = lane.now + settings.server_lifetime * (1 - LIFETIME_JITTER * random.random())
    return ServerConnection(
        conn, server, lease, login.pid, login.secret, reported, reported, settable(reported), settings, expires
    )


async def send_cancel(lane: Lane, server: Server, pid: int, secret: bytes, encryption: Encryption | None) -> None:
    """Cancel what a server process is doing; returns when the server has taken notice, or could not be reached."""
    conn = None
    try:
        conn = await connect(lane, server, CANCEL_TIMEOUT, encryption)
        await conn.send(cancel_request(pid, secret))
        # PostgreSQL closes this connection after it has sent the signal.
        while await conn.recv():
            pass
    except (ServerError, OSError, Overdue):
        pass
    finally:
        lane.current.deadline = float("inf")
        if conn is not None:
            conn.close()
