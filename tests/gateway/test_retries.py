"""How many requests are tried again, and when."""

from __future__ import annotations

from gateway.retries import LEAST, MAX_PAUSE, WINDOW_SECONDS, Budget, Retries
from gateway.route_tables import RetryTable
from supervisor.ground.config import Duration

NOW = 1_000.0


def test_a_budget_is_a_share_of_the_requests() -> None:
    requests = [5_000]
    budget = Budget(0.2, lambda: requests[0])
    budget.spend(NOW)
    requests[0] += 1_000
    assert sum(budget.spend(NOW + 1) for _ in range(1_000)) == LEAST + 200 - 1


def test_a_new_window_goes_on_from_the_last_ones_requests() -> None:
    requests = [0]
    budget = Budget(0.2, lambda: requests[0])
    budget.spend(NOW)
    requests[0] = 500
    after = NOW + WINDOW_SECONDS
    assert sum(budget.spend(after) for _ in range(1_000)) == LEAST + 100
    assert sum(budget.spend(after + 3 * WINDOW_SECONDS) for _ in range(1_000)) == LEAST


def test_what_a_route_does_not_allow_costs_no_budget() -> None:
    retries = Retries(RetryTable(attempts=1), lambda: 0)
    assert not any(retries.allow(1, False, NOW) or retries.allow(2, True, NOW) for _ in range(100))
    assert sum(retries.allow(1, True, NOW) for _ in range(100)) == LEAST


def test_pauses_double_and_differ() -> None:
    retries = Retries(RetryTable(attempts=9, backoff=Duration(0.1)), lambda: 0)
    assert all(0.05 <= retries.pause(1) <= 0.15 for _ in range(50))
    assert all(0.2 <= retries.pause(3) <= 0.6 for _ in range(50))
    assert all(retries.pause(9) <= 1.5 * MAX_PAUSE for _ in range(50))
    assert len({retries.pause(1) for _ in range(50)}) > 10
