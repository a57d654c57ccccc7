import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.ground.config import Duration, HealthTable
from supervisor.plane.layout import Active
from supervisor.prober.verdict import pause, step

CHECK = HealthTable(type="tcp", fall=3, rise=2)
FIRST = HealthTable(type="tcp", fall=3, rise=2, initial="down")


def run(results: str, check: HealthTable = CHECK, active: int = Active.UNKNOWN) -> list[int]:
    """The states after each result: + passed, - failed."""
    streak, states = 0, []
    for result in results:
        active, streak = step(active, streak, result == "+", check)
        states.append(active)
    return states


U, D, X = Active.UP, Active.DOWN, Active.UNKNOWN


@pytest.mark.parametrize(
    ("results", "check", "states"),
    [
        ("+", CHECK, [U]),
        ("---", CHECK, [X, X, D]),
        ("--+---", CHECK, [X, X, U, U, U, D]),
        ("+----++", CHECK, [U, U, U, D, D, D, U]),
        ("---+-++", CHECK, [X, X, D, D, D, D, U]),
        ("-", FIRST, [D]),
        ("++", FIRST, [X, U]),
        ("-+-++", FIRST, [D, D, D, D, U]),
    ],
)
def test_falls_and_rises_as_configured(results: str, check: HealthTable, states: list[int]) -> None:
    assert run(results, check) == states


@given(st.text("+-", max_size=60), st.integers(1, 5), st.integers(1, 5), st.sampled_from(["up", "down"]))
def test_property_a_change_takes_its_number_of_results_in_a_row(
    results: str, fall: int, rise: int, initial: str
) -> None:
    check = HealthTable(type="tcp", fall=fall, rise=rise, initial=initial)
    up = initial == "up"
    for at, state in enumerate(run(results, check)):
        now_up = state == U if state != X else up
        if now_up != up:
            needed = rise if now_up else fall
            assert results[at - needed + 1 : at + 1] == ("+" if now_up else "-") * needed
        up = now_up


def test_checks_hasten_while_a_server_changes_and_jitter_keeps_them_apart() -> None:
    check = HealthTable(type="tcp", interval=Duration(10), fast_interval=Duration(1))
    assert pause(0, check, 0.5) == pytest.approx(10)
    assert pause(1, check, 0.5) == pytest.approx(1)
    assert pause(0, check, 0.0) == pytest.approx(9)
    assert pause(0, check, 1.0) == pytest.approx(11)
    assert pause(2, HealthTable(type="tcp"), 0.5) == pytest.approx(3)
