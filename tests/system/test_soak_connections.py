"""Connections of every kind, opened and killed at random points: nothing of them stays, in no process and no count."""

import os
import random
from collections.abc import Iterator

import attrs
import pytest

from supervisor.cli.demo.credentials import Issuer
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.killed import Killer
from tests.system.support.poll import until
from tests.system.support.processes import open_files, resident
from tests.system.support.site import Site, open_site

MIB = 1024 * 1024
WARM_UP = 0.2  # of the connections: caches fill, pools of the allocator find their size
# Caches and the arenas of the allocator find their size over tens of thousands of connections. In the long form a leak
# of 40 bytes a connection is more than this.
GROWTH = 3 * MIB


@pytest.fixture
def site(postgres: Cluster, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("connections")
    with open_site(folder, postgres, issuer, session_timeout="1s", server_idle_timeout="500ms") as opened:
        yield opened


STEADY = 10  # looks at open files without a lower number: prober and admin have some only for moments


@attrs.frozen
class Snapshot:
    """Every process of the daemon: its open files, its own memory in bytes."""

    files: dict[str, int]
    memory: dict[str, int]


def settle(site: Site) -> Snapshot:
    """Once everything has gone: idle connections to backends too, by starting those anew."""
    for name in ("user-1", "user-2"):
        site.backends[name].stop()
        site.backends[name].start()
    site.wait_quiet(30)
    processes = {process.title: process.pid for process in site.daemon.tree()}
    least: dict[str, int] = {}
    looks = [0]

    def steady() -> bool:
        looks[0] += 1
        for title, pid in processes.items():
            count = open_files(pid)
            if count < least.get(title, 1 << 30):
                least[title], looks[0] = count, 0
        return looks[0] > STEADY

    until(steady, "steady numbers of open files")
    return Snapshot(least, {title: resident(pid) for title, pid in processes.items()})


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("connections", [3000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_connections_killed_at_random_points_leave_everything_as_it_was(site: Site, connections: int) -> None:
    site.check()
    site.stop_service()
    killer = Killer(site, random.Random(os.environ.get("PORTWAY_SEED", "1")))
    killer.run(int(connections * WARM_UP))
    before = settle(site)
    killer.run(connections - int(connections * WARM_UP))
    after = settle(site)
    growth = {title: after.memory[title] - before.memory[title] for title in before.memory}
    print(f"\n{sum(killer.counts.values())} connections: {dict(killer.counts)}")
    for title, bytes_more in growth.items():
        print(f"{title.split('/tmp')[0]}: {before.memory[title] // 1024} KiB {bytes_more // 1024:+} KiB")
    assert after.files == before.files
    assert {title: more for title, more in growth.items() if more > GROWTH} == {}
    site.start_service()
    site.check()
    faults = [line for line in site.daemon.lines() if line["level"] in ("error", "critical")]
    assert not [line for line in faults if line["process"] != "prober"], "it missed the backends"
