"""The daemon among others: its service manager, its PID file, PID 1 of a container, the CPUs, the limit of files."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.supervised.daemon import ROOT, Supervised, Visitor, config
from tests.system.supervised.manager import Manager, activating
from tests.system.support.poll import until


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager.listen(tmp_path)
    yield manager
    manager.sock.close()


# -- the service manager


def test_a_manager_is_told_of_the_start_each_reload_and_the_end(
    start: Callable[..., Supervised], port: int, manager: Manager
) -> None:
    daemon = start(config(port), *manager.prefix()).ready()
    until(lambda: manager.words() == ["STATUS", "READY"], "the start to be told")
    daemon.config.write_text(config(port, fake='greeting = "other"'))
    daemon.send(signal.SIGHUP)
    until(lambda: manager.words()[2:] == ["RELOADING", "READY"], "the reload to be told")
    assert manager.heard[-2]["MONOTONIC_USEC"].isdigit()
    assert manager.heard[-1]["STATUS"] == "running generation 2"
    daemon.config.write_text("[fake]\nnonsense = 1\n")
    assert not daemon.ask("reload")["ok"]
    assert manager.words()[4:] == ["RELOADING", "READY"], "before the asker has its answer"
    assert manager.heard[-1]["STATUS"] == "running generation 2; the last reload was refused"
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    assert manager.words()[6:] == ["STOPPING"]
    assert int(manager.heard[-1]["EXTEND_TIMEOUT_USEC"]) >= 10_000_000


def test_a_daemon_that_cannot_start_is_never_called_ready(
    start: Callable[..., Supervised], port: int, manager: Manager
) -> None:
    daemon = start(config(port, fake='start = "fail"'), *manager.prefix())
    assert daemon.wait() == 1
    assert "READY" not in manager.words()


def test_one_without_any_listener_is_ready_all_the_same(start: Callable[..., Supervised], manager: Manager) -> None:
    start("[fake]\n", *manager.prefix())
    until(lambda: "READY" in manager.words(), "READY=1")


def test_the_watchdog_hears_of_the_loop_for_as_long_as_it_turns(
    start: Callable[..., Supervised], port: int, manager: Manager
) -> None:
    daemon = start(config(port, 1), *manager.prefix(watchdog=0.2)).ready()

    def beats() -> int:
        return sum("WATCHDOG" in message for message in manager.hear())

    first = beats()
    until(lambda: beats() > first + 3, "the watchdog's messages")
    daemon.send(signal.SIGSTOP)
    until(lambda: stopped(daemon.process.pid), "the supervisor to stand still")
    silent = beats()
    with Visitor(port) as visitor:  # the worker goes on, and several intervals pass
        for _ in range(3):
            assert visitor.echo(b"x\n") == b"x\n"
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.process.wait(0.15)
    assert beats() == silent
    daemon.send(signal.SIGCONT)
    until(lambda: beats() > silent, "the watchdog's messages again")


def stopped(pid: int) -> bool:
    return "T (stopped)" in Path(f"/proc/{pid}/status").read_text()


# -- the PID file


def test_the_pid_file_comes_and_goes_with_the_daemon(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port, 1, 'pid_file = "run.pid"')).ready()
    path = daemon.config.parent / "run.pid"
    assert path.read_text() == f"{daemon.process.pid}\n"
    daemon.config.write_text(config(port, 1, 'pid_file = "other.pid"'))
    assert "supervisor.pid_file: can't be changed by a reload" in daemon.ask("reload")["errors"][0]
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    assert not path.exists()


# -- PID 1


def unshare() -> tuple[str, ...]:
    """A command that runs another as PID 1 of a namespace of its own; skips where that is not allowed."""
    prefix = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    if shutil.which("unshare") is None:
        pytest.skip("no unshare on this machine: nothing was tested as PID 1")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no PID namespaces for this user: nothing was tested as PID 1")
    return prefix


def test_as_pid_1_it_serves_reaps_whom_it_did_not_start_and_drains(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port, more='[log]\nlevel = "debug"\n'), *unshare()).ready()
    assert daemon.status()["portway"]["pid"] == 1
    supervisor = first(daemon)
    # A process that nobody waits for, in the daemon's namespace, as `docker exec` and health checks leave them.
    enter = ["nsenter", "-t", str(supervisor), "-p", "-m"]
    for _ in range(5):
        subprocess.run([*enter, "sh", "-c", "(sleep 0.05 &) ; exit 0"], check=True)
    until(lambda: sum(line["count"] for line in daemon.lines("orphans reaped")) == 5, "the orphans to be reaped")
    assert sorted(children(supervisor)) == sorted(daemon.pids("fake"))
    os.kill(daemon.pids("fake")[0], signal.SIGKILL)
    until(lambda: daemon.lines("process died"), "the death to be noticed")
    until(lambda: len(daemon.pids("fake")) == 2 and daemon.settled(), "a successor")
    with Visitor(port) as visitor:
        os.kill(supervisor, signal.SIGTERM)
        until(lambda: daemon.lines("draining"), "the drain")
        assert visitor.echo(b"still\n") == b"still\n"
    assert daemon.wait() == 0


def first(daemon: Supervised) -> int:
    """The supervisor, as it is called outside of its namespace: what stands before it takes no signals."""
    (found,) = [process.pid for process in daemon.tree() if process.title.startswith("portway: supervisor")]
    return found


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_as_pid_1_it_upgrades_in_place(start: Callable[..., Supervised], port: int) -> None:
    daemon = start(config(port), *unshare()).ready()
    old = daemon.pids("fake")
    assert daemon.ask("upgrade") == {"ok": True, "processes": 2, "errors": []}
    until(lambda: not set(old) & set(daemon.pids("fake")) and daemon.settled(), "the new code alone")
    assert daemon.status()["portway"]["pid"] == 1
    os.kill(first(daemon), signal.SIGTERM)
    assert daemon.wait() == 0


# -- an upgrade


def test_an_upgrade_keeps_the_manager_its_sockets_and_the_pid_file(
    start: Callable[..., Supervised], port: int, free_tcp_port: Callable[[], int], manager: Manager
) -> None:
    unused = free_tcp_port()
    given = activating(f"127.0.0.1:{port}", f"127.0.0.1:{unused}")
    text = config(port, 1, 'pid_file = "run.pid"')
    daemon = start(text, *manager.prefix(watchdog=0.2), *given).ready()
    path, files = daemon.config.parent / "run.pid", daemon.files()
    until(lambda: manager.words() == ["STATUS", "READY"], "the start to be told")
    assert daemon.ask("upgrade")["ok"]
    assert manager.words()[2:] == ["RELOADING", "READY"]
    assert manager.heard[-1]["STATUS"] == "running generation 2"
    beats = len(manager.heard)
    until(lambda: len(manager.hear()) > beats, "the watchdog's messages")
    until(lambda: len(daemon.pids("fake")) == 1, "the old worker to end")
    assert daemon.files() == files
    assert path.read_text() == f"{daemon.process.pid}\n"
    daemon.config.write_text(config(unused, 1, 'pid_file = "run.pid"'))
    assert daemon.ask("reload")["ok"]
    with Visitor(unused) as visitor:
        assert visitor.greeting == "hello"
    daemon.config.write_text(text.replace("run.pid", "other.pid"))
    answer = daemon.ask("upgrade")
    assert "supervisor.pid_file: can't be changed by an upgrade; it is " in answer["errors"][0]
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    assert not path.exists()


# -- CPUs and files


def test_workers_keep_to_their_cpus_when_that_is_asked_for(start: Callable[..., Supervised], port: int) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    daemon = start(config(port, 3, "pin_workers = true")).ready()

    def affinities() -> list[set[int]]:
        return [os.sched_getaffinity(pid) for pid in daemon.pids("fake")]

    assert sorted(map(sorted, affinities())) == sorted([cpus[number % len(cpus)]] for number in range(3))
    assert os.sched_getaffinity(daemon.process.pid) == set(cpus)
    daemon.config.write_text(config(port, 3))
    assert daemon.ask("reload")["changed"] == ["supervisor.pin_workers"]
    until(lambda: affinities() == [set(cpus)] * 3, "the workers to run anywhere")


def test_workers_follow_the_cpus_that_may_be_used(start: Callable[..., Supervised], port: int) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        pytest.skip("one CPU: nothing to take away")
    text = config(port).replace("workers = 2", 'workers = "auto"')
    daemon = start(text, "taskset", "-c", f"{cpus[0]},{cpus[1]}").ready()
    pids = daemon.pids("fake")
    assert len(pids) == 2
    for count in (1, 2):
        os.sched_setaffinity(daemon.process.pid, set(cpus[:count]))
        until(lambda count=count: len(daemon.pids("fake")) == count and daemon.settled(), f"{count} of them")
    assert [line["workers"] for line in daemon.lines("usable CPUs have changed")] == [{"fake": 1}, {"fake": 2}]
    assert daemon.pids("fake")[0] == pids[0]
    assert not daemon.lines("process died")


def test_a_limit_of_files_below_what_is_allowed_is_told_at_the_start(
    start: Callable[..., Supervised], port: int
) -> None:
    pool = '[pools.p]\nservers = [{ address = "127.0.0.1:1", max_connections = 4000 }]\n'
    daemon = start(config(port, 1, more=pool), "prlimit", "--nofile=2000:2000").ready()
    (line,) = daemon.lines("file limit")
    assert "4000 connections" in line["reason"]
    assert "2000 are allowed; raise LimitNOFILE=" in line["reason"]


# -- sockets that the manager has opened


def test_a_manager_s_socket_is_polled_beside_our_own_and_survives_reloads(
    start: Callable[..., Supervised], port: int, free_tcp_port: Callable[[], int]
) -> None:
    unused = free_tcp_port()
    daemon = start(config(port), *activating(f"127.0.0.1:{port}", f"127.0.0.1:{unused}")).ready()
    (line,) = daemon.lines("socket without a listener")
    assert line["address"] == f"127.0.0.1:{unused}"
    seen: set[int] = set()

    def both() -> bool:
        with Visitor(port) as visitor:
            seen.add(visitor.pid)
        return seen == set(daemon.pids("fake"))

    until(both, "both workers to answer")
    before = daemon.files()
    for generation in (2, 3):
        text = config(port, fake=f'greeting = "{generation}"')
        daemon.config.write_text(text.replace("listeners.a", "listeners.b") if generation == 3 else text)
        assert daemon.ask("reload")["ok"]
        with Visitor(port) as visitor:
            assert visitor.greeting == str(generation)
    daemon.config.write_text(config(unused))  # the other one, instead
    assert daemon.ask("reload")["ok"]
    with Visitor(unused) as visitor:
        assert visitor.greeting == "hello"
    daemon.config.write_text(config(port))
    assert daemon.ask("reload")["ok"]
    with Visitor(port) as visitor:
        assert visitor.greeting == "hello"
    assert daemon.files() == before


def test_a_manager_s_socket_without_reuseport_is_joined_all_the_same(
    start: Callable[..., Supervised], port: int
) -> None:
    daemon = start(config(port), *activating(f"127.0.0.1:{port}", plain=True)).ready()
    with Visitor(port) as visitor:
        assert visitor.echo(b"x\n") == b"x\n"
    assert not daemon.lines("one socket for all workers")


def test_clients_wait_in_the_manager_s_queue_while_no_daemon_runs(start: Callable[..., Supervised], port: int) -> None:
    launcher = shutil.which("systemd-socket-activate")
    if launcher is None:
        pytest.skip("no systemd-socket-activate on this machine")
    daemon = start(config(port, 1), launcher, "-l", f"127.0.0.1:{port}")
    with contextlib.ExitStack() as stack:
        # The first connection is what makes systemd's tool start the daemon, which then serves that very client.
        visitors: list[Visitor] = []

        def connected() -> bool:
            with contextlib.suppress(ConnectionRefusedError):
                visitors.append(stack.enter_context(Visitor(port)))
            return bool(visitors)

        until(connected, "an answer", 30.0)
        assert visitors[0].greeting == "hello"
        daemon.ready()


def test_the_shipped_units_are_valid(tmp_path: Path) -> None:
    """By systemd's own judgement, which starts nothing."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine: the units were not judged")
    units = [tmp_path / name for name in ("portway.service", "portway.socket")]
    for unit in units:
        shipped = (ROOT / "conf" / unit.name).read_text()
        unit.write_text(shipped.replace("/opt/portway/bin/portway", "/bin/true"))  # which is there
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units], capture_output=True, check=False,
        env={**os.environ, "SYSTEMD_LOG_TARGET": "console"},
    )  # fmt: skip
    assert [line for line in done.stderr.decode().splitlines() if "portway" in line] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_where_the_socket_is_another_user_s_all_workers_share_it(port: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        become = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
        daemon = Supervised.start(Path(folder), config(port), *activating(f"127.0.0.1:{port}"), *become)
        try:
            daemon.ready()
            (line,) = daemon.lines("one socket for all workers")
            assert line["listener"] == "fake/a"
            for _ in range(10):
                with Visitor(port) as visitor:
                    assert visitor.pid in daemon.pids("fake")
            daemon.send(signal.SIGTERM)
            assert daemon.wait() == 0
        finally:
            daemon.stop()
