"""Whether and when a request is tried again: never twice what may have been done, and never more than a share of all.

Three things may go wrong before an answer begins. A kept connection turns out to be closed, which says nothing of its
server: the same goes out once more at once. A server says that it did not process the request (RFC 9113 §8.7): the
same, a few times. Or the try fails: then another server gets it after a moment, if the request may be repeated and the
budget allows; without a budget, servers that are slow already would get every request twice.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from gateway.route_tables import RetryTable

WINDOW_SECONDS: Final = 10.0  # over which the budget's share is counted; Finagle's default
LEAST: Final = 10  # retries in a window that any route has, however few its requests
MAX_REFUSED: Final = 3  # tries that servers did not process
MAX_PAUSE: Final = 1.0  # seconds


class Budget:
    """Retries as a share of requests. `requests` is the number of all so far, whoever counts them."""

    __slots__ = ("_before", "_requests", "_share", "_since", "_spent", "_start")

    def __init__(self, share: float, requests: Callable[[], int]) -> None:
        self._share = share
        self._requests = requests
        self._start = requests()  # of the window
        self._before = 0  # requests of the last window
        self._since = 0.0
        self._spent = 0

    def spend(self, now: float) -> bool:
        """Take one retry, if there is one left."""
        count = self._requests() - self._start
        if now - self._since >= WINDOW_SECONDS:
            self._before = count if now - self._since < 2 * WINDOW_SECONDS else 0
            self._start += count
            self._since = now
            self._spent = count = 0
        if self._spent >= LEAST + self._share * max(count, self._before):
            return False
        self._spent += 1
        return True


class Retries:
    """What a route allows."""

    __slots__ = ("_budget", "_table", "statuses")

    def __init__(self, table: RetryTable, requests: Callable[[], int]) -> None:
        self._table = table
        self._budget = Budget(float(table.budget), requests)
        self.statuses = frozenset(table.statuses)

    def allow(self, tried: int, idempotent: bool, now: float) -> bool:
        """Whether a request of which so many tries have failed is tried once more; if so, it is counted."""
        table = self._table
        return tried <= table.attempts and (idempotent or table.all_methods) and self._budget.spend(now)

    def pause(self, tried: int) -> float:
        """Seconds before the next try: twice as long each time, and never the same for all who failed together."""
        pause: float = min(MAX_PAUSE, self._table.backoff * 2.0 ** (tried - 1))
        return pause * random.uniform(0.5, 1.5)
