"""A pool as a tier sees it: pick a server, say how it went.

    server = pool.pick(key)          # or pool.take(key), or await queue.take(key): see below
    if server is None: refuse        # none takes work, or all are full
    server.started()                 # not after `take`, which has counted it
    try: ...                         # server.succeeded(), or server.failed(now_ns): five of these in a row eject it
    finally: server.ended()          # or queue.ended(server)

- `pick` passes servers at `max_connections` over; two workers may pick the last place of one at the same instant.
- `take` counts in the same step, exactly over all workers: never one more than `max_connections`.
- `queues.Queue` waits for a place where `max_queued` allows it, first come first served over all workers.

The list of servers that take work is made from the plane's health and kept until an epoch changes, an ejection ends or
a slow start goes on, so that a pick is a few loads and an index. What a worker learns by failing (ejections) goes into
the plane for all; what others learn comes back the same way. Which server of the list is chosen is `choices`'s, what
health means is `health`'s, who is on the list is `candidates`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, Sequence

import attrs

from supervisor.ground import balance, choices, health, places
from supervisor.ground.candidates import RAMP_STEPS, candidates, share
from supervisor.ground.choices import Choice, Key
from supervisor.ground.config import Config, PoolTable, ServerTable
from supervisor.ground.health import Health
from supervisor.ground.servers import Server, server_name
from supervisor.plane import layout
from supervisor.plane.layout import Header, Kind, PoolState, ServerState
from supervisor.plane.locks import Lock, LockResult, pool_lock
from supervisor.plane.memory import Plane
from supervisor.plane.turns import Turns

__all__ = ["Pool", "Pools", "Server", "rows", "server_name"]

_monotonic_ns = time.monotonic_ns
_NOBODY: tuple[Server, ...] = ()
_NS = 1_000_000_000
_TAKEN_OUT = (Health.DRAINING, Health.MAINTENANCE)
_KEYED = ("source_hash", "maglev")  # a share that grows would move keys: slow start leaves their weights alone


def rows(config: Config) -> Iterator[tuple[Kind, str]]:
    """The rows of the plane that the pools of a configuration need; the supervisor allocates them."""
    for name, table in config.pools.items():
        yield Kind.POOL, name
        for server in table.servers:
            yield Kind.SERVER, server_name(name, server)


@attrs.frozen
class Plan:
    """A pool's new table, with all that takes time to make."""

    table: PoolTable
    rows: tuple[int, ...]
    maglev: Sequence[int]
    zone: str


@attrs.define(eq=False)
class Pool:
    """One pool in this process. Its identity outlives reloads: who holds it sees the new servers."""

    name: str
    table: PoolTable
    zone: str = ""  # the site's own
    servers: tuple[Server, ...] = ()
    _plane: Plane = attrs.field(kw_only=True, repr=False)
    _column: int = attrs.field(kw_only=True)
    _cells: memoryview[int] = attrs.field(init=False, repr=False)
    _row: int = attrs.field(init=False)
    _epoch_at: int = attrs.field(init=False)
    _base: int = attrs.field(init=False)
    _lock: Lock = attrs.field(init=False, repr=False)
    _epoch: int = attrs.field(default=-1, init=False)  # of the last look; -1 equals no cell
    _live: int = attrs.field(default=-1, init=False)
    _expires: int = attrs.field(default=0, init=False)  # monotonic ns of the next look, 0 none: see `_look`
    _candidates: tuple[Server, ...] = attrs.field(default=(), init=False)
    _out: tuple[Server, ...] = attrs.field(default=(), init=False)
    _only: Server | None = attrs.field(default=None, init=False)  # the candidate, if there is one: nothing to choose
    _arranged: list[float] = attrs.field(factory=list, init=False)  # the shares that the choice was arranged with
    _counted: int = attrs.field(default=-1, init=False)  # the cell that each pick adds to, -1 none
    _choice: Choice = attrs.field(init=False, repr=False)
    _choose: Callable[[Key], Server | None] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._cells = self._plane.cells
        self._row = self._plane.row(Kind.POOL, self.name)
        self._epoch_at = self._plane.state(Kind.POOL, self._row) + PoolState.EPOCH
        self._base = self._plane.counters(Kind.POOL, self._row, self._column)
        self._lock = pool_lock(self._plane, self._row)

    # Picking

    def pick(self, key: Key = None, exclude: Container[Server] = ()) -> Server | None:
        """The server for new work; None if there is none, or all are full or excluded.

        `key` is what keyed balancing goes by (an address without its port); `exclude` has those already tried.
        """
        cells = self._cells
        if (
            cells[self._epoch_at] != self._epoch
            or cells[Header.LIVE_EPOCH] != self._live
            or (self._expires and _monotonic_ns() >= self._expires)
        ):
            self._look()
        server = self._only or self._choose(key)
        if server is not None and ((exclude and server in exclude) or sum(server.flights) >= server.max_connections):
            server = self._other(key, exclude)
        if server is None:
            cells[self._base + layout.Pool.PICKS_REFUSED] += 1
        elif self._counted >= 0:
            cells[self._counted] += 1
        return server

    def take(self, key: Key = None, exclude: tuple[Server, ...] = ()) -> Server | None:
        """As `pick`, and counted as started: never above `max_connections`, however many workers take at once."""
        while True:
            server = self.pick(key, exclude)
            if server is None or self._admit(server):
                return server
            exclude = (*exclude, server)

    def _admit(self, server: Server) -> bool:
        """Count work as started if there is room for it."""
        server.started()
        if sum(server.flights) + layout.COLUMNS <= server.max_connections:
            return True
        # Each worker counts itself first and looks then, so of several at the last place none gets one too many. The
        # lock orders the store before the look (a processor may delay it), and that is all it is for.
        if self._lock.acquire() is not LockResult.TIMED_OUT:
            self._lock.release()
        if sum(server.flights) <= server.max_connections:
            return True
        server.ended()
        self._cells[server.base + layout.Server.REQUESTS] -= 1
        self._cells[server.base + layout.Server.FULL] += 1
        return False

    def turns(self) -> Turns:
        """Who waits for this pool, over all workers; `queues` decides by it."""
        return Turns(self._plane, self._row, self._column)

    def is_full(self, exclude: Container[Server] = ()) -> bool:
        """Whether a server takes work that has not been tried: if `pick` found none, it is worth waiting for."""
        return any(server not in exclude for server in self._candidates)

    def by_row(self, row: int) -> Server | None:
        """The server with this row in the plane, if it is of this pool."""
        return next((server for server in self.servers if server.row == row), None)

    def _other(self, key: Key, exclude: Container[Server]) -> Server | None:
        """What to pick when the first choice was tried already, or is full."""
        rest = []
        for server in self._candidates:
            if server in exclude:
                continue
            if sum(server.flights) >= server.max_connections:
                self._cells[server.base + layout.Server.FULL] += 1
            else:
                rest.append(server)
        return self._choice.among(key, rest) if rest else None

    def usable(self) -> tuple[Server, ...]:
        """Those that take work now; where nobody is up, as `on_all_down` says. Their weights are those of now."""
        self.look()
        return self._candidates

    def out(self) -> tuple[Server, ...]:
        """Those that the operator has taken out."""
        self.look()
        return self._out

    # Health

    def look(self) -> None:
        """Make the list anew if the health of a server, or the set of processes, has changed."""
        cells = self._cells
        if (
            cells[self._epoch_at] != self._epoch
            or cells[Header.LIVE_EPOCH] != self._live
            or (self._expires and _monotonic_ns() >= self._expires)
        ):
            self._look()

    def failed(self, server: Server, streak: int, now_ns: int) -> None:
        """By the server: it failed, `streak` times in a row as this process saw it."""
        if not streak % self.table.outlier.consecutive_failures:
            self._eject(server, now_ns)

    def _eject(self, server: Server, now_ns: int) -> None:
        """Take a server out for a while, unless too many are out already."""
        cells, counters = self._cells, self._base
        outlier = self.table.outlier
        if self._lock.acquire() is LockResult.TIMED_OUT:
            cells[counters + layout.Pool.LOCK_TIMEOUTS] += 1
            return
        try:
            # After a death in here nothing needs repair: the store that ejects is the last of them.
            until = cells[server.state + ServerState.EJECTED_UNTIL]
            if until > now_ns:
                return
            out = sum(1 for one in self.servers if cells[one.state + ServerState.EJECTED_UNTIL] > now_ns)
            if not health.may_eject(out, len(self.servers), outlier):
                cells[counters + layout.Pool.EJECTIONS_DENIED] += 1
                return
            before = cells[server.state + ServerState.EJECTIONS]
            ejections, lasts = health.next_ejection(before, until, now_ns, outlier)
            cells[server.state + ServerState.EJECTIONS] = ejections
            cells[server.state + ServerState.EJECTED_SINCE] = time.time_ns()
            cells[server.state + ServerState.EJECTED_UNTIL] = now_ns + lasts
        finally:
            self._lock.release()
        server.succeeded()  # the streak is paid for
        cells[server.base + layout.Server.EJECTED] += 1
        cells[counters + layout.Pool.EJECTIONS] += 1
        health.touch(self._plane, self._row, self._column)

    def _look(self) -> None:
        # The epochs first: what changes while this reads is looked at again with the next pick.
        cells, plane, table = self._cells, self._plane, self.table
        self._epoch, live = cells[self._epoch_at], cells[Header.LIVE_EPOCH]
        if live != self._live:
            self._live = live
            last = max(self._column, plane.processes.last())
            for server in self.servers:
                server.narrow(last)
        now_ns = _monotonic_ns()
        for server in self.servers:
            if server.named:
                self._locate(server)
        healths = [health.read(plane, server.row, now_ns, table.health, server.named) for server in self.servers]
        ends = [cells[server.state + ServerState.EJECTED_UNTIL] for server in self.servers]
        shares, next_step = self._shares(now_ns)
        self._expires = min((end for end in (*ends, next_step) if end > now_ns), default=0)
        found, counted = candidates(table, self.zone, self.servers, healths)
        self._counted = -1 if counted is None else self._base + counted
        self._out = tuple(server for server, one in zip(self.servers, healths, strict=True) if one in _TAKEN_OUT)
        for server, one in zip(self.servers, healths, strict=True):
            server.left = server.left and one in _TAKEN_OUT
            server.takes = (one in (Health.UP, Health.DRAINING) or server in found) and not server.left
        if found != self._candidates or shares != self._arranged:
            self._candidates, self._arranged = found, shares
            self._weigh(shares)
            self._choice.arrange(found)
            self._only = found[0] if len(found) == 1 else None

    def _locate(self, server: Server) -> None:
        """Where a server given by name is now; where it was, while it is nowhere, or just being written."""
        found = places.read(self._cells, server.state)
        if found is not None:
            server.family, server.sockaddr = found

    def _shares(self, now_ns: int) -> tuple[list[float], int]:
        """Each server's share of its weight and connections, and when the next step of a slow start is due, 0 never."""
        span = int(self.table.slow_start * _NS)
        if not span:
            return [], 0
        cells = self._cells
        shares = [share(health.back(cells, server.state, now_ns), now_ns, span) for server in self.servers]
        return shares, now_ns + max(1, span // RAMP_STEPS) if min(shares) < 1 else 0

    def _weigh(self, shares: Sequence[float]) -> None:
        """Give every server its share; an empty list means all of it."""
        # Weights are whole numbers: while one of them is lowered, all are counted in finer steps.
        finer = RAMP_STEPS if shares and min(shares) < 1 and self.table.balance not in _KEYED else 1
        for at, (server, table) in enumerate(zip(self.servers, self.table.servers, strict=True)):
            one = shares[at] if shares else 1.0
            server.max_connections = max(1, int(table.max_connections * one))
            server.weight = max(1, round(table.weight * finer * one)) if finer > 1 else table.weight

    # Reload

    def plan(self, table: PoolTable, zone: str = "") -> Plan:
        """Everything for `swap`. Raises KeyError if a row isn't allocated."""
        names = [server_name(self.name, server) for server in table.servers]
        lookup: Sequence[int] = ()
        if table.balance == "maglev":
            lookup = balance.maglev(names, [server.weight for server in table.servers])
        return Plan(table, tuple(self._plane.row(Kind.SERVER, name) for name in names), lookup, zone)

    def swap(self, plan: Plan) -> None:
        """Take the new table; servers that stay keep their identity and their counts. Can't fail."""
        known = {server.name: server for server in self.servers}
        self.table, self.zone = plan.table, plan.zone
        servers = []
        for table, row in zip(plan.table.servers, plan.rows, strict=True):
            server = known.get(server_name(self.name, table)) or self._server(table, row)
            server.backup, server.zone = table.backup, table.zone
            servers.append(server)
        self.servers = tuple(servers)
        self._weigh(())
        self._choice = choices.make(plan.table.balance, self._column, self.servers, plan.maglev)
        self._choose = self._choice.pick
        self._live, self._candidates, self._only, self._arranged = -1, _NOBODY, None, []
        self._look()

    def _server(self, table: ServerTable, row: int) -> Server:
        name = server_name(self.name, table)
        return Server(
            name=name,
            row=row,
            family=table.address.family,
            sockaddr=table.address.sockaddr,
            base=self._plane.counters(Kind.SERVER, row, self._column),
            state=self._plane.state(Kind.SERVER, row),
            named=table.address.is_name,
            host=table.address.host if table.address.is_name and not table.address.is_service else "",
            seed=balance.seed(name),
            pool=self,
            cells=self._cells,
            column=self._column,
        )


class Pools(Mapping[str, Pool]):
    """The pools of a configuration, by name."""

    def __init__(self, config: Config, plane: Plane, column: int) -> None:
        self._plane = plane
        self._column = column
        self._pools: dict[str, Pool] = {}
        self._committed: set[str] = set()
        self.commit(self.prepare(config))

    def __getitem__(self, name: str) -> Pool:
        return self._pools[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    def prepare(self, config: Config) -> Mapping[str, Plan | None]:
        """Everything for `commit`. Raises ValueError if the supervisor didn't allocate a row.

        New pools can be had at once, so that what is prepared after this can refer to them; those that exist stay as
        they are.
        """
        plans: dict[str, Plan | None] = {}
        zone = config.supervisor.zone
        try:
            for name, table in config.pools.items():
                pool = self._pools.get(name)
                if pool is None or name not in self._committed:  # of a reload that came to nothing: its row may be gone
                    pool = Pool(name, table, plane=self._plane, column=self._column)
                    pool.swap(pool.plan(table, zone))
                    self._pools[name] = pool
                plans[name] = pool.plan(table, zone) if (table, zone) != (pool.table, pool.zone) else None
        except KeyError as error:
            raise ValueError(f"no row in the plane for {error}") from error
        return plans

    def commit(self, prepared: Mapping[str, Plan | None]) -> None:
        """Swap to what `prepare` returned. Can't fail."""
        self._committed = set(prepared)
        for name in self._pools.keys() - prepared.keys():
            del self._pools[name]
        for name, plan in prepared.items():
            if plan is not None:
                self._pools[name].swap(plan)
