"""The bridge to trio: results, errors, cancellation both ways, and awaits that should have gone over it."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from supervisor.ground.lane import Cancelled, Event, Lane, Overdue, Session

Until = Callable[..., Awaitable[None]]


def test_the_result_comes_back(on_lane: Any, until: Until) -> None:
    said: list[object] = []

    async def add(left: int, right: int) -> int:
        await trio.lowlevel.checkpoint()
        return left + right

    async def main(lane: Lane) -> None:
        async def session() -> None:
            said.append(await lane.offload(add, 1, 2))

        lane.spawn(session())
        await until(lambda: said)

    on_lane(main)
    assert said == [3]


def test_the_error_comes_back_where_it_was_awaited(on_lane: Any, until: Until) -> None:
    said: list[object] = []

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("fetch")

    async def main(lane: Lane) -> None:
        async def session() -> None:
            try:
                await lane.offload(fail)
            except KeyError as error:
                said.append(str(error))
            await lane.pause()
            said.append("went on")

        lane.spawn(session())
        await until(lambda: len(said) == 2)

    on_lane(main)
    assert said == ["'fetch'", "went on"]


def test_many_at_once_each_get_their_own(on_lane: Any, until: Until) -> None:
    said: dict[int, int] = {}

    async def double(number: int) -> int:
        for _ in range(number % 7):
            await trio.lowlevel.checkpoint()
        return 2 * number

    async def main(lane: Lane) -> None:
        async def session(number: int) -> None:
            said[number] = await lane.offload(double, number)

        for number in range(100):
            lane.spawn(session(number))
        await until(lambda: len(said) == 100)

    on_lane(main)
    assert said == {number: 2 * number for number in range(100)}


def test_a_spurious_wake_up_is_not_taken_for_the_result(on_lane: Any, until: Until) -> None:
    said: list[object] = []

    async def main(lane: Lane) -> None:
        gate = trio.Event()

        async def session() -> None:
            said.append(await lane.offload(gate.wait))

        one = lane.spawn(session())
        await until(lambda: not one.queued)
        lane.wake(one)
        await until(lambda: not one.queued)
        assert said == []
        gate.set()
        await until(lambda: said)

    on_lane(main)


@pytest.mark.parametrize("interruption", ["cancelled", "overdue", "closed down"])
def test_what_interrupts_the_session_cancels_the_task(on_lane: Any, until: Until, interruption: str) -> None:
    said: list[str] = []

    async def forever() -> None:
        said.append("began")
        try:
            await trio.sleep_forever()
        finally:
            said.append("task ended")

    async def main(lane: Lane) -> None:
        async def session() -> None:
            try:
                await lane.offload(forever)
            except (Cancelled, Overdue) as error:
                said.append(type(error).__name__)
                raise

        one = lane.spawn(session())
        await until(lambda: said)
        if interruption == "cancelled":
            one.cancel()
        elif interruption == "overdue":
            one.expire_in(0.01)
        if interruption != "closed down":
            await until(lambda: "task ended" in said)

    on_lane(main)
    expected = "Overdue" if interruption == "overdue" else "Cancelled"
    assert sorted(said) == sorted(["began", expected, "task ended"])


def test_a_result_that_came_with_the_cancellation_is_not_lost(on_lane: Any, until: Until) -> None:
    """It may be an open socket."""
    said: list[str] = []

    async def main(lane: Lane) -> None:
        begun = trio.Event()
        sessions: list[Session] = []

        async def opens() -> socket.socket:
            begun.set()
            await trio.lowlevel.checkpoint()
            sessions[0].cancel()
            return socket.socket()

        async def session() -> None:
            sock = await lane.offload(opens)
            try:
                said.append("got it")
                await Event(lane).wait()
            finally:
                sock.close()
                said.append("closed it")

        sessions.append(lane.spawn(session()))
        await until(lambda: not lane.sessions)

    on_lane(main)
    assert said == ["got it", "closed it"]


def test_offload_without_a_running_lane_is_an_error(by_hand: Lane) -> None:
    said: list[str] = []

    async def session() -> None:
        try:
            await by_hand.offload(trio.sleep, 0)
        except RuntimeError as error:
            said.append(str(error))

    by_hand.spawn(session())
    by_hand._round()
    assert said == ["the lane is not running"]


def test_no_task_outlives_the_lane_that_is_cancelled_from_outside(crashes: list[Any], until: Until) -> None:
    said: list[str] = []

    async def forever() -> None:
        said.append("began")
        try:
            await trio.sleep_forever()
        finally:
            said.append("task ended")

    async def whole() -> None:
        lane = Lane(lambda session, error: crashes.append((session, error)))

        async def session() -> None:
            try:
                await lane.offload(forever)
            finally:
                said.append("session ended")

        async with trio.open_nursery() as nursery:
            await nursery.start(lane.run)
            lane.spawn(session())
            await until(lambda: said)
            nursery.cancel_scope.cancel()
        lane.close()

    trio.run(whole)
    assert sorted(said) == ["began", "session ended", "task ended"]
    assert crashes == []


# -- awaits that should have gone over it


async def trio_sleep(_sock: socket.socket) -> None:
    await trio.sleep(60)


async def trio_checkpoint(_sock: socket.socket) -> None:
    await trio.lowlevel.checkpoint()


async def trio_event(_sock: socket.socket) -> None:
    await trio.Event().wait()


async def trio_socket(sock: socket.socket) -> None:
    await trio.lowlevel.wait_readable(sock)


async def trio_lock(_sock: socket.socket) -> None:
    lock = trio.StrictFIFOLock()
    await lock.acquire()


@pytest.mark.parametrize("wait", [trio_sleep, trio_checkpoint, trio_event, trio_socket, trio_lock])
def test_awaiting_trio_is_a_type_error_there_and_harms_no_other(on_lane: Any, until: Until, wait: Any) -> None:
    said: list[str] = []

    async def main(lane: Lane) -> None:
        peer, sock = socket.socketpair()

        async def wrong() -> None:
            try:
                await wait(sock)
            except TypeError as error:
                said.append(str(error))
            await lane.sleep(0.15)
            said.append("went on")

        async def right() -> None:
            said.append(str(await lane.offload(result)))

        async def result() -> int:
            await trio.sleep(0.2)
            return 1

        lane.spawn(wrong())
        lane.spawn(right())
        await until(lambda: said)
        peer.send(b"x")  # had trio still been waiting for it, it would now wake the lane's own task
        await until(lambda: len(said) == 3)
        peer.close()
        sock.close()

    on_lane(main)
    assert "lane.offload" in said[0]
    assert sorted(said[1:]) == ["1", "went on"]


def test_an_event_of_trio_set_after_a_session_waited_for_it_wakes_nobody(on_lane: Any, until: Until) -> None:
    said: list[str] = []

    async def main(lane: Lane) -> None:
        event = trio.Event()

        async def wrong() -> None:
            try:
                await event.wait()
            except TypeError:
                said.append("refused")

        lane.spawn(wrong())
        await until(lambda: said)
        assert event.statistics().tasks_waiting == 0
        event.set()
        await trio.sleep(0.01)

    on_lane(main)
