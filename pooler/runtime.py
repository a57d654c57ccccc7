"""The pooler at work in one worker: its listeners, its pools, its clients' cancel keys.

Owns what is one per worker and outlives a client; what happens to a client stands in `client`, to a server connection
in `pool`.
"""

from __future__ import annotations

import socket
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from pooler import acquaintance, handover, limits, sharing
from pooler.authentication import Method
from pooler.cancels import Cancels
from pooler.client import Client, run
from pooler.config import REPLICAS, PoolerTable, pool_names_of, read_rules, users_of
from pooler.console.averages import PERIOD, Averages
from pooler.console.survey import Survey
from pooler.drain import Drain, depart
from pooler.errors import TOO_MANY_CONNECTIONS, PeerError, shutting_down
from pooler.fanout import Fanout
from pooler.hba import Rules
from pooler.keys import Keys
from pooler.listener import Listener, certificates
from pooler.lookup import Lookup
from pooler.orders import Ask, Cancel, Canceled, Give, Introduce, Introduced, Kill, Spare, Told, Want
from pooler.orphans import Orphans
from pooler.petitions import Petitions
from pooler.pool import Pressure, ServerPool
from pooler.settings import PoolSettings, pool_settings
from pooler.startup import CancelRequest
from pooler.sweep import sweep
from pooler.turnstile import Turnstile
from pooler.users import Users
from supervisor.ground.config import Config
from supervisor.ground.departures import Departures
from supervisor.ground.lane import Lane, Listening
from supervisor.ground.orders import Reloaded, RowAnswer
from supervisor.ground.pools import Plan
from supervisor.ground.tier import Worker
from supervisor.ground.wire import close_all
from supervisor.plane.layout import Kind
from supervisor.plane.layout import Listener as Counter
from supervisor.plane.leases import Leases

if TYPE_CHECKING:
    from supervisor.ground.net.tls import Certificates

NAME = "pooler"
# As fine as the lane's sweeper is: what a lost message has left waiting, waits no longer than this.
SWEEP_SECONDS = 0.05


@attrs.frozen
class Prepared:
    """What a reload swaps in."""

    certificates: Mapping[str, Certificates | None]
    table: PoolerTable
    users: Users
    settings: Mapping[ServerPool, PoolSettings | None]
    plans: Mapping[str, Plan | None]


@attrs.define(eq=False)
class PoolerRuntime:
    """One worker's."""

    worker: Worker
    lane: Lane = attrs.field(init=False)
    cells: memoryview[int] = attrs.field(init=False, repr=False)
    leases: Leases = attrs.field(init=False)
    keys: Keys[Client] = attrs.field(init=False)
    cancels: Cancels = attrs.field(init=False)
    survey: Survey = attrs.field(init=False)
    petitions: Petitions = attrs.field(init=False)
    lookup: Lookup = attrs.field(init=False)
    orphans: Orphans = attrs.field(init=False)
    averages: Averages = attrs.field(init=False)
    table: PoolerTable = attrs.field(init=False)
    users: Users = attrs.field(init=False, repr=False)
    pools: dict[str, ServerPool] = attrs.field(factory=dict)  # those that were used; by "database/user"
    turnstile: Turnstile = attrs.field(factory=Turnstile)
    fanouts: dict[str, Fanout] = attrs.field(factory=dict)  # by database
    listeners: dict[str, Listener] = attrs.field(factory=dict)
    clients: set[Client] = attrs.field(factory=set)  # all, those that are logging in too
    leaving: bool = False
    _polled: dict[tuple[str, int], Listening] = attrs.field(factory=dict)
    _departures: Departures = attrs.field(init=False)
    _live_epoch: int = -1

    def __attrs_post_init__(self) -> None:
        worker = self.worker
        self.lane, self.cells = worker.lane, worker.plane.cells
        self.leases = Leases(worker.plane)
        self.keys = Keys(worker.column)
        self.cancels = Cancels(self)
        self.survey, self.petitions, self.averages = Survey(self), Petitions(worker), Averages(worker.plane)
        self.lookup, self.orphans, self._departures = Lookup(self), Orphans(self), Departures(worker)
        self.table = worker.config.tier(NAME)
        self.users = users_of(self.table)
        self._listen({name: certificates(table) for name, table in self.table.listeners.items()})
        self._open_early()
        self.lane.every(SWEEP_SECONDS, self._sweep)
        self.lane.lulls.append(self._share)
        self.averages.start(self.lane.now)
        self.lane.every(PERIOD, lambda: self.averages.look(self.lane.now))

    @property
    def method(self) -> Method:
        """How clients prove themselves."""
        return Method(self.table.auth.type) if self.table.auth is not None else Method.AUTO

    @property
    def rules(self) -> Rules | None:
        """Who may come in from where; None where one method holds for all."""
        auth = self.table.auth
        return read_rules(auth.hba)[0] if auth is not None and auth.hba is not None else None

    @property
    def asks_for_users(self) -> bool:
        """Whether who is in no file is looked up."""
        return self.table.auth is not None and self.table.auth.query is not None

    @property
    def ignored(self) -> frozenset[str]:
        """Startup parameters that are accepted and forgotten."""
        return frozenset(name.lower() for name in self.table.ignore_startup_parameters)

    # -- listeners and clients

    def attach(self, listener: str, slot: int, sock: socket.socket) -> None:
        here = self.listeners[listener]

        def accepted(sock: socket.socket, address: Any) -> Coroutine[Any, Any, None]:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return run(self, self.lane.adopt(sock), address, here)

        self._polled[listener, slot] = self.lane.listen(sock, accepted)

    def detach(self, listener: str, slot: int) -> None:
        self._polled.pop((listener, slot)).close()

    def enter(self, client: Client) -> None:
        """A client came."""
        self.cells[client.counters + Counter.ACCEPTED] += 1
        self.cells[client.counters + Counter.ACTIVE] += 1
        self.clients.add(client)

    def forget(self, client: Client) -> None:
        """It is gone."""
        self.clients.discard(client)
        self.cells[client.counters + Counter.ACTIVE] -= 1
        if client.listening is not None:
            client.listening.close()
        if client.home is not None:
            client.home.clients.discard(client)
            self.keys.take_back(client.key)

    def full(self, client: Client) -> bool:
        """Whether there are too many clients, over all workers and listeners."""
        plane, count = self.worker.plane, 0
        for name in self.table.listeners:
            count += plane.total(Kind.LISTENER, plane.row(Kind.LISTENER, f"{NAME}/{name}"), Counter.ACTIVE)
        if count <= self.table.max_client_conn:
            return False
        self.cells[client.counters + Counter.REFUSED] += 1
        return True

    # -- pools

    async def make_room(self, database: str, user: str) -> None:
        """Rows in the plane for the pools of a user who is in no file: only the supervisor makes them. PeerError."""
        table = self.table.databases.get(database)
        if table is None or table.user is not None or not self.asks_for_users or self.users.find(user) is not None:
            return
        for name in pool_names_of(database, table, [user]):
            errors = await self.petitions.row(name)
            if errors:
                raise PeerError(TOO_MANY_CONNECTIONS, f"no room for the pool of another user: {errors[0]}")

    def pool(self, database: str, user: str) -> ServerPool | None:
        """The pool for this database and user; None if there is no such thing."""
        settings = pool_settings(self.table, database, user, self.lookup.found(database.removesuffix(REPLICAS)))
        if settings is None or settings.group not in self.worker.pools:
            return None
        name = f"{database}/{settings.user.name}"
        pool = self.pools.get(name)
        if pool is not None and settings.user.secret != pool.settings.user.secret:  # by query, it has changed
            pool.swap(attrs.evolve(pool.settings, user=settings.user), pool.group)
        if pool is None:
            worker = self.worker
            row = worker.plane.row(Kind.LEASEPOOL, name)
            self.leases.set_limit(row, settings.size)
            group = worker.pools[settings.group]
            pool = ServerPool(
                database, settings.user.name, row, worker, self.leases, settings, group, self.pools, self.turnstile
            )
            if not database.endswith(REPLICAS):
                row = worker.plane.row(Kind.DATABASE, database)
                counters = worker.plane.counters(Kind.DATABASE, row, worker.column)
                pool.pressure = Pressure(worker.plane.state(Kind.DATABASE, row), counters)
                pool.fanout = self.fanouts.setdefault(database, Fanout(database, worker, counters))
            if self.leaving:
                pool.abandon()
            self.pools[name] = pool
            self._give_readers(pool)
        return pool

    def _give_readers(self, pool: ServerPool) -> None:
        """The pool of replicas beside it, if its database has one."""
        if not pool.database.endswith(REPLICAS):
            pool.readers = self.pool(pool.database + REPLICAS, pool.user)
            if pool.readers is not None:
                pool.readers.origin = pool

    def _open_early(self) -> None:
        """Pools that are to have connections before anybody has come: those whose user is known."""
        for name, table in self.table.databases.items():
            if table.min_pool_size and table.user is not None:
                self.pool(name, table.user)

    def _sweep(self) -> None:
        plane = self.worker.plane
        died = plane.live_epoch != self._live_epoch
        if died:
            self._live_epoch = plane.live_epoch
        for departure in self._departures.look():
            depart(self, departure, SWEEP_SECONDS)
        for pool in [*self.pools.values()]:
            if died:
                pool.look_around()
            sweep(pool)
            if pool.over:  # its row may become another's
                del self.pools[pool.name]
                if pool.database in self.fanouts and all(one.database != pool.database for one in self.pools.values()):
                    self.fanouts.pop(pool.database).end()
        self.orphans.sweep(died)
        for fanout in self.fanouts.values():
            fanout.look()

    def _share(self, quiet: bool) -> None:
        for pool in self.pools.values():
            if not pool.others:
                return  # no more has any other
            sharing.look(pool, quiet)

    # -- messages

    async def cancel(self, request: CancelRequest) -> None:
        """A CancelRequest came in on a connection of its own. Returns when it has been carried out."""
        await self.cancels.request(request)

    def receive(self, message: Any, descriptors: Sequence[int]) -> None:
        match message:
            case Want(name):
                close_all(descriptors)
                if name in self.pools:
                    sharing.give_idle(self.pools[name])
            case Spare(name):
                close_all(descriptors)
                if name in self.pools:
                    limits.spare(self.pools[name])
            case Give():
                pool = self.pools.get(message.pool)
                handover.receive(pool, self.leases, self.worker.column, message, descriptors)
            case Introduce():
                close_all(descriptors)
                if message.pool in self.pools:
                    acquaintance.asked(self.pools[message.pool], message)
            case Introduced():
                close_all(descriptors)
                if message.pool in self.pools:
                    acquaintance.told(self.pools[message.pool], message)
            case Cancel():
                close_all(descriptors)
                self.cancels.ordered(message)
            case Canceled(number):
                close_all(descriptors)
                self.cancels.answered(number)
            case Ask():
                close_all(descriptors)
                self.survey.asked(message)
            case Told():
                close_all(descriptors)
                self.survey.told(message)
            case Kill(pid):
                close_all(descriptors)
                self.kill(pid)
            case Reloaded() | RowAnswer():
                close_all(descriptors)
                self.petitions.answered(message)
            case _:
                close_all(descriptors)

    def kill(self, pid: int) -> bool:
        """End the session of the client with this cancel key; False if there is none."""
        client = self.keys.holder(pid)
        if client is not None:
            client.session.throw(shutting_down())
        return client is not None

    # -- reload

    def prepare(self, config: Config) -> Prepared:
        table: PoolerTable = config.tier(NAME)
        plans = self.worker.pools.prepare(config)
        settings: dict[ServerPool, PoolSettings | None] = {}
        for pool in self.pools.values():
            asked = table.auth is not None and table.auth.query is not None
            known = self.lookup.found(pool.database.removesuffix(REPLICAS)) if asked else {}
            found = pool_settings(table, pool.database, pool.user, known)
            settings[pool] = found if found is not None and found.user.name == pool.user else None
        pairs = {name: certificates(listener) for name, listener in table.listeners.items()}
        return Prepared(pairs, table, users_of(table), settings, plans)

    def commit(self, prepared: Prepared) -> None:
        self.worker.pools.commit(prepared.plans)
        self.table, self.users = prepared.table, prepared.users
        self._listen(prepared.certificates)
        for pool, settings in prepared.settings.items():
            if settings is not None:
                self.leases.set_limit(pool.row, settings.size)
                pool.swap(settings, self.worker.pools[settings.group])
            if settings is None or self.leaving:  # a database or a user that is no more
                pool.abandon()
                for client in pool.clients:
                    self.lane.wake(client.session)
        for pool in list(self.pools.values()):
            self._give_readers(pool)
        self._open_early()

    def renew(self, config: Config) -> None:
        table: PoolerTable = config.tier(NAME)
        for name, listener in table.listeners.items():
            if name in self.listeners and self.listeners[name].table.tls != listener.tls:
                self.listeners[name].take(listener, certificates(listener))

    def _listen(self, pairs: Mapping[str, Certificates | None]) -> None:
        """By the table: new listeners, changed ones, those that are gone."""
        plane = self.worker.plane
        for name, table in self.table.listeners.items():
            if name in self.listeners:
                self.listeners[name].take(table, pairs[name])
            else:
                row = plane.row(Kind.LISTENER, f"{NAME}/{name}")
                counters = plane.counters(Kind.LISTENER, row, self.worker.column)
                self.listeners[name] = Listener(name, row, counters, table, self.worker.base_context)
        for name in self.listeners.keys() - self.table.listeners.keys():
            del self.listeners[name]

    # -- the end

    def drain(self) -> None:
        self.leaving = True
        for pool in self.pools.values():
            pool.abandon()
        Drain(self, self.worker.config.supervisor.drain_timeout)

    def holding(self) -> Sequence[str]:
        held = [f"client {_shown(client.address)} of {client.database}/{client.user}" for client in self.clients]
        return held + [f"server connection of {pool.name}" for pool in self.pools.values() for _ in pool.servers]

    def close(self) -> None:
        for pool in self.pools.values():
            pool.closing = True
        for session in list(self.lane.sessions):
            session.cancel()


def _shown(address: Any) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)
