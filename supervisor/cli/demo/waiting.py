"""Waiting for a condition that another process brings about: asked again and again, within a bound.

The demo starts a dozen processes that become ready in their own time, and none of them can be awaited otherwise.
The tests and the benchmark wait with it too.
"""

import time
from collections.abc import Callable
from typing import TypeVar

FIRST_PAUSE = 0.002  # s: most conditions hold within a few milliseconds
LONGEST_PAUSE = 0.05  # s: the price of being late, beside the CPU that asking costs

Value = TypeVar("Value")


class Late(AssertionError):
    """The condition did not come true in time: an AssertionError, so that a test that waited in vain has failed."""


def until(condition: Callable[[], Value], what: str = "a condition", seconds: float = 15.0) -> Value:
    """Return the first true value of `condition`; raise Late after `seconds`. An OSError of it means: not yet."""
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE
    reason = ""
    while True:
        try:
            if value := condition():
                return value
        except OSError as error:
            reason = f" ({error})"
        if time.monotonic() >= deadline:
            raise Late(f"waited {seconds:g}s in vain for {what}{reason}")
        time.sleep(pause)
        pause = min(LONGEST_PAUSE, pause * 1.5)
