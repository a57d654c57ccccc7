"""Back-off: who waits, who does not, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.arbiter.backoff import FORGIVEN_AFTER, LONGEST_DELAY, Backoff


def test_a_kill_of_a_working_process_is_answered_at_once_however_often() -> None:
    state = Backoff()
    for _ in range(200):
        state, wait = state.after(was_ready=True, killed=True, lived=0.01)
        assert wait == 0


def test_the_first_crash_of_a_working_process_is_free_and_the_next_ones_wait_longer() -> None:
    state, waits = Backoff(), []
    for _ in range(4):
        state, wait = state.after(was_ready=True, killed=False, lived=1.0)
        waits.append(wait)
    assert waits == [0.0, 0.25, 0.5, 1.0]


def test_a_death_before_ready_waits_from_the_first_even_by_kill() -> None:
    _, wait = Backoff().after(was_ready=False, killed=True, lived=0.0)
    assert wait > 0


def test_a_crash_after_a_long_life_starts_the_count_anew() -> None:
    state, wait = Backoff(9).after(was_ready=True, killed=False, lived=FORGIVEN_AFTER)
    assert (state, wait) == (Backoff(1), 0.0)


@given(st.lists(st.builds(dict, was_ready=st.booleans(), killed=st.booleans(), lived=st.floats(0, 1e6))))
def test_property_the_wait_is_bounded(deaths: list[dict[str, object]]) -> None:
    state = Backoff()
    for death in deaths:
        state, wait = state.after(**death)  # type: ignore[arg-type]  # hypothesis builds the keywords
        assert 0 <= wait <= LONGEST_DELAY
