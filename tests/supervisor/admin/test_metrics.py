"""The plane as Prometheus metrics."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from supervisor.admin.metrics import exposition, histogram
from supervisor.ground.config import Config
from supervisor.plane import layout
from supervisor.plane.layout import Kind, Listener, Route
from supervisor.plane.memory import Plane

Samples = dict[str, dict[tuple[str, ...], float]]


def scrape(config: Config, plane: Plane, *reasons: str) -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(exposition(config, plane, reasons).decode()):
        for sample in family.samples:
            labels = tuple(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


# Shown in another form, each with its own test below.
APART = {
    (Kind.SERVER, "streak"),
    (Kind.LEASEPOOL, "oldest_ticket"),
    (Kind.POOL, "oldest_ticket"),
    (Kind.LEASEPOOL, "wait_us"),
    (Kind.ROUTE, "latency_sum"),
    *((Kind.ROUTE, f"responses_{number}xx") for number in range(1, 6)),
}


def test_every_field_of_the_plane_is_a_metric(config: Config, plane: Plane) -> None:
    found = scrape(config, plane)
    for kind in Kind:
        table = layout.TABLES[kind]
        for field, at in layout.fields(table.counters).items():
            name = f"portway_{kind.value}_{field}"
            names = {name, f"{name}_total"} & found.keys()
            assert (kind, field) in APART or names == {name if at in table.gauges else f"{name}_total"}


def test_totals_do_not_fall_when_a_worker_dies_and_gauges_do(config: Config, plane: Plane, column: int) -> None:
    base = plane.counters(Kind.LISTENER, 0, column)
    plane.cells[base + Listener.ACCEPTED] = 7
    plane.cells[base + Listener.ACTIVE] = 3
    labels = ("listener=web", "tier=edge")
    assert scrape(config, plane)["portway_listener_active"][labels] == 3
    plane.reap(column)
    found = scrape(config, plane)
    assert found["portway_listener_accepted_total"][labels] == 7
    assert found["portway_listener_active"][labels] == 0


def test_servers_have_a_state(config: Config, plane: Plane) -> None:
    plane.cells[plane.state(Kind.SERVER, 1) + layout.ServerState.ACTIVE] = layout.Active.DOWN
    found = scrape(config, plane)
    assert found["portway_server_up"] == {
        ("pool=user", "server=127.0.0.1:8101"): 1,
        ("pool=user", "server=127.0.0.1:8102"): 0,
    }
    down = {labels for labels, value in found["portway_server_state"].items() if value}
    assert ("pool=user", "server=127.0.0.1:8102", "state=down") in down
    assert len(down) == 2


def test_a_route_has_a_histogram_of_its_latency(config: Config, plane: Plane, column: int) -> None:
    base = plane.counters(Kind.ROUTE, 0, column)
    plane.cells[base + Route.LATENCY + 10] = 3  # 512 to 1023 µs
    plane.cells[base + Route.LATENCY + 23] = 1
    plane.cells[base + Route.LATENCY_SUM] = 2_000_000
    plane.cells[base + Route.RESPONSES_2XX] = 4
    found = scrape(config, plane)
    buckets = found["portway_route_latency_seconds_bucket"]
    assert buckets["le=0.000512", "route=r"] == 0
    assert buckets["le=0.001024", "route=r"] == 3
    assert buckets["le=+Inf", "route=r"] == 4
    assert found["portway_route_latency_seconds_count"]["route=r",] == 4
    assert found["portway_route_latency_seconds_sum"]["route=r",] == 2.0
    assert found["portway_route_responses_total"]["code=2xx", "route=r"] == 4


def test_reason_codes_have_their_names(config: Config, plane: Plane, column: int) -> None:
    plane.cells[plane.counters(Kind.ROUTE, 0, column) + Route.REASONS + 1] = 5
    assert scrape(config, plane, "limited", "no_route")["portway_route_reasons_total"] == {
        ("reason=no_route", "route=r"): 5
    }


def test_a_lease_pool_is_split_into_database_and_user(config: Config, plane: Plane, column: int) -> None:
    plane.cells[plane.counters(Kind.LEASEPOOL, 0, column) + layout.LeasePool.WAIT_US] = 1_500_000
    plane.cells[plane.state(Kind.LEASEPOOL, 0) + layout.LeasePoolState.LIMIT] = 20
    found = scrape(config, plane)
    labels = ("database=app", "user=alice")
    assert found["portway_leasepool_wait_seconds_total"][labels] == 1.5
    assert found["portway_leasepool_limit"][labels] == 20
    assert found["portway_leasepool_oldest_wait_seconds"][labels] == 0


def test_the_daemon_says_what_it_is(config: Config, plane: Plane) -> None:
    plane.generation = 2
    found = scrape(config, plane)
    assert found["portway_generation"] == {(): 2}
    assert found["portway_ready"] == {(): 1}
    assert [labels[0] for labels in found["portway_info"]] == ["pop=fra1"]
    assert found["portway_process_state"]["number=1", "pid=100", "tier=edge"] == layout.ProcessState.READY


def test_labels_of_any_name_survive(config: Config, plane: Plane) -> None:
    plane.allocate(Kind.LIMIT, 'a"b\\c é')
    assert ('limit=a"b\\c é',) in scrape(config, plane)["portway_limit_admitted_total"]


def test_a_histogram_is_cumulative_and_ends_with_everything() -> None:
    assert histogram([1, 0, 2]) == [("1e-06", 1), ("2e-06", 1), ("+Inf", 3)]
