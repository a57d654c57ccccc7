"""What a test's loop does with a fault of ours: it ends, and the test with it."""

from __future__ import annotations


def stumble(error: Exception) -> None:
    raise error
