"""Reloads under load: a good file loses nothing of what is under way, a bad one changes nothing and says what is wrong.

Two good files take turns; every part that a reload can swap differs between them: pools, servers, balancing, limits,
routes, keys, pool sizes, listeners. The load asks on fresh connections and on kept ones, and forgives nothing.
"""

import contextlib
import os
import random
import re
import signal
from collections.abc import Iterator

import attrs
import pytest

from supervisor.cli.demo.credentials import Issuer
from supervisor.cli.demo.ports import free_tcp_port
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.clients import connect, fetch
from tests.system.support.load import Load
from tests.system.support.poll import until
from tests.system.support.processes import open_files, resident
from tests.system.support.shared import taken
from tests.system.support.site import Site, open_site

EXTRA = """
[edge.listeners.second]
bind = "127.0.0.1:{second}"
protocol = "tcp"
pool = "ingest"

[gateway.listeners.second]
bind = "127.0.0.1:{third}"

[gateway.routes.second]
path = "/second/*"
pool = "user"

[pooler.databases.second]
primary = "pg_primary"
database = "app"
pool_size = 2
"""


@pytest.fixture(scope="module")
def site(postgres: Cluster, issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("reload")
    more = {"second": free_tcp_port(), "third": free_tcp_port()}
    with open_site(folder, postgres, issuer, ports=more) as opened:
        yield opened


def reload(site: Site, text: str) -> None:
    site.daemon.rewrite(text)
    answer = site.ask("reload")
    assert answer["ok"], answer
    assert answer["changed"], "this file differs from the one before"


def other(site: Site) -> str:
    """The other good file: one server less here, one more there, and what else can be swapped."""
    one = f'["{site.backends["user-2"].address}"]'
    games = f'["{site.backends["game-2"].address}", "{site.backends["game-1"].address}"]'
    text = site.text(
        user_servers=one, game_servers=games, user_balance="round_robin", user_rate="50000/s", pool_size=3,
        session_timeout="30s", server_idle_timeout="5m",
    )  # fmt: skip
    return text + EXTRA.format(**site.ports)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("times", [10, pytest.param(300, marks=pytest.mark.soak)])
def test_good_files_lose_nothing_under_load(site: Site, times: int) -> None:
    texts = [other(site), site.text()]
    workers = site.workers()
    generation = site.daemon.status()["portway"]["generation"]
    with Load(site) as load:
        load.progress(3)
        for turn in range(times):
            reload(site, texts[turn % 2])
            load.progress(1)
            if turn % 2 == 0:
                assert fetch(site.address("third"), "/second/x").status == 200, "what is new is there at once"
                with connect(site.address("second")) as sock:
                    sock.sendall(b"new")
                    assert sock.recv(3) == b"new"
                with site.sql(database="second") as connection:
                    assert connection.execute("SELECT 1").fetchone() == (1,)
        load.progress(3)
    load.whole()
    print(f"\n{times} reloads: done {load.done()}, slowest {load.slowest():.2f} s")
    assert site.workers() == workers, "nobody was forked anew"
    assert site.daemon.status()["portway"]["generation"] == generation + times
    with contextlib.suppress(ConnectionRefusedError), connect(site.address("second")):
        raise AssertionError("the listener that was removed still takes connections")
    site.check()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("times", [6, pytest.param(500, marks=pytest.mark.soak)])
def test_reloads_in_a_row_leave_nothing_over(site: Site, times: int) -> None:
    """No process, descriptor, memory, row, column, flow or lease, in any process; what a file no longer names goes."""
    texts = [other(site), site.text()]
    for text in texts * 2:  # so that what is made once is made
        reload(site, text)
        site.check()
    before = measured(site)
    for turn in range(times):
        reload(site, texts[turn % 2])
        if turn % 50 == 0:
            with site.sql(database="second" if turn % 2 == 0 else "app") as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
    site.check()
    if times > 100:
        until(lambda: "second/app" not in taken(site.daemon.pid)["leasepool"], "the rows of the other file to go", 60)
    until(lambda: alike(before, measured(site)), "everything to be as before", 20)
    after = measured(site)
    grown = [after[pid].memory - before[pid].memory for pid in before]
    print(f"\n{times} reloads: memory grew by {[round(size / 1024) for size in grown]} KiB")
    assert max(grown) < 4 * 1024 * 1024, grown  # what hangs in cycles goes when the collector comes


@attrs.frozen
class Measured:
    """One process."""

    title: str
    files: int
    memory: int  # bytes


def measured(site: Site) -> dict[int, Measured]:
    """Every process of the daemon."""
    return {one.pid: Measured(one.title, open_files(one.pid), resident(one.pid)) for one in site.daemon.tree()}


def alike(before: dict[int, Measured], now: dict[int, Measured]) -> bool:
    """The same processes with as many open files; connections to servers come and go."""
    if before.keys() != now.keys():
        return False
    return all(now[pid].title == one.title and now[pid].files <= one.files + 4 for pid, one in before.items())


BAD = {
    "an unknown key": (
        'balance = "least_connections"',
        'balence = "least_connections"',
        'pools.ingest.balence: unknown key; did you mean "balance"?',
    ),
    "a pool that there is not": (
        'primary = "pg_primary"',
        'primary = "pg_primery"',
        'pooler.databases.app.primary: unknown pool "pg_primery"; did you mean "pg_primary"?',
    ),
    "a limit that there is not": (
        'limits = ["few"]',
        'limits = ["fev"]',
        'gateway.routes.few.limits[0]: unknown limit "fev"; did you mean "few"?',
    ),
    "a wrong duration": ('session_timeout = "60s"', 'session_timeout = "60"', "edge.listeners.game.session_timeout: "),
    "no TOML": ("[pools.user]", "[pools.user", ""),
}  # fmt: skip


def refusals(site: Site) -> int:
    """Reloads that the log says were refused."""
    return sum("reload refused" in line["event"] for line in site.daemon.lines())


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_changes_nothing_and_names_key_line_and_suggestion(site: Site, what: str) -> None:
    good, bad, said = BAD[what]
    text = site.text()
    assert good in text
    wrong = text.replace(good, bad, 1)
    before = site.daemon.status()
    files = {pid: open_files(pid) for pids in site.workers().values() for pid in pids}
    with Load(site, pace=0.01) as load:
        load.progress(1)
        site.daemon.rewrite(wrong)
        done = site.daemon.command("reload")
        load.progress(1)
    load.whole()
    line = site.daemon.config.read_text().splitlines().index(next(one for one in wrong.splitlines() if bad in one)) + 1
    first = done.err.splitlines()[0]
    assert done.status == 2
    assert first.startswith(f"{site.daemon.config}:{line}: {said}"), first
    told = refusals(site)
    site.daemon.send(signal.SIGHUP)
    until(lambda: refusals(site) > told, "HUP to be refused too")
    after = site.daemon.status()
    assert after["portway"]["generation"] == before["portway"]["generation"]
    for part in ("pools", "listeners", "routes", "limits"):
        assert [one["name"] for one in after[part]] == [one["name"] for one in before[part]]
    assert {pid for pids in site.workers().values() for pid in pids} == set(files)
    site.daemon.rewrite(text)
    answer = site.ask("reload")
    assert (answer["ok"], answer["changed"]) == (True, [])


def test_all_errors_of_a_file_come_at_once(site: Site) -> None:
    text = site.text()
    wrong = text
    for good, bad, _ in list(BAD.values())[:4]:
        wrong = wrong.replace(good, bad, 1)
    site.daemon.rewrite(wrong)
    done = site.daemon.command("reload")
    told = [re.sub(r"^.*?:\d+: ", "", line) for line in done.err.splitlines()]
    for _, _, said in list(BAD.values())[:4]:
        assert any(line.startswith(said) for line in told), (said, told)
    site.daemon.rewrite(text)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("times", [6, pytest.param(100, marks=pytest.mark.soak)])
def test_reloads_and_kills_at_once_leave_workers_of_one_mind(site: Site, times: int) -> None:
    chance = random.Random(os.environ.get("PORTWAY_SEED", "1"))
    texts = [other(site), site.text()]
    with Load(site) as load:
        for turn in range(times):
            site.daemon.rewrite(texts[turn % 2])
            site.daemon.send(signal.SIGHUP)
            pids = [pid for pids in site.workers().values() for pid in pids]
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(pids), signal.SIGKILL)
            target = sum(load.done().values()) + chance.randint(0, 30)
            until(lambda target=target: sum(load.done().values()) >= target, "the load to go on", 30)
        site.daemon.rewrite(texts[1])
        until(lambda: site.ask("reload")["ok"], "a reload without a death", 30)
        until(site.settled, "two workers of each tier", 30)
        load.progress(3, 30)
    assert not load.wrong(), load.wrong()
    status = site.daemon.status()
    assert {process["generation"] for process in status["processes"]} == {status["portway"]["generation"]}
    site.check()
