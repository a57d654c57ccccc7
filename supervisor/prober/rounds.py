"""The prober's work: a task for each server that is checked, and one look over all pools each half second.

What is known of a server stands in the plane, the streak of its checks included, so that a reload (which starts this
anew with the new configuration) and a crash lose nothing: servers that stay are neither forgotten nor checked twice as
often. Changes are logged here, with their cause, once for all processes.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Awaitable, Callable, Iterator

import attrs
import trio

from supervisor.ground import health, places
from supervisor.ground.config import Bind, Config, HealthTable, PoolTlsTable
from supervisor.ground.pools import server_name
from supervisor.ground.tier import Worker
from supervisor.plane.layout import Active, Kind, Role, ServerState
from supervisor.plane.memory import Plane
from supervisor.prober import checks, standing
from supervisor.prober.names import Lookup, Names
from supervisor.prober.overview import Overview
from supervisor.prober.standing import Standing
from supervisor.prober.verdict import pause, step

LOOK = 0.5  # seconds between looks over the pools: how late an ejection or a failing pool is told
FIRST_WITHIN = 0.2  # seconds over which first checks are spread: a start must not wait for an interval

Attempt = Callable[..., Awaitable[str | None]]  # see checks.attempt


@attrs.frozen
class Target:
    """A server to be checked."""

    name: str
    address: Bind  # of the check, which may have another port than the traffic
    named: bool  # the address is looked up: where it is stands in the plane
    check: HealthTable
    tls: PoolTlsTable | None  # of its pool
    pool_row: int
    state: int  # of its row in the plane
    row: int


async def run_prober(worker: Worker) -> None:
    """The service: until cancelled."""
    lookup = Lookup(worker.config.supervisor.nameservers)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Names(worker.config, worker.plane, worker.column, worker.log, lookup).run)
        nursery.start_soon(Prober(worker, checks.attempt).run)


@attrs.define(eq=False)
class Prober:
    worker: Worker
    attempt: Attempt

    async def run(self) -> None:
        worker = self.worker
        forget_unchecked(worker.config, worker.plane)
        overview = Overview(worker.config, worker.plane, worker.log)
        async with trio.open_nursery() as nursery:
            for target in targets(worker.config, worker.plane):
                nursery.start_soon(self.watch, target)
            while True:
                overview.look(time.monotonic_ns())
                await trio.sleep(LOOK)

    async def watch(self, target: Target) -> None:
        """Check one server for ever."""
        cells, state = self.worker.plane.cells, target.state
        known = cells[state + ServerState.ACTIVE] != Active.UNKNOWN
        await trio.sleep(random.random() * (target.check.interval if known else FIRST_WITHIN))
        while True:
            await self.check(target)
            await trio.sleep(pause(cells[state + ServerState.CHECK_STREAK], target.check, random.random()))

    async def check(self, target: Target) -> None:
        """One check and what follows from it."""
        cells, state, began = self.worker.plane.cells, target.state, time.time_ns()
        started = trio.current_time()
        address = self.where(target)
        if address is None:
            return  # down already, and not by this check
        attempt = self.attempt
        if target.tls is not None:
            attempt = functools.partial(attempt, tls=target.tls, name=target.address.host)
        cause = await attempt(address, target.check, functools.partial(self.note, target))
        cells[state + ServerState.CHECK_US] = int((trio.current_time() - started) * 1e6)
        cells[state + ServerState.CHECKS] += 1
        if cause is not None:
            cells[state + ServerState.CHECK_FAILURES] += 1
        before = cells[state + ServerState.ACTIVE]
        after, streak = step(before, cells[state + ServerState.CHECK_STREAK], cause is None, target.check)
        cells[state + ServerState.CHECK_STREAK] = streak
        if after != before:
            self.change(target, before, after, cause)
        # A check that began before the ejection knows nothing of what led to it.
        if cause is None and after == Active.UP and cells[state + ServerState.EJECTED_SINCE] < began:
            health.restore(self.worker.plane, target.pool_row, target.row, self.worker.column)

    def note(self, target: Target, asked_ns: int, found: Standing) -> None:
        """A PostgreSQL server has said what it is."""
        cells = self.worker.plane.cells
        before = cells[target.state + ServerState.ROLE]
        standing.note(cells, target.state, asked_ns, found)
        if before not in (Role.UNKNOWN, found.role):
            role = "primary" if found.role == Role.PRIMARY else "replica"
            self.worker.log.warning("role changed", server=target.name, role=role, timeline=found.timeline)

    def where(self, target: Target) -> Bind | None:
        """What to check; None while its name has no address."""
        if not target.named:
            return target.address
        place = places.read(self.worker.plane.cells, target.state)
        return None if place is None else Bind(place[1][0], target.check.port or place[1][1])

    def change(self, target: Target, before: int, after: int, cause: str | None) -> None:
        worker = self.worker
        health.set_active(worker.plane, target.pool_row, target.row, after, worker.column)
        if after == Active.DOWN:
            worker.log.warning("server down", server=target.name, check=target.check.type, cause=cause)
        elif before == Active.DOWN or target.check.initial == "down":
            worker.log.info("server up", server=target.name, check=target.check.type)


def targets(config: Config, plane: Plane) -> Iterator[Target]:
    """All servers of pools that have a check."""
    for pool, table in config.pools.items():
        if table.health is None:
            continue
        for server in table.servers:
            name = server_name(pool, server)
            row = plane.row(Kind.SERVER, name)
            yield Target(
                name=name,
                address=Bind(server.address.host, table.health.port or server.address.port),
                named=server.address.is_name,
                check=table.health,
                tls=table.tls if table.health.port is None else None,  # another port is another service
                pool_row=plane.row(Kind.POOL, pool),
                state=plane.state(Kind.SERVER, row),
                row=row,
            )


def forget_unchecked(config: Config, plane: Plane) -> None:
    """What an earlier check said of servers that have none now: should they get one again, it begins anew."""
    for pool, table in config.pools.items():
        if table.health is not None:
            continue
        for server in table.servers:
            at = plane.state(Kind.SERVER, plane.row(Kind.SERVER, server_name(pool, server)))
            plane.cells[at + ServerState.ACTIVE] = Active.UNKNOWN
            plane.cells[at + ServerState.CHECK_STREAK] = 0
