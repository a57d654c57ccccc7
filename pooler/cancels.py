"""CancelRequests: from the worker where one arrives to the worker that holds its client, and there to the server.

A cancel is sent to a server only while the client it names holds it, and nobody else gets that server before the
cancel's own connection has closed (`recovery.cancel`): it can't reach another client's query. A client that waits for a
server is taken out of the queue instead. The connection that brought the request closes when all that is done, which is
what libpq waits for.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from pooler import recovery
from pooler.keys import column_of
from pooler.orders import Cancel, Canceled
from pooler.refusal import Canceled as QueueCanceled
from supervisor.ground.lane import Event, Overdue
from supervisor.plane.layout import LeasePool

if TYPE_CHECKING:
    from pooler.runtime import PoolerRuntime
    from pooler.startup import CancelRequest

OWN_COMMAND = 0.05  # seconds between looks whether a command of ours is done
ANSWER_WITHIN = 6.0  # seconds for another worker to carry one out: a second more than its server may take


@attrs.define(eq=False)
class Cancels:
    """Of one worker."""

    runtime: PoolerRuntime
    _numbers: Iterator[int] = attrs.field(factory=itertools.count)
    _asked: dict[int, Event] = attrs.field(factory=dict)  # of other workers, by number

    async def request(self, request: CancelRequest) -> None:
        """One that arrived here. Returns when it has been carried out, wherever its client is."""
        worker = self.runtime.worker
        column = column_of(request.pid)
        if column == worker.column:
            await self._carry_out(request.pid, request.secret)
        elif column in worker.plane.live(worker.tier):
            number = next(self._numbers)
            self._asked[number] = done = Event(self.runtime.lane)
            try:
                order = Cancel(request.pid, request.secret.hex(), worker.column, number)
                if worker.mailbox.send(column, order):
                    self.runtime.lane.current.expire_in(ANSWER_WITHIN)
                    await done.wait()
            except Overdue:
                pass
            finally:
                del self._asked[number]

    def ordered(self, order: Cancel) -> None:
        """Another worker got one that is for a client here."""
        self.runtime.lane.spawn(self._obey(order), "cancel")

    def answered(self, number: int) -> None:
        """Another worker has carried out what this one asked for."""
        if number in self._asked:
            self._asked[number].set()

    async def _obey(self, order: Cancel) -> None:
        await self._carry_out(order.pid, bytes.fromhex(order.secret))
        self.runtime.worker.mailbox.send(order.column, Canceled(order.number))

    async def _carry_out(self, pid: int, secret: bytes) -> None:
        client = self.runtime.keys.find(pid, secret)
        if client is None or client.pool is None:
            return
        pool, server = client.pool, client.server
        pool.cells[pool.base + LeasePool.CANCELS] += 1
        if client in pool.waiters:
            client.session.throw(QueueCanceled())
        elif server is not None:
            while server.own and client.server is server:  # settings first: the statement comes after them
                await self.runtime.lane.sleep(OWN_COMMAND)
            if client.server is server and not server.outstanding.free:
                await recovery.cancel(pool, server)
