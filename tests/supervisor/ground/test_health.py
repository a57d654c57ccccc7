import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.ground import health
from supervisor.ground.config import Duration, HealthTable, OutlierTable, Percent
from supervisor.ground.health import Health, judge, may_eject, next_ejection
from supervisor.plane.layout import Active, Admin, Kind
from supervisor.plane.locks import pool_lock
from supervisor.plane.memory import Plane
from tests.supervisor.plane.children import child_that, stop

CHECK = HealthTable(type="tcp")
CHECK_FIRST = HealthTable(type="tcp", initial="down")
SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("active", "admin", "ejected_until", "check", "expected"),
    [
        (Active.UNKNOWN, Admin.NORMAL, 0, None, Health.UP),
        (Active.UNKNOWN, Admin.NORMAL, 0, CHECK, Health.UP),
        (Active.UNKNOWN, Admin.NORMAL, 0, CHECK_FIRST, Health.DOWN),
        (Active.UP, Admin.NORMAL, 0, CHECK_FIRST, Health.UP),
        (Active.DOWN, Admin.NORMAL, 0, CHECK, Health.DOWN),
        (Active.DOWN, Admin.NORMAL, 0, None, Health.UP),
        (Active.UP, Admin.NORMAL, 101, CHECK, Health.EJECTED),
        (Active.UP, Admin.NORMAL, 100, CHECK, Health.UP),
        (Active.DOWN, Admin.NORMAL, 101, CHECK, Health.DOWN),
        (Active.DOWN, Admin.DRAINING, 101, CHECK, Health.DRAINING),
        (Active.UP, Admin.MAINTENANCE, 0, CHECK, Health.MAINTENANCE),
    ],
)
def test_the_operators_word_counts_first_then_the_checks_then_that_of_traffic(
    active: int, admin: int, ejected_until: int, check: HealthTable | None, expected: Health
) -> None:
    assert judge(active, admin, ejected_until, 100, check) is expected


@pytest.mark.parametrize(("servers", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (10, 5)])
def test_no_more_than_half_of_a_pool_is_ejected(servers: int, most: int) -> None:
    assert sum(may_eject(out, servers, OutlierTable()) for out in range(servers)) == most


def test_a_share_of_all_ejects_all() -> None:
    assert may_eject(0, 1, OutlierTable(max_ejected=Percent(1)))


def test_ejections_grow_up_to_their_maximum() -> None:
    outlier = OutlierTable()
    now, until, ejections, lasted = 10**12, 0, 0, []
    for _ in range(12):
        ejections, lasts = next_ejection(ejections, until, now, outlier)
        lasted.append(lasts // SECOND)
        until = now + lasts
        now = until + SECOND
    assert lasted == [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]


def test_good_conduct_is_remembered() -> None:
    outlier = OutlierTable(eject=Duration(10))
    assert next_ejection(3, 1000 * SECOND, 1009 * SECOND, outlier)[0] == 4
    assert next_ejection(3, 1000 * SECOND, 1021 * SECOND, outlier)[0] == 2
    assert next_ejection(3, 1000 * SECOND, 9000 * SECOND, outlier)[0] == 1


@given(st.integers(0, 1000), st.integers(0, 2**62), st.integers(0, 2**62))
def test_property_an_ejection_lasts_between_once_and_the_maximum(ejections: int, ended: int, now: int) -> None:
    count, lasts = next_ejection(ejections, ended, now, OutlierTable())
    assert 1 <= count <= ejections + 1
    assert 30 * SECOND <= lasts <= 300 * SECOND


def test_an_ejection_can_be_ended_early_unless_the_lock_is_held_up(plane: Plane) -> None:
    pool, server = plane.allocate(Kind.POOL, "user"), plane.allocate(Kind.SERVER, "user/127.0.0.1:8101")
    assert not health.restore(plane, pool, server, 2)
    at = plane.state(Kind.SERVER, server) + health.ServerState.EJECTED_UNTIL
    plane.cells[at] = 2**62
    with child_that(pool_lock(plane, pool).acquire) as holder:
        stop(holder)
        assert not health.restore(plane, pool, server, 2)
    assert health.restore(plane, pool, server, 2)
    assert health.read(plane, server, plane.cells[at] + 1, None) is Health.UP
