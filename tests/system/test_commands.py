"""The commands and the admin, against the real daemon."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tomllib
import urllib.error
from collections.abc import Callable

import pytest

from tests.system.support.backends import Backend
from tests.system.support.daemon import ROOT, Daemon, portway
from tests.system.support.poll import until

Start = Callable[..., Daemon]
Port = Callable[[], int]


@pytest.fixture
def backend(tcp_backend: Callable[..., Backend]) -> Backend:
    return tcp_backend("a")


@pytest.fixture
def text(backend: Backend, free_tcp_port: Port) -> str:
    return f"""
[supervisor]
workers = 2
pop = "fra1"
[pools.web]
servers = ["127.0.0.1:{backend.port}"]
[edge.listeners.web]
bind = "127.0.0.1:{free_tcp_port()}"
pool = "web"
"""


def test_status_tells_what_runs(daemon: Start, text: str) -> None:
    running = daemon(text)
    shown = running.command("status")
    assert shown.status == 0
    assert "edge/web" in shown.out
    given = running.command("status", "--json")
    document = json.loads(given.out)
    assert document["portway"]["state"] == "ready"
    assert document["portway"]["pid"] == running.pid
    assert [pool["name"] for pool in document["pools"]] == ["web"]
    served = running.status()
    assert served.keys() == document.keys()
    assert served["pools"][0]["servers"][0]["address"] == document["pools"][0]["servers"][0]["address"]


def test_a_good_reload_says_what_changed_and_a_bad_one_what_is_wrong(daemon: Start, text: str) -> None:
    running = daemon(text)
    same = running.command("reload")
    assert (same.status, same.err) == (0, "portway: reloaded; nothing has changed\n")

    running.rewrite(text.replace("[pools.web]", '[pools.web]\nbalance = "least_connections"'))
    changed = running.command("reload")
    assert changed.status == 0
    assert changed.err.startswith("portway: reloaded; changed:\n  pools.web.balance\nportway: taken by edge 1/")
    assert changed.err.endswith(", prober, admin\n")
    assert running.status()["pools"][0]["balance"] == "least_connections"

    running.rewrite(text.replace("[pools.web]", '[pools.web]\nbalence = "maglev"\n'))
    refused = running.command("reload")
    assert refused.status == 2
    assert refused.out == ""
    line = running.config.read_text().splitlines().index('balence = "maglev"') + 1
    assert refused.err.splitlines()[0] == (
        f'{running.config}:{line}: pools.web.balence: unknown key; did you mean "balance"?'
    )
    assert running.status()["pools"][0]["balance"] == "least_connections"


def test_a_server_is_drained_and_given_back(daemon: Start, text: str, backend: Backend) -> None:
    running = daemon(text)
    server = f"web/127.0.0.1:{backend.port}"

    def state() -> str:
        word: str = running.status()["pools"][0]["servers"][0]["state"]
        return word

    assert portway("drain", server, running.config).status == 0
    assert state() == "draining"
    assert running.metric("portway_server_up", pool="web") == 0
    assert running.command("reload").status == 0
    assert state() == "draining"
    assert portway("drain", server, running.config, "--undo").status == 0
    assert state() == "up"
    unknown = portway("drain", "web/127.0.0.1:1", running.config)
    assert unknown.status == 1
    assert 'unknown server "web/127.0.0.1:1"' in unknown.err


def test_metrics_count_and_keep_counting_over_a_worker_s_death(daemon: Start, text: str, backend: Backend) -> None:
    running = daemon(text)
    bind = tomllib.loads(text)["edge"]["listeners"]["web"]["bind"]
    host, _, port = bind.rpartition(":")
    for _ in range(10):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(b"x")
            assert connection.recv(1) == b"x"
    assert running.metric("portway_listener_accepted_total", tier="edge", listener="web") == 10
    for pid in running.pids("edge"):
        os.kill(pid, signal.SIGKILL)
    until(lambda: running.healthy() and len(running.pids("edge")) == 2, "new workers", 20)
    assert running.metric("portway_listener_accepted_total", tier="edge", listener="web") == 10
    assert running.metric("portway_listener_active", tier="edge", listener="web") == 0


def test_health_is_503_while_the_daemon_drains(daemon: Start, text: str) -> None:
    running = daemon(text.replace('pop = "fra1"', 'pop = "fra1"\ndrain_delay = "30s"'))
    assert running.get("/healthz") == b"ready\n"
    running.send(signal.SIGTERM)

    def draining() -> bool:
        try:
            running.get("/healthz")
        except urllib.error.HTTPError as error:
            with error:
                return error.code == 503 and error.read() == b"draining\n"
        return False

    until(draining, "the drain to show")
    running.stop(signal.SIGINT)  # without the rest of the delay


def test_the_control_socket_stands_beside_the_file_for_its_owner_alone(daemon: Start, text: str) -> None:
    running = daemon(text)
    mode = (running.config.parent / "portway.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_without_a_daemon_the_commands_say_so(daemon: Start, text: str) -> None:
    running = daemon(text)
    running.stop()
    for line in (("status",), ("reload",)):
        ended = running.command(*line)
        assert ended.status == 1
        assert ended.out == ""
        assert "no daemon runs this configuration" in ended.err


def test_run_refuses_a_bad_file_with_every_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("bad") / "a.toml"
    path.write_text("polls = 1\n[supervisor]\nworker = 1\n")
    ended = portway("run", path)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        f'{path}:1: polls: unknown key; did you mean "pools"?\n'
        f'{path}:3: supervisor.worker: unknown key; did you mean "workers"?\n'
    )


def test_the_reference_passes_check_from_anywhere(tmp_path_factory: pytest.TempPathFactory) -> None:
    command = [sys.executable, "-m", "supervisor", "check", str(ROOT / "conf" / "reference.toml")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folder = tmp_path_factory.mktemp("anywhere")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
