"""The server connections of one database and user in one worker, and the clients that wait for one.

Owns who gets a connection: whoever has waited longest, in any worker. Every column publishes the arrival of its longest
waiting client in the plane (its ticket), and `sharing` compares them; how a connection comes here or goes stands in
`opening`, `handover` and `recovery`. The hot path is `idle.pop()` by the relay, and `release`.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from pooler import acquaintance, handover, opening, recovery, sharing, standing
from pooler.errors import CANNOT_CONNECT_NOW, PeerError, ServerError, notice
from pooler.renaming import execute
from pooler.server import ServerConnection
from supervisor.ground.lane import PARK, Overdue
from supervisor.plane.layout import Kind, LeasePool, LeasePoolState

if TYPE_CHECKING:
    from pooler.client import Client
    from pooler.fanout import Fanout
    from pooler.parameters import Values
    from pooler.settings import PoolSettings
    from pooler.turnstile import Turnstile
    from supervisor.ground.lane import Conn, Lane
    from supervisor.ground.pools import Pool as ServerGroup
    from supervisor.ground.tier import Worker
    from supervisor.plane.leases import Leases

NOTICE_AFTER = 5.0  # seconds in the queue, then the client is told
MAX_EARLY = 64 * 1024  # bytes that a client may send while it waits; beyond, its socket is not read
_NEVER = float("inf")


@attrs.frozen
class Pressure:
    """Cells of a database: the shared one, and those of this worker."""

    state: int
    counters: int


@attrs.define(eq=False)
class ServerPool:
    """One pool in one worker. A reload swaps `settings` and `group`."""

    database: str  # as clients call it
    user: str  # who is logged in to the servers
    row: int
    worker: Worker
    leases: Leases
    settings: PoolSettings
    group: ServerGroup
    neighbours: Mapping[str, ServerPool]  # all pools of this worker, by name
    turnstile: Turnstile  # of this worker
    name: str = attrs.field(init=False)  # "database/user", as the plane's row is called
    lane: Lane = attrs.field(init=False)
    cells: memoryview[int] = attrs.field(init=False, repr=False)
    base: int = attrs.field(init=False)  # its counters in this column
    state: int = attrs.field(init=False)  # its shared fields
    pressure: Pressure | None = None  # where its database says that it is saturated, if it is to
    readers: ServerPool | None = None  # the same database and user on replicas, where transactions are routed
    origin: ServerPool | None = None  # whose readers these are
    fanout: Fanout = attrs.field(init=False)  # of its database; the readers have none
    idle: list[ServerConnection] = attrs.field(factory=list)  # the last used last
    servers: set[ServerConnection] = attrs.field(factory=set)  # all that are logged in
    waiters: deque[Client] = attrs.field(factory=deque)
    strangers: set[Client] = attrs.field(factory=set)  # of those, who waits to be greeted only
    clients: set[Client] = attrs.field(factory=set)
    reported: Values | None = None  # what a server said at login: every client's greeting
    leaving: bool = False  # the worker drains, or the database is gone: sessions end between transactions
    closing: bool = False  # the worker ends now: nothing is brought to an end in good order any more
    sticky: bool = False  # a client keeps its server: session mode
    statement: bool = False  # statement mode
    watching: bool = False  # what a client does to its session must not be seen by the next
    unusual: bool = False  # a client that becomes idle has more to do than to wait
    first_look: float = NOTICE_AFTER  # seconds until one that waits is looked at
    waited: int = 0  # ns, all who got a connection together; not in the plane yet
    others: tuple[int, ...] = ()  # the counters of this pool in the other workers' columns
    given: dict[int, int] = attrs.field(factory=dict)  # by those: the ticket for which a connection is under way
    ours_until: int = sharing.FOREVER  # no client of theirs comes before those of ours with a ticket up to this
    owes: bool = False  # the next that is released is theirs
    behind_since: int = 0  # ns: since when one of them has kept a client waiting for far longer than this worker
    asked_for: int = 0  # the ticket for which one of them was asked
    released: int = 0  # monotonic ns: when a connection was
    launching: int = 0  # logins under way
    orders: tuple[int, int] = (0, 0)  # the operator's, as last seen: paused, stale
    killed: int = 0
    looked: float = 0.0  # when the last sweep was, on the lane's clock
    failure: ServerError | None = None  # why the last login failed
    failed_until: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.name = f"{self.database}/{self.user}"
        plane = self.worker.plane
        self.lane = self.worker.lane
        self.cells = plane.cells
        self.base = plane.counters(Kind.LEASEPOOL, self.row, self.worker.column)
        self.state = plane.state(Kind.LEASEPOOL, self.row)
        self.killed = self.cells[self.state + LeasePoolState.KILLED]  # it meant those who were there then
        self.looked = self.lane.now
        self._follow(self.settings)
        self.look_around()

    def _follow(self, settings: PoolSettings) -> None:
        """What the hot path asks of the settings."""
        self.sticky, self.statement = settings.mode == "session", settings.mode == "statement"
        self.watching = not self.sticky
        self.unusual = self.leaving or settings.client_idle_timeout < _NEVER
        self.first_look = min(NOTICE_AFTER, settings.query_wait_timeout)

    def look_around(self) -> None:
        """Learn which other workers there are now."""
        plane, mine = self.worker.plane, self.worker.column
        columns = [column for column in plane.live(self.worker.tier) if column != mine]
        self.others = tuple(plane.counters(Kind.LEASEPOOL, self.row, column) for column in columns)
        self.ours_until = sharing.FOREVER

    # -- taking and giving back

    def release(self, server: ServerConnection) -> None:
        """Take back a connection that is free, and give it to whoever is next."""
        server.conn.waiter = None
        lane = self.lane
        now, self.released = lane.now, lane.now_ns
        if server.good_until <= now:
            self._release_unusual(server)
        elif self.waiters:
            if self.waiters[0].ticket <= self.ours_until or not sharing.give_first(self, server):
                self._hand(server)
        elif not self.others or not sharing.give_away(self, server, lane.now_ns - sharing.PATIENCE):
            idle = self.idle
            if not idle:
                self.cells[self.base + LeasePool.IDLE] = 1
            server.since = now
            idle.append(server)

    def _release_unusual(self, server: ServerConnection) -> None:
        if server.cancels:
            server.parked = True  # until the cancel has done its work, or it may hit the next client's query
        elif server.expires <= self.lane.now:
            recovery.retire(self, server)
        elif self.waiters:
            self._hand(server)
        elif not sharing.give_away(self, server, sharing.FOREVER):
            recovery.retire(self, server)

    def _hand(self, server: ServerConnection) -> None:
        """To the first in the queue, and what it wants straight on: its session need not run before the answer
        comes."""
        waiters = self.waiters
        client = waiters.popleft()
        self.cells[self.base + LeasePool.OLDEST_TICKET] = waiters[0].ticket if waiters else 0
        self.waited += self.lane.now_ns - client.ticket
        client.server = server
        server.conn.waiter = session = client.session
        data = client.data
        server.outstanding.unnamed = client.unnamed
        # One into which something is to be thrown may not want it any more.
        if data and server.settings is client.settings and session.pending is None:
            out, conn = server.outstanding, server.conn
            server.asked = data
            try:
                cut = out.sent(data)
                if out.noticed and not cut and (renamed := execute(client, server, data)):
                    data, cut, out.noticed = renamed, len(renamed), False
                client.data = data[cut:]
                taken = conn.send_nowait(data[:cut]) if cut else 0
            except PeerError as error:
                out.unknown = True  # noted in part, and none of it sent
                session.throw(error)
                return
            except OSError:  # its session finds out why
                out.unknown = conn.readable = True
            else:
                if taken == len(data):
                    return
                client.unsent = data[taken:cut]
                client.graceful, out.terminated = out.terminated, False
        self.lane.wake(session)

    def take_idle(self) -> ServerConnection | None:
        """The last used idle connection that is alive, if there is one."""
        while self.idle:
            server = self.take_last()
            if not server.conn.readable or self.examine(server):
                return server
        return None

    def take_last(self) -> ServerConnection:
        """The last used idle connection; there is one."""
        server = self.idle.pop()
        if not self.idle:
            self.cells[self.base + LeasePool.IDLE] = 0
        return server

    # -- waiting

    async def wait(self, client: Client) -> ServerConnection:
        """A connection for this client, which may have to queue. Raises PeerError, and what is thrown into its
        session."""
        server = self.take_idle()
        if server is not None:
            server.conn.waiter = client.session
            return server
        before = client.session.deadline
        try:
            self.enqueue(client)
            return await self.keep(client)
        except BaseException:
            self.leave(client)
            raise
        finally:
            client.session.deadline = before

    def enqueue(self, client: Client) -> None:
        """It waits from now on; whoever calls sees to it that it leaves. Raises PeerError if waiting is in vain."""
        failure = self.failure
        if failure is not None and opening.failing(self):
            raise opening.told(self, failure)
        cells, waiters = self.cells, self.waiters
        client.ticket = ticket = self.lane.now_ns
        if not waiters:
            cells[self.base + LeasePool.OLDEST_TICKET] = ticket
        waiters.append(client)
        if self.first_look < 1.0:  # a deadline this near has to be announced to the lane
            client.session.expire_in(self.first_look)
        if cells[self.state + LeasePoolState.OPEN] < cells[self.state + LeasePoolState.LIMIT]:
            self.demand()
        elif self.others and not sharing.brisk(self):
            handover.ask(self)

    async def keep(self, client: Client) -> ServerConnection:
        """Wait until it is given a connection, telling it, and up to its timeout."""
        conn = client.conn
        self._look(client)
        while (given := client.server) is None:
            try:
                if conn.readable:
                    client.listen(MAX_EARLY)
                await PARK
            except Overdue:
                if client.server is None:
                    self._look(client)
        return given

    def _look(self, client: Client) -> None:
        """At one that waits: tell it so, or that it has been long enough, and see when to look again."""
        waited = (self.lane.now_ns - client.ticket) / 1e9
        timeout = self.settings.query_wait_timeout
        if waited >= timeout:
            self.cells[self.base + LeasePool.WAIT_TIMEOUTS] += 1
            raise PeerError(
                CANNOT_CONNECT_NOW,
                f"query_wait_timeout: no server connection became free in {timeout:g} seconds",
                hint="The database is paused."
                if standing.paused(self)
                else "All connections of the pool are in use; see pool_size.",
            )
        if waited >= NOTICE_AFTER:
            if not client.told:
                client.told = True
                client.conn.send_nowait(PAUSED if standing.paused(self) else WAITING)
            client.session.expire_in(timeout - waited)
        else:
            client.session.expire_in(min(NOTICE_AFTER, timeout) - waited)

    def leave(self, client: Client) -> None:
        """It waits no longer; what it was given in the same moment goes to the next."""
        client.session.deadline = _NEVER
        client.data = client.unsent = b""
        server, client.server = client.server, None
        if server is not None and server.outstanding.free:
            self.release(server)
        elif server is not None:
            recovery.recover(self, server, graceful=False)
        elif client in self.waiters:
            self.waiters.remove(client)
            self.cells[self.base + LeasePool.OLDEST_TICKET] = self.waiters[0].ticket if self.waiters else 0

    def demand(self) -> None:
        """Clients wait: open connections as far as the limit lets us, else ask for one that is idle elsewhere."""
        opening.launch(self)
        if self.others and self.launching < len(self.waiters):
            handover.ask(self)

    def refuse_waiting(self, error: Exception) -> None:
        """There will be no connection for those who wait."""
        while self.waiters:
            self.waiters.popleft().session.throw(error)
        self.cells[self.base + LeasePool.OLDEST_TICKET] = 0

    # -- the life of a connection

    def admit(self, server: ServerConnection) -> None:
        """A connection that was opened here or came from another worker: for whoever is next."""
        self.servers.add(server)
        server.outstanding.watching = self.watching
        elsewhere = self._leads_elsewhere(server)
        if elsewhere or standing.outlived(self, server):
            server.expires = 0.0
        server.good_until = 0.0 if self.leaving else server.expires
        server.conn.on_idle = functools.partial(self._stirred, server)
        if not elsewhere:
            acquaintance.learn(self, server.greeting)
        self.release(server)

    def _stirred(self, server: ServerConnection, conn: Conn) -> None:
        """Something came to a connection that nobody uses."""
        if server in self.idle and not self.examine(server):
            self.idle.remove(server)
            self.cells[self.base + LeasePool.IDLE] = len(self.idle)

    def examine(self, server: ServerConnection) -> bool:
        """Read what an unused connection has; if it can't be used any more, it is closed."""
        out, conn = server.outstanding, server.conn
        try:
            while (data := conn.recv_nowait()) is not None:
                if not data or out.received(data) != len(data):
                    out.unknown = True
                    break
        except (OSError, ServerError):
            out.unknown = True
        if out.parameters:
            server.note(out.parameters)
        if out.unknown or not out.free:
            recovery.retire(self, server)
            return False
        return True

    def _leads_elsewhere(self, server: ServerConnection) -> bool:
        """Whether it was opened by settings that are no more; a login may have been under way during the reload."""
        was, now = server.opened_by, self.settings
        return (
            was.database != now.database
            or was.encryption is not now.encryption
            or server.server not in self.group.servers
        )

    def swap(self, settings: PoolSettings, group: ServerGroup) -> None:
        """By a reload. Connections that lead elsewhere now are not used again."""
        if (settings.database, settings.group) != (self.settings.database, self.settings.group):
            self.reported = None
        self.settings, self.group, self.failure = settings, group, None
        for server in self.servers:
            if self._leads_elsewhere(server):
                server.expires = server.good_until = 0.0
        if self.leaving:
            self.leaving = False
            for server in self.servers:
                server.good_until = 0.0 if server.cancels else server.expires
        self._follow(settings)
        for server in self.servers:
            server.outstanding.watching = self.watching
        for server in [one for one in self.idle if not one.good_until]:
            self.idle.remove(server)
            recovery.retire(self, server)
        self.cells[self.base + LeasePool.IDLE] = len(self.idle)

    def abandon(self) -> None:
        """Sessions are to end between their transactions; idle connections are of no more use here."""
        self.leaving = self.unusual = True
        for server in self.servers:
            server.good_until = 0.0
        sharing.give_idle(self)
        while self.idle:
            recovery.retire(self, self.take_last())

    @property
    def over(self) -> bool:
        """Whether nothing is left of one that was abandoned."""
        return self.leaving and not (self.clients or self.servers or self.waiters or self.launching)


PAUSED = notice("00000", "waiting for a server connection: the database is paused")
WAITING = notice("00000", "waiting for a free server connection: all connections of the pool are in use")
