"""What a PostgreSQL server is, primary or replica, and how far it has come: asked with each of its checks.

Only the prober asks, and every worker reads it in the plane. Source: PostgreSQL 9.27.3 and 9.27.4, "Backup Control" and
"Recovery Control" functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from supervisor.plane.layout import Role, ServerState

# A replica that has replayed all that it was sent has no lag, however long ago that was, as long as it is sent
# something; one that nobody sends anything is as old as its last transaction.
QUERY = b"""
SELECT pg_is_in_recovery()::int,
  pg_wal_lsn_diff(
    CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END, '0/0'),
  CASE WHEN NOT pg_is_in_recovery() THEN 0
    WHEN EXISTS (SELECT FROM pg_stat_wal_receiver) AND pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0
    ELSE coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp()) * 1000, 4e12) END::bigint,
  CASE WHEN pg_is_in_recovery() THEN 0 ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int
    END"""


LARGEST = (1 << 63) - 1  # what a cell of the plane is given at most


@attrs.frozen
class Standing:
    """What one answer says. `wal` is bytes from the beginning of the log, `lag` milliseconds."""

    role: int  # a value of Role
    wal: int
    lag: int
    timeline: int


def parse(row: Sequence[bytes | None]) -> Standing | None:
    """The only row of the answer; None for what is no answer to QUERY."""
    try:
        recovery, *figures = (int(float(value or 0)) for value in row)
        wal, lag, timeline = (min(max(figure, 0), LARGEST) for figure in figures)
    except (ValueError, OverflowError):
        return None
    return Standing(Role.REPLICA if recovery else Role.PRIMARY, wal, lag, timeline)


def note(cells: memoryview[int], state: int, asked_ns: int, standing: Standing) -> None:
    """Into the plane; the role last, for it says that the rest is there."""
    cells[state + ServerState.WAL] = standing.wal
    cells[state + ServerState.LAG_MS] = standing.lag
    cells[state + ServerState.TIMELINE] = standing.timeline
    cells[state + ServerState.ROLE_ASKED] = asked_ns
    cells[state + ServerState.ROLE] = standing.role
