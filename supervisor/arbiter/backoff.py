"""How long to wait before a dead process gets a successor: a pure decision.

Only a death before `ready`, or repeated crashes that were not a KILL, wait: such a process would most likely die
again. A single crash, and any KILL of a working process (an operator, the out-of-memory killer), is answered at once.
"""

from __future__ import annotations

import attrs

FIRST_DELAY = 0.25  # seconds; doubles with each further failure
LONGEST_DELAY = 30.0  # seconds; what a person who mends the cause will wait for
FORGIVEN_AFTER = 60.0  # seconds lived since ready; a crash after that long says nothing about the next one
NO_FAILURES_FREE = 1  # crashes of a process that had been ready and that are answered at once


@attrs.frozen
class Backoff:
    """The failures in a row of one role (say `gateway 2`) and the wait that they earn its successor."""

    failures: int = 0

    def after(self, *, was_ready: bool, killed: bool, lived: float) -> tuple[Backoff, float]:
        """The state after a death, and the seconds to wait; `lived` counts from ready."""
        if was_ready and killed:
            return self, 0.0
        failures = 1 if was_ready and lived >= FORGIVEN_AFTER else self.failures + 1
        free = NO_FAILURES_FREE if was_ready else 0
        return Backoff(failures), delay(failures - free)


def delay(failures: int) -> float:
    """Seconds after so many failures in a row; none for none."""
    if failures <= 0:
        return 0.0
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - 1, 16))
