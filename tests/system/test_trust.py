"""What operators do to the daemon under load, over the whole path: TLS and UDP clients, edge, gateway, pooler.

Fresh and kept connections, HTTP/2, a download, an upgraded connection, an open transaction and 32 UDP flows go through
reloads of routes, pools and certificates, upgrades, and more and fewer workers. The short form takes seconds; the long
one, by `make soak`, a minute.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import pytest

from supervisor.cli.demo.credentials import Certificate, Issuer, write_certificate
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.backends import Backend
from tests.system.support.clients import Client, connect, read_until, trusting
from tests.system.support.flows import flowing
from tests.system.support.http2 import Http2Client
from tests.system.support.load import Again, Kind, Load, Step, fresh_requests, kept_requests
from tests.system.support.poll import until
from tests.system.support.site import Site, open_site

FLOWS, RELOADS = 32, 12
MORE = """
[pools.chat]
servers = ["{chat}"]

[pools.stream]
servers = ["{stream}"]

[gateway.routes.chat]
path = "/chat"
pool = "chat"

[gateway.routes.stream]
path = "/stream"
pool = "stream"
timeout = "90s"
"""
ROUTE = """
[gateway.routes.turn{turn}]
path = "/turn/{turn}"
pool = "user"
"""


@attrs.define(eq=False)
class Stream:
    """A server with one answer: numbered lines, one every 20 ms, until the test says that it is enough."""

    listener: socket.socket
    enough: threading.Event = attrs.Factory(threading.Event)
    sent: int = 0

    def serve(self) -> None:
        with self.listener.accept()[0] as sock:
            read_until(sock, b"\r\n\r\n")
            sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while not self.enough.wait(0.02):
                self.sent += 1
                sock.sendall(b"9\r\n%08d\n\r\n" % self.sent)
            sock.sendall(b"0\r\n\r\n")


@pytest.fixture(scope="module")
def stream() -> Iterator[Stream]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Stream(listener)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Certificate]:
    """Certificates to take turns with."""
    return [write_certificate(tmp_path_factory.mktemp("pair")) for _ in range(3)]


@pytest.fixture(scope="module")
def site(
    postgres: Cluster,
    issuer: Issuer,
    pairs: list[Certificate],
    stream: Stream,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("trust")
    chat = Backend("tcp", "chat", 0, ("upgrade",)).start()
    drain = "75s" if LONG else "12s"
    try:
        more = MORE.format(chat=chat.address, stream=f"127.0.0.1:{stream.listener.getsockname()[1]}")
        with open_site(folder, postgres, issuer, more, drain_timeout=drain) as opened:
            for pair in pairs:
                opened.tls.load_verify_locations(pair.authority)
            yield opened
            opened.stop_service()  # it would keep its connections until the end of the drain
    finally:
        chat.stop()


LONG = bool(os.environ.get("PORTWAY_LONG"))
FORMS = pytest.mark.parametrize("seconds", [6, pytest.param(60, marks=pytest.mark.soak)])


@contextmanager
def http2_requests(site: Site) -> Iterator[Step]:
    """HTTP/2 on a connection that is kept until the gateway says GOAWAY."""
    context = trusting(None)
    context.set_alpn_protocols(["h2"])
    client = Http2Client(site.address("https"), context)
    try:

        def step(number: int) -> None:
            answer = client.get(f"/api/user/{number}", site.bearer("http2"))
            if answer is None:  # not taken: RFC 9113 §8.7 lets it be asked for again, elsewhere
                raise Again
            assert answer[0] == 200, answer
            if client.going:
                raise Again

        yield step
    finally:
        client.close()


KINDS: Mapping[str, Kind] = {"kept": kept_requests, "fresh": fresh_requests, "http2": http2_requests}


def reload(site: Site, text: str) -> list[str]:
    """What has changed."""
    site.daemon.rewrite(text)
    answer = site.ask("reload")
    assert answer["ok"], answer
    changed: list[str] = answer["changed"]
    return changed


def renew(site: Site, pair: Certificate) -> None:
    """Another certificate under the same name."""
    shutil.copy(pair.cert, site.folder / "cert.pem")
    shutil.copy(pair.key, site.folder / "cert-key.pem")


def renewals(site: Site) -> float:
    """How many pairs the daemon has noticed by itself."""
    return site.daemon.metric("portway_tier_certificates_renewed_total")


def upgrade(site: Site) -> None:
    done = site.daemon.command("upgrade")
    assert done.status == 0, done.err


def scale(site: Site, number: signal.Signals, count: int) -> None:
    site.daemon.send(number)

    def polled() -> bool:
        return all(len(listener["slots"]) == count for listener in site.daemon.status()["listeners"])

    until(polled, f"{count} workers of each tier to poll", 30)


@FORMS
@pytest.mark.timeout(300)
def test_reloads_upgrades_and_scaling_lose_no_request_and_move_no_flow(
    site: Site, pairs: list[Certificate], seconds: int
) -> None:
    rounds = 1 if seconds < 60 else 5
    with Load(site, KINDS, pace=0.005) as load, flowing(site.address("game"), FLOWS) as flows:
        load.progress(5)
        for begin in range(0, RELOADS * rounds, RELOADS):
            for turn in range(begin, begin + RELOADS):
                noticed = renewals(site)
                if turn % 3 == 0:
                    renew(site, pairs[turn // 3 % len(pairs)])
                changed = reload(site, another(site, turn))
                # The daemon looks at the files by itself, too, and may have come first.
                taken = any("certificates" in key for key in changed) or renewals(site) > noticed
                assert taken == (turn % 3 == 0), changed
                assert any(key.startswith("gateway.routes") for key in changed)
                assert any(key.startswith("pools") for key in changed)
                load.progress(2)
            upgrade(site)
            load.progress(3)
            scale(site, signal.SIGTTIN, 3)
            load.progress(3)
            scale(site, signal.SIGTTOU, 2)
            load.progress(3)
            upgrade(site)
            load.progress(3)
            flows.more()
    load.whole()
    print(f"\n{RELOADS * rounds} reloads, {2 * rounds} upgrades: {load.done()}, slowest {load.slowest():.2f} s")
    assert (flows.moved(), flows.lost()) == ([], [])


def another(site: Site, turn: int) -> str:
    """The file of this turn: other routes than the one before, and other servers of a pool."""
    servers = [site.backends[name].address for name in ("user-1", "user-2")]
    kept = [servers[:1], servers, servers[::-1]][turn % 3]
    return site.text(user_servers=str(kept).replace("'", '"')) + ROUTE.format(turn=turn)


@FORMS
@pytest.mark.timeout(300)
def test_what_is_under_way_lives_through_reloads_and_finishes_through_an_upgrade(
    site: Site, stream: Stream, pairs: list[Certificate], seconds: int
) -> None:
    """A download, an upgraded connection and a transaction."""
    body: list[bytes] = []

    def download() -> None:
        with Client(site.address("https"), site.tls, timeout=2.0 * seconds) as client:
            body.append(client.get("/stream").body)

    threads = [threading.Thread(target=work) for work in (stream.serve, download)]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    with connect(site.address("https")) as sock, site.tls.wrap_socket(sock, server_hostname="localhost") as tls:
        tls.settimeout(2.0 * seconds)
        tls.sendall(b"GET /chat HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert read_until(tls, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        with site.sql() as connection:
            with connection.transaction():
                connection.execute("CREATE TABLE IF NOT EXISTS trust (turn int); TRUNCATE trust")
            with connection.transaction():
                for turn in range(3):
                    connection.execute("INSERT INTO trust VALUES (%s)", (turn,))
                    renew(site, pairs[turn])
                    assert reload(site, another(site, turn))
                    assert echo(tls, turn)
                old = set(site.daemon.pids("gateway") + site.daemon.pids("pooler"))
                upgrade(site)
                assert old & set(site.daemon.pids("pooler")), "the one with the transaction"
                connection.execute("INSERT INTO trust VALUES (3)")
            assert rows(site) == [0, 1, 2, 3], "committed through the worker from before the upgrade"
        farewell = read_until(tls, b"\x88\x02\x03\xe9")
        assert farewell == b"\x88\x02\x03\xe9", "told to go elsewhere (1001), between two frames"
        tls.sendall(b"\x88\x82\0\0\0\0\x03\xe9")
        tls.unwrap().close()
    stream.enough.wait(began + seconds - time.monotonic())
    stream.enough.set()
    for thread in threads:
        thread.join()
    assert body == [b"".join(b"%08d\n" % number for number in range(1, stream.sent + 1))]
    print(f"\n{time.monotonic() - began:.0f} s of download through 3 reloads and an upgrade: {stream.sent} pieces")
    until(lambda: not old & pids(site), "the old ones to end", 2.0 * seconds)


def pids(site: Site) -> set[int]:
    return {process.pid for process in site.daemon.tree()}


def echo(tls: ssl.SSLSocket, turn: int) -> bool:
    frame = b"\x82\x04%04d" % turn
    tls.sendall(frame)
    return read_until(tls, frame) == frame


def rows(site: Site) -> list[Any]:
    with site.sql() as other:
        return [row[0] for row in other.execute("SELECT turn FROM trust ORDER BY turn")]


def test_each_worker_killed_costs_what_it_held_and_no_flow_moves(site: Site) -> None:
    until(site.settled, "earlier drains to end", 30)
    victims = [pid for tier in ("edge", "gateway") for pid in site.daemon.pids(tier)]
    random.shuffle(victims)
    with Load(site, KINDS, pace=0.005) as load, flowing(site.address("game"), FLOWS) as flows:
        for victim in victims:
            load.progress(3)
            os.kill(victim, signal.SIGKILL)
            until(lambda victim=victim: victim not in pids(site) and site.settled(), "a successor", 20)
            load.progress(3)
            flows.more()
    assert not load.wrong(), load.wrong()
    assert not [loss for loss in load.losses() if "ConnectionRefused" in loss], load.losses()
    # One request at a time of each kind: at most that one with each death, through edge and gateway.
    assert all(count <= len(victims) for count in load.lost().values()), load.losses()
    assert flows.moved() == []
    assert sum(map(len, flows.lost())) <= len(victims) * FLOWS * 3, (
        "what a worker had read, or came before its successor"
    )
    site.check()
