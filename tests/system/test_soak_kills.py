"""Workers of all tiers killed at random moments under load: what they held comes back, and nothing is wedged.

What a killed worker had in its hands is lost, and no more than that. Every answer that arrives is right, every limit
stays exact, and afterwards no lease, no count and no descriptor is left of the dead.
"""

import contextlib
import os
import random
import signal
from collections.abc import Iterator

import pytest

from supervisor.cli.demo.credentials import Issuer
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.bursts import statuses
from tests.system.support.clients import connect
from tests.system.support.load import Load
from tests.system.support.poll import Late, until
from tests.system.support.processes import open_files
from tests.system.support.site import BURST, POOL_SIZE, TIERS, WORKERS, Site, open_site

SEED = os.environ.get("PORTWAY_SEED", "1")


@pytest.fixture(scope="module")
def site(postgres: Cluster, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("kills")
    with open_site(folder, postgres, issuer, session_timeout="2s", server_idle_timeout="1s") as opened:
        yield opened


def kill_one(site: Site, chance: random.Random) -> None:
    """Any worker of any tier."""
    pids = site.workers()[chance.choice(TIERS)]
    if pids:
        try:
            os.kill(chance.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            pass


def deaths(site: Site) -> list[str]:
    """What processes died of, as the log says."""
    return [line["cause"] for line in site.daemon.lines() if line["event"] == "process died"]


def quiet(site: Site) -> None:
    """Once everybody has gone, nothing is left in flight, leased or waiting."""
    site.stop_service()
    site.wait_quiet()
    site.start_service()


@pytest.mark.timeout(400)
@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.soak)])
def test_kills_under_load_wedge_no_limit_no_lease_and_no_daemon(site: Site, kills: int) -> None:
    chance = random.Random(SEED)
    supervisor, before = open_files(site.daemon.pid), len(deaths(site))
    with Load(site) as load:
        load.progress(5)
        for turn in range(kills):
            kill_one(site, chance)
            target = sum(load.done().values()) + chance.randint(0, 60)
            until(lambda target=target: sum(load.done().values()) >= target, "the load to go on", 30)
            if turn % 20 == 19:
                assert statuses(site, f"during-{turn}", 3 * BURST).get(200, 0) <= BURST
        until(site.settled, "two workers of each tier", 30)
        load.progress(5, 30)
    assert not load.wrong(), load.wrong()
    assert not [loss for loss in load.losses() if "Unserved" in loss], "no backend was away"
    print(f"\n{kills} kills: done {load.done()}, lost {load.lost()}, slowest {load.slowest():.2f} s")

    site.check()
    for user in ("dave", "erin"):
        assert statuses(site, user, 3 * BURST) == {200: BURST, 429: 2 * BURST}
    (leases,) = [one for one in site.daemon.status()["lease_pools"] if (one["database"], one["user"]) == ("app", "app")]
    assert leases["open"] <= leases["limit"] == POOL_SIZE
    quiet(site)
    count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND backend_type = 'client backend'"
    assert site.postgres.execute(count) == [(0,)], "leases and PostgreSQL agree"
    assert {tier: len(pids) for tier, pids in site.workers().items()} == dict.fromkeys(TIERS, WORKERS)
    assert open_files(site.daemon.pid) == supervisor
    causes = deaths(site)[before:]
    assert 0 < len(causes) <= kills
    assert set(causes) == {"signal 9 (SIGKILL)"}


def test_all_workers_of_all_tiers_killed_at_once_are_back_at_once(site: Site) -> None:
    with Load(site) as load:
        for _ in range(2):
            load.progress(3)
            for pids in site.workers().values():
                for pid in pids:
                    os.kill(pid, signal.SIGKILL)
            until(site.settled, "two workers of each tier", 20)
            load.progress(3)
    assert not load.wrong(), load.wrong()
    site.check()
    quiet(site)


def test_workers_that_are_stopped_for_a_while_lose_nothing(site: Site) -> None:
    chance = random.Random(SEED)
    with Load(site) as load:
        for _ in range(6):
            load.progress(2)
            stopped = chance.choice(site.workers()[chance.choice(TIERS)])
            os.kill(stopped, signal.SIGSTOP)  # it may hold any lock: who wants it gives up after 50 ms
            target = sum(load.done().values()) + 20
            try:
                with contextlib.suppress(Late):  # everybody may have been on that one
                    until(lambda target=target: sum(load.done().values()) >= target, "the others to go on", 0.5)
            finally:
                os.kill(stopped, signal.SIGCONT)
        load.progress(2)
    load.whole()
    site.check()


def test_connections_that_queue_at_a_stopped_worker_are_all_served(site: Site) -> None:
    """Its accept queue fills, and its share of new connections waits; not one of them is refused or forgotten."""
    stopped = site.workers()["edge"][0]
    with contextlib.ExitStack() as stack:
        os.kill(stopped, signal.SIGSTOP)
        try:
            waiting = [stack.enter_context(connect(site.address("rtmp"))) for _ in range(1000)]
            for number, sock in enumerate(waiting):
                sock.sendall(b"%04d" % number)
        finally:
            os.kill(stopped, signal.SIGCONT)
        assert [sock.recv(4) for sock in waiting] == [b"%04d" % number for number in range(1000)]
    quiet(site)


def test_backends_that_die_cost_what_they_had_in_their_hands(site: Site) -> None:
    """One of each pair is killed and comes back: the other serves meanwhile, and nobody is told more than once."""
    pairs = [("user-1", "ingest-1", "game-1"), ("user-2", "ingest-2", "game-2")]
    with Load(site) as load:
        for victims in pairs:
            load.progress(3)
            for name in victims:
                site.backends[name].stop()
            load.progress(5)
            lost = load.lost()
            load.progress(5)
            assert load.lost() == lost, f"once they are gone, nothing more is lost: {load.losses()}"
            for name in victims:
                site.backends[name].start()
            until(lambda: not site.down(), "all servers to be up again")
    assert not load.wrong(), load.wrong()
    assert all(count <= 4 for count in load.lost().values()), load.losses()


def test_server_connections_that_are_cut_cost_their_transactions(site: Site) -> None:
    query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename IN ('app', 'legacy')"
    with Load(site) as load:
        for _ in range(3):
            load.progress(3)
            site.postgres.execute(query)
        load.progress(3)
    assert not load.wrong(), load.wrong()
    lost = load.lost()
    assert lost.pop("sql") <= 5
    assert lost.pop("logins") <= 10
    assert not any(lost.values()), load.losses()
    site.check()
    quiet(site)
