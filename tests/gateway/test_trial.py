"""A worker's decisions without a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import GatewayTable
from gateway.trial import trial
from supervisor.cli.tables import TABLES
from supervisor.ground.config import load_bytes

CONFIG = """[pools.web]
servers = ["127.0.0.1:1", "127.0.0.1:2", { address = "127.0.0.1:3", backup = true }]
health = { type = "tcp", initial = "down" }
[pools.named]
servers = ["server.example:1"]
[gateway.listeners.web]
bind = "127.0.0.1:80"
[gateway.routes.web]
pool = "web"
[gateway.routes.named]
path = "/named"
pool = "named"
"""


@pytest.mark.parametrize(("states", "expected"), [
    ({}, {"1", "2"}), ({"1": "down"}, {"2"}), ({"1": "ejected", "2": "draining"}, {"3"}),
    ({"1": "maintenance", "2": "unresolved", "3": "down"}, {"2", "3"}),
])  # fmt: skip
def test_pools_pick_among_the_servers_as_they_are(states: dict[str, str], expected: set[str]) -> None:
    config = load_bytes(CONFIG.encode(), "t.toml", Path("/"), {"gateway": GatewayTable})
    with trial(config, {f"web/127.0.0.1:{port}": state for port, state in states.items()}) as (made, _):
        picked = {made.routes["web"].pool.pick("192.0.2.1") for _ in range(9)}
        assert {server.name.rpartition(":")[2] for server in picked if server is not None} == expected
        assert made.routes["named"].pool.pick("192.0.2.1") is not None


def test_a_route_that_looks_at_a_database_finds_its_row(tmp_path: Path) -> None:
    text = CONFIG.replace('path = "/named"', 'path = "/named"\nsheds_on = "pooler.databases.app"') + (
        '[pooler.listeners.sql]\nbind = "127.0.0.1:6432"\n[pooler.databases.app]\nprimary = "web"\n'
        '[pooler.auth]\nusers = "users.txt"\n'
    )
    (tmp_path / "users.txt").write_text('"app" "secret"\n')
    with trial(load_bytes(text.encode(), "t.toml", tmp_path, TABLES), {}) as (made, _):
        assert made.routes["named"].sheds_on
