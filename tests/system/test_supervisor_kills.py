"""Children killed at random moments under load through every tier: nothing is wedged, and all counts are exact."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest

from supervisor.cli.demo.postgres import Cluster
from tests.system.conftest import PASSWORD, BackendMaker
from tests.system.support.clients import fetch
from tests.system.support.daemon import Daemon
from tests.system.support.poll import until
from tests.system.support.shared import taken

LONG = bool(os.environ.get("PORTWAY_LONG"))
POOL_SIZE = 4
BURST = 20


@attrs.define(eq=False)
class Site:
    daemon: Daemon
    edge: str
    sql: int
    cluster: Cluster
    over: threading.Event = attrs.Factory(threading.Event)
    done: Counter[str] = attrs.Factory(Counter)

    def browse(self) -> None:
        while not self.over.is_set():
            try:
                self.done[f"http {fetch(self.edge, '/').status}"] += 1
            except (OSError, http.client.HTTPException) as error:
                self.done[f"http {type(error).__name__}"] += 1

    def query(self) -> None:
        while not self.over.is_set():
            try:
                with self.connect() as connection:
                    while not self.over.is_set():
                        with connection.transaction():
                            connection.execute("SELECT pg_sleep(0.002)")
                        self.done["sql"] += 1
            except psycopg.Error as error:
                self.done[f"sql {type(error).__name__}"] += 1

    def connect(self) -> psycopg.Connection[Any]:
        where = f"host=127.0.0.1 port={self.sql} user=app password={PASSWORD} dbname=app connect_timeout=10"
        return psycopg.connect(where, prepare_threshold=None, autocommit=True)

    def whole(self) -> bool:
        """Every role has its process, ready, and every listener is polled by two."""
        status = self.daemon.status()
        states = Counter((process["tier"], process["state"]) for process in status["processes"])
        tiers = {(tier, "ready"): 2 for tier in ("edge", "gateway", "pooler")}
        rest = {(name, "ready"): 1 for name in ("supervisor", "prober", "admin")}
        return states == tiers | rest and all(len(listener["slots"]) == 2 for listener in status["listeners"])


@pytest.fixture
def site(
    daemon: Callable[..., Daemon],
    http_backend: BackendMaker,
    postgres: Cluster,
    free_tcp_port: Callable[[], int],
    tmp_path: Path,
) -> Site:
    edge, gateway, sql = free_tcp_port(), free_tcp_port(), free_tcp_port()
    (tmp_path / "users.txt").write_text(f'"app" "{PASSWORD}"\n')
    web = json.dumps([http_backend(name).address for name in "ab"])
    running = daemon(f"""
[supervisor]
workers = 2
drain_timeout = "2s"
[pools.gateway]
servers = ["127.0.0.1:{gateway}"]
[pools.web]
servers = {web}
health = {{ type = "http", path = "/healthz", interval = "500ms" }}
[pools.pg]
servers = ["{postgres.address}"]
[edge.listeners.web]
bind = "127.0.0.1:{edge}"
pool = "gateway"
[gateway.listeners.web]
bind = "127.0.0.1:{gateway}"
[gateway.limits.few]
key = "header:X-Key"
rate = "1/m"
burst = {BURST}
[gateway.routes.all]
path = "/*"
pool = "web"
[gateway.routes.few]
path = "/few/*"
pool = "web"
limits = ["few"]
[pooler.listeners.main]
bind = "127.0.0.1:{sql}"
[pooler.databases.app]
primary = "pg"
pool_size = {POOL_SIZE}
[pooler.auth]
users = "users.txt"
""")
    return Site(running, f"127.0.0.1:{edge}", sql, postgres)


@pytest.fixture
def load(site: Site) -> Iterator[list[threading.Thread]]:
    threads = [threading.Thread(target=work) for work in (site.browse, site.browse, *[site.query] * 8)]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        site.over.set()
        for thread in threads:
            thread.join()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [10, pytest.param(1000, marks=pytest.mark.soak)])
def test_after_random_kills_nothing_is_wedged_and_every_count_is_exact(
    site: Site, load: list[threading.Thread], kills: int
) -> None:
    if kills > 10 and not LONG:
        pytest.skip("the long form, by make soak")
    chance = random.Random(os.environ.get("PORTWAY_SEED", "7"))
    until(lambda: site.done["sql"] > 50 and site.done["http 200"] > 20, "the load", 30)
    columns, began = taken(site.daemon.pid)["columns"], time.monotonic()
    for _ in range(kills):
        children = [process.pid for process in site.daemon.tree() if process.parent == site.daemon.pid]
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(children), signal.SIGKILL)
        # A random moment: what a process is at when it dies is the point of this.
        moment = time.monotonic() + chance.random() * 0.3
        until(lambda moment=moment: time.monotonic() >= moment, "the next moment")
    until(site.whole, "all processes", 30)
    before = site.done.copy()
    until(lambda: (site.done - before)["sql"] > 50 and (site.done - before)["http 200"] > 20, "the load to go on", 30)
    site.over.set()
    for thread in load:
        thread.join()

    print(f"\n{kills} kills in {time.monotonic() - began:.0f} s: {dict(site.done)}")
    assert site.done["http ConnectionRefusedError"] == 0, site.done
    assert taken(site.daemon.pid)["columns"] == columns
    assert admitted(site) == BURST
    until(lambda: not under_way(site.daemon.status()), "all counts to come to rest", 20)
    assert servers(site) == taken(site.daemon.pid)["leases"] <= POOL_SIZE
    hold_all(site)


def admitted(site: Site) -> int:
    """Of three times as many as the limit admits at once, over both workers."""
    statuses: Counter[int] = Counter()
    threads = [threading.Thread(target=lambda: statuses.update([few(site)])) for _ in range(3 * BURST)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses.keys() <= {200, 429}, statuses
    return statuses[200]


def few(site: Site) -> int:
    return fetch(site.edge, "/few/x", headers={"X-Key": "fresh"}).status


def under_way(status: Any) -> dict[str, int]:
    """What is counted although nobody is connected any more."""
    leases = status["lease_pools"]
    counts = {
        f"in flight to {pool['name']}/{server['address']}": server["in_flight"]
        for pool in status["pools"]
        for server in pool["servers"]
    }
    # A connection of the pooler's is in flight for as long as it is open.
    pg = next(name for name in counts if name.startswith("in flight to pg/"))
    counts[pg] -= sum(pool["open"] for pool in leases)
    counts |= {f"active on {one['tier']}/{one['name']}": one["active"] for one in status["listeners"]}
    counts |= {f"{name} in the pool": sum(pool[name] for pool in leases) for name in ("busy", "waiting", "clients")}
    counts["open beside the idle"] = sum(pool["open"] - pool["idle"] for pool in leases)
    return {name: count for name, count in counts.items() if count}


def servers(site: Site) -> int:
    """Connections that PostgreSQL has from the pooler."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'app' AND usename = 'app'"
    return int(site.cluster.execute(count)[0][0])


def hold_all(site: Site) -> None:
    """Each of the pool's connections can still be had: as many transactions at once as it has room for."""
    with contextlib.ExitStack() as stack:
        for _ in range(POOL_SIZE):
            connection = stack.enter_context(contextlib.closing(site.connect()))
            stack.enter_context(connection.transaction())
            connection.execute("SELECT 1")
        assert servers(site) == POOL_SIZE
