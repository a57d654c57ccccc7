"""The gateway as the supervisor sees it, and its runtime in a worker."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
from OpenSSL import SSL

from gateway import keeper, plan
from gateway.config import NO_ROUTE, GatewayTable
from gateway.connection import Connection
from gateway.drain import STEP_SECONDS, Drain, depart
from gateway.errors import REASONS
from gateway.keymessages import Keys
from gateway.keyrings import KeyRings
from gateway.listener import Listener
from gateway.plan import NAME, Plan
from gateway.shared import Shared
from gateway.transport import Transport
from supervisor.ground import pools
from supervisor.ground.config import Config
from supervisor.ground.departures import Departures
from supervisor.ground.lane import Session
from supervisor.ground.net.tls import base_context
from supervisor.ground.tier import ListenerSpec, Tier, Worker
from supervisor.ground.wire import close_all
from supervisor.plane.layout import Kind
from supervisor.plane.quotas import Quotas

REASON_CODES: Sequence[str] = tuple(REASONS)  # in the order of their cells, for the metrics


@attrs.frozen
class Prepared:
    """What a reload swaps in."""

    plan: Plan
    pools: Mapping[str, pools.Plan | None]


class GatewayRuntime:
    """The gateway at work in one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        plane = worker.plane
        self._quotas = Quotas(plane)
        self._listeners: dict[str, Listener] = {}
        self._removed: list[Listener] = []  # by reloads; kept while they have connections
        self._drain: Drain | None = None

        def counters(kind: Kind, name: str) -> int:
            return plane.counters(kind, plane.row(kind, name), worker.column)

        self._counters = counters
        self._shared = Shared(
            worker.lane,
            plane.cells,
            worker.access,
            self._quotas,
            counters(Kind.TIER, NAME),
            counters(Kind.ROUTE, NO_ROUTE),
            worker.queues,
            self._complain,
        )
        self._transports: Mapping[str, Transport] = {}
        self._keys = KeyRings(worker)
        self.commit(self.prepare(worker.config))
        self._departures = Departures(worker)
        worker.lane.every(STEP_SECONDS, self._depart)

    def attach(self, listener: str, slot: int, sock: socket.socket) -> None:
        self._listeners[listener].attach(slot, sock)

    def detach(self, listener: str, slot: int) -> None:
        self._listeners[listener].detach(slot)

    def prepare(self, config: Config) -> Prepared:
        """Raises ValueError with what can't be had."""
        worker = self._worker
        plans = worker.pools.prepare(config)
        made = plan.make(config, worker.plane, worker.column, worker.pools, self._quotas, self._shared.answers)
        return Prepared(made, plans)

    def commit(self, prepared: Prepared) -> None:
        made = prepared.plan
        self._worker.pools.commit(prepared.pools)
        self._keys.take(made.verifiers.values())
        for name, here in made.listeners.items():
            known = self._listeners.get(name)
            if known is not None:
                known.take(made, here)
            else:
                counters = self._counters(Kind.LISTENER, f"{NAME}/{name}")
                self._listeners[name] = Listener(self._shared, name, counters, made, here, self._worker.base_context)
        for name in self._listeners.keys() - made.listeners.keys():
            self._removed = [one for one in self._removed if one.live]
            self._removed.append(self._listeners.pop(name))
            self._drain_listener(self._removed[-1])
        self._keep_connections(made.transports)

    def _keep_connections(self, transports: Mapping[str, Transport]) -> None:
        """Of those to servers, the ones that still lead where they should, as they should."""
        before, self._transports = self._transports, transports
        changed = {name for name, one in transports.items() if name in before and not one.same(before[name])}
        pools = [pool for name, pool in self._worker.pools.items() if name not in changed]
        servers = [server for pool in pools for server in pool.servers]
        self._shared.upstreams.keep_only(servers)
        self._shared.trunks.keep_only(servers)

    def _complain(self, server: str, why: str) -> None:
        self._worker.log.warning("TLS with a server failed", server=server, reason=why)

    def renew(self, config: Config) -> None:
        for name, table in _table(config).listeners.items():
            listener = self._listeners.get(name)
            if listener is not None and listener.here.table.tls != table.tls:
                here = attrs.evolve(listener.here, table=table, certificates=plan.certificates(table))
                listener.take(listener.plan, here)

    def receive(self, message: Any, descriptors: Sequence[int]) -> None:
        """A key set from the keeper. Descriptors come by mistake."""
        close_all(descriptors)
        if isinstance(message, Keys):
            self._keys.receive(message)

    def drain(self) -> None:
        for listener in (*self._listeners.values(), *self._removed):
            self._drain_listener(listener)
        self._drain = Drain(self._worker.lane, self._worker.config.supervisor.drain_timeout, self._live)

    def _drain_listener(self, listener: Listener) -> None:
        listener.draining = True
        for session in listener.live:
            self._worker.lane.wake(session)  # HTTP/2 tells its client at once

    def _depart(self) -> None:
        """See to the servers that were taken out by hand."""
        for departure in self._departures.look():
            depart(self._shared, departure)

    def holding(self) -> Sequence[str]:
        held = [
            f"{'http' if connection.farewell is None else 'websocket'} {connection.listener.name} "
            f"{connection.client.ip} {'at work' if connection.busy else 'silent'}"
            for connection in self._live().values()
        ]
        listeners = (*self._listeners.values(), *self._removed)
        return held + [f"http {listener.name} opening" for listener in listeners for _ in range(listener.opening())]

    def _live(self) -> dict[Session, Connection]:
        listeners = (*self._listeners.values(), *self._removed)
        return {session: one for listener in listeners for session, one in listener.live.items()}

    def close(self) -> None:
        self._shared.upstreams.close_all()
        self._shared.trunks.keep_only(())
        for session in list(self._worker.lane.sessions):
            session.cancel()


def _table(config: Config) -> GatewayTable:
    table: GatewayTable = config.tier(NAME)
    return table


def _listeners(config: Config) -> Sequence[ListenerSpec]:
    return [ListenerSpec(name, table.bind) for name, table in _table(config).listeners.items()]


def _rows(config: Config) -> Iterable[tuple[Kind, str]]:
    table = _table(config)
    yield Kind.ROUTE, NO_ROUTE
    for name in table.routes:
        yield Kind.ROUTE, name
    for name in table.limits:
        yield Kind.LIMIT, name


def _inherit(config: Config) -> Mapping[str, SSL.Context]:
    """The contexts that all workers share because they are older than the first fork (see `Worker.base_context`)."""
    listeners = _table(config).listeners.items()
    return {name: base_context(plan.alpn(table)) for name, table in listeners if table.tls is not None}


TIER = Tier(
    name=NAME,
    table=GatewayTable,
    listeners=_listeners,
    rows=_rows,
    start=GatewayRuntime,
    inherit=_inherit,
    services={keeper.NAME: keeper.SERVICE},
)
