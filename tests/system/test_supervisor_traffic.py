"""A bad file, more and fewer workers, and the end, while traffic runs through edge and gateway.

`test_trust` has what must lose nothing at all."""

from __future__ import annotations

import http.client
import json
import signal
import threading
from collections.abc import Callable, Iterator

import attrs
import pytest

from tests.system.conftest import BackendMaker
from tests.system.support.clients import Client, fetch
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

    def text(more: str = "") -> str:
        return f"""
[supervisor]
workers = 2
drain_timeout = "5s"
[pools.gateway]
servers = ["127.0.0.1:{gateway}"]
[pools.web]
servers = {json.dumps(web)}
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


def test_scaling_hands_flows_over_and_loses_no_datagram(site: Site) -> None:
    """The sockets themselves go from worker to worker: what is under way to them meanwhile waits in them."""
    with flowing(site.udp, FLOWS) as flows:
        for number, count in ((signal.SIGTTIN, 3), (signal.SIGTTIN, 4), (signal.SIGTTOU, 3), (signal.SIGTTOU, 2)):
            site.daemon.send(number)
            until(lambda count=count: len(owners(site)) == count == len(site.daemon.pids("edge")), f"{count} workers")
            flows.more(10)
    assert flows.moved() == []
    assert flows.lost() == []


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


def test_the_end_under_load_finishes_every_request(site: Site, load: Load) -> None:
    site.daemon.send(signal.SIGTERM)
    until(lambda: site.daemon.process.poll() is not None, "the end", 20)
    load.over.set()
    assert {failure for failure in load.failures if failure.startswith("status")} == set()
