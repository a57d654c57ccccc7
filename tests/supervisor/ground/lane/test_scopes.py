"""Child scopes: children end with their block, the first error counts, and a cancellation is never lost."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from supervisor.ground.lane import PARK, Cancelled, Event, Overdue, Session
from supervisor.ground.net.memory import Rehearsal


@pytest.fixture
def crashes() -> list[BaseException]:
    return []


@pytest.fixture
def lane(crashes: list[BaseException]) -> Rehearsal:
    return Rehearsal(lambda _, error: crashes.append(error))


@pytest.fixture
def said() -> list[str]:
    return []


async def park_for_good() -> None:
    while True:
        await PARK


@pytest.fixture
def child(said: list[str]) -> Callable[[str], Coroutine[Any, Any, None]]:
    async def waits(name: str) -> None:
        try:
            await park_for_good()
        finally:
            said.append(f"{name} ended")

    return waits


async def fails(lane: Rehearsal, error: BaseException, turns: int = 1) -> None:
    for _ in range(turns):
        await lane.pause()
    raise error


def test_the_block_ends_after_its_children(lane: Rehearsal, said: list[str]) -> None:
    gate = Event(lane)

    async def slow() -> None:
        await gate.wait()
        said.append("child")

    async def parent() -> None:
        async with lane.scope() as scope:
            scope.spawn(slow())
            scope.spawn(slow())
            said.append("block")
        said.append("after")

    lane.spawn(parent())
    lane.run()
    assert said == ["block"]
    gate.set()
    lane.run()
    assert said == ["block", "child", "child", "after"]


def test_a_block_without_children_does_not_wait(lane: Rehearsal, said: list[str]) -> None:
    async def parent() -> None:
        async with lane.scope():
            pass
        said.append("after")

    lane.spawn(parent())
    lane.turn()
    assert said == ["after"]


def test_a_childs_error_cancels_the_block_and_the_others(
    lane: Rehearsal, said: list[str], crashes: list[BaseException], child: Any
) -> None:
    async def parent() -> None:
        try:
            async with lane.scope() as scope:
                scope.spawn(child("sibling"))
                scope.spawn(fails(lane, ConnectionResetError("reset")))
                try:
                    await park_for_good()
                finally:
                    said.append("block ended")
        except ConnectionResetError:
            said.append("caught")
        await PARK
        said.append("went on")

    parents = lane.spawn(parent())
    lane.run()
    assert sorted(said[:2]) == ["block ended", "sibling ended"]
    assert said[2:] == ["caught"]
    lane.wake(parents)
    lane.run()
    assert said[3:] == ["went on"]
    assert not crashes


def test_a_childs_error_after_the_block_is_raised_too(lane: Rehearsal, said: list[str], child: Any) -> None:
    async def parent() -> None:
        try:
            async with lane.scope() as scope:
                scope.spawn(child("sibling"))
                scope.spawn(fails(lane, KeyError("child"), turns=5))
        except KeyError:
            said.append("caught")
        await park_for_good()

    session = lane.spawn(parent())
    lane.run()
    assert said == ["sibling ended", "caught"]
    assert session.pending is None
    assert not session.done
    lane.finish()


def test_a_child_that_fails_as_the_block_ends_leaves_no_cancellation_behind(lane: Rehearsal, said: list[str]) -> None:
    gate = Event(lane)

    async def fails_then() -> None:
        await gate.wait()
        raise KeyError("child")

    async def parent() -> None:
        try:
            async with lane.scope() as scope:
                scope.spawn(fails_then())
                await lane.pause()
                gate.set()
                await lane.pause()  # the child fails before our turn: the cancellation is thrown here
        except KeyError:
            said.append("caught")
        await lane.pause()
        said.append("went on")

    async def other() -> None:
        try:
            async with lane.scope() as scope:
                one = scope.spawn(fails(lane, KeyError("child"), turns=0))
                while not one.done:
                    await lane.pause()
        except KeyError:
            said.append("caught")
        await lane.pause()
        said.append("went on")

    lane.spawn(parent())
    lane.spawn(other())
    lane.run()
    assert sorted(said) == ["caught", "caught", "went on", "went on"]


def test_an_error_in_the_block_cancels_the_children_and_is_raised(lane: Rehearsal, said: list[str], child: Any) -> None:
    async def parent() -> None:
        try:
            async with lane.scope() as scope:
                scope.spawn(child("child"))
                await lane.pause()
                raise ValueError("block")
        except ValueError:
            said.append("caught")

    lane.spawn(parent())
    lane.run()
    assert said == ["child ended", "caught"]


def test_the_first_error_is_the_one_raised(lane: Rehearsal, said: list[str], crashes: list[BaseException]) -> None:
    async def fails_in_cleaning() -> None:
        try:
            await park_for_good()
        finally:
            raise KeyError("child, later")

    async def parent() -> None:
        try:
            async with lane.scope() as scope:
                scope.spawn(fails_in_cleaning())
                await lane.pause()
                raise ValueError("block, first")
        except ValueError as error:
            said.append(str(error))

    lane.spawn(parent())
    lane.run()
    assert said == ["block, first"]
    assert [str(error) for error in crashes] == ["'child, later'"]


def test_a_childs_error_is_first_even_when_the_block_fails_in_cleaning(lane: Rehearsal, said: list[str]) -> None:
    async def parent() -> None:
        try:
            async with lane.scope() as scope:
                scope.spawn(fails(lane, KeyError("child, first")))
                try:
                    await park_for_good()
                finally:
                    raise ValueError("block, later")
        except (ValueError, KeyError) as error:
            said.append(str(error))

    lane.spawn(parent())
    lane.run()
    assert said == ["'child, first'"]


def test_a_second_childs_failure_is_reported(lane: Rehearsal, said: list[str], crashes: list[BaseException]) -> None:
    async def fails_in_cleaning() -> None:
        try:
            await park_for_good()
        finally:
            raise KeyError("second")

    async def parent() -> None:
        try:
            async with lane.scope() as scope:
                scope.spawn(fails(lane, OSError("first")))
                scope.spawn(fails_in_cleaning())
        except OSError as error:
            said.append(str(error))

    lane.spawn(parent())
    lane.run()
    assert said == ["first"]
    assert [type(error) for error in crashes] == [KeyError]


def test_cancelled_from_outside_the_children_end_first(lane: Rehearsal, said: list[str], child: Any) -> None:
    async def parent() -> None:
        try:
            async with lane.scope() as scope:
                scope.spawn(child("child"))
                await park_for_good()
        finally:
            said.append("parent ended")

    session = lane.spawn(parent())
    lane.run()
    session.cancel()
    lane.run()
    assert said == ["child ended", "parent ended"]
    assert not lane.sessions


def test_cancelled_from_outside_while_it_waits_for_the_children(lane: Rehearsal, said: list[str], child: Any) -> None:
    async def parent() -> None:
        try:
            async with lane.scope() as scope:
                scope.spawn(child("child"))
        finally:
            said.append("parent ended")
        said.append("not reached")

    session = lane.spawn(parent())
    lane.run()
    session.cancel()
    lane.run()
    assert said == ["child ended", "parent ended"]


@pytest.mark.parametrize("cancel_first", [True, False])
def test_a_cancellation_from_outside_is_not_lost_to_a_childs_error(
    lane: Rehearsal, said: list[str], cancel_first: bool
) -> None:
    gate = Event(lane)

    async def fails_then() -> None:
        await gate.wait()
        raise OSError("child")

    async def parent() -> None:
        while True:  # one that tries again, whatever fails
            try:
                async with lane.scope() as scope:
                    scope.spawn(fails_then())
                    await park_for_good()
            except OSError:
                said.append("tries again")
                gate.clear()

    session = lane.spawn(parent())
    lane.run()
    if cancel_first:
        session.cancel()
        gate.set()
    else:
        gate.set()
        lane.turn()  # the child fails; its parent is told in the next turn
        session.cancel()
    lane.run()
    assert session.done
    assert said == []


def test_overdue_inside_the_block_ends_the_children_and_is_raised(lane: Rehearsal, said: list[str], child: Any) -> None:
    async def parent() -> None:
        lane.current.expire_in(0.5)
        try:
            async with lane.scope() as scope:
                scope.spawn(child("child"))
                await park_for_good()
        except Overdue:
            said.append("overdue")

    lane.spawn(parent())
    lane.advance(1)
    assert said == ["child ended", "overdue"]


def test_overdue_while_waiting_for_the_children_ends_them(lane: Rehearsal, said: list[str], child: Any) -> None:
    async def parent() -> None:
        lane.current.expire_in(0.5)
        try:
            async with lane.scope() as scope:
                scope.spawn(child("child"))
        except Overdue:
            said.append("overdue")

    lane.spawn(parent())
    lane.advance(1)
    assert said == ["child ended", "overdue"]


def test_a_child_that_is_overdue_fails_the_scope(lane: Rehearsal, said: list[str]) -> None:
    async def late() -> None:
        lane.current.expire_in(0.3)
        await park_for_good()

    async def parent() -> None:
        try:
            async with lane.scope() as scope:
                scope.spawn(late())
                await park_for_good()
        except Overdue:
            said.append("the child was overdue")

    lane.spawn(parent())
    lane.advance(1)
    assert said == ["the child was overdue"]


def test_anything_thrown_while_waiting_for_the_children_ends_them_first(
    lane: Rehearsal, said: list[str], child: Any
) -> None:
    async def parent() -> None:
        try:
            async with lane.scope() as scope:
                scope.spawn(child("child"))
        except ValueError:
            said.append("told")

    session = lane.spawn(parent())
    lane.run()
    session.throw(ValueError())
    lane.run()
    assert said == ["child ended", "told"]


def test_cancelling_a_child_fails_nothing(lane: Rehearsal, said: list[str], child: Any) -> None:
    async def parent() -> None:
        async with lane.scope() as scope:
            one = scope.spawn(child("child"))
            await lane.pause()
            one.cancel()
        said.append("after")

    lane.spawn(parent())
    lane.run()
    assert said == ["child ended", "after"]


def test_cancelling_the_scope_leaves_the_block(lane: Rehearsal, said: list[str], child: Any) -> None:
    async def parent() -> None:
        async with lane.scope() as scope:
            scope.spawn(child("a"))
            scope.spawn(child("b"))
            await lane.pause()
            scope.cancel()
            said.append("block goes on")
        said.append("after")

    lane.spawn(parent())
    lane.run()
    assert said[0] == "block goes on"
    assert said[3:] == ["after"]


def test_a_child_cancelled_before_its_first_turn_cleans_up(lane: Rehearsal, said: list[str], child: Any) -> None:
    async def parent() -> None:
        async with lane.scope() as scope:
            scope.spawn(child("child"))
            raise ValueError("at once")

    lane.spawn(parent())
    lane.run()
    assert said == ["child ended"]


def test_scopes_nest(lane: Rehearsal, said: list[str], child: Any) -> None:
    async def inner() -> None:
        async with lane.scope() as scope:
            scope.spawn(child("grandchild"))
            await fails(lane, OSError("deep"))

    async def parent() -> None:
        try:
            async with lane.scope() as scope:
                scope.spawn(inner())
                scope.spawn(child("child"))
                await park_for_good()
        except OSError as error:
            said.append(str(error))

    lane.spawn(parent())
    lane.run()
    assert said == ["grandchild ended", "child ended", "deep"]


def test_an_outer_childs_error_passes_through_an_inner_scope(lane: Rehearsal, said: list[str], child: Any) -> None:
    async def parent() -> None:
        try:
            async with lane.scope() as outer:
                outer.spawn(fails(lane, OSError("outer")))
                async with lane.scope() as inner:
                    inner.spawn(child("inner child"))
                    await park_for_good()
        except OSError as error:
            said.append(str(error))

    lane.spawn(parent())
    lane.run()
    assert said == ["inner child ended", "outer"]


def test_shutting_down_ends_a_tree_of_scopes_inside_out(lane: Rehearsal, said: list[str], child: Any) -> None:
    async def node(depth: int) -> None:
        try:
            async with lane.scope() as scope:
                if depth:
                    scope.spawn(node(depth - 1))
                await park_for_good()
        finally:
            said.append(f"{depth}")

    lane.spawn(node(3))
    lane.run()
    lane.finish()
    assert said == ["0", "1", "2", "3"]


def test_the_block_may_swallow_its_cancellation_and_still_gets_the_childs_error(
    lane: Rehearsal, said: list[str]
) -> None:
    async def parent() -> None:
        try:
            async with lane.scope() as scope:
                scope.spawn(fails(lane, OSError("child")))
                try:
                    await park_for_good()
                except Cancelled:
                    said.append("swallowed")
        except OSError:
            said.append("raised")

    lane.spawn(parent())
    lane.run()
    assert said == ["swallowed", "raised"]


def test_a_watched_child_is_both_watched_and_scoped(lane: Rehearsal, said: list[str]) -> None:
    seen: list[Session] = []

    async def parent() -> None:
        async with lane.scope() as scope:
            scope.spawn(fails(lane, Cancelled())).when_done(seen.append)
        said.append("after")

    lane.spawn(parent())
    lane.run()
    assert len(seen) == 1
    assert said == ["after"]
