import time
from collections import Counter
from typing import Any

import attrs
import pytest

from supervisor.ground import health, places
from supervisor.ground import pools as pools_module
from supervisor.ground.config import (
    Address,
    Bind,
    Duration,
    HealthTable,
    OutlierTable,
    Percent,
    PoolTable,
    ServerTable,
    SupervisorTable,
)
from supervisor.ground.pools import Pool, Pools, Server
from supervisor.plane import layout
from supervisor.plane.layout import Active, Admin, Kind
from supervisor.plane.locks import pool_lock
from supervisor.plane.memory import Plane
from tests.supervisor.plane.children import child_that, stop


@attrs.frozen
class Configured:
    """Of a configuration what pools read."""

    pools: dict[str, PoolTable]
    supervisor: SupervisorTable = attrs.Factory(SupervisorTable)


def table(*servers: ServerTable | int, **more: Any) -> PoolTable:
    """A pool table; a server given as a number is port 8100 + number."""
    more.setdefault("outlier", OutlierTable())
    return PoolTable(
        servers=tuple(server if isinstance(server, ServerTable) else at(server) for server in servers), **more
    )


def at(number: int, **more: Any) -> ServerTable:
    return ServerTable(address=Bind("127.0.0.1", 8100 + number), **more)


def make(plane: Plane, one: PoolTable, column: int = 2) -> Pool:
    config: Any = Configured({"user": one})
    for kind, name in pools_module.rows(config):
        plane.allocate(kind, name)
    return Pools(config, plane, column)["user"]


def ports(pool: Pool, count: int, **how: Any) -> list[int | None]:
    picked = [pool.pick(**how) for _ in range(count)]
    return [None if server is None else server.sockaddr[1] - 8100 for server in picked]


def set_active(plane: Plane, number: int, value: int) -> None:
    row = plane.row(Kind.SERVER, f"user/127.0.0.1:{8100 + number}")
    health.set_active(plane, plane.row(Kind.POOL, "user"), row, value, 3)


def set_admin(plane: Plane, number: int, value: int) -> None:
    row = plane.row(Kind.SERVER, f"user/127.0.0.1:{8100 + number}")
    health.set_admin(plane, plane.row(Kind.POOL, "user"), row, value, 0)


def counted(plane: Plane, field: int) -> int:
    return plane.total(Kind.POOL, plane.row(Kind.POOL, "user"), field)


CHECK = HealthTable(type="tcp")


def test_round_robin_takes_turns(plane: Plane) -> None:
    pool = make(plane, table(0, 1, 2))
    picked = ports(pool, 6)
    assert picked[:3] == picked[3:]
    assert sorted(picked[:3]) == [0, 1, 2]


def test_workers_begin_at_different_servers(plane: Plane) -> None:
    one = table(0, 1, 2)
    assert len({ports(make(plane, one, column), 1)[0] for column in (2, 3, 4)}) == 3


def test_weights_share_the_turns(plane: Plane) -> None:
    pool = make(plane, table(at(0, weight=3), at(1)))
    assert Counter(ports(pool, 40)) == {0: 30, 1: 10}


def test_a_server_tells_where_it_is(plane: Plane) -> None:
    pool = make(plane, table(ServerTable(address=Bind("::1", 8101))))
    server = pool.pick()
    assert server is not None
    assert (server.name, server.sockaddr, server.family) == ("user/[::1]:8101", ("::1", 8101), 10)
    assert pool.by_row(server.row) is server
    assert pool.by_row(server.row + 1) is None


def test_what_one_worker_carries_every_worker_sees(plane: Plane) -> None:
    one = table(0, 1, balance="least_connections")
    here, there = plane.claim_column("edge", 1), plane.claim_column("edge", 2)
    mine, other = make(plane, one, here), make(plane, one, there)
    other.servers[0].started()
    other.servers[0].started()
    mine.servers[1].started()
    assert [server.in_flight() for server in mine.servers] == [2, 1]
    assert ports(mine, 3) == [1, 1, 1]
    other.servers[0].ended()
    other.servers[0].ended()
    assert ports(mine, 3) == [0, 0, 0]


def test_least_connections_weighs_and_takes_turns_among_equals(plane: Plane) -> None:
    pool = make(plane, table(at(0, weight=2), at(1), balance="least_connections"))
    pool.servers[0].started()
    assert Counter(ports(pool, 4)) == {0: 2, 1: 2}
    pool.servers[1].started()
    assert ports(pool, 4) == [0, 0, 0, 0]


def test_least_connections_of_many_still_finds_light_servers(plane: Plane) -> None:
    pool = make(plane, table(*range(40), balance="least_connections"))
    for server in pool.servers[:30]:
        server.started()
    assert sum(number >= 30 for number in ports(pool, 50) if number is not None) >= 45


def test_random_two_prefers_the_lighter(plane: Plane) -> None:
    pool = make(plane, table(0, 1, balance="random_two"))
    pool.servers[0].started()
    assert set(ports(pool, 20)) == {1}
    assert set(ports(make(plane, table(0, balance="random_two")), 3)) == {0}


@pytest.mark.parametrize("way", ["source_hash", "maglev"])
def test_every_worker_and_every_restart_picks_the_same_server_for_a_client(plane: Plane, way: str) -> None:
    one = table(0, 1, 2, 3, balance=way)
    mine, other = make(plane, one, 2), make(plane, one, 3)
    later = Plane.create()
    restarted = make(later, one)
    clients = [f"10.0.{number % 7}.{number}" for number in range(200)]
    picked = [mine.pick(client) for client in clients]
    for client, server in zip(clients, picked, strict=True):
        for pool in (mine, other, restarted):
            again = pool.pick(client)
            assert server is not None
            assert again is not None
            assert again.name == server.name
    assert len(set(picked)) == 4
    assert mine.pick("::ffff:10.0.0.1") is mine.pick("10.0.0.1") is mine.pick(b"10.0.0.1")


@pytest.mark.parametrize("way", ["source_hash", "maglev"])
def test_a_server_that_goes_moves_only_its_own_clients_and_gets_them_back(plane: Plane, way: str) -> None:
    pool = make(plane, table(0, 1, 2, 3, balance=way, health=CHECK))
    clients = [f"10.0.{number % 7}.{number}" for number in range(200)]
    before = {client: ports(pool, 1, key=client)[0] for client in clients}
    set_active(plane, 2, Active.DOWN)
    during = {client: ports(pool, 1, key=client)[0] for client in clients}
    assert all(during[client] == before[client] for client in clients if before[client] != 2)
    assert 2 not in during.values()
    assert len({during[client] for client in clients if before[client] == 2}) == 3
    set_active(plane, 2, Active.UP)
    assert {client: ports(pool, 1, key=client)[0] for client in clients} == before


@pytest.mark.parametrize("way", ["source_hash", "maglev"])
def test_keyed_balancing_without_a_key_takes_turns(plane: Plane, way: str) -> None:
    pool = make(plane, table(0, 1, 2, balance=way))
    assert Counter(ports(pool, 3)) == {0: 1, 1: 1, 2: 1}


WAYS = ["round_robin", "least_connections", "source_hash", "maglev", "random_two"]


@pytest.mark.parametrize("way", WAYS)
def test_servers_tried_already_are_passed_over(plane: Plane, way: str) -> None:
    pool = make(plane, table(0, 1, 2, balance=way))
    tried: tuple[Server, ...] = ()
    for _ in range(3):
        server = pool.pick("10.0.0.1", tried)
        assert server is not None
        assert server not in tried
        tried = (*tried, server)
    assert pool.pick("10.0.0.1", tried) is None
    assert counted(plane, layout.Pool.PICKS_REFUSED) == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_full_server_is_passed_over_by_all_workers(plane: Plane, way: str) -> None:
    one = table(at(0, max_connections=2), at(1, max_connections=1), balance=way)
    here, there = plane.claim_column("edge", 1), plane.claim_column("edge", 2)
    mine, other = make(plane, one, here), make(plane, one, there)
    mine.servers[0].started()
    other.servers[0].started()
    assert set(ports(mine, 5, key="10.0.0.1")) == {1}
    other.servers[1].started()
    assert mine.pick("10.0.0.1") is None
    mine.servers[0].ended()
    assert set(ports(mine, 5, key="10.0.0.1")) == {0}
    assert plane.total(Kind.SERVER, mine.servers[0].row, layout.Server.FULL) > 0


def test_a_worker_that_came_later_counts_too(plane: Plane) -> None:
    one = table(at(0, max_connections=1))
    here = plane.claim_column("edge", 1)
    mine = make(plane, one, here)
    assert mine.pick() is not None
    other = make(plane, one, plane.claim_column("edge", 2))
    other.servers[0].started()
    assert mine.pick() is None


def test_a_dead_workers_work_no_longer_fills_a_server(plane: Plane) -> None:
    one = table(at(0, max_connections=1))
    here, there = plane.claim_column("edge", 1), plane.claim_column("edge", 2)
    mine = make(plane, one, here)
    make(plane, one, there).servers[0].started()
    assert mine.pick() is None
    plane.reap(there)
    assert mine.pick() is not None


def test_the_active_check_decides_who_takes_work(plane: Plane) -> None:
    pool = make(plane, table(0, 1, health=CHECK))
    set_active(plane, 0, Active.DOWN)
    assert set(ports(pool, 4)) == {1}
    assert not pool.servers[0].usable()
    set_active(plane, 0, Active.UP)
    assert set(ports(pool, 4)) == {0, 1}
    assert pool.servers[0].usable()


def test_draining_takes_no_new_work_and_ends_the_old(plane: Plane) -> None:
    pool = make(plane, table(0, 1))
    set_admin(plane, 0, Admin.DRAINING)
    assert set(ports(pool, 4)) == {1}
    assert pool.servers[0].usable()
    set_admin(plane, 0, Admin.MAINTENANCE)
    assert not pool.servers[0].usable()
    assert set(ports(pool, 4)) == {1}


def test_backups_take_work_only_when_no_other_is_up(plane: Plane) -> None:
    pool = make(plane, table(0, 1, at(2, backup=True), health=CHECK))
    assert set(ports(pool, 6)) == {0, 1}
    set_active(plane, 0, Active.DOWN)
    assert set(ports(pool, 4)) == {1}
    set_active(plane, 1, Active.DOWN)
    assert set(ports(pool, 4)) == {2}
    assert counted(plane, layout.Pool.BACKUP) == 4


def test_a_pool_with_no_server_up_tries_all_and_counts(plane: Plane) -> None:
    pool = make(plane, table(0, 1, at(2, backup=True), 3, health=CHECK))
    set_admin(plane, 3, Admin.MAINTENANCE)
    for number in (0, 1, 2):
        set_active(plane, number, Active.DOWN)
    assert set(ports(pool, 6)) == {0, 1, 2}
    assert counted(plane, layout.Pool.FAIL_OPEN) == 6
    assert pool.servers[0].usable()
    assert not pool.servers[3].usable()


def test_a_pool_may_refuse_instead(plane: Plane) -> None:
    pool = make(plane, table(0, 1, health=CHECK, on_all_down="refuse"))
    for number in (0, 1):
        set_active(plane, number, Active.DOWN)
    assert ports(pool, 2) == [None, None]
    assert counted(plane, layout.Pool.PICKS_REFUSED) == 2
    set_active(plane, 1, Active.UP)
    assert ports(pool, 1) == [1]


def test_all_in_maintenance_leaves_nobody_even_to_try(plane: Plane) -> None:
    pool = make(plane, table(0))
    set_admin(plane, 0, Admin.MAINTENANCE)
    assert pool.pick() is None


def fail(server: Server, times: int) -> None:
    for _ in range(times):
        server.failed(time.monotonic_ns())


def test_five_failures_in_a_row_eject_for_all_workers(plane: Plane) -> None:
    one = table(0, 1)
    mine, other = make(plane, one, 2), make(plane, one, 3)
    fail(mine.servers[0], 4)
    mine.servers[0].succeeded()
    fail(mine.servers[0], 4)
    assert set(ports(other, 4)) == {0, 1}
    fail(mine.servers[0], 1)
    assert set(ports(other, 4)) == {1}
    assert not other.servers[0].usable()
    assert counted(plane, layout.Pool.EJECTIONS) == 1
    assert plane.total(Kind.SERVER, mine.servers[0].row, layout.Server.FAILURES) == 9


def test_an_ejection_ends_by_itself_and_the_next_lasts_longer(plane: Plane) -> None:
    outlier = OutlierTable(eject=Duration(0.02), max_eject=Duration(1))
    pool = make(plane, table(0, 1, outlier=outlier))
    ejected_until = pool.servers[0].state + layout.ServerState.EJECTED_UNTIL
    lasted = []
    for _ in range(2):
        began = time.monotonic_ns()
        fail(pool.servers[0], 5)
        assert set(ports(pool, 4)) == {1}
        lasted.append(round((plane.cells[ejected_until] - began) / 20_000_000))
        while set(ports(pool, 4)) == {1}:
            assert time.monotonic_ns() < began + 2_000_000_000
    assert lasted == [1, 2]


def test_an_ejection_ended_by_the_prober_ends_for_all(plane: Plane) -> None:
    pool = make(plane, table(0, 1))
    fail(pool.servers[0], 5)
    assert set(ports(pool, 4)) == {1}
    assert health.restore(plane, plane.row(Kind.POOL, "user"), pool.servers[0].row, 3)
    assert set(ports(pool, 4)) == {0, 1}


def test_no_more_than_max_ejected_of_a_pool_go(plane: Plane) -> None:
    pool = make(plane, table(0, 1, 2, 3, outlier=OutlierTable(max_ejected=Percent(0.5))))
    for server in pool.servers:
        fail(server, 5)
    assert len(set(ports(pool, 8))) == 2
    assert counted(plane, layout.Pool.EJECTIONS) == 2
    assert counted(plane, layout.Pool.EJECTIONS_DENIED) == 2


def test_a_stopped_process_can_not_hold_up_a_failure(plane: Plane) -> None:
    pool = make(plane, table(0, 1))
    with child_that(pool_lock(plane, plane.row(Kind.POOL, "user")).acquire) as holder:
        stop(holder)
        fail(pool.servers[0], 5)
        assert counted(plane, layout.Pool.LOCK_TIMEOUTS) == 1
    fail(pool.servers[0], 5)
    assert set(ports(pool, 4)) == {1}


def reload(plane: Plane, pools: Pools, **tables: PoolTable) -> None:
    config: Any = Configured(tables)
    for kind, name in pools_module.rows(config):
        plane.allocate(kind, name)
    pools.commit(pools.prepare(config))


def make_pools(plane: Plane, **tables: PoolTable) -> Pools:
    config: Any = Configured(tables)
    for kind, name in pools_module.rows(config):
        plane.allocate(kind, name)
    return Pools(config, plane, 2)


def test_a_reload_keeps_servers_by_name_with_their_counts_and_health(plane: Plane) -> None:
    pools = make_pools(plane, user=table(0, 1, 2))
    pool = pools["user"]
    kept, gone = pool.servers[1], pool.servers[0]
    kept.started()
    gone.started()
    fail(kept, 5)
    reload(plane, pools, user=table(1, at(3), balance="least_connections"))
    assert pools["user"] is pool
    assert pool.servers[0] is kept
    assert kept.in_flight() == 1
    assert set(ports(pool, 4)) == {3}
    gone.ended()
    assert gone.usable()
    assert gone.in_flight() == 0


def test_a_reload_changes_weights_and_bounds_in_place(plane: Plane) -> None:
    pools = make_pools(plane, user=table(0, 1))
    reload(plane, pools, user=table(at(0, weight=3, max_connections=7), 1))
    assert Counter(ports(pools["user"], 8)) == {0: 6, 1: 2}
    assert pools["user"].servers[0].max_connections == 7


def test_a_reload_that_comes_to_nothing_changes_nothing(plane: Plane) -> None:
    pools = make_pools(plane, user=table(0, 1))
    before = pools["user"].table
    config: Any = Configured({"user": table(1), "feed": table(5)})
    for kind, name in pools_module.rows(config):
        plane.allocate(kind, name)
    pools.prepare(config)
    assert pools["user"].table is before
    assert set(ports(pools["user"], 4)) == {0, 1}
    reload(plane, pools, user=table(0, 1))
    assert list(pools) == ["user"]


def test_new_pools_are_there_once_prepared_and_old_ones_until_committed(plane: Plane) -> None:
    pools = make_pools(plane, user=table(0))
    config: Any = Configured({"feed": table(5)})
    for kind, name in pools_module.rows(config):
        plane.allocate(kind, name)
    prepared = pools.prepare(config)
    assert set(pools) == {"user", "feed"}
    feed = pools["feed"]
    pools.commit(prepared)
    assert set(pools) == {"feed"}
    assert pools["feed"] is feed
    assert len(pools) == 1


def test_a_pool_without_rows_is_refused(plane: Plane) -> None:
    pools = make_pools(plane, user=table(0))
    config: Any = Configured({"feed": table(5)})
    with pytest.raises(ValueError, match="no row in the plane"):
        pools.prepare(config)
    assert set(pools) == {"user"}


def test_take_counts_what_it_gives(plane: Plane) -> None:
    pool = make(plane, table(at(0, max_connections=2), at(1, max_connections=1)))
    taken = [pool.take() for _ in range(4)]
    assert [server.in_flight() for server in pool.servers] == [2, 1]
    assert taken[3] is None
    assert pool.is_full()
    assert not pool.is_full(exclude=pool.servers)
    assert [plane.total(Kind.SERVER, server.row, layout.Server.REQUESTS) for server in pool.servers] == [2, 1]


def test_two_workers_at_the_last_place_never_both_get_it(plane: Plane) -> None:
    """Whatever the order of their steps: each counts itself before it looks."""
    one = table(at(0, max_connections=1))
    columns = plane.claim_column("edge", 1), plane.claim_column("edge", 2)
    mine, other = (make(plane, one, column) for column in columns)
    picked = mine.pick()
    assert picked is mine.servers[0]
    assert other.take() is not None  # between the pick there and the count there
    assert not mine._admit(picked)
    assert mine.servers[0].in_flight() == 1
    assert mine.take() is None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Monotonic ns, for the test to put forward."""
    now = [10**12]

    def read() -> int:
        now[0] += layout.COLUMNS  # two readings are never the same, so that no two epochs are
        return now[0]

    monkeypatch.setattr(pools_module, "_monotonic_ns", read)
    monkeypatch.setattr(time, "monotonic_ns", read)
    return now


@pytest.mark.parametrize("balance", ["round_robin", "least_connections"])
def test_a_server_that_came_back_gets_more_and_more(plane: Plane, clock: list[int], balance: str) -> None:
    pool = make(plane, table(0, 1, balance=balance, slow_start=Duration(16), health=CHECK))

    def share_of_the_second() -> int:
        for server in pool.servers:
            while server.in_flight():
                server.ended()
        for _ in range(340):
            assert pool.take() is not None
        return pool.servers[1].in_flight()

    assert share_of_the_second() == 170  # at the start nobody is slow
    set_active(plane, 1, Active.DOWN)
    assert share_of_the_second() == 0
    set_active(plane, 1, Active.UP)
    early = share_of_the_second()
    assert 20 <= early <= 45
    clock[0] += 8 * 10**9
    middle = share_of_the_second()
    assert 100 <= middle <= 125  # half the weight: a third of the work
    clock[0] += 8 * 10**9
    assert share_of_the_second() == 170
    assert (pool.servers[1].weight, pool.servers[1].max_connections) == (1, 1024)


def test_slow_start_holds_connections_too_and_moves_no_key(plane: Plane, clock: list[int]) -> None:
    pool = make(plane, table(at(0), at(1, max_connections=100), balance="source_hash", slow_start=Duration(16)))
    homes = {key: pool.pick(key) for key in range(200)}
    set_admin(plane, 1, Admin.DRAINING)
    assert pool.pick(0) is pool.servers[0]
    set_admin(plane, 1, Admin.NORMAL)
    assert {key: pool.pick(key) for key in range(200)} == homes
    assert pool.servers[1].max_connections == 10
    clock[0] += 8 * 10**9
    pool.pick(0)
    assert pool.servers[1].max_connections == 50


def test_the_end_of_an_ejection_is_a_slow_start(plane: Plane, clock: list[int]) -> None:
    pool = make(plane, table(0, 1, slow_start=Duration(16)))
    for _ in range(5):
        pool.servers[0].failed(clock[0])
    assert ports(pool, 4) == [1, 1, 1, 1]
    clock[0] += 31 * 10**9
    assert 0 < ports(pool, 170).count(0) < 25


def test_a_zone_of_the_site_that_a_reload_brings_is_seen(plane: Plane) -> None:
    one = table(at(0, zone="a"), at(1, zone="b"))
    pool = make(plane, one)
    assert set(ports(pool, 4)) == {0, 1}
    pool.swap(pool.plan(one, "b"))
    assert ports(pool, 4) == [1, 1, 1, 1]


def test_a_server_given_by_name_takes_work_where_its_name_says(plane: Plane) -> None:
    pool = make(plane, table(ServerTable(address=Address("app.internal", 8100)), 1))
    assert ports(pool, 3) == [1, 1, 1]  # nobody knows yet where it is
    server = pool.servers[0]

    def resolve(host: str, port: int) -> None:
        places.write(plane.cells, server.state, host, port)
        health.touch(plane, plane.row(Kind.POOL, "user"), 3)

    resolve("10.0.0.1", 8100)
    assert {one.sockaddr for one in (pool.pick(), pool.pick()) if one} == {("10.0.0.1", 8100), ("127.0.0.1", 8101)}
    resolve("fd00::1", 9100)
    assert {one.family for one in (pool.pick(), pool.pick()) if one} == {2, 10}
    assert server.sockaddr == ("fd00::1", 9100)
    assert server.proves == "app.internal"
    assert pool.servers[1].proves == "127.0.0.1"
    assert server.usable()
    resolve("", 0)
    assert ports(pool, 3) == [1, 1, 1]
    assert not server.usable()


def test_a_name_that_stands_for_several_is_several_servers(plane: Plane) -> None:
    pool = make(plane, table(ServerTable(address=Address("app.internal", 80), addresses=3)))
    assert [server.name for server in pool.servers] == [f"user/app.internal:80#{number}" for number in (1, 2, 3)]
