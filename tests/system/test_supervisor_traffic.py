"""What an operator does to the daemon, and what happens to it, while traffic runs through edge and gateway."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import attrs
import pytest

from tests.system.conftest import BackendMaker
from tests.system.support.clients import Client, UdpClient, fetch
from tests.system.support.daemon import Daemon
from tests.system.support.flows import flowing
from tests.system.support.poll import until

FLOWS = 16
LOST = (OSError, http.client.HTTPException)  # what a worker's death may do to a connection that it held


@attrs.define(eq=False)
class Site:
    """The daemon with its backends, and the ways in."""

    daemon: Daemon
    edge: str
    udp: str
    text: Callable[..., str]

    def reload(self, **changes: Any) -> None:
        self.daemon.rewrite(self.text(**changes))
        done = self.daemon.command("reload")
        assert done.status == 0, done.err


@pytest.fixture
def site(
    daemon: Callable[..., Daemon],
    http_backend: BackendMaker,
    udp_backend: BackendMaker,
    free_tcp_port: Callable[[], int],
    free_udp_port: Callable[[], int],
) -> Site:
    edge, gateway, game = free_tcp_port(), free_tcp_port(), free_udp_port()
    web = [http_backend(name).address for name in "abc"]
    games = [udp_backend(name).address for name in "xy"]

    def text(servers: list[str] = web, workers: int = 2, more: str = "", drain: str = "5s") -> str:
        return f"""
[supervisor]
workers = {workers}
drain_timeout = "{drain}"
[pools.gateway]
servers = ["127.0.0.1:{gateway}"]
[pools.web]
servers = {json.dumps(servers)}
[pools.game]
balance = "source_hash"
servers = {json.dumps(games)}
[edge.listeners.web]
bind = "127.0.0.1:{edge}"
pool = "gateway"
[edge.listeners.game]
bind = "127.0.0.1:{game}"
protocol = "udp"
pool = "game"
[gateway.listeners.web]
bind = "127.0.0.1:{gateway}"
[gateway.routes.all]
path = "/*"
pool = "web"
{more}
"""

    return Site(daemon(text()), f"127.0.0.1:{edge}", f"127.0.0.1:{game}", text)


@attrs.define(eq=False)
class Load:
    """Clients at work: kept connections, and fresh ones for every request."""

    address: str
    served: int = 0
    refused: int = 0
    failures: list[str] = attrs.Factory(list)
    over: threading.Event = attrs.Factory(threading.Event)

    def kept(self) -> None:
        while not self.over.is_set():
            try:
                with Client(self.address) as client:
                    # As every client must: until the gateway says that this connection ends (a worker drains).
                    while not self.over.is_set():
                        answer = client.get("/kept")
                        self.count(answer.status)
                        if answer.headers.get("connection") == "close":
                            break
            except LOST as error:
                self.fail(error)

    def fresh(self) -> None:
        while not self.over.is_set():
            try:
                self.count(fetch(self.address, "/fresh").status)
            except LOST as error:
                self.fail(error)

    def count(self, status: int) -> None:
        self.served += 1
        if status != 200:
            self.failures.append(f"status {status}")

    def fail(self, error: Exception) -> None:
        if isinstance(error, ConnectionRefusedError):
            self.refused += 1
        self.failures.append(repr(error))

    def more(self, count: int = 50) -> None:
        """Wait for so many further requests."""
        target = self.served + count
        until(lambda: self.served >= target, f"{count} more requests", 30)


@pytest.fixture
def load(site: Site) -> Iterator[Load]:
    load = Load(site.edge)
    threads = [threading.Thread(target=work) for work in (load.kept, load.kept, load.fresh)]
    for thread in threads:
        thread.start()
    load.more()
    yield load
    load.over.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def flows(site: Site) -> Iterator[list[UdpClient]]:
    with ExitStack() as stack:
        yield [stack.enter_context(UdpClient(site.udp)) for _ in range(FLOWS)]


def peers(flows: list[UdpClient]) -> list[tuple[str, str]]:
    """For each flow: which server has it, and from which address it comes there."""
    answers = [flow.ask(b"who?") for flow in flows]
    return [(answer["server"], str(answer["source"])) for answer in answers]


def test_reloads_and_scaling_lose_no_request_and_move_no_flow(site: Site, load: Load, flows: list[UdpClient]) -> None:
    before = peers(flows)
    pids = site.daemon.pids("gateway") + site.daemon.pids("edge")
    web = json.loads(site.text().partition("[pools.web]\nservers = ")[2].partition("\n")[0])
    for turn in range(6):
        site.reload(servers=web[turn % 3 :], more=f'[gateway.routes.r{turn}]\npath = "/r{turn}"\npool = "web"\n')
        load.more()
        assert peers(flows) == before
    assert site.daemon.pids("gateway") + site.daemon.pids("edge") == pids
    for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTOU, 2)):
        site.daemon.send(number)
        until(lambda count=count: len(site.daemon.pids("gateway")) == count, f"{count} workers")
        load.more()
        assert peers(flows) == before
    assert load.failures == []


def test_scaling_hands_flows_over_and_loses_no_datagram(site: Site) -> None:
    """The sockets themselves go from worker to worker: what is under way to them meanwhile waits in them."""
    with flowing(site.udp, FLOWS) as flows:
        for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTIN, 4), (signal.SIGTTOU, 3), (signal.SIGTTOU, 2)):
            site.daemon.send(number)
            until(lambda count=count: len(owners(site)) == count == len(site.daemon.pids("edge")), f"{count} workers")
            flows.more(10)
    assert flows.moved() == []
    assert flows.lost() == []


def test_upgrades_and_scaling_lose_no_request_and_no_datagram(site: Site, load: Load) -> None:
    # The edge can't ask a client to come back: one that never pauses is cut when the time of a drain is over.
    site.reload(drain="25s")
    workers = site.daemon.pids("gateway") + site.daemon.pids("edge")
    with flowing(site.udp, FLOWS) as flows:

        def scale(number: signal.Signals, count: int) -> None:
            site.daemon.send(number)
            until(lambda: len(owners(site)) == count, f"{count} workers")

        for turn in (1, 2):
            done = site.daemon.command("upgrade")
            assert (done.status, done.out) == (0, ""), done.err
            load.more()
            flows.more(10)
            if turn == 1:
                scale(signal.SIGTTIN, 3)
                load.more()
                scale(signal.SIGTTOU, 2)
                load.more()
        until(lambda: len(site.daemon.pids("gateway")) == 2, "the old ones to end")
    assert load.failures == [], [line for line in site.daemon.lines() if line["event"] == "drain timeout"]
    assert flows.moved() == []
    assert flows.lost() == []
    until(lambda: not set(workers) & {process.pid for process in site.daemon.tree()}, "the first ones to end")
    assert site.daemon.status()["portway"]["pid"] == site.daemon.pid


def test_an_upgrade_lets_a_long_download_come_to_its_end(site: Site) -> None:
    """Of ten seconds; the old workers have `drain_timeout` for it."""
    site.reload(drain="20s")
    size = 400_000
    with Client(site.edge) as client:
        client.connection.request("GET", f"/?size={size}&pause=3.4")
        answer = client.connection.getresponse()
        received = answer.read(1000)
        old = set(site.daemon.pids("gateway"))
        done = site.daemon.command("upgrade")
        assert done.status == 0, done.err
        assert set(site.daemon.pids("gateway")) & old, "the one that sends it"
        received += answer.read()
    assert received == (b"0123456789abcdef" * size)[:size]
    until(lambda: not set(site.daemon.pids("gateway")) & old, "the old ones to end")


def owners(site: Site) -> dict[str, int]:
    """Which workers poll the UDP listener, and how many of its slots."""
    listeners = site.daemon.status()["listeners"]
    found: dict[str, int] = next(listener["slots"] for listener in listeners if listener["name"] == "game")
    return found


def test_a_bad_file_under_load_changes_nothing(site: Site, load: Load) -> None:
    generation = site.daemon.status()["portway"]["generation"]
    site.daemon.rewrite(site.text(more='[gateway.routes.bad]\npath = "/bad"\npol = "web"\n'))
    done = site.daemon.command("reload")
    assert done.status == 2
    line = site.daemon.config.read_text().splitlines().index('pol = "web"') + 1
    assert f'portway.toml:{line}: gateway.routes.bad.pol: unknown key; did you mean "pool"?' in done.err
    load.more()
    assert site.daemon.status()["portway"]["generation"] == generation
    assert load.failures == []


def test_killed_workers_cost_only_what_they_held(site: Site, load: Load, flows: list[UdpClient]) -> None:
    before = peers(flows)
    for tier in ("edge", "gateway"):
        for pid in site.daemon.pids(tier):
            os.kill(pid, signal.SIGKILL)
            until(
                lambda pid=pid, tier=tier: pid not in (now := site.daemon.pids(tier)) and len(now) == 2, "its successor"
            )
            load.more()
            assert peers(flows) == before
    assert load.refused == 0
    # Three clients, four deaths: each can have lost the one request that it had under way, and no more.
    assert len(load.failures) <= 12, load.failures
    died = [line for line in site.daemon.lines() if line["event"] == "process died"]
    assert [line["cause"] for line in died] == ["signal 9 (SIGKILL)"] * 4
    site.daemon.stop()


def test_the_end_under_load_finishes_every_request(site: Site, load: Load) -> None:
    site.daemon.send(signal.SIGTERM)
    until(lambda: site.daemon.process.poll() is not None, "the end", 20)
    load.over.set()
    assert {failure for failure in load.failures if failure.startswith("status")} == set()
