"""The edge as the supervisor sees it, and its runtime in a worker."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from edge import plan, transparent
from edge.bulk import Pipes
from edge.config import EdgeTable, ListenerTable
from edge.connection import Connection
from edge.drain import STEP_SECONDS, Drain, depart
from edge.handover import Handed, Handover
from edge.kernel import service
from edge.limits import ClientLimits, Crowd, client_limits
from edge.plan import Plan
from edge.record import Recorder
from edge.sessions import SessionsSlot
from edge.tcp import TcpListener
from edge.udp import UdpListener
from supervisor.ground import pools
from supervisor.ground.config import Config, show_path
from supervisor.ground.departures import Departures
from supervisor.ground.lane import Session
from supervisor.ground.tier import ListenerSpec, Tier, Transport, Worker
from supervisor.ground.wire import close_all
from supervisor.plane.flows import Flows, FlowSegment
from supervisor.plane.guests import Guests
from supervisor.plane.layout import Kind
from supervisor.plane.quotas import Quotas

if TYPE_CHECKING:
    from OpenSSL import SSL

NAME = "edge"
SWEEP_SECONDS = 1.0  # how exactly a UDP session's timeout is kept


@attrs.frozen
class Prepared:
    """What a reload swaps in."""

    listeners: Mapping[str, Plan]
    pools: Mapping[str, pools.Plan | None]


class EdgeRuntime:
    """The edge at work in one worker."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._flows = Flows(worker.plane)
        self._handover = Handover(worker, lambda listener: worker.plane.row(Kind.LISTENER, f"{NAME}/{listener}"))
        self._listeners: dict[str, TcpListener | UdpListener] = {}
        self._removed: list[TcpListener] = []  # by reloads; kept while they have connections
        self._drain: Drain | None = None
        self._quotas = Quotas(worker.plane)
        self._departures = Departures(worker)
        self._pipes = Pipes()
        self._guests: Guests | None = None  # made with the first limit: to count touches memory
        self.commit(self.prepare(worker.config))
        worker.lane.every(SWEEP_SECONDS, self._sweep)
        worker.lane.every(STEP_SECONDS, self._depart)

    def attach(self, listener: str, slot: int, sock: socket.socket) -> None:
        one = self._listeners[listener]
        if isinstance(one, UdpListener):
            one.attach(slot, sock, self._handover.take(listener, slot))
        else:
            one.attach(slot, sock)

    def detach(self, listener: str, slot: int) -> None:
        self._listeners[listener].detach(slot)

    def prepare(self, config: Config) -> Prepared:
        """Raises ValueError with what can't be had."""
        for problem in transparent.unable(config):
            raise ValueError(f"{show_path(problem.path)}: {problem.message}")
        plans = self._worker.pools.prepare(config)
        listeners = _table(config).listeners.items()
        made = {
            name: plan.make(table, config.pools, self._worker.pools, self._limits(name, table))
            for name, table in listeners
        }
        return Prepared(made, plans)

    def commit(self, prepared: Prepared) -> None:
        self._worker.pools.commit(prepared.pools)
        for name, made in prepared.listeners.items():
            known = self._listeners.get(name)
            if known is None:
                self._listeners[name] = self._make(name, made)
            elif isinstance(known, TcpListener):
                known.take(made)
            else:
                known.take(made.table, made.pools[0])
        for name in self._listeners.keys() - prepared.listeners.keys():
            gone = self._listeners.pop(name)
            if isinstance(gone, TcpListener):
                self._removed.append(gone)
                timeout = self._worker.config.supervisor.drain_timeout
                Drain(self._worker.lane, timeout, gone.connections, last=True)

    def _limits(self, name: str, table: ListenerTable) -> ClientLimits | None:
        worker = self._worker
        if self._guests is None and table.max_connections_per_client is not None:
            self._guests = Guests(worker.plane, NAME, worker.column)
        return client_limits(name, table, self._guests, self._quotas)

    def _make(self, name: str, made: Plan) -> TcpListener | UdpListener:
        worker = self._worker
        plane, lane = worker.plane, worker.lane
        row = plane.row(Kind.LISTENER, f"{NAME}/{name}")
        cells = plane.counters(Kind.LISTENER, row, worker.column)
        if made.table.protocol == "tcp":

            def base() -> SSL.Context:
                return worker.base_context(name, plan.alpn(made.table))

            crowd = Crowd(plane, row, worker.column)
            record = Recorder(name, worker.access, lane)
            return TcpListener(name, lane, plane.cells, cells, crowd, record, made, worker.queues, self._pipes, base)

        def segment(slot: int) -> FlowSegment:
            return self._flows.segment(row, slot)

        def full(refused: int, limit: str) -> None:
            worker.log.warning("no room for more clients", listener=name, refused=refused, limit=limit)

        table, pool = made.table, made.pools[0]
        return UdpListener(name, lane, plane.cells, cells, table, pool, segment, self._handover.give, full)

    def renew(self, config: Config) -> None:
        for name, table in _table(config).listeners.items():
            listener = self._listeners.get(name)
            if isinstance(listener, TcpListener) and listener.plan.table.tls != table.tls:
                listener.take(attrs.evolve(listener.plan, table=table, certificates=plan.certificates(table)))

    def receive(self, message: Any, descriptors: Sequence[int]) -> None:
        """UDP sessions of a slot that was another worker's."""
        if not isinstance(message, Handed):
            close_all(descriptors)
            return
        self._handover.receive(message, descriptors)
        listener = self._listeners.get(message.listener)
        slot = listener.polled.get(message.slot) if isinstance(listener, UdpListener) else None
        if isinstance(slot, SessionsSlot):
            slot.adopt(self._handover.take(message.listener, message.slot))

    def drain(self) -> None:
        self._drain = Drain(self._worker.lane, self._worker.config.supervisor.drain_timeout, self._live)

    def holding(self) -> Sequence[str]:
        # UDP sessions never hold a drain: their rows are in the plane, and the next owner goes on with them.
        unanswered = [f"udp {one.name}: {one.waiting()} without an answer" for one in self._udp() if one.waiting()]
        listeners = self._tcp()
        now = self._worker.lane.now
        held = [
            f"tcp {listener.name} {connection.shown(now)}"
            for listener in listeners
            for connection in listener.live.values()
        ]
        held += [f"tcp {listener.name} connecting" for listener in listeners for _ in range(listener.opening())]
        return held + unanswered

    def _tcp(self) -> list[TcpListener]:
        return [*(one for one in self._listeners.values() if isinstance(one, TcpListener)), *self._removed]

    def _udp(self) -> list[UdpListener]:
        return [one for one in self._listeners.values() if isinstance(one, UdpListener)]

    def _live(self) -> dict[Session, Connection]:
        return {session: connection for listener in self._tcp() for session, connection in listener.live.items()}

    def close(self) -> None:
        self._handover.close()
        for session in list(self._worker.lane.sessions):
            session.cancel()
        self._pipes.close()

    def _depart(self) -> None:
        """See to the servers that were taken out by hand."""
        for departure in self._departures.look():
            if not departure.carries:
                continue
            depart(departure, self._live())
            if departure.over:
                for listener in self._udp():
                    listener.leave(departure.server)

    def _sweep(self) -> None:
        self._handover.sweep()
        self._pipes.trim()
        self._removed = [listener for listener in self._removed if listener.live or listener.opening()]
        for tcp in self._tcp():
            tcp.record.go_on(tcp.live.values(), tcp.plan.table.log_interval)
        for listener in self._udp():
            listener.sweep()


def _table(config: Config) -> EdgeTable:
    table: EdgeTable = config.tier(NAME)
    return table


def _listeners(config: Config) -> Sequence[ListenerSpec]:
    return [
        ListenerSpec(name, table.bind, Transport.TCP if table.protocol == "tcp" else Transport.UDP)
        for name, table in _table(config).listeners.items()
    ]


def _rows(config: Config) -> Iterable[tuple[Kind, str]]:
    return ()


def _inherit(config: Config) -> Mapping[str, SSL.Context]:
    """The contexts whose ticket keys all workers share: they must be older than the first fork."""
    listeners = [(name, table) for name, table in _table(config).listeners.items() if table.tls is not None]
    if not listeners:
        return {}
    from supervisor.ground.net.tls import base_context

    return {name: base_context(plan.alpn(table)) for name, table in listeners}


_start: Callable[[Worker], EdgeRuntime] = EdgeRuntime

TIER = Tier(
    name=NAME,
    table=EdgeTable,
    listeners=_listeners,
    rows=_rows,
    start=_start,
    inherit=_inherit,
    services={service.NAME: service.SERVICE},
    unable=transparent.unable,
    net_admin=transparent.wanted,
)
