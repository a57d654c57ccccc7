"""The status document, over a plane that the test fills."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor.ground import status
from supervisor.ground.config import Bind, Config, HealthTable, load_bytes
from supervisor.ground.health import Health
from supervisor.plane import layout
from supervisor.plane.layout import Kind
from supervisor.plane.memory import Plane


@attrs.frozen(kw_only=True)
class Listener:
    bind: Bind
    protocol: str = "tcp"


@attrs.frozen(kw_only=True)
class Table:
    listeners: Mapping[str, Listener] = attrs.field(factory=dict)


TEXT = b"""
[supervisor]
pop = "fra1"
[pools.user]
servers = [{ address = "127.0.0.1:8101", weight = 2 }, "127.0.0.1:8102", "127.0.0.1:8103"]
health = { type = "tcp" }
[edge.listeners.web]
bind = "127.0.0.1:80"
"""


@pytest.fixture
def config() -> Config:
    return load_bytes(TEXT, "a.toml", Path("/etc/portway"), {"edge": Table}, {})


@pytest.fixture
def plane() -> Plane:
    plane = Plane.create()
    plane.processes.enter_supervisor(1)
    plane.allocate(Kind.LISTENER, "edge/web")
    plane.allocate(Kind.POOL, "user")
    for port in (8101, 8102, 8103):
        plane.allocate(Kind.SERVER, f"user/127.0.0.1:{port}")
    return plane


def worker(plane: Plane, number: int, pid: int) -> int:
    column = plane.claim_column("edge", number)
    plane.started(column, pid)
    plane.set_state(column, layout.ProcessState.READY)
    return column


def own(plane: Plane, *columns: int) -> None:
    base = plane.state(Kind.LISTENER, plane.row(Kind.LISTENER, "edge/web"))
    for slot, column in enumerate(columns):
        plane.cells[base + slot] = column


def test_the_document_is_json_and_says_whose_it_is(config: Config, plane: Plane) -> None:
    plane.generation = 3
    document = json.loads(json.dumps(status.document(config, plane)))
    daemon = document["portway"]
    assert (daemon["pid"], daemon["generation"], daemon["pop"], daemon["config"]) == (
        1,
        3,
        "fra1",
        "/etc/portway/a.toml",
    )
    assert daemon["started"].endswith("Z")
    assert 0 <= daemon["uptime"] < 60


def test_it_starts_until_every_listener_is_polled(config: Config, plane: Plane) -> None:
    assert status.state(config, plane) == "starting"
    own(plane, worker(plane, 1, 100))
    assert status.state(config, plane) == "ready"
    plane.set_state(layout.SUPERVISOR, layout.ProcessState.DRAINING)
    assert status.state(config, plane) == "draining"


def test_processes_and_the_slots_they_poll(config: Config, plane: Plane) -> None:
    one, two = worker(plane, 1, 100), worker(plane, 2, 200)
    own(plane, one, two, one)
    plane.cells[plane.counters(Kind.LISTENER, 0, two) + layout.Listener.ACCEPTED] += 5
    document = status.document(config, plane)
    shown = [(each["pid"], each["tier"], each["number"], each["state"]) for each in document["processes"]]
    assert shown == [(1, "supervisor", 0, "ready"), (100, "edge", 1, "ready"), (200, "edge", 2, "ready")]
    (listener,) = document["listeners"]
    assert (listener["tier"], listener["name"], listener["bind"]) == ("edge", "web", "127.0.0.1:80")
    assert listener["slots"] == {"edge 1": 2, "edge 2": 1}
    assert listener["accepted"] == 5


def test_counters_of_the_dead_are_kept(config: Config, plane: Plane) -> None:
    column = worker(plane, 1, 100)
    own(plane, column)
    plane.cells[plane.counters(Kind.LISTENER, 0, column) + layout.Listener.ACCEPTED] += 5
    plane.cells[plane.counters(Kind.LISTENER, 0, column) + layout.Listener.ACTIVE] += 2
    plane.reap(column)
    (listener,) = status.document(config, plane)["listeners"]
    assert (listener["accepted"], listener["active"], listener["slots"]) == (5, 0, {})


def test_servers_are_shown_with_their_state(config: Config, plane: Plane) -> None:
    states = [plane.state(Kind.SERVER, plane.row(Kind.SERVER, f"user/127.0.0.1:{port}")) for port in (8101, 8102, 8103)]
    plane.cells[states[0] + layout.ServerState.ACTIVE] = layout.Active.DOWN
    plane.cells[states[0] + layout.ServerState.ACTIVE_SINCE] = 1_700_000_000_000_000_000
    plane.cells[states[1] + layout.ServerState.ADMIN] = layout.Admin.DRAINING
    (pool,) = status.document(config, plane)["pools"]
    assert (pool["name"], pool["balance"], pool["up"]) == ("user", "round_robin", 1)
    assert [server["state"] for server in pool["servers"]] == ["down", "draining", "up"]
    assert pool["servers"][0]["since"] == "2023-11-14T22:13:20.000Z"
    assert pool["servers"][0]["weight"] == 2


@pytest.mark.parametrize(
    ("changes", "since"),
    [
        ({"ACTIVE": layout.Active.UP}, 1),
        ({"ACTIVE": layout.Active.DOWN}, 1),
        ({"ADMIN": layout.Admin.DRAINING, "ACTIVE": layout.Active.DOWN}, 2),
        ({"ADMIN": layout.Admin.MAINTENANCE}, 2),
        ({"EJECTED_UNTIL": 11}, 3),
    ],
)
def test_a_state_has_lasted_since_its_own_part_changed(plane: Plane, changes: dict[str, int], since: int) -> None:
    base = plane.state(Kind.SERVER, 0)
    for number, field in enumerate(("ACTIVE_SINCE", "ADMIN_SINCE", "EJECTED_SINCE"), 1):
        plane.cells[base + getattr(layout.ServerState, field)] = number
    for field, value in changes.items():
        plane.cells[base + getattr(layout.ServerState, field)] = value
    assert status.server_health(plane, 0, HealthTable(type="tcp"), now_ns=10)[1] == since


def test_a_server_that_nothing_ever_changed_is_up_since_the_start(plane: Plane) -> None:
    assert status.server_health(plane, 0, None, 10) == (Health.UP, plane.cells[layout.Header.CREATED])


def test_routes_show_their_latency(config: Config, plane: Plane) -> None:
    row = plane.allocate(Kind.ROUTE, "user")
    base = plane.counters(Kind.ROUTE, row, worker(plane, 1, 100))
    for power, count in ((10, 98), (20, 2)):
        plane.cells[base + layout.Route.LATENCY + power] = count
    plane.cells[base + layout.Route.LATENCY_SUM] = 100_000
    plane.cells[base + layout.Route.RESPONSES_2XX] = 100
    (route,) = status.document(config, plane)["routes"]
    assert (route["name"], route["responses_2xx"]) == ("user", 100)
    assert route["latency"] == {"mean": 0.001, "p50": 0.001024, "p99": 1.048576}


def test_quantiles_of_nothing_are_zero() -> None:
    assert status.latency_quantile([0] * 24, 0.99) == 0.0


def test_lease_pools_show_who_waits(config: Config, plane: Plane) -> None:
    row = plane.allocate(Kind.LEASEPOOL, "app/alice")
    column = worker(plane, 1, 100)
    plane.cells[plane.state(Kind.LEASEPOOL, row) + layout.LeasePoolState.LIMIT] = 20
    plane.cells[plane.counters(Kind.LEASEPOOL, row, column) + layout.LeasePool.OLDEST_TICKET] = 1_000_000_000
    (pool,) = status.document(config, plane)["lease_pools"]
    assert (pool["database"], pool["user"], pool["limit"]) == ("app", "alice", 20)
    assert pool["oldest_wait"] >= 0
    assert status.oldest_wait(plane, row, 3_500_000_000) == 2.5
    assert "oldest_ticket" not in pool


def test_nothing_secret_is_shown(plane: Plane) -> None:
    text = TEXT.replace(b'"tcp"', b'"postgres", user = "u", password = "hush"')
    config = load_bytes(text, "a.toml", Path("/etc"), {"edge": Table}, {})
    assert "hush" not in json.dumps(status.document(config, plane))


def test_a_listener_of_a_newer_file_than_the_plane_is_left_out(plane: Plane) -> None:
    text = TEXT + b'[edge.listeners.new]\nbind = "127.0.0.1:81"\n[pools.new]\nservers = ["1.2.3.4:5"]'
    config: Any = load_bytes(text, "a.toml", Path("/etc"), {"edge": Table}, {})
    document = status.document(config, plane)
    assert [listener["name"] for listener in document["listeners"]] == ["web"]
    assert [(pool["name"], pool["servers"]) for pool in document["pools"]] == [
        ("new", []),
        ("user", document["pools"][1]["servers"]),
    ]
    assert status.state(config, plane) == "starting"
