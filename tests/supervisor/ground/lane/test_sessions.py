"""Turns, deadlines, rests, events and the end of sessions, on the plain scheduler with the clock moved by hand."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator
from typing import Any

import pytest
import trio

from supervisor.ground.lane import PARK, Cancelled, Event, Overdue, Scheduler, Session


class Driver(Scheduler):
    """The scheduler with a clock, and with its crashes kept."""

    def __init__(self) -> None:
        self.crashes: list[tuple[Session | None, BaseException]] = []
        super().__init__(100.0, lambda session, error: self.crashes.append((session, error)))

    def settle(self) -> None:
        for _ in range(1000):
            if not self._queue:
                return
            self.turn()
        raise AssertionError("never rests")

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 0.1)
            self.now_ns = int(self.now * 1e9)
            self.sweep()
            self.settle()


@pytest.fixture
def driver() -> Driver:
    return Driver()


async def park_for_good() -> None:
    while True:
        await PARK


# -- turns


def test_sessions_have_their_turns_in_the_order_they_came(driver: Driver) -> None:
    said: list[str] = []

    async def speak(name: str) -> None:
        for number in range(3):
            said.append(f"{name}{number}")
            await driver.pause()

    for name in "abc":
        driver.spawn(speak(name))
    driver.settle()
    assert said == ["a0", "b0", "c0", "a1", "b1", "c1", "a2", "b2", "c2"]


def test_one_turn_each_and_those_woken_meanwhile_wait_for_the_next(driver: Driver) -> None:
    turns = {"spinner": 0, "quiet": 0}

    async def count(name: str) -> None:
        while True:
            turns[name] += 1
            await driver.pause()

    driver.spawn(count("spinner"))
    driver.turn()
    driver.spawn(count("quiet"))
    driver.turn()
    assert turns == {"spinner": 2, "quiet": 1}


def test_waking_twice_is_one_turn(driver: Driver) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await PARK

    session = driver.spawn(count())
    driver.settle()
    driver.wake(session)
    driver.wake(session)
    driver.settle()
    assert turns == 2


def test_waking_one_that_has_ended_does_nothing(driver: Driver) -> None:
    async def brief() -> None:
        pass

    session = driver.spawn(brief())
    driver.settle()
    assert session.done
    driver.wake(session)
    session.cancel()
    driver.settle()
    assert not driver.sessions
    assert not driver.crashes


def test_credit_is_full_at_every_turn(driver: Driver) -> None:
    seen: list[int] = []

    async def spend() -> None:
        for _ in range(2):
            seen.append(driver.credit)
            driver.credit -= 5
            await driver.pause()

    driver.spawn(spend())
    driver.settle()
    assert seen[0] == seen[1] > 0


def test_a_spawned_session_has_its_first_turn_in_the_same_round(driver: Driver) -> None:
    said: list[str] = []

    async def child() -> None:
        said.append("child")

    async def parent() -> None:
        driver.spawn(child())
        said.append("parent")
        await park_for_good()

    driver.spawn(parent())
    driver.settle()
    assert said == ["parent", "child"]


# -- errors


def test_a_crash_is_reported_and_harms_no_other(driver: Driver) -> None:
    said: list[str] = []

    async def crash() -> None:
        raise KeyError("missing")

    async def other() -> None:
        await driver.pause()
        said.append("served")

    session = driver.spawn(crash(), "crasher")
    driver.spawn(other())
    driver.settle()
    assert said == ["served"]
    assert [(one.name, type(error)) for one, error in driver.crashes if one] == [("crasher", KeyError)]
    assert session.done


@pytest.mark.parametrize("error", [ConnectionResetError(), Overdue(), Cancelled()])
def test_what_connections_end_with_every_day_is_no_crash(driver: Driver, error: BaseException) -> None:
    async def end() -> None:
        raise error

    driver.spawn(end())
    driver.settle()
    assert not driver.crashes
    assert not driver.sessions


def test_whoever_watches_a_session_gets_its_error_instead_of_the_report(driver: Driver) -> None:
    seen: list[BaseException | None] = []

    async def crash() -> None:
        raise KeyError("missing")

    session = driver.spawn(crash())
    session.when_done(lambda one: seen.append(one.error))
    driver.settle()
    session.when_done(lambda one: seen.append(one.error))
    assert [type(error) for error in seen] == [KeyError, KeyError]
    assert not driver.crashes


def test_a_watcher_that_fails_is_reported_and_the_others_are_told(driver: Driver) -> None:
    told: list[Session] = []

    async def brief() -> None:
        pass

    def fail(_session: Session) -> None:
        raise KeyError("watcher")

    session = driver.spawn(brief())
    session.when_done(fail)
    session.when_done(told.append)
    driver.settle()
    assert told == [session]
    assert [type(error) for _, error in driver.crashes] == [KeyError]


# -- foreign awaits


@types.coroutine
def foreign() -> Generator[str, None, None]:
    yield "something else"


async def wait_for_trio() -> None:
    await trio.sleep(1)


async def wait_for_asyncio() -> None:
    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    finally:
        loop.close()


async def wait_for_foreign() -> None:
    await foreign()


@pytest.mark.parametrize("wait", [wait_for_asyncio, wait_for_foreign])
def test_awaiting_something_foreign_is_a_type_error_at_that_very_place(driver: Driver, wait: Any) -> None:
    said: list[str] = []

    async def session() -> None:
        try:
            await wait()
        except TypeError as error:
            said.append(str(error))
        await driver.pause()
        said.append("went on")

    driver.spawn(session())
    driver.settle()
    assert "lane.offload" in said[0]
    assert said[1:] == ["went on"]


def test_a_session_that_insists_on_foreign_awaits_stops_no_other(driver: Driver) -> None:
    said: list[str] = []

    async def stubborn() -> None:
        while True:
            try:
                await foreign()
            except TypeError:
                pass

    async def other() -> None:
        await driver.pause()
        said.append("served")

    driver.spawn(stubborn())
    driver.spawn(other())
    for _ in range(2000):
        driver.turn()
    assert said == ["served"]
    driver.end_all()
    assert not driver.sessions


def test_a_cancellation_is_not_lost_to_a_foreign_await(driver: Driver) -> None:
    async def session() -> None:
        driver.current.cancel()
        try:
            await foreign()
        except TypeError:
            await park_for_good()

    driver.spawn(session())
    driver.settle()
    assert not driver.sessions


# -- deadlines


def test_an_overdue_session_gets_it_thrown_in_and_its_finally_runs(driver: Driver) -> None:
    said: list[str] = []

    async def session() -> None:
        try:
            await park_for_good()
        finally:
            said.append("cleaned up")

    driver.spawn(session()).deadline = driver.now + 3
    driver.settle()
    driver.advance(2.9)
    assert said == []
    driver.advance(0.2)
    assert said == ["cleaned up"]
    assert not driver.sessions
    assert not driver.crashes


def test_a_deadline_is_cleared_when_it_falls_and_may_be_set_again(driver: Driver) -> None:
    falls: list[float] = []

    async def session() -> None:
        for _ in range(3):
            driver.current.deadline = driver.now + 2
            try:
                await park_for_good()
            except Overdue:
                falls.append(round(driver.now - 100, 1))
        assert driver.current.deadline == float("inf")
        await park_for_good()

    driver.spawn(session())
    driver.settle()
    driver.advance(100)
    assert len(falls) == 3
    assert all(2 <= later - earlier < 2.3 for earlier, later in zip([0, *falls], falls, strict=False))


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.5, 0.95, 1.0, 1.7, 5.0])
def test_expire_in_is_exact_to_a_sweep(driver: Driver, seconds: float) -> None:
    fell: list[float] = []

    async def session() -> None:
        await driver.sleep(0.7)  # out of step with the scans
        begun = driver.now
        driver.current.expire_in(seconds)
        try:
            await park_for_good()
        except Overdue:
            fell.append(driver.now - begun)

    driver.spawn(session())
    driver.settle()
    driver.advance(10)
    assert seconds <= fell[0] + 1e-6
    assert fell[0] < seconds + 0.2


def test_a_deadline_put_off_does_not_fall(driver: Driver) -> None:
    async def session() -> None:
        while True:
            await PARK

    one = driver.spawn(session())
    driver.settle()
    one.expire_in(0.5)
    driver.advance(0.4)
    one.deadline = driver.now + 30
    driver.advance(29)
    assert not one.done
    driver.advance(2)
    assert one.done


def test_a_deadline_that_falls_while_something_else_is_thrown_falls_after_it(driver: Driver) -> None:
    said: list[str] = []

    async def session() -> None:
        try:
            await park_for_good()
        except ValueError:
            said.append("told")
        try:
            await park_for_good()
        except Overdue:
            said.append("overdue")

    one = driver.spawn(session())
    driver.settle()
    one.expire_in(0.1)
    one.throw(ValueError())
    driver.now += 0.2
    driver.sweep()
    driver.settle()
    driver.advance(0.2)
    assert said == ["told", "overdue"]


# -- rests


def test_sleep_rests_to_a_tenth(driver: Driver) -> None:
    woke: dict[float, float] = {}

    async def sleeper(seconds: float) -> None:
        begun = driver.now
        await driver.sleep(seconds)
        woke[seconds] = driver.now - begun

    for seconds in (0.02, 0.3, 1.0, 4.5):
        driver.spawn(sleeper(seconds))
    driver.settle()
    driver.advance(6)
    for seconds, rested in woke.items():
        assert seconds - 1e-6 <= rested < seconds + 0.2
    assert len(woke) == 4


def test_a_deadline_holds_during_a_sleep(driver: Driver) -> None:
    fell: list[float] = []

    async def session() -> None:
        driver.current.expire_in(0.5)
        try:
            await driver.sleep(60)
        except Overdue:
            fell.append(driver.now - 100)

    driver.spawn(session())
    driver.settle()
    driver.advance(2)
    assert 0.5 - 1e-6 <= fell[0] < 0.7


def test_a_deadline_after_a_sleep_is_as_exact_as_before(driver: Driver) -> None:
    fell: list[float] = []

    async def session() -> None:
        driver.current.expire_in(0.6)
        await driver.sleep(0.3)
        try:
            await park_for_good()
        except Overdue:
            fell.append(driver.now - 100)

    driver.advance(0.05)
    driver.spawn(session())
    driver.settle()
    driver.advance(3)
    assert fell[0] < 0.85


def test_a_deadline_set_from_outside_during_a_sleep_holds(driver: Driver) -> None:
    async def session() -> None:
        await driver.sleep(2)
        await park_for_good()

    one = driver.spawn(session())
    driver.settle()
    one.deadline = driver.now + 5
    driver.advance(4.8)
    assert not one.done
    driver.advance(0.4)
    assert one.done


def test_waking_a_sleeper_does_not_shorten_its_rest(driver: Driver) -> None:
    async def session() -> None:
        await driver.sleep(2)

    one = driver.spawn(session())
    driver.settle()
    driver.advance(1)
    driver.wake(one)
    driver.settle()
    assert not one.done
    driver.advance(1.1)
    assert one.done


def test_pause_lets_the_others_have_a_turn(driver: Driver) -> None:
    said: list[str] = []

    async def first() -> None:
        driver.spawn(second())
        await driver.pause()
        await driver.pause()
        said.append("first")

    async def second() -> None:
        said.append("second")

    driver.spawn(first())
    driver.settle()
    assert said == ["second", "first"]


# -- timers


def test_every_calls_until_it_is_stopped(driver: Driver) -> None:
    calls: list[float] = []
    stop = driver.every(1.0, lambda: calls.append(driver.now))
    driver.advance(3.5)
    stop()
    stop()
    driver.advance(3)
    assert len(calls) == 3


def test_a_timer_that_fails_is_reported_and_goes_on(driver: Driver) -> None:
    calls = 0

    def fail() -> None:
        nonlocal calls
        calls += 1
        raise KeyError("timer")

    others: list[float] = []
    driver.every(1.0, fail)
    driver.every(1.0, lambda: others.append(driver.now))
    driver.advance(2.5)
    assert calls == 2
    assert len(others) == 2
    assert [(session, type(error)) for session, error in driver.crashes] == [(None, KeyError)] * 2


def test_a_timer_stopped_by_another_in_the_same_sweep_is_not_called(driver: Driver) -> None:
    calls: list[str] = []
    driver.every(1.0, lambda: stop())
    stop = driver.every(1.0, lambda: calls.append("called"))
    driver.advance(3)
    assert calls == []


# -- events


def test_an_event_wakes_all_who_wait_and_later_ones_do_not_wait(driver: Driver) -> None:
    event, said = Event(driver), []

    async def waiter(name: str) -> None:
        await event.wait()
        said.append(name)

    driver.spawn(waiter("a"))
    driver.spawn(waiter("b"))
    driver.settle()
    assert said == []
    event.set()
    driver.settle()
    driver.spawn(waiter("c"))
    driver.settle()
    assert said == ["a", "b", "c"]
    assert not event.waiting


def test_a_spurious_wake_up_does_not_end_a_wait(driver: Driver) -> None:
    event = Event(driver)

    async def waiter() -> None:
        await event.wait()

    session = driver.spawn(waiter())
    driver.settle()
    driver.wake(session)
    driver.settle()
    assert not session.done
    event.set()
    driver.settle()
    assert session.done


def test_an_event_cleared_before_the_turn_is_waited_for_again(driver: Driver) -> None:
    event = Event(driver)

    async def waiter() -> None:
        await event.wait()

    session = driver.spawn(waiter())
    driver.settle()
    event.set()
    event.clear()
    driver.settle()
    assert not session.done
    event.set()
    driver.settle()
    assert session.done


def test_who_is_cancelled_waits_no_longer(driver: Driver) -> None:
    event = Event(driver)

    async def waiter() -> None:
        await event.wait()

    sessions = [driver.spawn(waiter()) for _ in range(3)]
    driver.settle()
    sessions[1].cancel()
    driver.settle()
    assert len(event.waiting) == 2
    event.set()
    driver.settle()
    assert not event.waiting


# -- cancellation


def test_cancel_is_thrown_at_the_await(driver: Driver) -> None:
    said: list[str] = []

    async def session() -> None:
        try:
            await park_for_good()
        except Cancelled:
            said.append("cancelled")
            raise
        finally:
            said.append("finally")

    one = driver.spawn(session())
    driver.settle()
    one.cancel()
    one.cancel()
    assert said == []
    driver.settle()
    assert said == ["cancelled", "finally"]
    assert one.done
    assert not driver.crashes


def test_a_session_cancelled_before_its_first_turn_still_cleans_up_what_it_was_given(driver: Driver) -> None:
    given, closed = ["a socket"], []

    async def session(thing: str) -> None:
        try:
            await park_for_good()
        finally:
            closed.append(thing)

    driver.spawn(session(given[0])).cancel()
    driver.settle()
    assert closed == given
    assert not driver.sessions


def test_cancelling_oneself_takes_effect_at_the_next_wait(driver: Driver) -> None:
    said: list[str] = []

    async def session() -> None:
        driver.current.cancel()
        said.append("still here")
        await PARK
        said.append("not reached")

    driver.spawn(session())
    driver.settle()
    assert said == ["still here"]


def test_a_cancellation_is_never_replaced_by_anything_milder(driver: Driver) -> None:
    seen: list[type[BaseException]] = []

    async def session() -> None:
        try:
            await park_for_good()
        except BaseException as error:
            seen.append(type(error))
            raise

    one = driver.spawn(session())
    driver.settle()
    one.cancel()
    one.throw(ValueError())
    one.deadline = driver.now
    driver.advance(1.5)
    assert seen == [Cancelled]


def test_a_cancelled_session_may_take_more_turns_to_clean_up(driver: Driver) -> None:
    said: list[str] = []

    async def session() -> None:
        try:
            await park_for_good()
        finally:
            await driver.pause()
            said.append("clean")

    driver.spawn(session())
    driver.settle()
    driver.end_all()
    assert said == ["clean"]
    assert not driver.sessions


def test_the_end_of_all_closes_even_those_that_will_not_go(driver: Driver) -> None:
    """One swallows its cancellation, one awaits in `finally` what never comes, one refuses outright."""
    said: list[str] = []

    async def swallows() -> None:
        while True:
            try:
                await PARK
            except Cancelled:
                said.append("swallowed")

    async def waits() -> None:
        try:
            await park_for_good()
        finally:
            try:
                await Event(driver).wait()
            finally:
                said.append("waited")

    async def refuses() -> None:
        for _ in range(2):  # to be cancelled, then to be closed
            try:
                await park_for_good()
            except BaseException:
                pass
        await PARK

    async def good() -> None:
        try:
            await park_for_good()
        finally:
            said.append("good")

    for session in (refuses(), swallows(), waits(), good()):
        driver.spawn(session)
    driver.settle()
    driver.end_all()
    assert sorted(said) == ["good", "swallowed", "waited"]
    assert not driver.sessions
    assert [type(error) for _, error in driver.crashes] == [RuntimeError]


def test_those_who_watch_learn_of_a_forced_end(driver: Driver) -> None:
    ended: list[Session] = []

    async def swallows() -> None:
        while True:
            try:
                await PARK
            except Cancelled:
                pass

    one = driver.spawn(swallows())
    one.when_done(ended.append)
    driver.settle()
    driver.end_all()
    assert ended == [one]
    assert one.done


def test_what_is_put_off_to_the_end_of_a_round_is_done_once_and_fails_alone(driver: Driver) -> None:
    done: list[str] = []

    def fails() -> None:
        raise ValueError

    driver.at_round_end += [fails, lambda: done.append("after")]
    for _ in range(2):
        driver.finish_round()
        assert done == ["after"]
    driver.at_round_end.append(lambda: done.append("swept"))
    driver.sweep()
    assert done == ["after", "swept"]
