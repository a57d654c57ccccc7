"""Servers taken out by hand under traffic: what goes on there ends with `drain_timeout`, in every tier, not before."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import psycopg
import pytest

from supervisor.cli.demo import ports
from supervisor.cli.demo.postgres import Cluster
from tests.system.support.backends import Backend
from tests.system.support.clients import Response, connect, fetch, read_all
from tests.system.support.daemon import Daemon, portway
from tests.system.support.poll import until

TIMEOUT = 1.5  # s


@attrs.frozen
class Town:
    """A daemon with all tiers, two servers behind each of the edge's listeners, one behind the others."""

    daemon: Daemon
    backends: dict[str, Backend]
    binds: dict[str, str]
    cluster: Cluster

    def by_hand(self, verb: str, *servers: str) -> None:
        for server in servers:
            done = portway(verb, server, self.daemon.config)
            assert done.status == 0, done.err

    def server(self, pool: str, name: str) -> str:
        return f"{pool}/{self.backends[name].address}"

    def log_in(self, database: str) -> psycopg.Connection[Any]:
        host, _, port = self.binds["pooler"].rpartition(":")
        return psycopg.connect(
            host=host, port=port, user="app", password="secret", dbname=database, autocommit=True, connect_timeout=10
        )


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory, postgres: Cluster) -> Iterator[Town]:
    folder: Path = tmp_path_factory.mktemp("drain")
    (folder / "users.txt").write_text('"app" "secret"\n')
    binds = {name: f"127.0.0.1:{ports.free_tcp_port()}" for name in ("tcp", "gateway", "pooler")}
    binds["udp"] = f"127.0.0.1:{ports.free_udp_port()}"
    with ExitStack() as stack:
        backends = {}
        for name, program in (("a", "tcp"), ("b", "tcp"), ("c", "udp"), ("d", "udp"), ("web", "http")):
            backends[name] = Backend(program, name, 0, ("report",) if program == "tcp" else ()).start()
            stack.callback(backends[name].stop)
        text = f"""
[supervisor]
workers = 2
drain_timeout = "{TIMEOUT:g}s"
[pools.tcp]
servers = ["{backends["a"].address}", "{backends["b"].address}"]
[pools.udp]
servers = ["{backends["c"].address}", "{backends["d"].address}"]
[pools.web]
servers = ["{backends["web"].address}"]
[pools.pg]
servers = ["{postgres.address}"]
[edge.listeners.tcp]
bind = "{binds["tcp"]}"
pool = "tcp"
[edge.listeners.udp]
bind = "{binds["udp"]}"
protocol = "udp"
pool = "udp"
[gateway.listeners.web]
bind = "{binds["gateway"]}"
[gateway.routes.web]
path = "/*"
pool = "web"
timeout = "1m"
[pooler.listeners.main]
bind = "{binds["pooler"]}"
[pooler.databases.app]
primary = "pg"
[pooler.databases.sessions]
primary = "pg"
database = "app"
pool_mode = "session"
[pooler.auth]
users = "users.txt"
"""
        daemon = Daemon.start(folder, text)
        stack.callback(daemon.stop)
        yield Town(daemon, backends, binds, postgres)


def test_tcp_connections_to_a_drained_server_end_and_the_others_stay(town: Town) -> None:
    with ExitStack() as stack:
        there: dict[str, list[socket.socket]] = {"a": [], "b": []}
        for _ in range(10):
            sock = stack.enter_context(connect(town.binds["tcp"]))
            there[json.loads(sock.makefile("rb").readline())["server"]].append(sock)
        assert len(there["a"]) >= 2
        assert len(there["b"]) >= 2
        began = time.monotonic()
        town.by_hand("drain", town.server("tcp", "a"))
        for sock in there["a"]:
            assert sock.recv(1) == b""
            assert time.monotonic() - began >= TIMEOUT / 2
        for sock in there["b"]:
            sock.sendall(b"still here")
            assert sock.recv(100) == b"still here"
        town.by_hand("up", town.server("tcp", "a"))


def test_udp_sessions_of_a_drained_server_go_elsewhere_when_its_time_is_over(town: Town) -> None:
    host, _, port = town.binds["udp"].rpartition(":")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)  # what was under way at the end of the time may be lost
        client.connect((host, int(port)))

        def asked() -> str:
            client.send(b"who?")
            return str(json.loads(client.recv(1000))["server"])

        home = asked()
        began = time.monotonic()
        town.by_hand("drain", town.server("udp", home))
        until(lambda: asked() != home, "another server")
        assert time.monotonic() - began >= TIMEOUT
        town.by_hand("up", town.server("udp", home))


def test_a_request_that_outlasts_the_drain_is_a_503(town: Town) -> None:
    answers: list[Response] = []
    asking = threading.Thread(target=lambda: answers.append(fetch(town.binds["gateway"], "/?slow=15")))
    asking.start()
    server = town.server("web", "web")
    where = {"pool": "web"}
    until(lambda: town.daemon.metric("portway_server_in_flight", **where) == 1, "the request to be under way")
    began = time.monotonic()
    town.by_hand("drain", server)
    asking.join(20)
    assert time.monotonic() - began >= TIMEOUT
    [answer] = answers
    assert (answer.status, answer.json()["code"]) == (503, "server_drained")
    town.by_hand("up", server)
    assert fetch(town.binds["gateway"]).status == 200


def farewell(client: psycopg.Connection[Any]) -> bytes:
    """What a session is told that ends. Read here, for libpq may lose it: where the end comes between a statement's
    being sent and its answer, it tells of the closed connection alone."""
    with socket.socket(fileno=os.dup(client.fileno())) as sock:
        sock.settimeout(20)
        return read_all(sock)


def test_sql_sessions_on_a_drained_server_end_and_its_connections_with_them(town: Town) -> None:
    server = f"pg/{town.cluster.address}"
    with town.log_in("app") as idle, town.log_in("app") as busy, town.log_in("sessions") as keeping:
        idle.execute("SELECT 1")
        busy.execute("BEGIN")
        keeping.execute("SET work_mem = '5MB'")
        began = time.monotonic()
        town.by_hand("drain", server)
        for client in (keeping, busy):
            told = farewell(client)
            client.close()
            assert b"C57P01\0" in told
            assert b"its server is drained" in told
        assert time.monotonic() - began >= TIMEOUT / 2
        gone = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND datname = 'app'"
        until(lambda: int(town.cluster.execute(gone)[0][0]) == 0, "the server to have no connections of ours")
        town.by_hand("up", server)
        # It has lost nothing: its connection was taken between two transactions.
        assert idle.execute("SELECT 1").fetchone() == (1,)
