"""What a series of checks says of a server: rise and fall, as a pure function of what the plane holds."""

from __future__ import annotations

from supervisor.ground.config import HealthTable
from supervisor.plane.layout import Active


def step(active: int, streak: int, passed: bool, check: HealthTable) -> tuple[int, int]:
    """The value of Active and the streak of contradicting checks, after one more check.

    It takes `fall` failures in a row to bring a server down and `rise` passes to bring it up; one check that agrees
    ends the streak. A server never checked begins as `initial` says.
    """
    up = active == Active.UP or (active == Active.UNKNOWN and check.initial == "up")
    if passed == up:
        return (Active.UP if up else Active.DOWN), 0
    streak += 1
    if streak < (check.fall if up else check.rise):
        return active, streak
    return (Active.DOWN if up else Active.UP), 0


def pause(streak: int, check: HealthTable, draw: float) -> float:
    """Seconds until the next check: `fast_interval` within a streak. `draw` is within [0, 1): 10 % of jitter either
    way, so that many servers, and many probers of one server, don't stay in step."""
    interval = check.fast_interval if streak and check.fast_interval is not None else check.interval
    return interval * (0.9 + 0.2 * draw)
