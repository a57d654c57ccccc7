"""The process that programs nftables: what the pools say of their servers becomes rules, and counters become metrics.

It looks at the pools ten times a second; a change of what is wanted is one transaction of `nft -j -f -`, and the flows
of servers that went down are deleted after it. When that can't be had (no program, no capability), the log says why,
the listeners are served by the workers meanwhile, and it is tried again. At the end the table goes, but for listeners
with `persist`; while another process of this kind lives (an upgrade), it is that one's.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import trio

from edge.config import EdgeTable, ListenerTable
from edge.kernel import conntrack, fit
from edge.kernel.ruleset import COUNTERS, Front, Target, counter_name, transaction
from supervisor.ground import health
from supervisor.ground.config import Config
from supervisor.ground.departures import Departures
from supervisor.ground.health import Health
from supervisor.ground.pools import Pool
from supervisor.ground.tier import TierService, Worker
from supervisor.plane import layout
from supervisor.plane.layout import Kind, ListenerState, ProcessState

TIER, NAME = "edge", "datapath"
LOOK = 0.1  # seconds between looks at the pools
COUNT = 1.0  # seconds between readings of the counters
RETRY = 5.0  # seconds after a failure
PATIENCE = 10.0  # seconds for nft; 40 listeners with Maglev tables take one

# Their flows are not left to them; nor are those of a server that drains, once `drain_timeout` is over.
_GONE = (Health.DOWN, Health.EJECTED, Health.MAINTENANCE)
_FORWARDING = {"ip": Path("/proc/sys/net/ipv4/ip_forward"), "ip6": Path("/proc/sys/net/ipv6/conf/all/forwarding")}


class Unavailable(Exception):
    """Why the kernel does not do what is wanted."""


async def run(worker: Worker) -> None:
    """The service: until cancelled."""
    # A service starts anew with each configuration; its pools are the worker's, and still of the one before.
    worker.pools.commit(worker.pools.prepare(worker.config))
    await Datapath(worker).run()


def wanted(config: Config) -> bool:
    """Whether a listener asks for anything but the proxy."""
    table: EdgeTable = config.tier(TIER)
    return any(listener.datapath != "proxy" for listener in table.listeners.values())


SERVICE = TierService(run, wanted, net_admin=True)


def table_name(config: Config) -> str:
    """The table of this daemon: of several on one machine each has its own."""
    path = config.directory / config.supervisor.control
    return f"portway_{zlib.crc32(str(path).encode()):08x}"


@attrs.define(eq=False)
class Datapath:
    """The rules of one daemon, and what is known of them."""

    worker: Worker
    config: Config = attrs.field(init=False)
    generation: int = attrs.field(init=False)
    table: str = attrs.field(init=False)
    departures: Departures = attrs.field(init=False)
    listeners: dict[str, ListenerTable] = attrs.field(factory=dict, init=False)
    told: tuple[Front, ...] | None = attrs.field(default=None, init=False)  # None: unknown, or not at all
    refused: str = attrs.field(default="", init=False)  # why the last transaction failed
    gone: set[conntrack.Place] = attrs.field(factory=set, init=False)  # whose flows have been deleted
    read: dict[str, tuple[int, int]] = attrs.field(factory=dict, init=False)  # counter -> packets, bytes when last read

    def __attrs_post_init__(self) -> None:
        self.config, self.generation = self.worker.config, self.worker.plane.generation
        self.table = table_name(self.config)
        self.departures = Departures(self.worker)

    async def run(self) -> None:
        self.listeners = dict(self._chosen())
        due = 0.0
        try:
            while True:
                pause = LOOK
                self.departures.look()
                try:
                    await self.follow(self._fronts())
                    if trio.current_time() >= due:
                        due = trio.current_time() + COUNT
                        await self.count()
                    self.refused = ""
                except Unavailable as error:
                    self._refuse(str(error))
                    pause = RETRY
                await trio.sleep(pause)
        finally:
            with trio.CancelScope(shield=True):
                await self._end()

    # What is wanted

    def _chosen(self) -> Iterator[tuple[str, ListenerTable]]:
        """The listeners that the kernel is to serve; the log says of each which datapath it has and why."""
        table: EdgeTable = self.config.tier(TIER)
        for name, listener in table.listeners.items():
            if listener.datapath == "proxy":
                continue
            reasons = [f"{key}: {reason}" for key, reason in fit.misfits(listener, dict(self.config.pools))]
            chosen = "proxy" if reasons else "kernel"
            asked = f'datapath = "{listener.datapath}"' + (
                "" if reasons else ", and the kernel can serve all it asks for"
            )
            self.worker.log.info("datapath", listener=name, datapath=chosen, reason="; ".join(reasons) or asked)
            if not reasons:
                yield name, listener

    def _fronts(self) -> tuple[Front, ...]:
        return tuple(self._front(name, table) for name, table in self.listeners.items())

    def _front(self, name: str, listener: ListenerTable) -> Front:
        assert listener.pool is not None, "a listener with routes does not fit"
        pool = self.worker.pools[listener.pool]
        usable = {server.row for server in pool.usable()}
        servers = tuple(
            Target(server.name, server.row, *server.sockaddr, server.weight)
            for server in pool.servers
            if server.family == listener.bind.family  # one given by name may be of the other, or have no address yet
        )
        return Front(
            name=name,
            row=self.worker.plane.row(Kind.LISTENER, f"{TIER}/{name}"),
            host=listener.bind.host,
            port=listener.bind.port,
            protocol=listener.protocol,
            balance=pool.table.balance,
            servers=servers,
            usable=tuple(server for server in servers if server.row in usable),
            masquerade=listener.masquerade,
            persist=listener.persist,
        )

    # What is told

    async def follow(self, wanted: tuple[Front, ...]) -> None:
        """Bring the rules to what is wanted, and delete the flows of servers that have gone. Raises Unavailable."""
        if not wanted and self.told is None:
            self.told = ()
            with contextlib.suppress(Unavailable):  # without nft nothing can be left of an earlier run
                await self._nft(transaction(self.table, (), None))
        if wanted != self.told:
            for front in wanted:
                _check_forwarding(front)
            before, self.told = self.told, None  # should it fail, nothing is known
            await self._nft(transaction(self.table, wanted, before))
            self.told = wanted
            self._show()
            self.worker.log.info("kernel told", listeners={front.name: len(front.usable) for front in wanted})
        gone = {place for front in wanted for place in self._places(front)}
        if new := gone - self.gone:
            try:
                count = conntrack.delete(new)
            except (OSError, conntrack.MalformedMessage) as error:
                raise Unavailable(f"flows of dead servers not deleted: {error}") from None
            if count:
                self.worker.log.info("flows deleted", flows=count, servers=sorted({f"{p[2]}:{p[3]}" for p in new}))
        self.gone = gone

    def _places(self, front: Front) -> set[conntrack.Place]:
        """Where flows of this listener must not go any more. A server that is tried for want of better keeps them."""
        if not front.servers:
            return set()
        pool: Pool = self.worker.pools[front.servers[0].name.partition("/")[0]]
        now_ns = time.monotonic_ns()
        check = pool.table.health
        left = {server.row for server in pool.servers if server.left}
        gone = [
            (server.host, server.port)
            for server in front.servers
            if server not in front.usable
            and (server.row in left or health.read(self.worker.plane, server.row, now_ns, check) in _GONE)
        ]
        protocol = socket.IPPROTO_TCP if front.protocol == "tcp" else socket.IPPROTO_UDP
        return {(protocol, front.port, host, port) for host, port in gone}

    async def _nft(self, commands: Mapping[str, Any]) -> None:
        with trio.CancelScope(shield=True):  # its end must not leave open whether the kernel has been told
            await _run_nft(("-j", "-f", "-"), json.dumps(commands).encode())

    def _refuse(self, reason: str) -> None:
        if reason != self.refused:
            self.refused = reason
            self.worker.log.error("kernel datapath not available, workers serve its listeners", reason=reason)
        self._show()

    def _show(self) -> None:
        """Who serves each listener, for the status."""
        plane = self.worker.plane
        by_kernel = {front.name for front in self.told or () if front.usable}
        for name in self.config.tier(TIER).listeners:
            at = plane.state(Kind.LISTENER, plane.row(Kind.LISTENER, f"{TIER}/{name}"))
            plane.cells[at + ListenerState.BY_KERNEL] = int(name in by_kernel)

    # What is counted

    async def count(self) -> None:
        """Add what the kernel has counted since the last time to this process's column. Raises Unavailable."""
        if not self.told:
            return
        answer = json.loads(await _run_nft(("-j", "list", "counters", "table", "inet", self.table), b""))
        values: dict[str, tuple[int, int]] = {}
        for item in answer["nftables"]:
            if counter := item.get("counter"):
                values[counter["name"]] = (counter["packets"], counter["bytes"])
        for front in self.told:
            for server in front.servers:
                grown = [self._grown(counter_name(front, server, what), values) for what in COUNTERS]
                self._add(front, server, grown)
        self.read = values

    def _grown(self, name: str, values: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
        packets, size = values.get(name, (0, 0))
        before = self.read.get(name, (0, 0))
        if packets < before[0]:  # the table was made anew
            before = (0, 0)
        return packets - before[0], size - before[1]

    def _add(self, front: Front, server: Target, grown: Sequence[tuple[int, int]]) -> None:
        plane, column = self.worker.plane, self.worker.column
        cells = plane.cells
        (flows, _), (packets_in, bytes_in), (packets_out, bytes_out) = grown
        at = plane.counters(Kind.LISTENER, front.row, column)
        to = plane.counters(Kind.SERVER, server.row, column)
        cells[at + layout.Listener.ACCEPTED] += flows
        cells[at + layout.Listener.BYTES_IN] += bytes_in
        cells[at + layout.Listener.BYTES_OUT] += bytes_out
        if front.protocol == "udp":
            cells[at + layout.Listener.DATAGRAMS_IN] += packets_in
            cells[at + layout.Listener.DATAGRAMS_OUT] += packets_out
        cells[to + layout.Server.REQUESTS] += flows
        cells[to + layout.Server.BYTES_OUT] += bytes_in
        cells[to + layout.Server.BYTES_IN] += bytes_out

    # The end

    async def _end(self) -> None:
        """Leave nothing behind but what is to persist."""
        try:
            await self.count()
            if self._reloaded() or self._succeeded():
                return
            kept = tuple(front for front in self._fronts() if front.persist)
            await self._nft(transaction(self.table, kept, self.told if kept else None))
        except Unavailable as error:
            if self.told:
                self.worker.log.error("kernel not told of the end", reason=str(error))
        self.told = None
        self._show()

    def _reloaded(self) -> bool:
        """Whether this process goes on with another configuration, which is more than renewed certificates."""
        return self.worker.config is not self.config and self.worker.plane.generation != self.generation

    def _succeeded(self) -> bool:
        """Whether another process of this kind is at work: an upgrade's, or one that took over while this one hung."""
        plane, worker = self.worker.plane, self.worker
        others = [column for column in plane.processes.live(worker.tier) if column != worker.column]
        infos = [plane.process(column) for column in others]
        return any(info is not None and info.state == ProcessState.READY for info in infos)


def _check_forwarding(front: Front) -> None:
    """Raises Unavailable where the kernel would not route to the servers."""
    path = _FORWARDING[front.family]
    if all(fit.is_loopback(server.host) for server in front.servers):
        return
    try:
        value = path.read_text().strip()
    except OSError:
        return
    if value == "0":
        name = ".".join(path.parts[3:])
        raise Unavailable(f"{name} is 0: the kernel forwards nothing; set it with sysctl -w {name}=1")


async def _run_nft(arguments: Sequence[str], data: bytes) -> bytes:
    """What nft prints. Raises Unavailable."""
    program = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/bin:/usr/local/sbin")
    if program is None:
        raise Unavailable("there is no program nft; install nftables")
    try:
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                [program, *arguments], stdin=data, capture_stdout=True, capture_stderr=True, check=False
            )
    except trio.TooSlowError:
        raise Unavailable(f"nft did not end within {PATIENCE:g}s") from None
    except OSError as error:
        raise Unavailable(f"nft: {error.strerror}") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or [f"nft ended with {done.returncode}"]
        cure = "; it needs CAP_NET_ADMIN" if "not permitted" in said[0] else ""
        raise Unavailable(f"nft: {said[0]}{cure}")
    return done.stdout
