"""One server connection that listens for all clients of a database in this worker, and gives them what it hears.

It is opened by the first LISTEN, listens to the union of the clients' channels, and is closed when nobody has listened
for a while. It belongs to no pool and needs no lease: there is one for each worker and database at most. When it is
lost, another is opened, at the new primary after a failover; what was sent meanwhile nobody heard, and the clients are
told that. Who gets what stands in `listening`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from pooler import errors, opening, roles, standing
from pooler.encodings import ANY
from pooler.errors import (
    CANNOT_CONNECT,
    CANNOT_CONNECT_NOW,
    PROGRAM_LIMIT_EXCEEDED,
    PeerError,
    ServerError,
    fields,
)
from pooler.listening import EVERYBODY, MAX_CHANNELS, Listening
from pooler.messages import message, query, take_from_server
from pooler.server import ServerConnection, log_in
from supervisor.ground.lane import PARK, Overdue
from supervisor.plane.layout import Database, LeasePoolState

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.encryption import Encryption
    from pooler.pool import ServerPool
    from supervisor.ground.lane import Lane, Session
    from supervisor.ground.pools import Server
    from supervisor.ground.tier import Worker

LINGER = 5.0  # seconds without anybody until it is closed: a client that comes back must not cost a login
ALIVE = 20.0  # seconds of silence until the server is asked whether it is there: nobody else would notice
PATIENCE = 15.0  # seconds for an answer
MAX_ORDERS = 100  # sent at once: both sides' buffers hold these and their answers
NAMED = "SET application_name = 'portway: LISTEN'"  # for who looks at pg_stat_activity

_GAP = fields(b"N", "WARNING", "01000", "notifications may have been lost: the connection that listens was interrupted")
_SLOW = "too many notifications wait for this client"
_NOTIFICATION, _ERROR, _READY = b"AEZ"


class _Moved(Exception):
    """The connection is not to be used any longer."""


@attrs.define(eq=False)
class Fanout:
    """Of one database in one worker. `counters` are the database's."""

    database: str
    worker: Worker
    counters: int
    lane: Lane = attrs.field(init=False)
    audience: dict[bytes, set[Client]] = attrs.field(factory=dict)  # by channel
    connection: ServerConnection | None = None
    pool: ServerPool | None = None  # whose user and servers it uses: of the last client that came
    heard: set[bytes] = attrs.field(factory=set)  # channels whose LISTEN is done
    failures: int = 0
    failure: Exception = attrs.field(factory=Exception)  # the last of them
    _session: Session | None = None
    _waiting: set[Session] = attrs.field(factory=set)  # until all of their channels are heard
    _changed: set[bytes] = attrs.field(factory=set)  # to be looked at
    _ordered: set[bytes] = attrs.field(factory=set)  # what it will listen to when all orders are answered
    _orders: deque[bytes] = attrs.field(factory=deque)  # channels whose LISTEN is not answered; EVERYBODY: another
    _interrupted: bool = False  # since the clients were told
    _moved: bool = False
    _leads_to: tuple[str, Encryption | None] = ("", None)  # the database on the server, and how
    _since: float = 0.0  # wall clock

    def __attrs_post_init__(self) -> None:
        self.lane = self.worker.lane

    # -- who listens

    async def open(self, client: Client, names: Sequence[bytes]) -> None:
        """Let a client hear these channels; returns when it does. Raises ServerError, PeerError."""
        listening = client.listening
        if listening is None:
            client.listening = listening = Listening(client, self)
        client.unsettled = True  # whether it goes on listening is to be found out
        self.pool = pool = client.home
        assert pool is not None
        if standing.paused(pool):
            raise PeerError(CANNOT_CONNECT_NOW, "LISTEN needs a connection of its own, and the database is paused")
        channels = {listening.channel(name) for name in names if not listening.hears(name)}
        if len(listening.channels) + len(listening.pending) + len(channels) > MAX_CHANNELS:
            raise PeerError(PROGRAM_LIMIT_EXCEEDED, f"a client can listen to {MAX_CHANNELS} channels")
        for channel in channels:
            listening.pending.add(channel)
            self.audience.setdefault(channel, set()).add(client)
            self._changed.add(channel)
        self._count()
        if self._session is None:
            self._session = self.lane.spawn(self._run(), f"listen {self.database}")
        failures, session = self.failures, self.lane.current
        self._waiting.add(session)
        self.lane.wake(self._session)
        try:
            while not channels <= self.heard:
                if self.failures != failures:
                    raise self.failure
                await PARK
        except BaseException:
            listening.pending -= channels
            self.leave(client, channels)
            raise
        finally:
            self._waiting.discard(session)

    def leave(self, client: Client, channels: Iterable[bytes]) -> None:
        """A client hears these no longer."""
        for channel in channels:
            clients = self.audience.get(channel, set())
            clients.discard(client)
            if not clients:
                self.audience.pop(channel, None)
                self._changed.add(channel)
        self._count()
        if self._session is not None:
            self.lane.wake(self._session)

    def look(self) -> None:
        """With each sweep: whether the connection still leads where it should."""
        connection, pool = self.connection, self._host()
        if connection is not None and pool is not None and self._misleads(connection, pool):
            self._move()

    def end(self) -> None:
        """Its database is no more."""
        if self._session is not None:
            self._session.cancel()

    def depart(self, server: Server) -> None:
        """That server was taken out by hand."""
        if self.connection is not None and self.connection.server is server:
            self._move()

    def _move(self) -> None:
        if not self._moved and self._session is not None:
            self._moved = True
            self.lane.wake(self._session)

    def _host(self) -> ServerPool | None:
        """The pool of somebody who listens."""
        if self.pool is None or self.pool.leaving:
            homes = (client.home for clients in self.audience.values() for client in clients)
            self.pool = next((home for home in homes if home is not None and not home.leaving), self.pool)
        return self.pool

    def _misleads(self, connection: ServerConnection, pool: ServerPool) -> bool:
        settings, server = pool.settings, connection.server
        if settings.role != roles.ANY and server in roles.Unfit(
            pool.cells, pool.group, settings.role, settings.max_lag
        ):
            return True
        if (settings.database, settings.encryption) != self._leads_to:
            return True
        stale = pool.cells[pool.state + LeasePoolState.STALE] > self._since * 1e9
        return stale or standing.paused(pool) or server not in pool.group.servers

    def _count(self) -> None:
        cells = self.worker.plane.cells
        cells[self.counters + Database.LISTENING] = int(self.connection is not None)
        cells[self.counters + Database.CHANNELS] = len(self.audience)

    # -- the connection

    async def _run(self) -> None:
        """As long as somebody listens."""
        lane = self.lane
        try:
            while True:
                pool = self._host()
                assert pool is not None
                if not standing.paused(pool):
                    try:
                        await self._connected(pool)
                        return
                    except (ServerError, _Moved) as error:
                        self._lost(error)
                await lane.sleep(pool.settings.server_login_retry)
                if not self.audience:
                    return
        finally:
            self._session = None

    def _lost(self, error: Exception) -> None:
        reason = "it is to lead elsewhere" if isinstance(error, _Moved) else str(error)
        self.worker.log.warning("listening interrupted", database=self.database, reason=reason)
        self._fail(error if isinstance(error, ServerError) else ServerError("the listening connection was closed"))

    def _fail(self, error: Exception) -> None:
        """Who waits hears it."""
        self.failures += 1
        self.failure = error
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        for session in self._waiting:
            self.lane.wake(session)

    async def _connected(self, pool: ServerPool) -> None:
        """One connection, until nobody has listened for a while. Raises ServerError, _Moved."""
        server = roles.pick(pool)
        if server is None:
            raise ServerError(f"no server of pool {pool.group.name} is up", CANNOT_CONNECT)
        server.started()
        began, connection = (pool.settings.database, pool.settings.encryption), None
        try:
            connection = await log_in(self.lane, server, 0, pool.settings)
            roles.check(pool, server, connection.reported)
            server.succeeded()
            self.lane.current.expire_in(PATIENCE)
            recoded = connection.reported.get("server_encoding") != ANY
            await connection.command(NAMED + "; SET client_encoding = 'UTF8'" * recoded)
            self.connection, self._since, self._moved = connection, self.lane.wall, False
            self._leads_to = began
            connection.since = self._since
            self._changed.update(self.audience)
            self._count()
            await self._listen(connection)
        except ServerError as error:
            if error.sqlstate == CANNOT_CONNECT:
                server.failed(self.lane.now_ns)
            raise
        except OSError as error:
            raise ServerError(f"connection to the server lost: {error.strerror}") from None
        except Overdue:
            raise ServerError(f"{server.name} did not answer in time") from None
        finally:
            self.connection = None
            self._interrupted |= bool(self.heard)
            self.heard.clear()
            self._ordered.clear()
            self._orders.clear()
            self._count()
            server.ended()
            self.lane.current.deadline = float("inf")
            if connection is not None:
                self._close(connection)

    def _close(self, connection: ServerConnection) -> None:
        if self.pool is not None and self.pool.closing:
            connection.conn.close()
        else:
            self.lane.spawn(connection.close(self.lane), f"close {self.database}")

    async def _listen(self, connection: ServerConnection) -> None:
        """Follow who listens, and give them what comes."""
        lane, conn = self.lane, connection.conn
        conn.waiter = session = lane.current
        buffer = bytearray()
        session.expire_in(ALIVE)
        while not self._moved:
            if self._changed and not self._orders:
                ordered = self._order()
                if ordered:
                    session.expire_in(PATIENCE)
                    await conn.send(ordered)
                continue
            data = conn.recv_nowait()
            if data is not None:
                if not data:
                    raise ServerError("server closed the connection unexpectedly")
                buffer += data
                while (found := take_from_server(buffer)) is not None:
                    self._take(*found)
                if not self._orders:
                    session.expire_in(ALIVE if self.audience else LINGER)
                lane.credit -= 1
                if lane.credit < 0:
                    await lane.pause()
                continue
            try:
                await PARK
            except Overdue:
                if self._orders:
                    raise
                if not self.audience:
                    return
                self._orders.append(EVERYBODY)
                session.expire_in(PATIENCE)
                await conn.send(query(""))
        raise _Moved

    def _order(self) -> bytes:
        """What makes it listen to what the clients do: each channel by itself, since the server may refuse one."""
        pieces: list[bytes] = []
        while self._changed and len(pieces) < MAX_ORDERS:
            channel = self._changed.pop()
            quoted = b'"' + channel.replace(b'"', b'""') + b'"'
            if channel in self.audience and channel not in self._ordered:
                self._ordered.add(channel)
                self._orders.append(channel)
                pieces.append(message(b"Q", b"LISTEN " + quoted + b"\0"))
            elif channel not in self.audience and channel in self._ordered:
                self._ordered.discard(channel)
                self.heard.discard(channel)
                self._orders.append(EVERYBODY)
                pieces.append(message(b"Q", b"UNLISTEN " + quoted + b"\0"))
        return b"".join(pieces)

    def _take(self, kind: int, payload: bytes) -> None:
        """A message of the server. Raises ServerError."""
        if kind == _NOTIFICATION:
            channel = payload[4:].partition(b"\0")[0]
            self._deliver(channel, self.audience.get(channel, ()), message(b"A", payload))
        elif kind == _ERROR:
            said = errors.decode(payload)
            error = ServerError(said.get("M", ""), said.get("C", errors.CONNECTION_FAILURE))
            if not self._orders or said.get("V") in ("FATAL", "PANIC"):
                raise error
            self._ordered.discard(self._orders[0])
            self._orders[0] = EVERYBODY
            self._fail(PeerError(error.sqlstate, error.message))
        elif kind == _READY and self._orders:
            channel = self._orders.popleft()
            if channel is not EVERYBODY and channel in self._ordered:
                self.heard.add(channel)
            if not self._orders:
                self._settled()

    def _settled(self) -> None:
        """It listens to all that it should, as far as the server lets it."""
        self._tell_waiting()
        if self._interrupted and not self._changed:
            self._interrupted = False
            self._deliver(EVERYBODY, {one for clients in self.audience.values() for one in clients}, _GAP)

    def _deliver(self, channel: bytes, clients: Iterable[Client], said: bytes) -> None:
        cells = self.worker.plane.cells
        for client in clients:
            listening = client.listening
            if listening is None:
                continue
            cells[self.counters + Database.NOTIFICATIONS] += 1
            if not listening.deliver(channel, said):
                client.session.throw(PeerError(PROGRAM_LIMIT_EXCEEDED, _SLOW, hint="It does not read them."))
            elif client.server is None or client.server.outstanding.free:
                self.lane.wake(client.session)


async def open_channels(client: Client, names: Sequence[bytes]) -> bytes:
    """Let a client hear these channels. The ErrorResponse, if it can't."""
    assert client.home is not None
    try:
        await client.home.fanout.open(client, names)
    except ServerError as error:
        return attrs.evolve(opening.told(client.home, error), severity="ERROR").encode()
    except PeerError as error:
        return attrs.evolve(error, severity="ERROR").encode()
    return b""
