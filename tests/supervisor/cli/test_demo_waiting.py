"""Waiting is bounded, and says what it waited for."""

import pytest

from supervisor.cli.demo import waiting
from supervisor.cli.demo.waiting import Late, until


class Clock:
    """A clock that passes only in sleeps."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(waiting, "time", made)
    return made


def test_first_true_value_is_returned(clock: Clock) -> None:
    answers = iter([0, None, "there"])
    assert until(lambda: next(answers), "an answer") == "there"
    assert len(clock.pauses) == 2


def test_waiting_in_vain_is_an_assertion_error_that_names_the_thing(clock: Clock) -> None:
    with pytest.raises(AssertionError, match="waited 3s in vain for rain"):
        until(lambda: False, "rain", 3)
    assert 3 <= clock.now < 3.1


def test_an_os_error_means_not_yet_and_is_told_at_the_end(clock: Clock) -> None:
    def refuse() -> bool:
        raise ConnectionRefusedError("refused")

    with pytest.raises(Late, match=r"a port \(refused\)"):
        until(refuse, "a port", 1)


def test_another_error_ends_the_waiting_at_once(clock: Clock) -> None:
    def broken() -> bool:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        until(broken, "nothing")
    assert clock.pauses == []
