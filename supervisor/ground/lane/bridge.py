"""The bridge from a session to trio: a real task does what the lane can't, and the session gets what came of it.

For cold paths only (DNS, fetching keys): a task costs many times a session's turn.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import outcome
import trio

from supervisor.ground.lane.sessions import PARK, Cancelled, Scheduler

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


async def bridge(scheduler: Scheduler, nursery: trio.Nursery, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run `function` as a task of `nursery` while the running session waits. What interrupts the session cancels the
    task; if that has ended already its outcome is delivered first, so that nothing it opened is lost."""
    session = scheduler.current
    scope = trio.CancelScope()
    result: list[outcome.Outcome[T]] = []

    async def task() -> None:
        with scope:
            try:
                result.append(outcome.Value(await function(*args)))
            except trio.Cancelled:
                raise
            except BaseException as error:
                result.append(outcome.Error(error))
            scheduler.wake(session)

    nursery.start_soon(task)
    try:
        while not result:
            await PARK
    except (Exception, Cancelled) as interruption:
        if not result:
            scope.cancel()
            raise
        session.throw(interruption)
    except BaseException:
        scope.cancel()
        raise
    return result[0].unwrap()
